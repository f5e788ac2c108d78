"""``relit report RUN [RUN …]``: everything that runs have left, on one HTML page that opens from disk.

The page is one file: its styles, its script, its curves (SVG) and its pictures are inside, and it asks no other for
anything (its content security policy forbids it to).
"""

import argparse
import base64
import csv
import hashlib
import io
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lit_models.compare import Run, named, read_mapping, read_run
from lit_models.errors import RunError
from lit_models.runs.published import Published, beside

MOST_PICTURE_BYTES = 9_000_000
"""Base64 of all pictures together; what doesn't fit is left out, and the page says so."""
LARGEST_SIDE = 1600
"""Pixels of a picture's longer side; larger pictures are scaled down."""
LARGEST_PICTURE_BYTES = 300_000
"""Larger files are encoded anew, as WebP."""
MOST_POINTS = 400
"""Points of a curve; of more, some that follow each other are put together."""
FEWEST_NOISY_POINTS = 60
"""A curve with so many points is drawn pale, with its moving average on top."""
MOST_CLASSES = 30
"""Of more classes, the confusion matrix is shown as the picture that the run has drawn."""
DRAWN_ELSEWHERE = ("losses", "accuracies")
"""Figures whose curves the page draws itself."""
FIRST_FIGURES = ("confusion_matrix", "class_accuracy", "label_accuracy", "embedding", "cells", "search")
STAGES = {"train": 0, "val": 1, "test": 2}
COLOURS = 10
"""Colours of the style sheet; more runs share them."""
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 32
"""Size of a plot and the margins about its axes, in the SVG's units."""


class Point(NamedTuple):
    """A logged value.

    Attributes:
        epoch: Epochs done by then, as a fraction: the first epoch's end is 1.
        step: The logger's step.
        value: What was logged.
    """

    epoch: float
    step: int
    value: float


