"""The one reader of what runs leave on disk: logged values, tests, configurations; and how they are compared and shown.

Nothing here imports torch: `relit compare`, `report` and `runs` look at folders in a fraction of a second.
"""

import csv
import json
import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml

from lit_models.errors import RunError
from lit_models.support.judge import calibration_rows, printed_name, read_judge
from lit_models.support.yaml_loader import LOADER

Curve = list[tuple[float, float]]
T = TypeVar("T")

METRICS = "metrics.csv"
LIMIT = "limit_test_batches"
STAGES = {"train": 0, "val": 1, "test": 2}
COLORS = (
    *("#1f77b4", "#d95f02", "#1b8a5a", "#7b4fb5", "#b8860b"),
    *("#c2357f", "#6b7280", "#8c564b", "#5b7f1e", "#0b8a97"),
)
"""Of runs and curves, in their order; also in `cli/report/templates/report.css`, with lighter ones for dark pages."""
FEWEST_NOISY_POINTS = 60
"""A curve with so many points is drawn pale, with its smooth course on top."""
FEWEST_FOR_A_TREND = 5
NO_SETTINGS = ("run.", "wandb.", "ckpt_path", "config", "predictions.", "trainer.logger")
"""Beginnings of the names of what makes no other training."""


# --- metrics.csv ------------------------------------------------------------------------------------------------------


class Logged(NamedTuple):
    """A row of a ``metrics.csv``.

    Attributes:
        step: The logger's step, if there is one.
        epoch: From 0, if there is one.
        values: The finite values by metric.
    """

    step: int | None
    epoch: int | None
    values: dict[str, float]


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


def read_logged(path: Path) -> Iterator[Logged]:
    """The rows of a ``metrics.csv``, without one that was cut off by a kill or a full disk; none if there is no file.

    Raises:
        RunError: A row can't be read; those before it have been given.
    """
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(line for line in file if line.endswith("\n"))
        header = next(rows, [])
        places = {name: header.index(name) for name in ("step", "epoch") if name in header}
        columns = [(place, name) for place, name in enumerate(header) if name not in places]
        try:
            for row in rows:
                values = {name: float(row[place]) for place, name in columns if row[place]}
                finite = {name: value for name, value in values.items() if math.isfinite(value)}
                step, epoch = (
                    int(float(row[places[name]])) if name in places and row[places[name]] else None
                    for name in ("step", "epoch")
                )
                yield Logged(step, epoch, finite)
        except (ValueError, IndexError, OverflowError, csv.Error) as error:
            raise RunError(f"{path} can't be read at line {rows.line_num}: repair or remove that line.") from error


def metric_names(path: Path) -> list[str]:
    """The metrics that a ``metrics.csv`` has a column for."""
    with path.open(newline="", encoding="utf-8") as file:
        return [name for name in next(csv.reader(file), []) if name not in ("step", "epoch")]


def read_epochs(path: Path) -> dict[str, Curve]:
    """The mean of each metric over each epoch, as ``(epoch, value)`` with epochs from 1, by metric."""
    return means_by_epoch(read_logged(path))


def means_by_epoch(rows: Iterable[Logged]) -> dict[str, Curve]:
    """See :func:`read_epochs`."""
    sums: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for _, epoch, values in rows:
        if epoch is not None:
            for name, value in values.items():
                mean = sums[name].setdefault(epoch + 1, [0.0, 0])
                mean[0] += value
                mean[1] += 1
    return {
        name: [(float(epoch), total / count) for epoch, (total, count) in sorted(epochs.items())]
        for name, epochs in sums.items()
    }


def read_steps(path: Path) -> dict[str, Curve]:
    """Every value as ``(step, value)``, by metric."""
    curves: dict[str, Curve] = defaultdict(list)
    for step, _, values in read_logged(path):
        for name, value in values.items():
            if step is not None:
                curves[name].append((step, value))
    return dict(curves)


def read_results(path: Path) -> dict[str, float]:
    """The values of the last test, by metric; a run may have been tested several times."""
    return {
        name: value for _, _, values in read_logged(path) for name, value in values.items() if stage_of(name) == "test"
    }


def read_points(path: Path) -> dict[str, list[Point]]:
    """Every value but those of tests, by metric, in the order of the steps."""
    rows: list[tuple[int, int, str, float]] = []
    ends: dict[int, int] = {}
    epoch = 0
    for step, given, values in read_logged(path):
        logged = {name: value for name, value in values.items() if stage_of(name) != "test"}
        if step is None or not logged:
            continue
        epoch = epoch if given is None else given
        ends[epoch] = max(ends.get(epoch, 0), step)
        rows += [(step, epoch, name, value) for name, value in logged.items()]
    position = _positions(ends)
    points: dict[str, list[Point]] = defaultdict(list)
    for step, epoch, name, value in sorted(rows, key=lambda row: row[0]):
        points[name].append(Point(position(epoch, step), step, value))
    return dict(points)


