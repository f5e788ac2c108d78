"""A data set as memory-mapped tensors, written once; a batch of it is one gather.

An image that is decoded again in every epoch costs more than the training step of a small network. Here each data
set is decoded once into ``.npy`` arrays (images as uint8 of shape ``(N, C, H, W)``), which all processes of a machine
map and share.
"""

import errno
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError, note
from datamodules.loading.paths import is_writable, locked

FORMAT = 1
"""Raised when the layout of a prepared folder changes, so that folders of an older relit are written again."""


class LabeledImages(NamedTuple):
    """A batch of images with their classes.

    Attributes:
        image: ``(B, C, H, W)``; uint8 in 0..255 as stored, float32 in [0, 1] once it reaches ``training_step``.
        label: ``(B,)``, int64 in ``0 .. num_classes - 1``.
    """

    image: Tensor
    label: Tensor


class ImagePair(NamedTuple):
    """A batch of images to translate, with what they are to become.

    Attributes:
        source: ``(B, C, H, W)``; uint8 in 0..255 as stored, float32 in [0, 1] once it reaches ``training_step``.
        target: ``(B, C', H, W)``, of the same type and range.
    """

    source: Tensor
    target: Tensor


class Episodes(NamedTuple):
    """A batch of few-shot tasks. The classes of an episode are the places 0 .. N - 1 on dimension 1 of both tensors.

    Attributes:
        support: ``(E, N, K, C, H, W)``: K labeled images of each of the N classes of each of the E episodes; uint8 in
            0..255 as stored, float32 in [0, 1] once it reaches ``training_step``.
        query: ``(E, N, Q, C, H, W)``: the Q images of each class to classify, of the same type.
    """

    support: Tensor
    query: Tensor


class SearchBatch(NamedTuple):
    """What one step of an architecture search takes.

    Attributes:
        train: Images from which the weights learn.
        val: Images from which the architecture learns; as many.
    """

    train: LabeledImages
    val: LabeledImages


class Codes(NamedTuple):
    """A batch of what a network made of images, kept by a method that needs it again and again.

    Attributes:
        code: ``(B, D)``, floating point.
    """

    code: Tensor


Batch = TypeVar("Batch", bound=tuple[Tensor, ...])


class GatherDataset(Dataset[Batch], Generic[Batch]):
    """A data set that holds its columns as whole tensors and returns any list of rows by one gather a column.

    Args:
        columns: The whole data set as one "batch" (for example ``LabeledImages(all_images, all_labels)``).
        rows: int64 indices of the rows that belong to this split, in order; all rows if None.

    Example:
        >>> columns = LabeledImages(image=torch.zeros(4, 1, 8, 8), label=torch.arange(4))
        >>> data = GatherDataset(columns, rows=torch.tensor([3, 1]))
        >>> len(data), data.__getitems__([1, 0]).label.tolist()
        (2, [1, 3])
    """

    def __init__(self, columns: Batch, rows: Tensor | None = None) -> None:
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise DataError(f"The columns of a data set must be of one length; these are of {sorted(lengths)}.")
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return len(self.columns[0]) if self.rows is None else len(self.rows)

    def __getitems__(self, indices: Sequence[int] | Tensor) -> Batch:
        rows = torch.as_tensor(indices)
        if self.rows is not None:
            rows = self.rows.take(rows)
        rows = rows.to(self.columns[0].device, non_blocking=True)
        return type(self.columns)(*(_gather(column, rows) for column in self.columns))

    def __getitem__(self, index: int) -> Batch:
        return type(self.columns)(*(column[0] for column in self.__getitems__([index])))

    def column(self, name: str) -> Tensor:
        """One whole column of this split, in the order of its rows (for samplers that go by class: the labels)."""
        values: Tensor = getattr(self.columns, name)
        return values if self.rows is None else values[self.rows]

    def to(self, device: torch.device) -> Self:
        """The same data set with its columns on ``device``."""
        return type(self)(type(self.columns)(*(column.to(device) for column in self.columns)), self.rows)


