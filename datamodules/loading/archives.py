"""Downloads that survive bad networks, and extraction that survives bad archives.

:func:`fetch` gives the path of a published file: the copy that the user placed by hand if there is one, or a download.
:func:`extract` unpacks a zip or tar archive from any source.
"""

import contextlib
import errno
import hashlib
import lzma
import shutil
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PureWindowsPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from datamodules.errors import DataError, note
from datamodules.loading.paths import locked

CHUNK = 1 << 18
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
RETRY_DELAYS = (1.0, 3.0, 10.0)
"""Seconds before each new round of the mirrors; a round that got further than all before it starts the row again."""

MAX_UNPACKED_BYTES = 500 * 2**30
MAX_RATIO = 200
"""An archive may unpack to so many times its own size; photographs hardly shrink, and text shrinks about tenfold."""
DISK_BLOCK = 512
"""What an empty file counts for, so that a million empty files are not taken for nothing."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: The name that the file has on disk.
        urls: Mirrors, in the order in which they are tried: URLs of the file, or of its folder if they end in "/".
        checksum: ``"md5:…"`` or ``"sha256:…"`` in hexadecimal; empty if none is published.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str = ""


def fetch(file: RemoteFile, *folders: Path) -> Path:
    """The file's path, after a download if it lies in none of the folders.

    A download goes to ``<name>.part`` first, goes on from where an earlier one broke off if the server allows it, and
    takes its name only when it is whole and its checksum right. Processes that ask for the same file at once download
    it once.

    Args:
        file: What to get, and from where.
        folders: Where the file may lie already; the first is where it is downloaded to.

    Raises:
        DataError: No mirror gave the file, or it can't be written.
    """
    for folder in folders:
        if (folder / file.name).is_file():
            return _checked(folder / file.name, file.checksum)
    path = folders[0] / file.name
    part = path.with_name(f"{file.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{file.name}.lock")):
            if not path.is_file():  # else another process fetched it while this one waited
                _download(file, part)
                part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(
            f"{file.name} can't be downloaded to {path.parent}: {error.strerror or error}. Free some space there, or "
            "choose another folder with --data.root or $RELIT_DATA."
        ) from error
    return path


def extract(archive: Path, folder: Path) -> Path:
    """Unpacks a zip or tar archive (the latter plain or packed by gzip, bzip2 or xz) and returns the folder.

    The folder appears under its name when it is complete; if it is there already, nothing happens. An archive that
    holds anything but files and folders (links, devices), or a name that leads out of the folder, or that would grow
    beyond reason, is refused as a whole.

    Raises:
        DataError: The archive is damaged, malicious or of another kind, or the files can't be written.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                try:
                    _unpack(archive, unfinished)
                    unfinished.rename(folder)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise DataError(f"{archive} is damaged ({error}): delete it, and get it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, a compression that Python doesn't know
        reason = "it is encrypted" if "encrypted" in str(error) else str(error)
        raise DataError(f"{archive} can't be unpacked ({reason}): unpack it by hand.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(
                f"{archive} can't be unpacked (the name of a file in it is too long here): unpack it by hand."
            ) from error
        if error.errno is None:  # not from the operating system but from gzip or bz2
            raise DataError(f"{archive} is damaged ({error}): delete it, and get it again.") from error
        raise DataError(
            f"{archive} can't be unpacked to {folder.parent}: {error.strerror}. Free some space there, or choose "
            "another folder with --data.root or $RELIT_DATA."
        ) from error
    return folder


def progress(description: str, total: int | None, unit: str, done: int = 0) -> "tqdm[Any]":
    """A progress bar on stderr; in a log file it writes a line only every 10 seconds."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(desc=description, total=total, unit=unit, initial=done, unit_scale=unit == "B", mininterval=interval)


# --- downloads --------------------------------------------------------------------------------------------------------


class _LostConnectionError(Exception):
    """Worth another try."""


class _UselessMirrorError(Exception):
    """Not worth another try."""


def _checked(path: Path, checksum: str) -> Path:
    actual = _checksum(path, checksum)
    if actual != checksum:
        note(f"{path} has the checksum {actual}, not the published {checksum}; it is used as it is.")
    return path


def _checksum(path: Path, expected: str) -> str:
    """The file's checksum of the same kind as ``expected``."""
    if not expected:
        return ""
    algorithm = expected.partition(":")[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _download(file: RemoteFile, part: Path) -> None:
    """Fills ``part`` from the mirrors, round after round until one has given the right file or none is left."""
    mirrors = [url + quote(file.name) if url.endswith("/") else url for url in file.urls]
    failures: dict[str, str] = {}
    delays, furthest = iter(RETRY_DELAYS), _size(part)
    origin = "an earlier download"  # whose bytes the part holds
    while mirrors:
        for url in list(mirrors):
            if not file.checksum and origin != url:
                part.unlink(missing_ok=True)  # nothing would tell that the bytes of two mirrors don't fit together
            origin = url if origin == url or not part.exists() else "several"
            try:
                _transfer(url, part)
                actual = _checksum(part, file.checksum)
                if actual == file.checksum:
                    return
                part.unlink()
                failures[url] = f"wrong checksum {actual}, not {file.checksum}"
                if origin == url:
                    mirrors.remove(url)
            except _LostConnectionError as error:
                failures[url] = str(error)
            except _UselessMirrorError as error:
                failures[url] = str(error)
                mirrors.remove(url)
        if _size(part) > furthest:
            delays, furthest = iter(RETRY_DELAYS), _size(part)
        delay = next(delays, None)
        if delay is None:
            break
        if mirrors:
            reasons = ", ".join(f"{url}: {failures[url]}" for url in mirrors)
            tqdm.write(f"{file.name}: trying again in {delay:g} s ({reasons})", file=sys.stderr)
            time.sleep(delay)
    reasons = "; ".join(f"{url}: {reason}" for url, reason in failures.items()) or "no address of it is known"
    raise DataError(
        f"{file.name} can't be downloaded ({reasons}). Try again later, or put the file into {part.parent} by hand."
    )


def _transfer(url: str, part: Path) -> None:
    """Appends to ``part`` what the server has beyond it, or starts again where the server can't do that."""
    start = _size(part)
    headers = {"User-Agent": "relit"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # nothing lies beyond: the part is whole, or it isn't of this file
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.unlink()
            raise _LostConnectionError("the part on disk didn't belong to the file") from error
        passing = error.code in (408, 425, 429) or error.code >= 500
        reason = " ".join(f"{error.code} {error.reason}".split())
        raise (_LostConnectionError if passing else _UselessMirrorError)(reason) from error
    except (OSError, HTTPException) as error:
        raise _LostConnectionError(str(error.reason if isinstance(error, URLError) else error)) from error
    except ValueError as error:
        raise _UselessMirrorError(str(error)) from error
    with response:
        if response.status != 206:  # the server sends the file from its beginning
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("ab" if start else "wb") as out, progress(part.stem, total, "B", start) as bar:
            while chunk := _read(response):
                out.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise _LostConnectionError(f"the connection broke off after {_size(part):,} of {total:,} bytes")


def _read(response: HTTPResponse) -> bytes:
    """The next bytes; apart from writing them, so that a full disk isn't taken for a lost connection."""
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException) as error:
        raise _LostConnectionError(str(error)) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- archives ---------------------------------------------------------------------------------------------------------


@dataclass
class _Member:
    name: str
    size: int
    is_folder: bool
    content: IO[bytes] | None  # of a regular file


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive doesn't say
            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            yield _Member(info.filename, info.file_size, info.is_dir(), file.open(info) if is_file else None)


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as file:
        for info in file:
            content = file.extractfile(info) if info.isreg() else None
            yield _Member(info.name, info.size, info.isdir(), content)
        while file.fileobj and file.fileobj.read(CHUNK):  # to the packed stream's end, where its checksum is
            pass


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        members = _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        members = _tar_members(archive)
    else:
        raise DataError(
            f"{archive} is neither a zip nor a tar archive, or it is damaged: unpack it by hand, or get it again."
        )
    folder.mkdir()
    limit = min(MAX_UNPACKED_BYTES, MAX_RATIO * archive.stat().st_size)
    unpacked = 0
    with progress(f"unpacking {archive.name}", None, "B") as bar:
        for member in members:
            path = PureWindowsPath(member.name)  # knows both kinds of slashes, and drives
            if path.anchor or ".." in path.parts:
                raise DataError(f"{archive} is refused: its member {member.name!r} would leave the folder.")
            if not member.is_folder and member.content is None:
                raise DataError(f"{archive} is refused: its member {member.name!r} is a link or a device, not a file.")
            unpacked += member.size + DISK_BLOCK
            if unpacked > limit:
                raise DataError(
                    f"{archive} is refused: it would unpack to more than {limit:,} bytes, which a file of "
                    f"{archive.stat().st_size:,} bytes does only to fill the disk."
                )
            target = folder.joinpath(*path.parts)
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if member.content is not None:
                with member.content, target.open("wb") as out:
                    shutil.copyfileobj(member.content, out, CHUNK)
            bar.update(member.size)
