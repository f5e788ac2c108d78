"""One process owns a run while it trains: the lock in the run's folder."""

import errno
import json
import os
import socket
import sys
import threading
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
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer: NFS without its lock daemon, Lustre mounted without ``flock``, FUSE."""
PATIENCE = 60.0
"""Seconds that a restarted job waits for the process that it replaces."""
STILL_TRAINING = 120.0
"""Seconds since a run last wrote a file within which it counts as training, where no lock says more."""
GLANCE = 0.3
"""Seconds for which :func:`is_held` may keep a new owner from the lock, many times as long as it takes."""
HEARTBEAT = 10.0
"""Seconds after which an owner renews its lock's time stamp."""
WATCH = 25.0
"""Seconds without a renewal after which an owner that can't be asked counts as dead."""
ABANDONED = 600.0
"""Seconds since the last renewal that need no watching: the clocks of two hosts don't differ by that much."""
SETTLE = 1.0
"""Seconds between taking over a lock without the operating system's help and looking who has it."""


class Ownership:
    """The lock of a run's folder, held by this process from here until :meth:`release`.

    The operating system frees the lock when its process ends, however it ends; what is written in the file says whose
    it was. NFS passes such locks on to other hosts.

    Some network file systems have no locks, or keep each host's to itself. There, creating the file is the lock, and
    its owner renews the file's time stamp every 10 seconds. A dead process of the same host is noticed at once. One of
    another host counts as dead if it doesn't renew the stamp for 25 seconds, which a new owner waits for.

    Args:
        run: The run's folder.
        patience: Seconds to wait for another process to end.

    Raises:
        RunError: Another process trains the run, or the lock can't be opened.
    """

    def __init__(self, run: Path, patience: float = 0.0) -> None:
        self.run = run
        self.path = run / LOCK
        self.taken_by: dict[str, Any] | None = None
        """The process that has taken the lock over, as this one seemed to be dead."""
        self._file: int | None = None
        self._process = os.getpid()
        self._owner: dict[str, Any] = {}
        deadline = time.monotonic() + max(patience, GLANCE)
        while (owner := self._try()) is not None:
            if time.monotonic() >= deadline:
                doubt = "" if owner.get("locked", True) else f" (If it has ended, remove {self.path}.)"
                raise RunError(
                    f"The run {run} is being trained by {_described(owner)}: wait for its end, or stop it; or start "
                    f"another run with another --run.id.{doubt}"
                )
            if patience:
                print(f"relit: note: waiting for {_described(owner)} to leave the run {run}.", file=sys.stderr)
                patience = 0.0
            time.sleep(0.1)
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True, name="relit's lock").start()

    def release(self) -> None:
        """Gives the run up; only in the process that took it, not in those forked from it."""
        if self._file is None or os.getpid() != self._process:
            return
        self._ended.set()
        if _read(self.path) == self._owner:
            with suppress(PermissionError, FileNotFoundError):  # Windows removes no open file
                self.path.unlink()
        os.close(self._file)
        if fcntl is None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._file = None

    def require(self) -> None:
        """Refuses to go on if another process has taken the run over.

        Raises:
            RunError: One has.
        """
        if self.taken_by is not None:
            raise RunError(
                f"This process stood still so long that the run {self.run} was taken over by "
                f"{_described(self.taken_by)}: it ends here."
            )

    def _renew(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):  # the next renewal may succeed
                owner = _read(self.path)
                if owner and owner != self._owner:
                    self.taken_by = owner
                    return
                os.utime(self.path)

    def _try(self) -> dict[str, Any] | None:
        """Takes the lock; returns its owner if it is another process."""
        while True:
            file, is_new = self._opened()
            is_locked = True
            try:
                lock_now(file)
            except BlockingIOError:
                os.close(file)
                return _read(self.path)
            except OSError as error:
                is_locked = False
                if error.errno not in NO_LOCKS:
                    os.close(file)
                    raise RunError(
                        f"{self.path} can't be locked ({error.strerror}): choose another place with --run.root."
                    ) from error
            before = {} if is_new else _read(self.path)
            if not is_new and self._may_be_alive(before, is_locked):
                os.close(file)
                return _read(self.path) or before
            # Since it was opened, the owner before may have removed the file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    break
            os.close(file)
        me = {"host": socket.gethostname(), "process": self._process}
        if before and not me.items() <= before.items():
            print(
                f"relit: note: {_described(before)} has ended without finishing the run {self.run}; it is taken over.",
                file=sys.stderr,
            )
        self._owner = {**me, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "locked": is_locked}
        content = json.dumps(self._owner)
        if is_locked or is_new:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, content.encode())
        else:
            claim = self.path.with_name(f"{LOCK}.{self._owner['host']}.{self._process}")
            claim.write_text(content, encoding="utf-8")
            claim.replace(self.path)
            time.sleep(SETTLE)  # of two that do this at once, the later one has the lock
            if (owner := _read(self.path)) != self._owner:
                os.close(file)
                return owner
        self._file = file
        return None

    def _opened(self) -> tuple[int, bool]:
        """The lock's file, and whether it was made now, which only one of several processes can do."""
        while True:
            with suppress(FileExistsError):
                return self._open(os.O_CREAT | os.O_EXCL), True
            with suppress(FileNotFoundError):  # removed in the meantime
                return self._open(0), False

    def _open(self, flags: int) -> int:
        try:
            return os.open(self.path, os.O_RDWR | flags, 0o644)
        except PermissionError as error:
            raise RunError(
                f"The lock {self.path} can't be opened ({error.strerror}), so another user may be training the run: "
                "remove the file if that isn't so."
            ) from error

    def _may_be_alive(self, owner: dict[str, Any], is_locked: bool) -> bool:
        """Whether the owner named in the lock's file may still train, given whether this process could lock the file.
        May take some seconds."""
        is_here = owner.get("host") == socket.gethostname()
        if is_locked and (not owner or (is_here and owner.get("locked", True))):
            return False  # it would have the lock
        if is_here and fcntl is not None:  # Windows can't ask without killing
            return _lives(owner)
        return self._is_renewed(owner)

    def _is_renewed(self, owner: dict[str, Any]) -> bool:
        """Whether the owner renews the lock's time stamp; takes up to 25 seconds."""
        first = _renewed_at(self.path)
        if first is None or time.time() - first > ABANDONED:
            return False
        print(
            f"relit: note: {_described(owner)} may still be training the run {self.run}, which takes up to {WATCH:g} s "
            "to find out.",
            file=sys.stderr,
        )
        deadline = time.monotonic() + WATCH
        while time.monotonic() < deadline:
            time.sleep(0.2)
            now = _renewed_at(self.path)
            if now != first:
                return now is not None
        return False


