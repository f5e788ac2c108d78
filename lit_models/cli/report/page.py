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

from lit_models.cli.compare import named, read_runs
from lit_models.cli.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_plots, hoverable, svg_path
from lit_models.cli.report.pictures import Shelf, read_albums, read_figures
from lit_models.cli.report.reading import (
    Record,
    differences,
    flat_config,
    grouped,
    measurement_rows,
    metric_rows,
    read_record,
)
from lit_models.cli.report.words import breakable, quantity_title, spelled
from lit_models.errors import RunError


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="relit report",
        description="Writes one HTML page about a run, or about several in comparison: figures, curves, samples by "
        "epoch, pictures, configuration, machine and training time. It opens from disk and needs no network.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or an experiment's (its newest run)")
    parser.add_argument("--names", nargs="+", help="what to call the runs (their folders' names if left out)")
    parser.add_argument("--title", help="the page's title (default: the experiment's name)")
    parser.add_argument("--output", default="report.html", metavar="FILE", help="page to write (default: %(default)s)")
    given = parser.parse_args(args)
    if given.names is not None and len(given.names) != len(given.runs):
        parser.error(f"--names gives {len(given.names)} names to {len(given.runs)} runs")
    try:
        names = given.names or named(given.runs)
        if len(set(names)) < len(names):
            raise RunError("Two runs have the same name: give each another with --names.")
        records = [read_record(run) for run in read_runs(given.runs, names)]
        page, notes = render(records, given.title)
        output = Path(given.output)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"The page {output} can't be written ({error.strerror}): choose another --output."
            ) from error
    except RunError as error:
        print(f"relit: {error}", file=sys.stderr)
        return 1
    for note in notes:
        print(f"relit: note: {note}", file=sys.stderr)
    print(f"Written: {output} ({len(page.encode()) / 1e6:.1f} MB)")
    return 0


def render(records: list[Record], title: str | None = None) -> tuple[str, list[str]]:
    """The page, and sentences about what it had to leave out."""
    shelf = Shelf()
    figures = read_figures(records, shelf)
    albums = read_albums(records, shelf)
    plots = draw_plots(records)
    environment = Environment(
        loader=PackageLoader("lit_models.cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": spelled, "path": svg_path, "title": quantity_title, "breakable": breakable}
    environment.tests["logged"] = lambda value: value is not None
    style, script = (_template(environment, name) for name in ("report.css", "report.js"))
    experiments = list(dict.fromkeys(record.facts.get("experiment", record.run.name) for record in records))
    flat = [flat_config(record.config) for record in records]
    page = environment.get_template("report.html").render(
        title=title or (" · ".join(experiments) if len(experiments) <= 4 else f"{len(records)} runs"),
        records=records,
        facts=list(dict.fromkeys(name for record in records for name in record.facts)),
        tests=measurement_rows(records),
        rows=metric_rows(records),
        plots=plots,
        curves={"plots": [[hoverable(line) for line in plot.lines] for plot in plots]},
        albums=albums,
        figures=figures,
        confusions=_by_name((record.run.name, record.confusions) for record in records),
        differences=differences(flat) if len(records) > 1 else [],
        settings=[grouped(config) for config in flat],
        notes=shelf.notes,
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=_version(),
    )
    return page, shelf.notes


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
