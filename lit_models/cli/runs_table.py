"""``relit runs``: the runs of a folder with their state, best value and age."""

import json
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_models.cli.command_parser import CommandParser
from lit_models.cli.tables import table
from lit_models.errors import RunError
from lit_models.runs.ownership import is_held, seems_training
from lit_models.runs.reading import Logged, part_of, read_logged, read_mapping


@dataclass(frozen=True)
class RunSummary:
    """A run at a glance.

    Attributes:
        folder: Its folder.
        state: running, finished, stopped, or tested only.
        epochs: Epochs done, of how many.
        best: Its best value of the monitored metric, else the last validation loss.
        minutes: Training time.
        changed: When it last wrote a value, as a time stamp.
    """

    folder: Path
    state: str
    epochs: str
    best: str
    minutes: str
    changed: float


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(
        prog="relit runs", description="Lists the runs of a folder, the newest last: state, best value, age."
    )
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="only the runs of these experiments")
    parser.add_argument("--root", default="runs", help="folder of all experiments (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(args)
    root = Path(given.root).expanduser()
    runs = sorted(
        (
            summarize(path.parent)
            for path in root.glob("*/*/config.yaml")
            if not given.experiments or path.parent.parent.name in given.experiments
        ),
        key=lambda run: run.changed,
    )
    if given.json:
        print(json.dumps([{**vars(run), "folder": str(run.folder)} for run in runs], indent=2))
        return 0
    if not runs and given.experiments:
        print(f"There are no runs of {', '.join(given.experiments)} in {root}/: --root names another folder.")
        return 0
    if not runs:
        of = f" of {' or '.join(given.experiments)}" if given.experiments else ""
        others = sorted({path.parent.parent.name for path in root.glob("*/*/config.yaml")})
        instead = f"There are runs of {', '.join(others)}." if others else "Start one: relit fit dcgan_digits"
        print(f"There are no runs{of} in {root}/. {instead}")
        return 0
    now = time.time()
    rows = [(str(run.folder), run.state, run.epochs, run.minutes, age(now - run.changed), run.best) for run in runs]
    print(table(("RUN", "STATE", "EPOCHS", "TRAINED", "AGE", "BEST VALUE"), rows), end="")
    return 0


def summarize(folder: Path) -> RunSummary:
    """Reads a run's folder, which may be half written."""
    config, record = _mapping(folder / "config.yaml"), _mapping(folder / "run.json")
    written = [path for path in map(folder.joinpath, ("metrics.csv", "run.json", "config.yaml")) if path.is_file()]
    changed = max(path.stat().st_mtime for path in written)
    rows = _rows(folder / "metrics.csv")
    done = max((row.epoch + 1 for row in rows if row.epoch is not None), default=0)
    arguments = part_of(part_of(config, "model"), "init_args")
    planned = part_of(config, "trainer").get("max_epochs") or arguments.get("epochs")
    return RunSummary(
        folder,
        _state(folder, record, changed),
        f"{done}/{planned}" if planned else str(done),
        _best(config, rows),
        _duration(record.get("training_seconds")),
        changed,
    )


def age(seconds: float) -> str:
    """A time span in its largest unit.

    Example:
        >>> age(59), age(7200), age(200000)
        ('59 s', '2 h', '2 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _state(folder: Path, record: dict[str, Any], changed: float) -> str:
    if is_held(folder):
        return "running"
    if record.get("finished"):
        return "finished"
    if not record:
        return "tested only" if (folder / "tests.json").is_file() else "begun"
    return "running" if seems_training(folder, changed) else "stopped"


def _best(config: dict[str, Any], rows: list[Logged]) -> str:
    checkpoint = part_of(config, "checkpoint")
    metric, mode = checkpoint.get("monitor"), checkpoint.get("mode", "min")
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.values.items():
            values[name].append(value)
    if isinstance(metric, str) and metric in values:
        return f"{metric} {max(values[metric]) if mode == 'max' else min(values[metric]):.4g}"
    validated = [name for name in values if name.startswith("val/")]
    if not validated:
        return "–"
    name = min(validated, key=lambda name: (name != "val/loss", "loss" not in name, name))
    return f"{name} {values[name][-1]:.4g} (last)"


def _mapping(path: Path) -> dict[str, Any]:
    """The names and values in a file, which may be half written."""
    try:
        return read_mapping(path)
    except RunError:
        return {}


def _rows(path: Path) -> list[Logged]:
    """The rows of a ``metrics.csv`` up to one that can't be read."""
    rows = []
    with suppress(RunError):
        for row in read_logged(path):
            rows.append(row)
    return rows
