"""``relit report RUN [RUN …]``: everything that runs have left, on one HTML page that opens from disk.

The page is one file: its styles, its script, its curves (SVG) and its pictures are inside, and it asks no other for
anything (its content security policy forbids it to).
"""

import argparse
import base64
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lit_models.cli.command_parser import CommandParser
from lit_models.cli.compare import read_runs, shortest_ends
from lit_models.cli.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_plots, hoverable, svg_path
from lit_models.cli.report.overview import Overview, find_runs, is_run
from lit_models.cli.report.pictures import FIRST_FIGURES, PictureBudget, read_epoch_pictures, read_figures
from lit_models.cli.report.reading import (
    Record,
    grouped,
    measurement_rows,
    metric_rows,
    read_record,
    seed_summaries,
)
from lit_models.cli.report.words import breakable, number_text, quantity_title
from lit_models.errors import RunError
from lit_models.runs.reading import differences, sample_series, settings_of, settings_text
from lit_models.support.animation import sample_frames, write_movie
from lit_models.support.files import write_atomically


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(
        prog="relit report",
        description="Writes one HTML page about a run, or about several in comparison: figures, curves, samples by "
        "epoch, pictures, configuration, machine and training time. It opens from disk and needs no network.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or an experiment's (its newest run)")
    parser.add_argument("--names", nargs="+", help="what to call the runs (their folders' names if left out)")
    parser.add_argument("--title", help="the page's title (default: the experiment's name)")
    parser.add_argument("--output", default="report.html", metavar="FILE", help="page to write (default: %(default)s)")
    parser.add_argument(
        "--movie",
        "--gif",
        metavar="FILE",
        help="also write the (first) run's samples over the epochs as a moving picture, .gif or .mp4",
    )
    parser.add_argument("--overview", action="store_true", help="one page about all runs below the folder")
    parser.add_argument("--watch", action="store_true", help="serve the overview on this machine while runs train")
    parser.add_argument("--port", type=int, default=8765, help="port for --watch (default: %(default)s; 0: any)")
    given = parser.parse_args(args)
    if given.names is not None and len(given.names) != len(given.runs):
        parser.error(f"--names gives {len(given.names)} names to {len(given.runs)} runs")
    try:
        if len(given.runs) == 1 and (given.overview or given.watch or holds_experiments(Path(given.runs[0]))):
            return write_overview(given)
        if given.overview or given.watch:
            raise RunError("An overview is about one folder: name the one that holds all runs.")
        names = given.names or shortest_ends(given.runs)
        if len(set(names)) < len(names):
            raise RunError("Two runs have the same name: give each another with --names.")
        records = [read_record(run) for run in read_runs(given.runs, names)]
        page, notes = render(records, given.title)
        write_page(Path(given.output), page)
        if given.movie is not None:
            write_samples_movie(records[0].run.folder, Path(given.movie))
    except RunError as error:
        print(f"relit: {error}", file=sys.stderr)
        return 1
    for note in notes:
        print(f"relit: note: {note}", file=sys.stderr)
    print(f"Written: {given.output} ({len(page.encode()) / 1e6:.1f} MB)")
    return 0


def holds_experiments(folder: Path) -> bool:
    """Whether a folder is neither a run's nor an experiment's, but holds such folders."""
    if not folder.is_dir() or is_run(folder) or any(folder.glob("*/metrics.csv")):
        return False
    return next(find_runs(folder), None) is not None


def write_overview(given: argparse.Namespace) -> int:
    """Writes or serves the page about all runs below a folder; returns the exit code.

    Raises:
        RunError: There is no such folder, or the page can't be written or served.
    """
    root = Path(given.runs[0])
    if not root.is_dir():
        raise RunError(f"There is no folder {root}.")
    if given.watch:
        from lit_models.cli.report.serving import serve

        return serve(root, given.port)
    overview = Overview(root)
    page = render_overview(overview)
    write_page(Path(given.output), page)
    count = sum(1 for _ in find_runs(root))
    print(f"Written: {given.output} ({count} run{'s' * (count != 1)}, {len(page.encode()) / 1e6:.1f} MB)")
    return 0


