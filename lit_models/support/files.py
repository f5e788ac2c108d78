"""Files that a killed process leaves whole, and that one process at a time changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within the block, no other process is in such a block for a file of the same folder. (File systems without locks
    do without.)"""
    if fcntl is None:
        from filelock import FileLock  # only Windows needs it

        with FileLock(path.with_name(f".{path.name}.lock")):
            yield
        return
    folder = os.open(path.parent, os.O_RDONLY)  # elsewhere, no file is needed
    try:
        with suppress(OSError):  # not every network file system has locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a killed process leaves the old one whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(text.encode())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
