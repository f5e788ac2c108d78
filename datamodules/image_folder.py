"""Any folder or archive of images, with sub-folders for classes, or without."""

import hashlib
import json
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import (
    DRAWN,
    ImageDataModule,
    LearnsClasses,
    note_unused_fractions,
    split_rows,
    to_unit_interval,
)
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, extract, fetch
from datamodules.loading.decoding import GRAY_MODES, Reading, central_square, decode, look_at, power_of_two
from datamodules.loading.folders import EXTRA, SUFFIXES, TEST, TRAIN, VAL, Listing, list_classes, printable
from datamodules.loading.paths import expanded
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

RULES = 3
"""Raised when files are read in another way, so that arrays of an older relit are written again."""


class ImageFolder(ImageDataModule):
    """Images of any size and kind from a folder, a zip or a tar archive, cut to central squares and resized.

    The images of each sub-folder are a class; images that lie in one folder have no classes (``num_classes`` is 0 and
    so are their labels). If the folder consists of ``train`` and ``val`` or ``test`` (also ``Training``, ``valid``,
    ``seg_test``, …), these are the splits, with the classes below. A split that isn't there is drawn at random, but
    always alike, from the training images. Files that aren't images are ignored; damaged images, links that lead back,
    folders without images and pictures of unknown kinds are left out, with a note.

    Size and channels that aren't given are those of the model; without a model (in Python), they are found in the
    files: the largest power of two up to 64 that most images have, and 1 channel if all of them are gray.

    Files of 16 bits are read from 0 (black) to 65,535 (white), files of floating-point numbers from 0 to 1; other
    values, and 32-bit integers, are refused unless ``value_range`` is given.

    ``image_shape``, ``num_classes`` and ``class_names`` are known after ``setup``, and so is ``file_names``: the names,
    relative to the folder, of the images of ``predict_set``, which is all of them in the order of their names.

    Args:
        path: The folder or archive, or the http(s) address of an archive.
        root: Folder of all data sets, where downloads and prepared arrays are kept; if None, ``$RELIT_DATA``, else the
            user's cache folder.
        batch_size: Images in a training batch of one process; unused with ``classes_per_batch``.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets; if None, the model's, or else found in the files.
        channels: 3 for color, 1 for gray; if None, the model's, or else found in the files.
        crop: Side of the central square that is cut out of each image before it is resized; if None, or if an image is
            smaller, as large as fits.
        val_fraction: Share of the training images that is drawn for validation if there is no folder for it.
        test_fraction: Share of the training images that is drawn for testing if there is no folder for it.
        split_seed: Seed of these draws.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        split_by: What is drawn for validation and testing: "image", or "class": all images of some classes, so that the
            splits differ in their classes, as episodes and retrieval need it.
        augmentation: What happens to training images: "none"; "flip" (left-right, with probability 1/2); "standard"
            (also a random window of the image with an eighth of its side in black added all around); or "strong" (also
            a change of brightness, contrast and saturation by up to 40 % each).
        classes_per_batch: P of a batch of P classes x K images, as triplet losses need them (Hermans et al. 2017); None
            for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        unlabeled: Add the images of a folder ``unlabeled``, next to ``train``, to the training images, with label -1.
        background: What shows through transparent pixels: "white" or "black".
        value_range: Values of black and white in files of more than 8 bits, for example [0, 4095].
    """

    name = "image_folder"

    def __init__(
        self,
        path: str,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        crop: int | None = None,
        val_fraction: float = DRAWN,
        test_fraction: float = DRAWN,
        split_seed: int = 0,
        on_device: bool | None = None,
        split_by: Literal["image", "class"] = "image",
        augmentation: augment.Augmentation = "none",
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
        unlabeled: bool = False,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        for argument, side in (("image_size", image_size), ("crop", crop)):
            if side is not None and side < 1:
                raise DataError(f"--data.{argument} is {side}; it must be at least 1.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction and test_fraction must not be negative and leave something for training; they are "
                f"{val_fraction} and {test_fraction}."
            )
        if split_by not in ("image", "class"):
            raise DataError(f"--data.split_by is {split_by!r}; it must be image or class.")
        self.path = path
        self.image_size, self.channels = image_size, channels
        if image_size is not None and channels is not None:
            self.image_shape = (channels, image_size, image_size)
        self.crop = crop
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split_seed, self.split_by = split_seed, split_by
        self.augmentation = augment.require_known(augmentation)
        self.unlabeled = unlabeled
        self.reading = Reading.of(channels or 3, background, value_range)
        self.file_names: tuple[str, ...] = ()

    def source(self) -> Path:
        """The folder or archive of the images; an archive that is downloaded need not be there yet."""
        if self.path.startswith(("http://", "https://")):
            address = hashlib.sha256(self.path.encode()).hexdigest()[:12]
            return self.folder / "downloads" / address / (Path(unquote(urlsplit(self.path).path)).name or "images")
        return expanded(self.path)

    def obtain(self) -> Path:
        """The source, after a download if it isn't there."""
        source = self.source()
        if self.path.startswith(("http://", "https://")):
            return fetch(RemoteFile(source.name, (self.path,)), source.parent)
        if not source.exists():
            raise DataError(f"There is no folder or archive {source}: set --data.path to one that holds images.")
        if source.is_file() and source.suffix.lower() in SUFFIXES:
            raise DataError(f"{source} is a single picture: set --data.path to the folder that holds it.")
        return source

    def selection(self) -> Mapping[str, Any]:
        """What says which images are taken, as JSON values."""
        return {"path": self.path if self.path.startswith(("http://", "https://")) else str(self.source())}

    def listing(self, folder: Path) -> Listing:
        """Finds the images below ``folder``, which is the source or what was extracted from it."""
        return list_classes(folder, self.source())

    @property
    def _channels_and_size(self) -> tuple[int | None, int | None]:
        """Channels and size that are given, or else the model's; None for what is to be found in the files."""
        return self.channels_and_size(self.channels, self.image_size)

    @property
    def store(self) -> TensorStore:
        channels, size = self._channels_and_size
        identity = {**self.selection(), "image_size": size, "channels": channels, "crop": self.crop}
        # As in arrays from before there was a choice, so that these are replaced and don't stay for ever.
        chosen: dict[str, Any] = {}
        if self.reading.background != "white":
            chosen["background"] = self.reading.background
        if self.reading.value_range is not None:
            chosen["value_range"] = list(self.reading.value_range)
        identity |= chosen
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        source = self.source()
        # A source that holds the prepared arrays can't tell by its files whether it has changed.
        sources = [] if source in self.prepared_folder.parents else [source]
        shape = "found" if size is None else f"{size}x{size}"
        return self.tensor_store(f"{source.stem}-{shape}-{digest}", {**identity, "rules": RULES}, sources)

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
        channels, size = self._channels_and_size
        if channels is None or size is None:
            look = look_at(folder, files)
            channels, size = channels or look.channels, size or power_of_two(min(look.most_common_size))
        reading = self.reading._replace(channels=channels)
        images = writer.create("image", (len(files), channels, size, size))
        found = [(0, 0, False)] * len(files)

        def keep(row: int, image: Image.Image) -> None:
            found[row] = (*image.size, image.mode in GRAY_MODES)
            images[row] = central_square(image, size, reading, self.crop)

        readable = decode(folder, files, keep, self.source())
        self._note_misfits([found[row] for row in readable.tolist()], channels, size)
        _note_lost_classes(class_names, labels, readable, self.source())
        _note_copies(images, readable, list(zip(labels, splits, strict=True)), files, self.source())
        writer.write("readable", readable)
        writer.write("label", np.array(labels, np.int64))
        writer.write("split", np.array(splits, np.int64))
        names = json.dumps({"files": files, "classes": class_names})
        writer.write("names", np.frombuffer(names.encode(), np.uint8))

    def _note_misfits(self, found: list[tuple[int, int, bool]], channels: int, size: int) -> None:
        """Says what the images are if the arguments make something else of most of them."""
        shapes = Counter((width, height) for width, height, _ in found)
        small = sum(count for (width, height), count in shapes.items() if min(width, height) < size)
        (width, height), _ = shapes.most_common(1)[0]
        if 2 * small > len(found):
            note(
                f"{small:,} of the {len(found):,} images of {self.source()} are smaller than {size}x{size} pixels "
                f"(most often {width}x{height}) and are enlarged: set --data.image_size to {min(width, height)} or "
                "less."
            )
        if channels == 3 and all(is_gray for *_, is_gray in found):
            note(f"All images of {self.source()} are gray: --data.channels 1 would do.")

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        names = json.loads(arrays["names"].numpy().tobytes())
        columns = LabeledImages(arrays["image"], arrays["label"])
        self.image_shape = tuple(columns.image.shape[1:])  # type: ignore[assignment]  # of three numbers
        if None in self._channels_and_size:
            channels, size, _ = self.image_shape
            note(
                f"The images of {self.source()} are given in {'color' if channels == 3 else 'gray'}, of {size}x{size} "
                "pixels, as they are in most files: --data.channels and --data.image_size choose something else."
            )
        readable = arrays["readable"]
        self.class_names = alike_on_all_systems([printable(name) for name in names["classes"]])
        self.num_classes = len(self.class_names)

        split = arrays["split"][readable]
        train, val, test, extra = (readable[split == one] for one in (TRAIN, VAL, TEST, EXTRA))
        for_train, for_val, for_test = self._draw(columns.label[train], draw_val=not len(val), draw_test=not len(test))
        if len(extra) and not self.unlabeled:
            note(f"{len(extra):,} images without labels are left out; --data.unlabeled true adds them.")
        if self.unlabeled and not len(extra):
            raise DataError(f"{self.source()} has no folder unlabeled/: set --data.unlabeled false.")
        self.train_set = GatherDataset(columns, torch.cat((train[for_train], *[extra] * self.unlabeled)))
        self.val_set = GatherDataset(columns, torch.cat((val, train[for_val])))
        self.test_set = GatherDataset(columns, torch.cat((test, train[for_test])))
        predicted = readable if self.unlabeled else readable[split != EXTRA]
        self.predict_set = GatherDataset(columns, predicted)
        self.file_names = tuple(printable(names["files"][row]) for row in predicted.tolist())
        if stage == "fit":
            there = {"val_fraction": (len(val), self.val_fraction), "test_fraction": (len(test), self.test_fraction)}
            note_unused_fractions(self.source(), {name: share for name, (count, share) in there.items() if count})
        if stage == "fit" and self.split_by == "image":
            self._note_classes_drawn_whole(columns.label[train])

    def _note_classes_drawn_whole(self, label: Tensor) -> None:
        """Says which classes a model is to learn without training images, since all were drawn for other splits."""
        model = self.model_in_training
        if not (isinstance(model, LearnsClasses) and model.num_classes):
            return
        lost = set(label.tolist()) - set(self.train_set.column("label").tolist())
        if lost and self.class_names:
            some = ", ".join(self.class_names[one] for one in sorted(lost)[:3]) + ", …" * (len(lost) > 3)
            note(
                f"In {self.source()}, {len(lost):,} of {self.num_classes:,} classes are left without training images, "
                f"as all of theirs were drawn for validation and testing: {some}. Add images, or try another "
                "--data.split_seed."
            )

    def _draw(self, label: Tensor, draw_val: bool, draw_test: bool) -> list[Tensor]:
        """Places of the training, validation and test images among those from which they are drawn, in order."""
        things = label.unique() if self.split_by == "class" else label
        fractions = self.val_fraction * draw_val, self.test_fraction * draw_test
        sizes = [round(fraction * len(things)) for fraction in fractions]
        if self.split_by == "class":
            if self.num_classes == 0:
                raise DataError(f"{self.source()} has no classes: set --data.split_by image.")
            sizes = [max(size, fraction > 0) for size, fraction in zip(sizes, fractions, strict=True)]
            if sum(sizes) >= len(things):
                raise DataError(
                    f"{self.source()} has {len(things)} classes, too few to split them: set --data.split_by image."
                )
        drawn = split_rows(len(things), len(things) - sum(sizes), *sizes, seed=self.split_seed)
        if self.split_by == "class":
            return [torch.isin(label, things[rows]).nonzero().flatten() for rows in drawn]
        return [rows.sort().values for rows in drawn]

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        """Augments the bytes of training images, and turns all images into floats in [0, 1]."""
        if training:
            batch = self.augment(batch)
        images: LabeledImages = to_unit_interval(batch)
        return images

    def augment(self, batch: LabeledImages) -> LabeledImages:
        """Crops and mirrors images (bytes or floats) and changes their colors at random, each separately."""
        return batch._replace(image=augment.augmented(batch.image, self.augmentation))


def alike_on_all_systems(names: list[str]) -> tuple[str, ...]:
    """Names with each accented letter as one character, which some systems write as two; unless two become one."""
    normal = [unicodedata.normalize("NFC", name) for name in names]
    return tuple(normal if len(set(normal)) == len(normal) else names)


def _note_copies(
    images: np.ndarray, readable: np.ndarray, places: list[tuple[int, int]], files: list[str], source: Path
) -> None:
    """Says which images are there more than once, and how many of these are of another class or split."""
    first: dict[int, int] = {}
    copies, elsewhere = [], 0
    for row in readable.tolist():
        known = first.setdefault(zlib.crc32(images[row]), row)
        if known != row and np.array_equal(images[known], images[row]):
            copies.append(f"{printable(files[row])} = {printable(files[known])}")
            elsewhere += places[known] != places[row]
    if copies:
        some = ", ".join(copies[:2]) + (", …" if len(copies) > 2 else "")
        apart = f", {elsewhere:,} of them of another class or split" if elsewhere else ""
        note(f"{len(copies):,} images of {source} are copies of others{apart}: {some}.")


def _note_lost_classes(class_names: list[str], labels: list[int], readable: np.ndarray, source: Path) -> None:
    """Says which classes have no image that can be read."""
    left = {labels[row] for row in readable.tolist()}
    if lost := [printable(name) for label, name in enumerate(class_names) if label not in left]:
        note(
            f"No image of {', '.join(lost[:3])}{', …' * (len(lost) > 3)} in {source} can be read: these classes stay "
            "empty."
        )
