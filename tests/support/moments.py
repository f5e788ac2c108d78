"""What a kill would leave of a run, at every moment at which it writes something."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

WRITES = ("open", "os.rename", "os.remove", "os.truncate")
"""Events of Python before an operation on a file."""


class Moments:
    """Copies of a run's folder, one for each state of its checkpoints and its ``metrics.csv``.

    Each is taken just before a file of the run is opened, renamed or removed, so a process killed between two such
    moments has left one of them.

    Args:
        root: The ``--run.root`` of the runs.
        copies: Where the copies go, each as another root.
    """

    def __init__(self, root: Path, copies: Path) -> None:
        self.root = root.absolute()
        self.copies = copies.absolute()
        self.taken: list[Path] = []
        self._states: set[str] = set()
        self._is_watching = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, what this process writes below the root is watched."""
        self._is_watching = True
        _all.append(self)
        try:
            yield
        finally:
            _all.remove(self)
            self._is_watching = False

    def look(self, arguments: tuple[Any, ...]) -> None:
        """Copies the folder before an operation on one of its files, if its state is a new one."""
        paths = [os.fsdecode(one) for one in arguments[:2] if isinstance(one, (str, bytes, os.PathLike))]
        if not self._is_watching or not any(Path(path).absolute().is_relative_to(self.root) for path in paths):
            return
        self._is_watching = False
        try:
            if (state := self._state()) not in self._states:
                self._states.add(state)
                self.taken.append(self.copies / f"moment{len(self.taken)}")
                shutil.copytree(self.root, self.taken[-1])
        finally:
            self._is_watching = True

    def _state(self) -> str:
        places = [(path.name, _place(path)) for path in sorted(self.root.glob("*/*/checkpoints/[!.]*"))]
        return f"{places} {[path.read_text() for path in self.root.glob('*/*/metrics.csv')]}"


def _place(path: Path) -> tuple[Any, ...]:
    """The place in a training at which a checkpoint was saved. A checkpoint is never changed, but replaced."""
    file = path.stat()
    key = (file.st_ino, file.st_mtime_ns, file.st_size)
    if key not in _places:
        content = torch.load(path, weights_only=True)
        progress = content["loops"]["fit_loop"]
        _places[key] = (
            content["rows_logged"],
            *progress["epoch_loop.batch_progress"]["total"].values(),
            *progress["epoch_progress"]["total"].values(),
        )
    return _places[key]


_places: dict[tuple[int, int, int], tuple[Any, ...]] = {}
_all: list[Moments] = []


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WRITES:
        for moments in _all:
            moments.look(arguments)


sys.addaudithook(_look)  # for as long as the process lives
