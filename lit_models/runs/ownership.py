"""One process owns a run while it trains: the lock in the run's folder."""

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lit_models.errors import RunError

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

INHERITED = fcntl is not None
"""Whether a lock lasts until the last process that has inherited the open file has ended; not on Windows."""
LOCK = ".lock"
LOCKED_BYTE = 1 << 20
"""Windows locks bytes, which no other process may then read: one far behind what is written."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
PATIENCE = 60.0
"""Seconds that a restarted job waits for the process that it replaces."""
STILL_TRAINING = 120.0
"""Seconds since a run last wrote a file within which it counts as training, where no lock says more."""
GLANCE = 0.1
"""Seconds for which :func:`is_held` may keep a new owner from the lock, many times as long as it takes."""


class Ownership:
    """The lock of a run's folder, held by this process from here until :meth:`release`.

    The operating system frees the lock when its process ends, however it ends; what is written in the file says whose
    it was. NFS passes such locks on to other hosts. On a file system without locks, the file itself is the lock, and
    only a dead process of the same host can be told from one that still trains.

    Args:
        run: The run's folder.
        patience: Seconds to wait for another process to end.

    Raises:
        RunError: Another process trains the run.
    """

    def __init__(self, run: Path, patience: float = 0.0) -> None:
        self.run = run
        self.path = run / LOCK
        self._file: int | None = None
        self._process = os.getpid()
        deadline = time.monotonic() + max(patience, GLANCE)
        while (owner := self._try()) is not None:
            if time.monotonic() >= deadline:
                raise RunError(
                    f"The run {run} is being trained by {_described(owner)}: wait for its end, or stop it; or start "
                    "another run with another --run.id."
                )
            if patience:
                print(f"relit: note: waiting for {_described(owner)} to leave the run {run}.", file=sys.stderr)
                patience = 0.0
            time.sleep(0.2)

    def release(self) -> None:
        """Gives the run up; only in the process that took it, not in those forked from it."""
        if self._file is not None and os.getpid() == self._process:
            with suppress(PermissionError):  # Windows removes no open file
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            if fcntl is None:
                with suppress(OSError):
                    self.path.unlink(missing_ok=True)
            self._file = None

    def _try(self) -> dict[str, Any] | None:
        """Takes the lock; returns its owner if it is another process."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                lock_now(file)
            except BlockingIOError:
                owner = _read(file)
                os.close(file)
                return owner
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    os.close(file)
                    raise
                if _may_be_alive(owner := _read(file)):
                    os.close(file)
                    return owner
            # Between opening and locking, the owner before may have removed the file.
            with suppress(FileNotFoundError):
                if os.fstat(file).st_ino == os.stat(self.path).st_ino:
                    break
            os.close(file)
        self._file = file
        before = _read(file)
        if before and before.get("process") != self._process:
            print(
                f"relit: note: {_described(before)} has ended without finishing the run {self.run}; it is taken over.",
                file=sys.stderr,
            )
        owner = {"host": socket.gethostname(), "process": self._process, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(owner).encode())
        return None


def is_held(run: Path) -> bool | None:
    """Whether a process trains a run; None if its folder has no lock, or the lock can't be looked at.

    Unlike the process's number, which another process may have by now, the lock is certain.
    """
    try:
        file = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:  # Windows has no lock for readers
            return None
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return _may_be_alive(_read(file)) if error.errno in NO_LOCKS else None
    finally:
        os.close(file)
    return False


def seems_training(run: Path, changed: float) -> bool:
    """Whether a process trains a run, by its lock; by the age of its files where the lock can't be looked at, or where
    the folder is not relit's.

    Args:
        run: The run's folder.
        changed: When one of its files was last written, as a time stamp.
    """
    held = is_held(run)
    if held is None and not (run / LOCK).exists() and (run / "config.yaml").exists():
        return False  # a training of relit's has a lock until it ends
    return time.time() - changed < STILL_TRAINING if held is None else held


def lock_now(file: int) -> None:
    """Locks an open file without waiting.

    Raises:
        BlockingIOError: Another process has the lock.
        OSError: The file system or the machine has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        raise OSError(errno.ENOLCK, "no locks")


def _read(file: int) -> dict[str, Any]:
    """What a lock's file says of its owner; nothing if it is just being written."""
    with suppress(ValueError):
        os.lseek(file, 0, os.SEEK_SET)
        content = json.loads(os.read(file, 4096))
        return content if isinstance(content, dict) else {}
    return {}


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('process')} on {owner.get('host')} (since {owner.get('since')})"


def _may_be_alive(owner: dict[str, Any]) -> bool:
    if not owner:
        return False
    if owner.get("host") != socket.gethostname() or fcntl is None:  # Windows can't ask without killing
        return True
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(owner["process"]) != os.getpid()
