"""Any folder or archive of images, with sub-folders for classes, or without."""

import hashlib
import json
import os
import posixpath
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image, ImageOps

from datamodules.base import ImageDataModule, split_rows
from datamodules.errors import DataError, note
from datamodules.loading.archives import RemoteFile, extract, fetch, progress
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabelledImages, TensorStore, files_below

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
TRAIN, VAL, TEST = 0, 1, 2
SPLIT_FOLDERS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}


class Listing(NamedTuple):
    """The images of a folder.

    Attributes:
        files: Their names relative to the folder, in order.
        labels: The class of each; 0 where there are no classes.
        splits: ``TRAIN``, ``VAL`` or ``TEST`` for each. If none is of ``VAL``, those are drawn from ``TRAIN``, and
            likewise for ``TEST``.
        class_names: The classes' names by label; empty if there are none.
    """

    files: list[str]
    labels: list[int]
    splits: list[int]
    class_names: list[str]


class ImageFolder(ImageDataModule):
    """Images of any size and kind from a folder, a zip or a tar archive, cut to central squares and resized.

    The images of each sub-folder are a class; images that lie in one folder have no classes (``num_classes`` is 0 and
    so are their labels). If the folder consists of ``train`` and ``val`` (or ``valid``) or ``test``, these are the
    splits, with the classes below. A split that isn't there is drawn at random, but always alike, from the training
    images. Files that aren't images are ignored, and so are damaged images, with a note.

    ``num_classes`` and ``class_names`` are known after ``setup``, and so is ``file_names``: the names, relative to the
    folder, of the images of ``predict_set``, which is all of them in the order of their names.

    Args:
        path: The folder or archive, or the http(s) address of an archive.
        root: Folder of all data sets, where downloads and prepared arrays are kept; if None, ``$RELIT_DATA``, else the
            user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets.
        channels: 3 for colour, 1 for grey.
        crop: Side of the central square that is cut out of each image before it is resized; if None, or if an image is
            smaller, as large as fits.
        val_fraction: Share of the training images that is drawn for validation if there is no folder for it.
        test_fraction: Share of the training images that is drawn for testing if there is no folder for it.
        split_seed: Seed of these draws.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    name = "image_folder"

    def __init__(
        self,
        path: str,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        crop: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device)
        if image_size < 1 or (crop is not None and crop < 1):
            raise DataError(f"image_size and crop must be at least 1; they are {image_size} and {crop}.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction and test_fraction must not be negative and leave something for training; they are "
                f"{val_fraction} and {test_fraction}."
            )
        self.path = path
        self.image_shape = (channels, image_size, image_size)
        self.crop = crop
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split_seed = split_seed
        self.file_names: tuple[str, ...] = ()

    def source(self) -> Path:
        """The folder or archive of the images; an archive that is downloaded need not be there yet."""
        if self.path.startswith(("http://", "https://")):
            address = hashlib.sha256(self.path.encode()).hexdigest()[:12]
            return self.folder / "downloads" / address / (Path(unquote(urlsplit(self.path).path)).name or "images")
        return Path(os.path.abspath(Path(self.path).expanduser()))

    def obtain(self) -> Path:
        """The source, after a download if it isn't there."""
        source = self.source()
        if self.path.startswith(("http://", "https://")):
            return fetch(RemoteFile(source.name, (self.path,)), source.parent)
        if not source.exists():
            raise DataError(f"There is no folder or archive {source}: set --data.path to one that holds images.")
        return source

    def selection(self) -> Mapping[str, Any]:
        """What says which images are taken, as JSON values."""
        return {"path": self.path if self.path.startswith(("http://", "https://")) else str(self.source())}

    def listing(self, folder: Path) -> Listing:
        """Finds the images below ``folder``, which is the source or what was extracted from it."""
        files, images = list_images(folder)
        if not images:
            others = f" but {len(files)} other files, such as {files[0]}" if files else ""
            raise DataError(
                f"{self.source()} holds no images{others}: set --data.path to a folder or archive of images."
            )
        common = posixpath.commonpath([posixpath.dirname(name) for name in images])
        paths = [name.removeprefix(f"{common}/").split("/") for name in images]
        splits = [TRAIN] * len(images)
        folders = {path[0] if len(path) > 1 else "" for path in paths}
        if "train" in folders and folders <= SPLIT_FOLDERS.keys():
            splits = [SPLIT_FOLDERS[path[0]] for path in paths]
            paths = [path[1:] for path in paths]
        has_folder = [len(path) > 1 for path in paths]
        if any(has_folder) and not all(has_folder):
            note(
                f"In {self.source()}, {has_folder.count(False)} images lie beside the sub-folders of the others: all "
                "are taken as images without classes."
            )
        if not all(has_folder):
            return Listing(images, [0] * len(images), splits, [])
        class_names = sorted({path[0] for path in paths})
        label = {name: i for i, name in enumerate(class_names)}
        return Listing(images, [label[path[0]] for path in paths], splits, class_names)

    @property
    def store(self) -> TensorStore:
        channels, size, _ = self.image_shape
        identity = {**self.selection(), "image_size": size, "channels": channels, "crop": self.crop}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        source = self.source()
        # A source that holds the prepared arrays can't tell by its files whether it has changed.
        sources = [] if source in self.prepared_folder.parents else [source]
        return TensorStore(self.prepared_folder / f"{source.stem}-{size}x{size}-{digest}", identity, sources)

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        source = self.obtain()
        if source.is_dir():
            self._write_arrays(source, writer)
        else:
            with tempfile.TemporaryDirectory(dir=writer.folder) as temporary:
                self._write_arrays(extract(source, Path(temporary) / source.stem), writer)

    def _write_arrays(self, folder: Path, writer: ArrayWriter) -> None:
        files, labels, splits, class_names = self.listing(folder)
        channels, size, _ = self.image_shape
        images = writer.create("image", (len(files), *self.image_shape))

        def keep(row: int, image: Image.Image) -> None:
            images[row] = central_square(image, size, channels, self.crop)

        writer.write("readable", decode(folder, files, keep, self.source()))
        writer.write("label", np.array(labels, np.int64))
        writer.write("split", np.array(splits, np.int64))
        names = json.dumps({"files": files, "classes": class_names})
        writer.write("names", np.frombuffer(names.encode(), np.uint8))

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        names = json.loads(arrays["names"].numpy().tobytes())
        columns = LabelledImages(arrays["image"], arrays["label"])
        readable = arrays["readable"]
        self.class_names = tuple(names["classes"])
        self.num_classes = len(self.class_names)
        self.file_names = tuple(names["files"][row] for row in readable.tolist())

        train, val, test = (readable[arrays["split"][readable] == split] for split in (TRAIN, VAL, TEST))
        val_size = 0 if len(val) else round(self.val_fraction * len(train))
        test_size = 0 if len(test) else round(self.test_fraction * len(train))
        drawn = split_rows(len(train), len(train) - val_size - test_size, val_size, test_size, seed=self.split_seed)
        kept, for_val, for_test = (train[rows.sort().values] for rows in drawn)
        self.train_set = GatherDataset(columns, kept)
        self.val_set = GatherDataset(columns, torch.cat((val, for_val)))
        self.test_set = GatherDataset(columns, torch.cat((test, for_test)))
        self.predict_set = GatherDataset(columns, readable)


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """The names of all files below a folder, and of those that are images by their suffix."""
    files = files_below(folder)
    # __MACOSX is where macOS puts its notes about the files into a zip archive, under the files' own names.
    images = [name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith("__MACOSX/")]
    return files, images