def write_samples_movie(run: Path, output: Path) -> None:
    """Writes a run's samples over the epochs as a moving picture.

    Raises:
        RunError: There are no samples, or it can't be written.
    """
    frames = sample_frames(sample_series(run))
    if not frames:
        raise RunError(f"{run} has no images by epoch in samples/ to make a moving picture of.")
    try:
        write_movie(frames, output, seconds=0.4, hold=1.6)
    except OSError as error:
        reason = error.strerror or "the video encoder has failed"
        raise RunError(f"The file {output} can't be written ({reason}): choose another --movie.") from error
    print(f"Written: {output} ({len(frames)} frames)")


def write_page(output: Path, page: str) -> None:
    """Writes the page.

    Raises:
        RunError: It can't be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page)
    except OSError as error:
        raise RunError(f"The page {output} can't be written ({error.strerror}): choose another --output.") from error


def render(records: list[Record], title: str | None = None) -> tuple[str, list[str]]:
    """The page, and sentences about what it had to leave out."""
    budget = PictureBudget()
    figures = read_figures(records, budget)
    albums = read_epoch_pictures(records, budget)
    plots = draw_plots(records)
    seeds = seed_summaries(records)
    group_of = {name: group.label for group in seeds for name in group.runs}
    environment = _environment()
    style, script = _style(environment, "report.css"), _script(environment, "theme.js", "plot.js", "report.js")
    experiments = list(dict.fromkeys(record.facts.get("experiment", record.run.name) for record in records))
    texts = [settings_text(record.config) for record in records]
    page = environment.get_template("report.html").render(
        title=title or (" · ".join(experiments) if len(experiments) <= 4 else f"{len(records)} runs"),
        records=records,
        facts=list(dict.fromkeys(name for record in records for name in record.facts)),
        tests=measurement_rows(records),
        rows=metric_rows(records),
        seeds=seeds,
        seed_metrics=sorted({metric for group in seeds for metric in group.cells}),
        plots=plots,
        curves={"plots": [[hoverable(line, group_of.get(line.run)) for line in plot.lines] for plot in plots]},
        timed=any(line.time for plot in plots for line in plot.lines),
        paced=[record.run.name for record in records if record.run.seconds is not None and not record.clock],
        albums=albums,
        figures=figures,
        plain=FIRST_FIGURES,
        confusions=_by_name((record.run.name, record.confusions) for record in records),
        differences=list(differences([settings_of(record.config) for record in records]).items()),
        settings=[grouped(config) for config in texts],
        notes=budget.notes,
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        style=style,
        script=script,
        script_hash=_hash(script),
        version=_version(),
    )
    return page, budget.notes


def render_overview(overview: Overview, live: bool = False) -> str:
    """The page about all runs below a folder.

    Args:
        overview: The runs.
        live: Whether the page is served, and refreshes itself.
    """
    environment = _environment()
    script = _script(environment, "theme.js", "plot.js", "overview.js")
    return environment.get_template("overview.html").render(
        title=f"Runs in {overview.root.name or overview.root}",
        live=live,
        data={"runs": overview.runs(), "live": live, "root": str(overview.root)},
        style=_style(environment, "report.css", "overview.css"),
        script=script,
        script_hash=_hash(script),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lit_models.cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number_text, "path": svg_path, "title": quantity_title, "breakable": breakable}
    environment.tests["logged"] = lambda value: value is not None
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # in the order in which the server lists them
    return environment


def _style(environment: Environment, *names: str) -> str:
    return "".join(_template(environment, name) for name in names)


_script = _style


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _by_name(parts: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """From ``(run, {name: thing})`` to ``{name: {run: thing}}``."""
    joined: dict[str, dict[str, Any]] = defaultdict(dict)
    for run, things in parts:
        for name, thing in things.items():
            joined[name][run] = thing
    return dict(joined)


def _template(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _version() -> str:
    from importlib.metadata import version

    return version("relit")