def _positions(ends: dict[int, int]) -> Callable[[int, int], float]:
    """Turns ``(epoch, step)`` into epochs done by then, from the last step of each epoch; an epoch that isn't over is
    taken to be as long as the longest before it."""
    starts = {epoch: max((end for other, end in ends.items() if other < epoch), default=-1) for epoch in ends}
    lengths = {epoch: end - starts[epoch] for epoch, end in ends.items()}
    if len(ends) > 1:
        last = max(ends)
        lengths[last] = max(lengths.values())
    return lambda epoch, step: epoch + (step - starts[epoch]) / max(lengths[epoch], 1)


def stage_of(name: str) -> str:
    """The stage in a metric's name, ``train``, ``val`` or ``test``; empty if there is none."""
    stage = name.split("/")[0]
    return stage if stage in STAGES and "/" in name else ""


# --- other files of a run ---------------------------------------------------------------------------------------------


def read_mapping(path: Path) -> dict[str, Any]:
    """The names and values in a JSON or YAML file; nothing if there is no file.

    Raises:
        RunError: The file can't be read, or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} can't be read: repair it, or remove it to do without.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} doesn't hold names with values: repair it, or remove it to do without.")
    return content


def part_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a configuration; nothing if it is missing or holds no names with values."""
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def read_tests(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's ``tests.json``, in the order in which the tests were made.

    Raises:
        RunError: The file can't be read.
    """
    path = run / "tests.json"
    if not path.is_file():
        return []
    try:
        tests = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} can't be read: repair it, or remove it to do without.") from error
    return [test for test in tests if isinstance(test, dict)] if isinstance(tests, list) else []


def limit_of_tests(config: dict[str, Any]) -> int | float | None:
    """The number or the part of the test's batches to which a configuration limits a test; None for all of them.

    Example:
        >>> [limit_of_tests({"trainer": {"limit_test_batches": limit}}) for limit in (1, 0.5, 1.0, None)]
        [1, 0.5, None, None]
    """
    limit = part_of(config, "trainer").get(LIMIT)
    return None if isinstance(limit, float) and limit >= 1 else limit


class LastTest(NamedTuple):
    """The test that stands for a run.

    Attributes:
        values: The finite values by metric.
        limit: Number or part of the batches to which it was limited; None for all, or if that isn't known.
        images: How many it was tested on; None if that isn't known.
    """

    values: dict[str, float]
    limit: int | float | None = None
    images: int | None = None


def last_test(run: Path) -> LastTest:
    """A run's last test of all batches; its last one if each was limited. What ``metrics.csv`` says where there is no
    ``tests.json``, as runs of older versions have it.

    Raises:
        RunError: One of the files can't be read.
    """
    tests = [test for test in read_tests(run) if isinstance(test.get("figures"), dict)]
    if not tests:
        return LastTest(read_results(run / METRICS))
    test = ([test for test in tests if test.get(LIMIT) is None] or tests)[-1]
    values = {
        str(name): float(value)
        for name, value in test["figures"].items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    limit = test.get(LIMIT)
    return LastTest(values, limit, part_of(test, "data").get("test_images") if limit is None else None)


def sample_series(run: Path) -> list[Path]:
    """A run's grids of images, ``samples/**/<name>_<epoch>.png``, by epoch: of its samples, else of the first other
    series, such as the triptychs of a translator or the reconstructions of an autoencoder."""
    series: dict[tuple[bool, Path], dict[int, Path]] = defaultdict(dict)
    for path in (run / "samples").rglob("*.png"):
        if match := re.fullmatch(r"(.+?)_(\d{1,9})", path.stem):
            series[match[1] != "epoch", path.with_stem(match[1])][int(match[2])] = path
    return [path for _, path in sorted(series[min(series)].items())] if series else []


@dataclass
class Run:
    """A run as tables and plots take it.

    Attributes:
        name: What to call it.
        folder: Where it lies.
        curves: ``(epoch, value)`` of every metric; the value is the epoch's mean, the epoch counts from 1.
        results: The last test's values by metric; of a test of all batches if there is one.
        seconds: Time spent on training; None if it isn't known.
        calibration: Scores of other real images and of ten training images, by a row's name and a metric.
        members: The runs of which this is the mean: one setting with several seeds.
        test_limit: Number or part of the batches to which the test was limited; None for all.
        test_images: How many the test was of; None if that isn't known.
    """

    name: str
    folder: Path
    curves: dict[str, Curve]
    results: dict[str, float]
    seconds: float | None
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    members: list["Run"] = field(default_factory=list)
    test_limit: int | float | None = None
    test_images: int | None = None


def read_run(folder: Path, name: str) -> Run:
    """Reads a run folder, or the newest run of an experiment's folder that was trained there.

    Raises:
        RunError: There is no run.
    """
    if not (folder / METRICS).is_file():
        if (folder / "run.json").is_file():
            raise RunError(f"The run {folder} hasn't logged anything yet: it has no metrics.csv.")
        found = sorted(folder.glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime)
        runs = [path.parent for path in found]
        if not folder.exists():
            below = Path("runs") / folder
            guess = f" Did you mean {below}?" if below.is_dir() else ""
            raise RunError(f"There is no folder {folder}.{guess} `relit runs` lists the runs.")
        if not runs:
            raise RunError(
                f"{folder} is not the folder of a run or of an experiment: it has no metrics.csv. `relit runs` lists "
                "the runs."
            )
        folder = ([run for run in runs if _was_trained(run)] or runs)[-1]
    judge = read_judge(folder)
    curves = {printed_name(metric, judge): curve for metric, curve in read_epochs(folder / METRICS).items()}
    curves = {metric: curve for metric, curve in curves.items() if stage_of(metric) != "test"}
    test = last_test(folder)
    results = {printed_name(metric, judge): value for metric, value in test.values.items()}
    seconds = read_mapping(folder / "run.json").get("training_seconds")
    calibration = calibration_rows(judge)
    return Run(name, folder, curves, results, seconds, calibration, test_limit=test.limit, test_images=test.images)


def _was_trained(folder: Path) -> bool:
    """Whether a run's folder holds a training, and not only a test or a prediction of another run's checkpoint."""
    return (folder / "run.json").is_file() or (folder / "checkpoints").is_dir()


# --- configurations ---------------------------------------------------------------------------------------------------


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a nested configuration by their dotted names.

    Example:
        >>> flattened({"model": {"class_path": "DCGAN", "init_args": {"latent_dim": 8}}})
        {'model.class_path': 'DCGAN', 'model.init_args.latent_dim': 8}
    """
    if isinstance(config, dict):
        return {
            key: value for name, part in config.items() for key, value in flattened(part, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): config}


def settings_text(config: Any) -> dict[str, str]:
    """A configuration for readers: :func:`flattened`, with lists of classes by their names, without `init_args`, and
    with values as YAML would write them.

    Example:
        >>> settings_text({"model": {"init_args": {"widths": [1, 2], "lr": None}}})
        {'model.widths': '[1, 2]', 'model.lr': 'null'}
        >>> settings_text({"callbacks": [{"class_path": "my.Grid", "init_args": {"count": 64}}]})
        {'callbacks.Grid.class_path': 'my.Grid', 'callbacks.Grid.count': '64'}
    """
    return {
        name.replace(".init_args", ""): _as_yaml(value) for name, value in flattened(_classes_by_name(config)).items()
    }


def _classes_by_name(config: Any) -> Any:
    if isinstance(config, list) and config and all(isinstance(part, dict) and "class_path" in part for part in config):
        config = {str(part["class_path"]).rpartition(".")[2]: part for part in config}
    if isinstance(config, dict):
        # An empty mapping is a value of its name.
        return {name: _classes_by_name(part) for name, part in config.items()} or "{}"
    return config


def _as_yaml(value: Any) -> str:
    if value == "{}":
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def settings_of(config: dict[str, Any]) -> dict[str, str]:
    """The settings that make one training differ from another, by their dotted names.

    Example:
        >>> settings_of({"seed_everything": 1, "run": {"id": "a"}, "data": {"root": "/data", "size": 32}})
        {'seed_everything': '1', 'data.size': '32'}
    """
    return {
        name: value
        for name, value in settings_text(config).items()
        if not name.startswith(NO_SETTINGS) and not name.endswith(".root")
    }


def but_for_the_seed(settings: Mapping[str, str]) -> str:
    """What runs that differ only in their seed have in common; an argument that an older relit didn't have is null."""
    kept = {name: value for name, value in settings.items() if name != "seed_everything" and value != "null"}
    return json.dumps(kept, sort_keys=True)


def differences(
    configs: Sequence[Mapping[str, T]],
    ignored: tuple[str, ...] = ("run.", "ckpt_path"),
    same: Callable[[T | None, T | None], bool] = operator.eq,
) -> dict[str, list[T | None]]:
    """The settings in which configurations differ, with each one's value.

    Args:
        configs: As :func:`flattened` or :func:`settings_text` returns them.
        ignored: Beginnings of names that make no difference.
        same: Whether two values are.

    Example:
        >>> differences([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
        {'b': [2, 3], 'c': [None, 4]}
    """
    names = dict.fromkeys(name for config in configs for name in config if not name.startswith(ignored))
    values = {name: [config.get(name) for config in configs] for name in names}
    return {name: row for name, row in values.items() if not all(same(row[0], other) for other in row[1:])}


# --- plots ------------------------------------------------------------------------------------------------------------


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value with its neighbors, a twentieth of all on each side and at least one; of fewer than five
    values, the values. It stays within what was measured, as scores have bounds.

    Example:
        >>> smooth([0, 3, 0, 3, 0])
        [1.5, 1.0, 2.0, 1.0, 1.5]
    """
    if len(values) < FEWEST_FOR_A_TREND:
        return list(values)
    window = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - window, 0), np.minimum(place + window + 1, len(values))
    return ((total[high] - total[low]) / (high - low)).tolist()


def color_of(number: int) -> int:
    """The place in :data:`COLORS` of the run or curve with a number; after all colors they come again."""
    return number % len(COLORS)
