"""What the folders of runs tell: configuration, tests, logged values, facts about run and machine."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_models.cli.compare import mean_and_deviation, name_of_seeds, seed_groups
from lit_models.cli.report.words import duration
from lit_models.errors import RunError
from lit_models.runs.published import Published, published_of
from lit_models.runs.reading import (
    LIMIT,
    Point,
    Run,
    differences,
    read_mapping,
    read_points,
    read_tests,
    settings_text,
    stage_of,
)
from lit_models.support.judge import judge_of_test, printed_name, read_judge

MOST_CLASSES = 30
"""Of more classes, the confusion matrix is shown as the picture that the run has drawn."""


@dataclass
class Measurement:
    """A test of one of a run's checkpoints.

    Attributes:
        experiment: The configuration's name.
        checkpoint: Its file and the step after which it was saved.
        images: How many it was tested on; None if that isn't known.
        data: The settings of the data.
        figures: What came out, by metric.
        limit: Number or part of the batches to which the test was limited; None for all.
    """

    experiment: str
    checkpoint: str
    images: int | None
    data: dict[str, Any]
    figures: dict[str, float]
    limit: int | float | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What may tell it from the run's other tests."""
        limit = {} if self.limit is None else {LIMIT: self.limit}
        return settings_text({"data": self.data, "checkpoint": self.checkpoint, **limit})


@dataclass
class MeasurementRows:
    """The same test of each run; a run that hasn't been tested so has no values.

    Attributes:
        label: What distinguishes it from other tests of the same run; empty if no run has another.
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
        """What has been published of a metric; nothing next to a test of a part of the images."""
        logged = metric.partition(" (")[0]
        found = [
            one
            for test in self.tested
            if test and test.limit is None
            for one in published_of(test.experiment, test.data, logged)
        ]
        return [one for number, one in enumerate(found) if one not in found[:number]]


@dataclass
class Record:
    """A run with all that its folder holds.

    Attributes:
        run: Its name, folder and training time.
        config: ``config.yaml``; empty if there is none.
        tests: Its tests.
        points: Every logged value but the tests', by metric.
        facts: What is known of the run and its machine, by name.
        genotypes: Cells that DARTS found, as JSON.
        confusions: Confusion matrices by name: the classes' names, and the counts with the true classes as rows.
        clock: Training seconds when some epochs were done, as ``(epochs, seconds)``; empty if the times weren't kept.
    """

    run: Run
    config: dict[str, Any]
    tests: list[Measurement]
    points: dict[str, list[Point]]
    facts: dict[str, str]
    genotypes: str
    confusions: dict[str, tuple[list[str], list[list[int]]]]
    clock: list[tuple[float, float]] = field(default_factory=list)


def read_record(run: Run) -> Record:
    """All that a run's folder holds; parts that aren't there are empty.

    Raises:
        RunError: ``config.yaml``, ``run.json`` or ``tests.json`` can't be read.
    """
    config = read_mapping(run.folder / "config.yaml")
    record = read_mapping(run.folder / "run.json")
    judge = read_judge(run.folder)
    confusions = {
        path.stem: matrix
        for path in sorted((run.folder / "figures").glob("confusion_matrix*.csv"))
        if (matrix := read_confusion(path)) is not None
    }
    genotype = run.folder / "genotype.json"
    return Record(
        run,
        config,
        measurements(run.folder),
        {printed_name(metric, judge): points for metric, points in read_points(run.folder / "metrics.csv").items()},
        facts_of(run, config, record),
        genotype.read_text(encoding="utf-8", errors="replace") if genotype.is_file() else "",
        confusions,
        read_clock(record),
    )


def read_clock(record: dict[str, Any]) -> list[tuple[float, float]]:
    """The epochs done and the training seconds until then, from what ``run.json`` lists for each epoch's end."""
    listed = record.get("seconds_after_epoch")
    seconds = enumerate(listed, 1) if isinstance(listed, list) else ()
    return [(float(epoch), float(value)) for epoch, value in seconds if isinstance(value, (int, float))]