class ArrayWriter:
    """Creates the arrays of a prepared folder; handed to the function that fills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, name: str, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
        """A new array on disk, zeros at first, to be filled in place (as large as the disk allows, not the memory)."""
        path = self.folder / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        if hasattr(os, "posix_fallocate"):
            # Reserve the blocks now: writing to a mapped hole on a full disk would kill the process with SIGBUS.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    def write(self, name: str, values: np.ndarray | Tensor) -> None:
        """Stores a whole array at once."""
        values = np.asarray(values)
        self.create(name, values.shape, values.dtype.str)[...] = values


class TensorStore:
    """A folder of arrays that is written once, atomically, and read by memory-mapping.

    Several processes may call :meth:`prepare` at once: one writes, the others wait for it. The folder appears under
    its name only when it is complete, so that a killed process leaves nothing that could be read by mistake.

    Args:
        folder: Where the arrays lie. Its name should hold the arguments that shape them (``64x64``, ``faces-…``).
        identity: What the content depends on besides the source files, as JSON values. If a folder on disk was made
            from something else it is stale, and :meth:`prepare` writes it again.
        sources: The source files and folders. A file makes the arrays stale if its size, or its time of change and
            its content, differ from those that the arrays were made from, and so does a folder with other files (by
            name, size and time of change); a source that is gone (to save space) doesn't.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], sources: Iterable[Path] = ()) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps({"format": FORMAT, **identity}))
        self.sources = tuple(sources)

    def prepare(self, build: Callable[[ArrayWriter], None]) -> None:
        """Makes sure that the arrays are there, complete and current; calls ``build`` to write them if not.

        Args:
            build: Fills the arrays through the :class:`ArrayWriter` that it is given.

        Raises:
            DataError: The disk is full or the folder can't be written. Nothing half-written is left.
        """
        if self.is_current():  # needs no lock, which a user who may only read here couldn't take
            return
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._lock):
                fault = self._fault()
                if fault is None:
                    return
                if self.folder.exists():
                    note(f"The prepared data in {self.folder} are {fault}; they are written again.")
                self._write(build)
        except OSError as error:
            if not self._is_about_writing(error):
                raise
            raise DataError(
                f"The prepared data can't be written to {self.folder}: {error.strerror or error}. Free some space "
                "there, or choose another folder with --data.root or $RELIT_DATA."
            ) from error

    def is_current(self) -> bool:
        """Whether the arrays are there, complete, and made from the sources as they are now."""
        try:
            return self._fault() is None
        except OSError:  # another process replaces them
            return False

    def may_be_written(self) -> bool:
        """Whether this user may make the folder, and take the lock that guards it."""
        return is_writable(self.folder.parent) and (not self._lock.exists() or os.access(self._lock, os.W_OK))

    @property
    def _lock(self) -> Path:
        return self.folder.parent / f".{self.folder.name}.lock"

    def load(self) -> dict[str, Tensor]:
        """The arrays by name, memory-mapped: reading a row reads only that row from disk.

        Writing to them changes the process's own copy, never the file.
        """
        sizes = self._sizes_fault()
        if sizes is not None:
            raise DataError(f"The prepared data in {self.folder} are {sizes}. Run `relit prepare` or `prepare_data()`.")
        names = self._meta()["arrays"]
        return {
            name: torch.from_numpy(np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))
            for name in names
        }

    def _is_about_writing(self, error: OSError) -> bool:
        """Whether an error comes from this folder's disk, and not from the sources that ``build`` reads."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        path = Path(error.filename) if isinstance(error.filename, str) else None
        return path is not None and (path in self.folder.parents or self.folder.parent in path.parents)

    def _write(self, build: Callable[[ArrayWriter], None]) -> None:
        unfinished = self.folder.with_name(f".{self.folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            before = {name: _fingerprint(path) for name, path in self._named_sources().items() if path.is_dir()}
            build(ArrayWriter(unfinished))
            arrays = {path.stem: _facts_of_array(path) for path in sorted(unfinished.glob("*.npy"))}
            sources = {name: _fingerprint(path) for name, path in self._named_sources().items() if path.exists()}
            if changed := [name for name, found in before.items() if sources.get(name) != found]:
                note(
                    f"Files in {', '.join(changed)} changed while they were read: what was read is used now, and all "
                    "is read again at the next start."
                )
            sources |= before  # by which the next start sees the change
            meta = {"identity": self.identity, "sources": sources, "arrays": arrays}
            (unfinished / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            if self.folder.exists():
                shutil.rmtree(self.folder)
            unfinished.rename(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _named_sources(self) -> dict[str, Path]:
        """The sources by their names, or by their paths where two have the same name."""
        counts = Counter(path.name for path in self.sources)
        return {path.name if counts[path.name] == 1 else str(path): path for path in self.sources}

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        return meta

    def _sizes_fault(self) -> str | None:
        try:
            meta = self._meta()
            if meta["identity"] != self.identity:
                return "out of date (made with other settings or by another version)"
            for name, facts in meta["arrays"].items():
                if (self.folder / f"{name}.npy").stat().st_size != facts["bytes"]:
                    return f"damaged ({name}.npy has the wrong size)"
        except FileNotFoundError:
            return "missing or incomplete"
        except (ValueError, KeyError, TypeError, AttributeError):
            return "damaged (meta.json is unreadable)"
        return None

    def _fault(self) -> str | None:
        """Why the folder can't be used, or None.

        Looks at all sources, and reads every byte of arrays whose time of change isn't that of their writing, so that
        it is for `prepare`, on one process, only.
        """
        fault = self._sizes_fault()
        if fault is not None:
            return fault
        meta = self._meta()
        known = meta["sources"]
        there = {name: path for name, path in self._named_sources().items() if path.exists() and name in known}
        if any(_has_changed(path, known[name]) for name, path in there.items()):
            return "out of date (the source files have changed)"
        for name, facts in meta["arrays"].items():
            path = self.folder / f"{name}.npy"
            if path.stat().st_mtime_ns != facts.get("mtime_ns") and _crc32(path) != facts["crc32"]:
                return f"damaged (the bytes of {name}.npy have changed)"
        return None


def _gather(column: Tensor, rows: Tensor) -> Tensor:
    """``column[rows]``; `index_select` copies whole rows, where advanced indexing copies element by element."""
    # Of few rows, each call of torch costs as much as the copy: 3 us of 7 for 64 images of 28x28.
    if rows.ndim == 1:
        return column.index_select(0, rows)
    return column.index_select(0, rows.flatten()).view(*rows.shape, *column.shape[1:])


def _facts_of_array(path: Path) -> dict[str, int]:
    """What shows that an array is as it was written; the array is on disk by then, also if the machine fails next."""
    with path.open("r+b") as file:  # Windows flushes nothing that it may not write
        os.fsync(file.fileno())
    facts = path.stat()
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "crc32": _crc32(path)}


def _fingerprint(source: Path) -> Any:
    """What shows that a source has changed: of a file its size, time of change and checksum; of a folder a checksum of
    its files' names, sizes and times of change."""
    if source.is_file():
        facts = source.stat()
        return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "crc32": _crc32(source)}
    from datamodules.loading.folders import files_below  # only here, as no method needs it to be imported

    listing = []
    for name in files_below(source):
        try:
            facts = os.stat(os.path.join(source, name))
        except FileNotFoundError:  # deleted meanwhile
            continue
        listing.append(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0")
    return zlib.crc32(os.fsencode("".join(listing)))


def _has_changed(source: Path, known: Any) -> bool:
    """Whether a source differs from its fingerprint; a file that was only copied or touched doesn't."""
    if not source.is_file():
        return bool(_fingerprint(source) != known)
    facts = source.stat()
    if not isinstance(known, dict):  # written by a relit that looked at the size only
        return bool(facts.st_size != known)
    if facts.st_size != known["bytes"]:
        return True
    return bool(facts.st_mtime_ns != known["mtime_ns"] and _crc32(source) != known["crc32"])


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