@dataclass
class Line:
    """A curve of a plot, in numbers and in the SVG's units."""

    label: str
    colour: int
    stage: str
    points: list[Point]
    averaged: int
    places: list[tuple[float, float]] = field(default_factory=list)
    trend: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Plot:
    """A plot with its axes: ``ticks`` are pairs of a place and what it says there."""

    title: str
    lines: list[Line]
    legend: list[dict[str, Any]]
    remark: str = ""
    logarithmic: bool = False
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Picture:
    """A picture as it stands in the page."""

    source: str
    width: int
    height: int

    @property
    def enlarged_width(self) -> int:
        """Pixels on the screen of a grid of small images: enlarged by a whole number."""
        return self.width * max(1, 560 // max(self.width, self.height, 1))

    @property
    def figure_width(self) -> int:
        """Pixels on the screen of a figure, which is drawn finely."""
        return min(self.width, round(480 + self.width / 3))


@dataclass
class Album:
    """Pictures of the same thing after several epochs, by run and epoch, and how many had to be left out."""

    title: str
    frames: dict[str, dict[int, Picture]]
    left_out: int = 0

    @property
    def epochs(self) -> list[int]:
        return sorted({epoch for frames in self.frames.values() for epoch in frames})


@dataclass
class Measurement:
    """A test of one of a run's checkpoints.

    Attributes:
        experiment: The configuration's name.
        checkpoint: Its file and the step after which it was saved.
        images: How many it was tested on; None if that isn't known.
        data: The settings of the data.
        figures: What came out, by metric.
    """

    experiment: str
    checkpoint: str
    images: int | None
    data: dict[str, Any]
    figures: dict[str, float]

    @property
    def settings(self) -> dict[str, str]:
        """What may tell it from the run's other tests."""
        return flat_config({"data": self.data, "checkpoint": self.checkpoint})


@dataclass
class MeasurementRows:
    """The same test of each run; a run that hasn't been tested so has no values.

    Attributes:
        label: What tells it from other tests of the same run; empty if no run has another.
        tested: The test of each run.
    """

    label: str
    tested: list[Measurement | None]

    @property
    def rows(self) -> list[tuple[str, list[float | None]]]:
        """Each metric with each run's value."""
        names = sorted({name for test in self.tested if test for name in test.figures})
        return [(name, [test.figures.get(name) if test else None for test in self.tested]) for name in names]

    def published(self, metric: str) -> list[Published]:
        """What has been published of a metric."""
        found = [one for test in self.tested if test for one in beside(test.experiment, test.data, metric)]
        return [one for number, one in enumerate(found) if one not in found[:number]]


@dataclass
class Record:
    """A run with all that its folder tells.

    Attributes:
        run: Its name, folder and training time.
        config: ``config.yaml``; empty if there is none.
        tests: Its tests.
        points: Every logged value but the tests', by metric.
        facts: What is known of the run and its machine, by name.
        genotypes: Cells that DARTS found, as JSON.
        confusions: Confusion matrices by name: the classes' names, and the counts with the true classes as rows.
    """

    run: Run
    config: dict[str, Any]
    tests: list[Measurement]
    points: dict[str, list[Point]]
    facts: dict[str, str]
    genotypes: str
    confusions: dict[str, tuple[list[str], list[list[int]]]]


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
        records = [read_record(read_run(Path(run), name)) for run, name in zip(given.runs, names, strict=True)]
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
        loader=PackageLoader("lit_models"),
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
        curves={"plots": [[_hoverable(line) for line in plot.lines] for plot in plots]},
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


# --- reading --------------------------------------------------------------------------------------------------------


def read_record(run: Run) -> Record:
    """All that a run's folder tells; parts that aren't there are empty.

    Raises:
        RunError: ``config.yaml``, ``run.json`` or ``tests.json`` can't be read.
    """
    config = read_mapping(run.folder / "config.yaml", yaml.safe_load)
    record = read_mapping(run.folder / "run.json", json.loads)
    confusions = {
        path.stem: matrix
        for path in sorted((run.folder / "figures").glob("confusion_matrix*.csv"))
        if (matrix := read_confusion(path)) is not None
    }
    genotype = run.folder / "genotype.json"
    return Record(
        run,
        config,
        read_tests(run.folder / "tests.json"),
        read_points(run.folder / "metrics.csv"),
        facts_of(run, config, record),
        genotype.read_text(encoding="utf-8", errors="replace") if genotype.is_file() else "",
        confusions,
    )


def facts_of(run: Run, config: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """What is known of a run and its machine, by name, in the order in which it is told."""

    def class_of(part: str) -> str | None:
        path = (config.get(part) or {}).get("class_path")
        return None if path is None else str(path).rpartition(".")[2]

    machine = [f"{record['processor']}"] if record.get("processor") else []
    if record.get("threads"):
        machine.append(f"{record['threads']} thread{'' if record['threads'] == 1 else 's'}")
    sizes = {name: count for name, count in (record.get("data") or {}).items() if name.endswith("_images")}
    peak = {kind: size for kind, size in (record.get("peak_memory_bytes") or {}).items() if size}
    resumed = len(list(run.folder.glob("config_before_resume_*.yaml")))
    finished = {True: "yes", False: "no", None: None}[record.get("finished")]
    facts = {
        "experiment": (config.get("run") or {}).get("experiment"),
        "method": class_of("model"),
        "data": class_of("data"),
        "images": ", ".join(f"{count:,} {name.removesuffix('_images')}" for name, count in sizes.items()) or None,
        "seed": config.get("seed_everything"),
        "finished": finished,
        "training time": None if run.seconds is None else duration(run.seconds),
        "peak memory": ", ".join(f"{size / 2**30:.1f} GiB ({kind})" for kind, size in peak.items()) or None,
        "configuration changed": f"on resuming, {resumed} time{'s' if resumed > 1 else ''}" if resumed else None,
        "accelerator": record.get("accelerator"),
        "processor": ", ".join(machine) or None,
        "processes": record.get("processes"),
        "precision": record.get("precision"),
        "torch": record.get("torch"),
        "commit": _short(record.get("git_commit")),
        "command": record.get("command"),
        "folder": run.folder,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def read_tests(path: Path) -> list[Measurement]:
    """The tests in a ``tests.json``; none if there is no such file.

    Raises:
        RunError: It can't be read.
    """
    if not path.is_file():
        return []
    try:
        return [
            Measurement(
                test["experiment"],
                f"{test['checkpoint']}, step {test['step']}",
                test["data"].get("test_images"),
                test["settings"],
                test["figures"],
            )
            for test in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{path} can't be read: repair it, or remove it to do without.") from error


def read_points(path: Path) -> dict[str, list[Point]]:
    """Every finite value of a ``metrics.csv`` but those of tests, by metric, in the order of the steps."""
    rows: list[tuple[int, int, str, float]] = []
    ends: dict[int, int] = {}
    epoch = 0
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            values = {name: _finite(value) for name, value in row.items() if name not in ("step", "epoch")}
            logged = {name: value for name, value in values.items() if value is not None and _stage(name) != "test"}
            step = _finite(row.get("step"))
            if step is None or not logged:
                continue
            given = _finite(row.get("epoch"))
            epoch = epoch if given is None else int(given)
            ends[epoch] = max(ends.get(epoch, 0), int(step))
            rows += [(int(step), epoch, name, value) for name, value in logged.items()]
    position = _positions(ends)
    points: dict[str, list[Point]] = defaultdict(list)
    for step, epoch, name, value in sorted(rows, key=lambda row: row[0]):
        points[name].append(Point(position(epoch, step), step, value))
    return dict(points)


def _positions(ends: dict[int, int]) -> Any:
    """Turns ``(epoch, step)`` into epochs done by then, from the last step of each epoch; an epoch that isn't over is
    taken to be as long as the longest before it."""
    starts = {epoch: max((end for other, end in ends.items() if other < epoch), default=-1) for epoch in ends}
    lengths = {epoch: end - starts[epoch] for epoch, end in ends.items()}
    if len(ends) > 1:
        last = max(ends)
        lengths[last] = max(lengths.values())
    return lambda epoch, step: epoch + (step - starts[epoch]) / max(lengths[epoch], 1)


def read_confusion(path: Path) -> tuple[list[str], list[list[int]]] | None:
    """The classes and the counts of a confusion matrix; None if there are too many to show, or no such things in it."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    names = [row[0] for row in rows[1:] if row]
    counts = [row[1:] for row in rows[1:] if row]
    if not 1 < len(names) <= MOST_CLASSES or any(
        len(row) != len(names) or not all(count.isdecimal() for count in row) for row in counts
    ):
        return None
    return names, [[int(count) for count in row] for row in counts]


# --- pictures -------------------------------------------------------------------------------------------------------


class Shelf:
    """Takes pictures into the page while there is room, and keeps notes of what it leaves out."""

    def __init__(self) -> None:
        self.room = MOST_PICTURE_BYTES
        self.notes: list[str] = []

    def place(self, path: Path) -> Picture | None:
        """The picture if it can be read and there is room for it."""
        picture = self.read(path)
        if picture is None:
            return None
        if len(picture.source) > self.room:
            self.notes.append(f"{path} is left out, to keep the page small.")
            return None
        self.room -= len(picture.source)
        return picture

    def read(self, path: Path) -> Picture | None:
        try:
            return embedded(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            self.notes.append(f"{path} is left out, as it can't be read as a picture ({type(error).__name__}).")
            return None


def embedded(path: Path) -> Picture:
    """A picture file as a data URI: as it is if it is small, else scaled down and encoded anew."""
    content, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()
        size = image.size
        if max(size) > LARGEST_SIDE or len(content) > LARGEST_PICTURE_BYTES:
            smaller = image.convert("RGBA" if image.mode in ("RGBA", "LA", "P") else "RGB")
            smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            smaller.save(buffer, "WEBP", quality=88)
            if buffer.tell() < len(content):
                content, kind, size = buffer.getvalue(), "webp", smaller.size
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *size)


def read_figures(records: Sequence[Record], shelf: Shelf) -> dict[str, dict[str, Picture]]:
    """The pictures in ``figures/``, by name and run; the best known names first."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for record in records:
        for path in sorted((record.run.folder / "figures").glob("*.png")):
            if path.stem not in DRAWN_ELSEWHERE and path.stem not in record.confusions:
                found[path.stem][record.run.name] = path
    figures: dict[str, dict[str, Picture]] = {}
    for name in sorted(found, key=_figure_rank):
        placed = {run: picture for run, path in found[name].items() if (picture := shelf.place(path)) is not None}
        if placed:
            figures[name] = placed
    return figures


def _figure_rank(name: str) -> tuple[int, str]:
    ranks = [rank for rank, known in enumerate(FIRST_FIGURES) if name.startswith(known)]
    return (min(ranks, default=len(FIRST_FIGURES)), name)


def read_albums(records: Sequence[Record], shelf: Shelf) -> list[Album]:
    """The series ``samples/**/<name>_<epoch>.png``, of all runs together by folder and name.

    Each takes its share of the room that is left; of a series that is too large, epochs at equal distances stay, with
    the first and the last.
    """
    series: dict[str, dict[str, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        samples = record.run.folder / "samples"
        for path in sorted(samples.rglob("*.png")):
            if match := re.fullmatch(r"(.+?)_(\d{1,9})", path.stem):
                folder = path.relative_to(samples).parent.as_posix()
                title = match[1] if folder == "." else folder if match[1] == "epoch" else f"{folder}/{match[1]}"
                series[title][record.run.name][int(match[2])] = path
    albums = []
    titles = sorted(series, key=lambda title: (title != "epoch", title))
    for number, title in enumerate(titles):
        album = _album(title, series[title], shelf.room // (len(titles) - number), shelf)
        if album.left_out:
            shelf.notes.append(
                f"{album.left_out} pictures of {quantity_title(title)} are left out, to keep the page small."
            )
        if album.frames:
            albums.append(album)
    return albums


def _album(title: str, paths: dict[str, dict[int, Path]], room: int, shelf: Shelf) -> Album:
    frames: dict[str, dict[int, Picture]] = {}
    left_out = 0
    for number, (run, files) in enumerate(paths.items()):
        share = room // (len(paths) - number)
        # Pictures of one series are alike, so that the last one tells how many there is room for.
        epochs = sorted(files)
        last = shelf.read(files[epochs[-1]])
        count = 1 if last is None else min(len(epochs), max(1, share // len(last.source)))
        kept: dict[int, Picture] = {}
        for epoch in spread(epochs, count):
            picture = shelf.read(files[epoch])
            if picture is not None and len(picture.source) <= share:
                kept[epoch] = picture
                share -= len(picture.source)
                room -= len(picture.source)
                shelf.room -= len(picture.source)
        left_out += len(epochs) - len(kept)
        if kept:
            frames[run] = kept
    return Album(title, frames, left_out)


def spread(values: Sequence[int], count: int) -> list[int]:
    """``count`` of the values at about equal distances, with the first and the last (of one, the last).

    Example:
        >>> spread([1, 2, 3, 4, 5, 6, 7], 3)
        [1, 4, 7]
    """
    if count >= len(values):
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


# --- figures --------------------------------------------------------------------------------------------------------


def measurement_rows(records: Sequence[Record]) -> list[MeasurementRows]:
    """The tests of all runs, those made with the same settings together."""
    varied = dict.fromkeys(
        name
        for record in records
        for name, _ in differences([test.settings for test in record.tests])
        if not name.endswith(".root")
    )
    groups: dict[str, list[Measurement | None]] = {}
    for number, record in enumerate(records):
        for test in record.tests:
            told = [name for name in varied if name in test.settings]
            label = ", ".join(f"{name.removeprefix('data.')} {test.settings[name]}" for name in told)
            groups.setdefault(label, [None] * len(records))[number] = test
    return [MeasurementRows(label, tested) for label, tested in groups.items()]


def metric_rows(records: Sequence[Record]) -> list[tuple[str, list[list[float] | None]]]:
    """Each metric but the training's, with each run's values, of which the last is the final one."""
    names = sorted({name for record in records for name in record.points if _stage(name) != "train"})
    return [
        (
            name,
            [[point.value for point in record.points[name]] if name in record.points else None for record in records],
        )
        for name in names
    ]


def flat_config(config: Any, prefix: str = "") -> dict[str, str]:
    """A configuration as dotted names with values as YAML would write them.

    Example:
        >>> flat_config({"model": {"init_args": {"widths": [1, 2], "lr": None}}})
        {'model.widths': '[1, 2]', 'model.lr': 'null'}
        >>> flat_config({"callbacks": [{"class_path": "my.Grid", "init_args": {"count": 64}}]})
        {'callbacks.Grid.class_path': 'my.Grid', 'callbacks.Grid.count': '64'}
    """
    if isinstance(config, list) and config and all(isinstance(part, dict) and "class_path" in part for part in config):
        config = {str(part["class_path"]).rpartition(".")[2]: part for part in config}
    if isinstance(config, dict) and config:
        # `init_args` says nothing to a reader.
        return {
            key: value
            for name, part in config.items()
            for key, value in flat_config(part, prefix if name == "init_args" else f"{prefix}.{name}").items()
        }
    return {
        prefix.lstrip("."): yaml.safe_dump(config, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    }


def differences(flat: Sequence[dict[str, str]]) -> list[tuple[str, list[str | None]]]:
    """The settings in which the runs differ, with each run's value; None where a run has no such setting."""
    names = dict.fromkeys(name for config in flat for name in config)
    rows = [(name, [config.get(name) for config in flat]) for name in names]
    return [
        (name, values)
        for name, values in rows
        if len(set(values)) > 1 and name not in ("run.id", "run.root", "ckpt_path")
    ]


def grouped(flat: dict[str, str]) -> dict[str, dict[str, str]]:
    """Settings that aren't null by the part of the configuration that they belong to; method and data first.

    Example:
        >>> grouped({"seed_everything": "0", "compile": "null", "model.latent_dim": "8"})
        {'model': {'latent_dim': '8'}, 'run': {'seed_everything': '0'}}
    """
    groups: dict[str, dict[str, str]] = {"model": {}, "data": {}, "trainer": {}, "run": {}}
    for name, value in flat.items():
        part, dot, rest = name.partition(".")
        if value != "null":
            groups.setdefault(part if dot else "run", {})[rest if dot else name] = value
    return {part: settings for part, settings in groups.items() if settings}


# --- curves ---------------------------------------------------------------------------------------------------------


def draw_plots(records: Sequence[Record]) -> list[Plot]:
    """A plot for each quantity, with a line for each stage of each run; what was logged once, or never changes, has
    none."""
    several = len(records) > 1
    lines: dict[str, list[Line]] = defaultdict(list)
    for number, record in enumerate(records):
        for name, points in sorted(record.points.items(), key=lambda item: STAGES.get(_stage(item[0]), 9)):
            stage = _stage(name)
            label = f"{record.run.name} {stage}".rstrip() if several else name
            colour = number % COLOURS if several else STAGES.get(stage, 0)
            if len(points) > 1:
                lines[name.removeprefix(f"{stage}/")].append(Line(label, colour, stage, *thinned(points)))
    watched = {_watched(record.config) for record in records}
    plots = []
    for quantity in sorted(lines, key=lambda name: (name not in watched, name)):
        drawn = lines[quantity]
        values = [point.value for line in drawn for point in line.points]
        if min(values) == max(values):
            continue
        stages = {line.stage for line in drawn}
        remarks = ["dotted: train"] if several and len(stages) > 1 and "train" in stages else []
        if (averaged := max(line.averaged for line in drawn)) > 1:
            remarks.append(f"points are means of up to {averaged} values")
        names = [record.run.name for record in records]
        legend = dict.fromkeys(
            (names[line.colour] if several and len(names) <= COLOURS else line.label, line.colour) for line in drawn
        )
        entries = [{"text": text, "colour": colour} for text, colour in legend]
        plots.append(laid_out(Plot(quantity, drawn, entries, "; ".join(remarks))))
    return plots


def _watched(config: dict[str, Any]) -> str:
    """The quantity by which the best checkpoint is chosen."""
    return str((config.get("checkpoint") or {}).get("monitor")).rpartition("/")[2]


def thinned(points: list[Point]) -> tuple[list[Point], int]:
    """At most ``MOST_POINTS`` points, each the mean of so many that follow each other, and that number."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size == 1:
        return points, 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [
        Point(
            sum(point.epoch for point in group) / len(group),
            group[-1].step,
            sum(point.value for point in group) / len(group),
        )
        for group in groups
    ]
    return means, size


def laid_out(plot: Plot) -> Plot:
    """The plot with axes and with its lines in the SVG's units."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    epochs = [point.epoch for line in plot.lines for point in line.points]
    values = [point.value for line in plot.lines for point in line.points]
    low, high = min(values), max(values)
    plot.logarithmic = low > 0 and high > 30 * low
    scale = math.log10 if plot.logarithmic else float
    bottom, top = scale(low), scale(high)
    margin = 0.05 * (top - bottom)
    bottom, top = bottom - margin, top + margin
    first, last = min(epochs), max(epochs)
    first = 0.0 if first < last / 3 else math.floor(first)  # a phase that begins late has the width to itself

    def x_of(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - first) / (last - first or 1)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (scale(value) - bottom) / (top - bottom)

    for line in plot.lines:
        line.places = [(x_of(point.epoch), y_of(point.value)) for point in line.points]
        if len(line.points) >= FEWEST_NOISY_POINTS:
            smooth = moving_average([point.value for point in line.points], len(line.points) // 20)
            line.trend = [(x_of(point.epoch), y_of(value)) for point, value in zip(line.points, smooth, strict=True)]
    whole = MaxNLocator(6, integer=last - first >= 2).tick_values(first, last)
    plot.x_ticks = [(x_of(tick), spelled(tick)) for tick in whole if first <= tick <= last]
    if plot.logarithmic:
        ticks = LogLocator(subs=(1.0,) if top - bottom > 2 else (1.0, 2.0, 5.0)).tick_values(low, high)
    else:
        ticks = MaxNLocator(5).tick_values(bottom, top)
    plot.y_ticks = [
        (y_of(tick), spelled(0.0 if abs(tick) < 1e-12 else tick))
        for tick in ticks
        if bottom <= _safely(scale, tick) <= top
    ]
    return plot


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value with up to ``window`` values on each side."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - window, 0), np.minimum(place + window + 1, len(values))
    return ((total[high] - total[low]) / (high - low)).tolist()


def svg_path(places: Iterable[tuple[float, float]]) -> str:
    """A line through the places, as the ``d`` of an SVG path."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _hoverable(line: Line) -> dict[str, Any]:
    return {
        "label": line.label,
        "colour": line.colour,
        "averaged": line.averaged,
        "epoch": [round(point.epoch, 4) for point in line.points],
        "step": [point.step for point in line.points],
        "value": [point.value for point in line.points],
        "x": [round(x, 1) for x, _ in line.places],
        "y": [round(y, 1) for _, y in line.places],
    }


# --- words ----------------------------------------------------------------------------------------------------------


def spelled(value: float) -> str:
    """A number with four digits, large ones without an exponent.

    Example:
        >>> spelled(0.55494), spelled(10000.0), spelled(1e-5), spelled(3.0)
        ('0.5549', '10,000', '1e-05', '3')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time as one would say it.

    Example:
        >>> duration(42), duration(850.9), duration(7384)
        ('42 s', '14.2 min', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"


def quantity_title(name: str) -> str:
    """The name of a file or metric as words."""
    return "samples" if name == "epoch" else name.replace("_", " ")


def breakable(name: str) -> Markup:
    """A dotted or slashed name that may be broken into lines between its words.

    Example:
        >>> str(breakable("val/fid_best"))
        'val/<wbr>fid_<wbr>best'
    """
    return Markup("<wbr>").join(re.split(r"(?<=[/._])", name))


def _short(commit: str | None) -> str | None:
    """A commit by 12 digits, and whether files differed from it."""
    return None if commit is None else f"{commit[:12]}{'+changes' if commit.endswith('+changes') else ''}"


def _by_name(parts: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """From ``(run, {name: thing})`` to ``{name: {run: thing}}``."""
    joined: dict[str, dict[str, Any]] = defaultdict(dict)
    for run, things in parts:
        for name, thing in things.items():
            joined[name][run] = thing
    return dict(joined)


def _stage(name: str) -> str:
    stage = name.split("/")[0]
    return stage if stage in STAGES and "/" in name else ""


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _safely(scale: Any, value: float) -> float:
    return scale(value) if scale is float or value > 0 else -math.inf


def _template(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _version() -> str:
    from importlib.metadata import version

    return version("relit")