def central_square(image: Image.Image, size: int, channels: int, crop: int | None = None) -> np.ndarray:
    """The central square of a picture as it is meant to be looked at, resized by antialiased bicubic interpolation.

    Args:
        image: The picture, just opened.
        size: Side of the result.
        channels: 3 or 1.
        crop: Side of the square that is cut out; if None, or if the picture is smaller, as large as fits.

    Returns:
        uint8, ``(channels, size, size)``.
    """
    image = as_looked_at(image, channels)
    side = min(*image.size) if crop is None else min(*image.size, crop)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1)


def as_looked_at(image: Image.Image, channels: int) -> Image.Image:
    """A picture, just opened, the right way up and in colour (3 channels) or in grey (1), with 8 bits a channel."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        image = Image.fromarray((np.asarray(image, np.float32) / 257).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB" if channels == 3 else "L")


def decode(
    folder: Path, files: Sequence[str], keep: Callable[[int, Image.Image], None], source: Path | None = None
) -> np.ndarray:
    """Opens images, in as many threads as there are processors, with a progress bar.

    Damaged images are left out, with one note that counts them and names some.

    Args:
        folder: Where the images lie.
        files: Their names relative to ``folder``.
        keep: Called with each row number and its image, just opened; stores the pixels somewhere.
        source: What the messages call the folder, if not by its path.

    Returns:
        int64, the rows of the images that could be read, in order.

    Raises:
        DataError: None of the images can be read.
    """

    def attempt(row: int) -> str:
        try:
            with Image.open(folder / files[row]) as image:
                keep(row, image)
        except DataError:
            raise
        except Exception as error:  # Pillow meets damaged files with errors of a dozen kinds
            reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error) or repr(error)
            return f"{files[row]} ({reason})"
        return ""

    source = source or folder
    with (
        ThreadPoolExecutor(_processors()) as threads,
        progress(f"decoding {source.name}", len(files), " images") as bar,
    ):
        faults = []
        try:
            for fault in threads.map(attempt, range(len(files))):
                faults.append(fault)
                bar.update()
        except BaseException:  # also Ctrl-C: don't decode the rest first
            threads.shutdown(cancel_futures=True)
            raise
    damaged = [fault for fault in faults if fault]
    some = ", ".join(damaged[:3]) + (", …" if len(damaged) > 3 else "")
    if len(damaged) == len(files):
        raise DataError(f"None of the {len(files)} images in {source} can be read: {some}.")
    if damaged:
        note(f"{len(damaged)} of the {len(files)} images in {source} can't be read and are left out: {some}.")
    return np.array([row for row, fault in enumerate(faults) if not fault], np.int64)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