def facts_of(run: Run, config: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """What is known of a run and its machine, by name, in the order in which it is shown."""

    def class_of(part: str) -> str | None:
        given = config.get(part)
        path = given.get("class_path") if isinstance(given, dict) else given
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
        "throughput": throughput(run, sizes),
        "learning rate": learning_rates(config),
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


def throughput(run: Run, sizes: dict[str, int]) -> str | None:
    """Training images a second, validation included, from the epochs done and the training time."""
    epochs = max((curve[-1][0] for name, curve in run.curves.items() if name.startswith("train/")), default=0)
    images = sizes.get("train_images")
    if not run.seconds or not images or not epochs:
        return None
    return f"{epochs * images / run.seconds:,.0f} images/s"


def learning_rates(config: dict[str, Any]) -> str | None:
    """The learning rates of the configuration, by the optimizer's name if there are several."""
    rates = {name: value for name, value in settings_text(config.get("model") or {}).items() if name.endswith("lr")}
    rates = {name: value for name, value in rates.items() if value != "null"}
    if len(set(rates.values())) == 1:
        return next(iter(rates.values()))
    return ", ".join(f"{value} ({'.'.join(name.split('.')[:-1]) or name})" for name, value in rates.items()) or None


def measurements(run: Path) -> list[Measurement]:
    """The tests of a run.

    Raises:
        RunError: Their file can't be read.
    """
    try:
        return [
            Measurement(
                test["experiment"],
                f"{test['checkpoint']}, step {test['step']}",
                test["data"].get("test_images") if test.get(LIMIT) is None else None,
                test["settings"],
                {
                    printed_name(metric, {"test": judge_of_test(test, run)}): value
                    for metric, value in test["figures"].items()
                },
                test.get(LIMIT),
            )
            for test in read_tests(run)
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{run / 'tests.json'} can't be read: repair it, or remove it to do without.") from error


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


def measurement_rows(records: Sequence[Record]) -> list[MeasurementRows]:
    """The tests of all runs, those made with the same settings together."""
    varied = dict.fromkeys(
        name
        for record in records
        for name in differences([test.settings for test in record.tests])
        if not name.endswith(".root")
    )
    varied |= {LIMIT: None}  # a test of a part says so, though it be the only one
    groups: dict[str, list[Measurement | None]] = {}
    for number, record in enumerate(records):
        for test in record.tests:
            told = [name for name in varied if name in test.settings]
            label = ", ".join(f"{name.removeprefix('data.')} {test.settings[name]}" for name in told)
            groups.setdefault(label, [None] * len(records))[number] = test
    return [MeasurementRows(label, tested) for label, tested in groups.items()]


def metric_rows(records: Sequence[Record]) -> list[tuple[str, list[list[float] | None]]]:
    """Each metric but the training's, with each run's values, of which the last is the final one."""
    names = sorted({name for record in records for name in record.points if stage_of(name) != "train"})
    return [
        (
            name,
            [[point.value for point in record.points[name]] if name in record.points else None for record in records],
        )
        for name in names
    ]


@dataclass
class SeedGroup:
    """Runs that differ only in their seed: what to call them, and each metric's mean and standard deviation."""

    label: str
    runs: list[str]
    cells: dict[str, str]


def seed_summaries(records: Sequence[Record]) -> list[SeedGroup]:
    """The groups of at least two runs that differ only in their seed."""
    finals: dict[str, dict[str, float]] = {}
    for record in records:
        logged = {name: points[-1].value for name, points in record.points.items() if stage_of(name) != "train"}
        tested = record.run.results if record.run.test_limit is None else {}  # a part has no place in a mean
        finals[record.run.name] = {**logged, **tested}
    groups = []
    for runs in seed_groups([record.run for record in records]):
        names = [run.name for run in runs]
        metrics = sorted({metric for name in names for metric in finals[name]})
        cells = {m: mean_and_deviation([finals[name][m] for name in names if m in finals[name]]) for m in metrics}
        if len(runs) > 1:
            groups.append(SeedGroup(name_of_seeds(names), names, cells))
    return groups


def grouped(texts: dict[str, str]) -> dict[str, dict[str, str]]:
    """Settings that aren't null by the part of the configuration that they belong to; method and data first.

    Example:
        >>> grouped({"seed_everything": "0", "compile": "null", "model.latent_dim": "8"})
        {'model': {'latent_dim': '8'}, 'run': {'seed_everything': '0'}}
    """
    groups: dict[str, dict[str, str]] = {"model": {}, "data": {}, "trainer": {}, "run": {}}
    for name, value in texts.items():
        part, dot, rest = name.partition(".")
        if value != "null":
            groups.setdefault(part if dot else "run", {})[rest if dot else name] = value
    return {part: settings for part, settings in groups.items() if settings}


def _short(commit: str | None) -> str | None:
    """A commit by 12 digits, and whether files differed from it."""
    return None if commit is None else f"{commit[:12]}{'+changes' if commit.endswith('+changes') else ''}"