def is_held(run: Path) -> bool | None:
    """Whether a process trains a run; None if its folder has no lock, or the lock can't be looked at.

    Unlike the process's number, which another process may have by now, the lock is certain. Where it can't be seen from
    this host, its owner's process or the time stamp that the owner renews decides.
    """
    path = run / LOCK
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:  # Windows has no lock for readers
            return None
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        is_locked = True
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            return None
        is_locked = False
    finally:
        os.close(file)
    owner = _read(path)
    is_here = owner.get("host") == socket.gethostname()
    if is_locked and (not owner or (is_here and owner.get("locked", True))):
        return False  # it would have the lock
    if is_here:
        return _lives(owner) or owner.get("process") == os.getpid()
    renewed = _renewed_at(path)
    return renewed is not None and time.time() - renewed < STILL_TRAINING


def seems_training(run: Path, changed: float) -> bool:
    """Whether a process trains a run, by its lock; by the age of its files where the lock can't be looked at, or where
    the folder is not relit's.

    Args:
        run: The run's folder.
        changed: When one of its files was last written, as a time stamp.
    """
    held = is_held(run)
    if held is not None:
        return held
    renewed = _renewed_at(run / LOCK)
    if renewed is None and (run / "config.yaml").exists():
        return False  # a training of relit's has a lock until it ends
    return time.time() - max(changed, renewed or 0.0) < STILL_TRAINING


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


def _read(path: Path) -> dict[str, Any]:
    """What a lock's file says of its owner; nothing if it is just being written, or gone."""
    with suppress(ValueError, FileNotFoundError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _renewed_at(path: Path) -> float | None:
    """The time stamp of a lock's file; None if it is gone. NFS asks its server for the time of a file just opened."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime
    return None


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('process')} on {owner.get('host')} (since {owner.get('since')})"


def _lives(owner: dict[str, Any]) -> bool:
    """Whether a process of this host is alive, and another one than this."""
    try:
        os.kill(int(owner["process"]), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, KeyError, ValueError, TypeError, OverflowError):
        return False
    return int(owner["process"]) != os.getpid()
