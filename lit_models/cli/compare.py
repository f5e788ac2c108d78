"""``relit compare RUN RUN …``: several runs in one table and one set of figures."""

import csv
import math
import re
import statistics
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lit_models.cli.command_parser import CommandParser
from lit_models.errors import RunError
from lit_models.runs.reading import (
    COLORS,
    LIMIT,
    Run,
    but_for_the_seed,
    color_of,
    read_mapping,
    read_run,
    settings_of,
    smooth,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

LEGEND_LINE = 0.21
"""Height of a legend's line, in inches."""
PART = "†"
"""Marks the values of a test of some batches only."""


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(
        prog="relit compare",
        description="Compares several runs: a table with the smallest, largest and final value of each "
        "metric and the training time, the metrics by epoch with their smooth trends, and the last sample grids.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or an experiment's (its newest run)")
    parser.add_argument("--metrics", nargs="+", help="metrics to draw and to list (default: all of val/… and test/…)")
    parser.add_argument("--names", nargs="+", help="what to call the runs (their folders' names if left out)")
    parser.add_argument("--output", default="comparison", help="folder to write (default: %(default)s)")
    parser.add_argument("--each_seed", action="store_true", help="show runs that differ only in their seed one by one")
    given = parser.parse_args(args)
    if given.names is not None and len(given.names) != len(given.runs):
        parser.error(f"--names gives {len(given.names)} names to {len(given.runs)} runs")
    try:
        runs = read_runs(given.runs, given.names or shortest_ends(given.runs))
        try:
            compare(runs if given.each_seed else with_seeds_together(runs), Path(given.output), given.metrics)
        except BrokenPipeError:  # `relit compare … | head`, not the folder's fault
            raise
        except OSError as error:
            raise RunError(
                f"The folder {given.output} can't be written into ({error.strerror}): choose another --output."
            ) from error
    except RunError as error:
        print(f"relit: {error}", file=sys.stderr)
        return 1
    return 0


def compare(runs: list[Run], output: Path, metrics: list[str] | None = None) -> None:
    """Writes ``comparison.csv``, ``comparison.md``, ``metrics.png`` and ``samples.png``, and prints the table.

    Raises:
        RunError: None of the runs has the metrics.
    """
    known = {name for run in runs for name in (*run.curves, *run.results)}
    # A logged name stands for it over any features: `val/fid` for `val/fid (digits, block 2)`.
    metrics = [one for name in metrics or () for one in ([name] if name in known else logged_as(name, known)) or [name]]
    if missing := [name for name in metrics if name not in known]:
        raise RunError(f"No run has logged {', '.join(missing)}; they have {', '.join(sorted(known)) or 'nothing'}.")
    chosen = metrics or sorted(name for name in known if not name.startswith("train/"))
    output.mkdir(parents=True, exist_ok=True)
    write_values(with_calibration(runs), chosen, output / "comparison.csv")
    table = markdown_table(with_calibration(runs), chosen)
    (output / "comparison.md").write_text(table, encoding="utf-8")
    if drawn := [name for name in chosen if any(name in run.curves for run in runs)]:
        draw_metrics(runs, drawn, output / "metrics.png")
    draw_samples(runs, output / "samples.png")
    print(table)
    print(f"Written to {output}: {', '.join(sorted(path.name for path in output.iterdir()))}")


def with_seeds_together(runs: list[Run]) -> list[Run]:
    """The runs; of those that differ only in their seed, the mean in the place of the first."""
    return [members[0] if len(members) == 1 else mean_run(members) for members in seed_groups(runs)]


def seed_groups(runs: list[Run]) -> list[list[Run]]:
    """The runs, those together whose configurations differ only in the seed, in the order of their first ones."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = read_mapping(run.folder / "config.yaml")
        settings = settings_of(config)
        seed = config.get("seed_everything")
        key = but_for_the_seed(settings) if settings else str(run.folder)
        # A seed that comes again is no repetition with another seed.
        while any(seed == other for other in seeds_of(groups.get(key, ()))):
            key += "'"
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def seeds_of(runs: Iterable[Run]) -> list[Any]:
    """The seeds of the runs."""
    return [read_mapping(run.folder / "config.yaml").get("seed_everything") for run in runs]


def mean_run(members: list[Run]) -> Run:
    """The mean of runs with several seeds: of each metric at the epochs that all that log it have."""
    curves = {
        name: [(epoch, statistics.fmean(values)) for epoch, values in values_by_epoch(members, name)]
        for name in dict.fromkeys(name for run in members for name in run.curves)
    }
    results = {
        name: statistics.fmean(run.results[name] for run in members if name in run.results)
        for name in dict.fromkeys(name for run in members for name in run.results)
    }
    seconds = [run.seconds for run in members if run.seconds is not None]
    return Run(
        name_of_seeds([run.name for run in members]),
        members[0].folder,
        {name: curve for name, curve in curves.items() if curve},
        results,
        statistics.fmean(seconds) if seconds else None,
        {name: scores for run in members for name, scores in run.calibration.items()},
        members,
    )


def values_by_epoch(members: list[Run], metric: str) -> list[tuple[float, list[float]]]:
    """Each epoch that all runs with this metric have, with the value of each."""
    curves = [dict(run.curves[metric]) for run in members if metric in run.curves]
    common = set.intersection(*map(set, curves)) if curves else set()
    return [(epoch, [curve[epoch] for curve in curves]) for epoch in sorted(common)]


def name_of_seeds(names: list[str]) -> str:
    """A name for runs that differ in the seed.

    Example:
        >>> name_of_seeds(["latent_dim=8+seed_everything=0", "latent_dim=8+seed_everything=12"])
        'latent_dim=8 (2 seeds)'
        >>> name_of_seeds(["20260101-1200", "20270101-1300"])
        '20260101-1200 … (2 seeds)'
    """
    first, *others = (re.sub(r"[^A-Za-z0-9]*seed(_everything)?[=_-]?\d+", "", name) for name in names)
    same = bool(first) and all(other == first for other in others)
    return f"{first if same else f'{names[0]} …'} ({len(names)} seeds)"


def logged_as(metric: str, printed: Iterable[str]) -> list[str]:
    """The printed names of a logged metric, over each kind of features.

    Example:
        >>> logged_as("val/fid", {"val/fid (digits, block 2)", "val/loss"})
        ['val/fid (digits, block 2)']
    """
    return sorted(name for name in printed if name.partition(" (")[0] == metric)


def with_calibration(runs: list[Run]) -> list[Run]:
    """The runs, followed by their calibration's rows, each once."""
    rows = {name: scores for run in runs for name, scores in run.calibration.items()}
    return [*runs, *(Run(name, Path(), {}, scores, None) for name, scores in rows.items())]


def read_runs(folders: Sequence[str], names: Sequence[str]) -> list[Run]:
    """Reads the folders of runs; one that isn't a run's is left out with a note.

    Raises:
        RunError: None is a run's.
    """
    runs, reasons = [], []
    for folder, name in zip(folders, names, strict=True):
        try:
            runs.append(read_run(Path(folder), name))
        except RunError as error:
            reasons.append(str(error))
    if not runs:
        raise RunError(reasons[0])
    for reason in reasons:
        print(f"relit: note: left out: {reason}", file=sys.stderr)
    return runs


def shortest_ends(folders: list[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [Path(folder).absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def write_values(runs: list[Run], metrics: list[str], path: Path) -> None:
    """A row for each run and metric, with the smallest, the largest and the final value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "metric", "smallest", "largest", "final", "epochs", "training_seconds", LIMIT])
        for run in (single for one in runs for single in one.members or [one]):
            for name in metrics:
                if values := _values(run, name):
                    epochs = len(run.curves.get(name, ()))
                    limit = run.test_limit if name in run.results else None
                    writer.writerow([run.name, name, min(values), max(values), values[-1], epochs, run.seconds, limit])


def markdown_table(runs: list[Run], metrics: list[str]) -> str:
    """A row for each run: each metric's smallest – largest value over the epochs and its final one, or the test's. What
    was tested on a part of the batches, or on other numbers of images, is noted below."""
    rows = [["run", *metrics, "training time"]]
    for run in runs:
        cells = []
        for name in metrics:
            if run.members:
                value = mean_and_deviation([_values(one, name)[-1] for one in run.members if _values(one, name)])
                is_part = any(one.test_limit is not None and name in one.results for one in run.members)
                cells.append(f"{value}{PART if is_part else ''}")
                continue
            values = _values(run, name)
            spread = f" ({min(values):.4g} – {max(values):.4g})" if len(values) > 1 else ""
            part = PART if run.test_limit is not None and name in run.results else ""
            cells.append(f"{values[-1]:.4g}{part}{spread}" if values else "")
        minutes = "" if run.seconds is None else f"{run.seconds / 60:.1f} min"
        rows.append([run.name, *cells, minutes])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    legend = "Final value (smallest – largest over all epochs)." if any(" – " in line for line in lines[2:]) else ""
    if any(run.members for run in runs):
        legend = f"{legend} Of several seeds: mean ± standard deviation of the final values, and their number.".strip()
    said = [legend, *about_tests([one for run in runs for one in run.members or [run]])]
    return "\n".join([*lines, "", *filter(None, said)]).strip() + "\n"


def about_tests(runs: Sequence[Run]) -> list[str]:
    """Sentences about tests that don't measure the same: of a part of the batches, of other numbers of images."""
    limits = [f"{run.name} ({LIMIT} {run.test_limit:g})" for run in runs if run.results and run.test_limit is not None]
    said = [f"{PART} Tested on some batches only: {', '.join(limits)}."] if limits else []
    images = {run.name: run.test_images for run in runs if run.results and run.test_images is not None}
    if len(set(images.values())) > 1:
        counts = ", ".join(f"{name} on {count:,}" for name, count in images.items())
        said.append(f"Tested on different numbers of images: {counts}.")
    return said


def mean_and_deviation(values: list[float]) -> str:
    """The mean, and of several values the standard deviation (n − 1) and their number.

    Example:
        >>> mean_and_deviation([1.0, 2.0, 3.0]), mean_and_deviation([1.5]), mean_and_deviation([])
        ('2 ± 1 (n = 3)', '1.5', '')
    """
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else ""
    return f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g} (n = {len(values)})"


def draw_metrics(runs: list[Run], metrics: list[str], path: Path) -> None:
    """A plot for each metric, one color a run: the values as measured, pale, and their smooth trend; of several seeds
    the mean in a band of one standard deviation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = 2 if len(metrics) == 4 else min(len(metrics), 3)
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(max(7, 5.2 * columns), 3.8 * rows + 0.2), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[str, Any] = {}
    for axes in plots[len(metrics) :]:
        axes.remove()
    for axes, metric in zip(plots, metrics, strict=False):
        for number, run in enumerate(runs):
            if metric in run.curves:
                epochs, values = map(np.array, zip(*run.curves[metric], strict=True))
                color = COLORS[color_of(number)]
                style = "-" if number < len(COLORS) else "--"
                if run.members:
                    _, all_values = zip(*values_by_epoch(run.members, metric), strict=True)
                    sd = np.array([statistics.stdev(one) if len(one) > 1 else 0.0 for one in all_values])
                    axes.fill_between(epochs, values - sd, values + sd, color=color, alpha=0.2, linewidth=0)
                    handles[run.name] = axes.plot(epochs, values, style, color=color, linewidth=1.8)[0]
                    continue
                axes.plot(epochs, values, "o", markersize=3, alpha=0.45, color=color)
                handles[run.name] = axes.plot(epochs, smooth(values.tolist()), style, color=color, linewidth=1.8)[0]
        spread = [value for run in runs for _, value in run.curves.get(metric, ())]
        if min(spread) > 0 and max(spread) > 30 * min(spread):
            axes.set_yscale("log")
        axes.set_title(metric)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    add_legend(figure, handles)
    figure.savefig(path, dpi=120)


def add_legend(figure: "Figure", handles: dict[str, Any]) -> "Legend":
    """A legend below the plots, in up to four columns: as many as the figure is wide enough for. Its lines make the
    figure higher."""
    columns = min(len(handles), 4)
    while True:
        legend = figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
        columns -= 1
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(handles) / columns))
    return legend


def draw_samples(runs: list[Run], path: Path) -> None:
    """The last sample grid of each run that has one, side by side; no file if none has."""
    from matplotlib.figure import Figure

    grids = [(run, sorted((run.folder / "samples").glob("epoch_*.png"))) for run in runs]
    grids = [(run, files) for run, files in grids if files]
    if not grids:
        return
    columns = min(len(grids), 4)
    rows = math.ceil(len(grids) / columns)
    figure = Figure(figsize=(4 * columns, 4.3 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flatten():
        axes.set_axis_off()
    for axes, (run, files) in zip(figure.axes, grids, strict=False):
        axes.imshow(np.asarray(Image.open(files[-1]).convert("RGB")))
        title = f"{run.name}, epoch {int(files[-1].stem.removeprefix('epoch_'))}"
        axes.set_title(textwrap.fill(title, 48), fontsize=10)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def _values(run: Run, metric: str) -> list[float]:
    if metric in run.results:
        return [run.results[metric]]
    return [value for _, value in run.curves.get(metric, ())]
