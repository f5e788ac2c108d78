"""Paths as people type them, folders that may belong to somebody else, and locks between processes."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import BaseFileLock, FileLock, SoftFileLock

from datamodules.errors import DataError

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system without ``flock`` answers."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """The absolute path of what a person typed: ``~`` and ``$NAME`` are replaced, as in a shell.

    Raises:
        DataError: It is empty; or a variable isn't set or a user isn't known, and nothing has that very name.

    Example:
        >>> os.environ["SCRATCH"] = "/scratch"
        >>> str(expanded("$SCRATCH/data"))
        '/scratch/data'
    """
    text = os.fspath(path)
    if not text:
        raise DataError("A path is empty: name a file or folder. Is a variable of your shell not set?")
    if os.path.lexists(text):  # a name may hold a dollar sign
        return Path(os.path.abspath(text))
    text = os.path.expanduser(os.path.expandvars(text))
    if unknown := re.search(r"\$(\w+|\{[^}]*\})", text):
        raise DataError(f"The path {path} holds {unknown[0]}, but there is no such environment variable: set it.")
    if unknown := re.match(r"~[\w.-]*(?=/)", text):
        raise DataError(f"The path {path} begins with {unknown[0]}, but there is no such home folder: name another.")
    return Path(os.path.abspath(text))


def user_cache() -> Path:
    """The user's cache folder; one below the temporary folder for a user without a home."""
    with contextlib.suppress(RuntimeError):  # there is no home
        folder = platformdirs.user_cache_path("relit")
        if folder.is_absolute():
            return folder
    return Path(tempfile.gettempdir()) / f"relit-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def is_writable(folder: Path) -> bool:
    """Whether files may be made below ``folder``, which need not exist yet.

    Root leaves a folder without any write permission alone as well.
    """
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes: by ``flock``, or by the file's existence where the file system has none.

    All users may take the lock, so that they can share a data root.
    """
    lock: BaseFileLock = FileLock(path, mode=0o666)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_name(f"{path.name}.held"), mode=0o666)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
