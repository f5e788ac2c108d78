"""``relit report FOLDER``: one page about all runs below a folder, to sort, filter and compare them."""

import base64
import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lit_models.errors import RunError
from lit_models.runs.ownership import seems_training
from lit_models.runs.reading import (
    Curve,
    Logged,
    but_for_the_seed,
    differences,
    last_test,
    means_by_epoch,
    part_of,
    read_logged,
    read_mapping,
    sample_series,
    settings_of,
    stage_of,
)

MOST_POINTS = 48
"""Points of a metric's curve in the overview."""
THUMBNAIL = 96
"""Pixels of a thumbnail's longer side."""
DEEPEST = 5
"""Levels of folders that are searched for runs."""
USUAL_METRICS = ("val/fid", "val/accuracy", "val/loss")
LARGER_IS_BETTER = ("accuracy", "precision", "recall", "coverage", "density", "inception_score", "map")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / "config.yaml").is_file() or (folder / "metrics.csv").is_file()


def find_runs(root: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """The run folders below a folder, in the order of their names; links are not followed."""
    try:
        if is_run(root):
            yield root
            return
        with os.scandir(root) as entries:
            folders = sorted(e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    except (FileNotFoundError, PermissionError):  # just removed, or another user's
        return
    if depth > 0:
        for folder in folders:
            yield from find_runs(Path(folder), depth - 1)


class Overview:
    """The runs below a folder; a run is read again only when one of its files has changed.

    Args:
        root: The folder.
        served: Whether thumbnails are addresses that :mod:`lit_models.cli.report.serving` answers, rather than data.
    """

    def __init__(self, root: Path, served: bool = False) -> None:
        self.root = root
        self.served = served
        self._read: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def runs(self) -> list[dict[str, Any]]:
        """What the page shows of each run."""
        found = []
        for folder in find_runs(self.root):
            stamp = _stamp(folder)
            if folder not in self._read or self._read[folder][0] != stamp:
                try:
                    self._read[folder] = (stamp, self._read_run(folder, stamp))
                except FileNotFoundError:  # just removed
                    continue
            run = dict(self._read[folder][1])
            if run.pop("finished"):
                run["state"] = "finished"
            else:
                run["state"] = "training" if seems_training(folder, run["updated"]) else "stopped"
            found.append(run)
        _keep_one_of_each_seed(found)
        _tell_apart(found)
        return found

    def _read_run(self, folder: Path, stamp: Any) -> dict[str, Any]:
        notes: list[str] = []
        config = _mapping(folder / "config.yaml", notes)
        record = _mapping(folder / "run.json", notes)
        curves = _with_last_test(_curves(folder / "metrics.csv", notes), folder, notes)
        settings = settings_of(config) if config else {}
        identifier = folder.relative_to(self.root).as_posix() if folder != self.root else folder.name
        checkpoint = part_of(config, "checkpoint")
        metric = checkpoint.get("monitor")
        if not isinstance(metric, str) or metric not in curves:
            metric = next((name for name in (*USUAL_METRICS, *sorted(curves)) if name in curves), None)
        modes = {metric: checkpoint.get("mode")} if metric else {}
        epochs = part_of(config, "trainer").get("max_epochs")
        epoch = max((points[-1][0] for points in curves.values()), default=0)
        sample = last_sample(folder)
        return {
            "id": identifier,
            "name": folder.name,
            "experiment": part_of(config, "run").get("experiment") or folder.parent.name,
            "finished": bool(record.get("finished")),
            "epoch": epoch,
            "epochs": epochs if isinstance(epochs, int) and epochs > 0 else None,
            "metric": metric,
            "metrics": {
                name: {
                    "larger": (modes.get(name) or _mode(name)) == "max",
                    "curve": _thinned(points),
                    "best": (max if (modes.get(name) or _mode(name)) == "max" else min)(value for _, value in points),
                    "last": points[-1][1],
                }
                for name, points in curves.items()
            },
            "seed": settings.get("seed_everything"),
            "group": hashlib.sha256(f"{folder.parent}{but_for_the_seed(settings)}".encode()).hexdigest()[:12]
            if config
            else identifier,
            "flat": settings,
            "seconds": record.get("training_seconds"),
            "updated": max((at for at, _ in stamp), default=0) / 1e9,
            "thumbnail": None if sample is None else self._thumbnail(sample, identifier, notes),
            "notes": notes,
        }

    def _thumbnail(self, sample: Path, identifier: str, notes: list[str]) -> str | None:
        if self.served:
            from urllib.parse import quote

            return f"thumbnail?run={quote(identifier, safe='')}&of={sample.stat().st_mtime_ns}"
        content = thumbnail(sample)
        if content is None:
            notes.append(f"{sample.name} can't be read as a picture")
            return None
        return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def thumbnail(picture: Path) -> bytes | None:
    """A small WebP of a picture; None if it can't be read."""
    try:
        with Image.open(picture, formats=["PNG"]) as image:
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if max(small.size) > THUMBNAIL:
        # A corner of the grid: single images stay visible, which the scaled grid's wouldn't.
        side = min(*small.size, 2 * THUMBNAIL)
        small = small.crop((0, 0, side, side))
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70)
    return buffer.getvalue()


def last_sample(folder: Path) -> Path | None:
    """The run's newest grid of images."""
    return next(reversed(sample_series(folder)), None)


def _stamp(folder: Path) -> list[tuple[int, int]]:
    found = []
    for name in ("config.yaml", "run.json", "metrics.csv", "tests.json", "checkpoints", "samples", "."):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((status.st_mtime_ns, status.st_size))
    return found


def _mapping(path: Path, notes: list[str]) -> dict[str, Any]:
    """The names and values in a file; nothing, and a note, if it can't be read."""
    if path.name == "config.yaml" and not path.exists():
        notes.append("config.yaml is missing")
    try:
        return read_mapping(path)
    except RunError as error:
        notes.append(str(error).removeprefix(f"{path.parent}/").partition(":")[0])
        return {}


def _curves(path: Path, notes: list[str]) -> dict[str, Curve]:
    """The mean over each epoch of every metric but the training's; of those, too, where there is no other."""

    def readable_rows() -> Iterator[Logged]:
        try:
            yield from read_logged(path)
        except (OSError, RunError):
            notes.append("metrics.csv can't be read to its end")

    if not path.is_file():
        notes.append("nothing is logged yet")
    found = means_by_epoch(readable_rows())
    measured = {name: curve for name, curve in found.items() if stage_of(name) != "train"}
    return measured or found


def _with_last_test(curves: dict[str, Curve], folder: Path, notes: list[str]) -> dict[str, Curve]:
    """The curves with the values of the last test in place of the mean over all tests of an epoch."""
    try:
        test = last_test(folder)
    except RunError as error:
        if (folder / "tests.json").is_file():
            notes.append(str(error).removeprefix(f"{folder}/").partition(":")[0])
        return curves
    if test.limit is not None:
        notes.append(f"tested on some batches only (limit_test_batches {test.limit:g})")
    kept = {name: curve for name, curve in curves.items() if stage_of(name) != "test"}
    last = max((curve[-1][0] for curve in curves.values()), default=0.0)
    return {**kept, **{name: [(last, value)] for name, value in test.values.items()}}


def _thinned(points: list[tuple[float, float]]) -> list[list[float]]:
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    kept = points[::step] if points[-1] in points[::step] else [*points[::step], points[-1]]
    return [[epoch, float(f"{value:.5g}")] for epoch, value in kept]


def _mode(metric: str) -> str:
    return "max" if any(word in metric.lower() for word in LARGER_IS_BETTER) else "min"


def _keep_one_of_each_seed(runs: list[dict[str, Any]]) -> None:
    """Leaves a repeated seed out of its group: the same training twice is no further seed."""
    seen: set[tuple[str, str | None]] = set()
    for run in runs:
        if (run["group"], run["seed"]) in seen:
            run["group"] = run["id"]
        seen.add((run["group"], run["seed"]))


def _tell_apart(runs: list[dict[str, Any]]) -> None:
    """Leaves each run only the settings in which the runs of its experiment differ."""
    experiments: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        experiments[run["experiment"]].append(run)
    for group in experiments.values():
        varied = list(differences([run["flat"] for run in group]))
        for run in group:
            flat = run.pop("flat")
            run["settings"] = {name: flat[name] for name in varied if name in flat}
