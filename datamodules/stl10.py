"""STL-10 (Coates, Lee & Ng 2011): color photographs of 96x96 pixels, few with labels and many without.

See https://cs.stanford.edu/~acoates/stl10/.
"""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from datamodules.base import ImageDataModule, split_rows
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, extract, fetch, progress
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

SITES = ("https://cs.stanford.edu/~acoates/stl10/", "http://ai.stanford.edu/~acoates/stl10/")
ARCHIVE = RemoteFile("stl10_binary.tar.gz", SITES, "md5:91f7769df0f17e558f3565bffb0c7dfb")

COUNTS = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
SIZE = 96
PIXELS = 3 * SIZE * SIZE
CHUNK = 500
"""Images that are read at once: the unlabeled ones take 2.7 GB together."""


class STL10(ImageDataModule):
    """The 5,000 training images, of which a tenth (drawn at random, but always the same) is for validation, and the
    8,000 test images, in ten classes; if asked for, also 100,000 training images without labels.

    The files are looked for in ``<root>/stl10/stl10_binary/`` or ``<root>/stl10_binary/`` (where torchvision puts
    them); if there is no such folder, the archive is looked for next to them, and downloaded (2.6 GB) if need be.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Height and width, at most 96; smaller images are resized bilinearly with antialiasing.
        val_fraction: The part of the (labeled) training images that is kept for validation; may be 0.
        fold: Train and validate on the 1,000 images of this official fold (0 to 9) only; None for all 5,000.
        unlabeled: Add the 100,000 unlabeled images to the training images, with label -1.
        augmentation: What happens to training images: "none" or "flip" (left-right, with probability 1/2).
        split_seed: Seed of the split between training and validation.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
    """

    name = "stl10"
    num_classes = 10
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 96,
        val_fraction: float = 0.1,
        fold: int | None = None,
        unlabeled: bool = False,
        augmentation: Literal["none", "flip"] = "none",
        split_seed: int = 0,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        if not 1 <= image_size <= SIZE:
            raise DataError(f"--data.image_size is {image_size}; STL10's images can be 1 to {SIZE} pixels wide.")
        if not 0 <= val_fraction < 1:
            raise DataError(f"--data.val_fraction is {val_fraction}; it must be at least 0 and less than 1.")
        if fold is not None and not 0 <= fold < 10:
            raise DataError(f"--data.fold is {fold}; the folds are 0 to 9, and null means all training images.")
        if augmentation not in ("none", "flip"):
            raise DataError(f"--data.augmentation is {augmentation!r}; it must be none or flip.")
        self.image_shape = (3, image_size, image_size)
        self.val_fraction = val_fraction
        self.fold = fold
        self.unlabeled = unlabeled
        self.augmentation = augmentation
        self.split_seed = split_seed

    @property
    def store(self) -> TensorStore:
        size = self.image_shape[-1]
        # The spelling of earlier versions, so that their arrays (2.7 GB) are found.
        variant = f"{size}x{size}-unlabelled" if self.unlabeled else f"{size}x{size}"
        source = self._source()
        return self.tensor_store(variant, {}, [] if source is None else [source])

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        train_columns = LabeledImages(arrays["train_image"], arrays["train_label"])
        test_columns = LabeledImages(arrays["test_image"], arrays["test_label"])
        size, test_size = int((train_columns.label >= 0).sum()), len(test_columns.label)
        unlabeled_size = len(train_columns.label) - size
        found = {"training": (size, 5_000), "test": (test_size, 8_000)}
        if self.unlabeled:
            found["unlabeled"] = (unlabeled_size, 100_000)
        if any(count != official for count, official in found.values()):
            counts = ", ".join(f"{count:,} of {official:,} {split}" for split, (count, official) in found.items())
            note(f"STL10 is a subset: {counts} images.")

        rows = torch.arange(size)
        if self.fold is not None:
            if arrays["folds"].shape != (10, 1_000) or size != COUNTS["train"]:
                raise DataError(
                    "--data.fold needs all 5,000 training images and fold_indices.txt: put them among STL10's files "
                    f"and delete {self.store.folder}."
                )
            rows = arrays["folds"][self.fold]
        val_size = round(self.val_fraction * len(rows))
        train, val = split_rows(len(rows), len(rows) - val_size, val_size, seed=self.split_seed)
        unlabeled_rows = torch.arange(size, size + unlabeled_size)
        self.train_set = GatherDataset(train_columns, torch.cat([rows[train], unlabeled_rows]))
        self.val_set = GatherDataset(train_columns, rows[val])
        self.test_set = self.predict_set = GatherDataset(test_columns)

    def augment(self, batch: LabeledImages) -> LabeledImages:
        """Mirrors images at random, each apart."""
        if self.augmentation == "none":
            return batch
        return batch._replace(image=augment.random_horizontal_flip(batch.image))

    def _source(self) -> Path | None:
        """The folder or archive that the images are read from, or None if it has to be downloaded."""
        names = ("stl10_binary", ARCHIVE.name)
        paths = [folder / name for name in names for folder in (self.folder, self.root)]
        return next((path for path in paths if path.exists()), None)

    def _build(self, writer: ArrayWriter) -> None:
        source = self._source()
        with tempfile.TemporaryDirectory(dir=writer.folder) as scratch:
            if source is None or source.is_file():
                archive = fetch(ARCHIVE, self.folder, self.root)
                source = extract(archive, Path(scratch) / "unpacked") / "stl10_binary"
                if not source.is_dir():
                    raise DataError(f"{archive} isn't STL-10's archive: delete it, and it is downloaded again.")
            self._write_arrays(source, writer)

    def _write_arrays(self, source: Path, writer: ArrayWriter) -> None:
        label = {split: read_labels(source, split) for split in ("train", "test")}
        train_size, test_size = len(label["train"]), len(label["test"])
        unlabeled_size = count_images(source, "unlabeled") if self.unlabeled else 0
        writer.write("train_label", np.concatenate([label["train"], np.full(unlabeled_size, -1, np.int64)]))
        writer.write("test_label", label["test"])
        writer.write("folds", read_folds(source))

        size = self.image_shape[-1]
        train_image = writer.create("train_image", (train_size + unlabeled_size, 3, size, size))
        test_image = writer.create("test_image", (test_size, 3, size, size))
        _copy_images(source, "train", train_image[:train_size])
        _copy_images(source, "test", test_image)
        if self.unlabeled:
            _copy_images(source, "unlabeled", train_image[train_size:])


def count_images(folder: Path, split: str) -> int:
    """The number of images in ``<split>_X.bin``, by its size."""
    path = _existing(folder, f"{split}_X.bin")
    count, rest = divmod(path.stat().st_size, PIXELS)
    if rest or not 1 <= count <= COUNTS[split]:
        raise DataError(
            f"{path} has {path.stat().st_size:,} bytes, not {COUNTS[split]:,} images of {PIXELS:,} bytes: get it "
            f"again, or delete {folder}."
        )
    return count


def read_labels(folder: Path, split: str) -> np.ndarray:
    """The classes of a split's images, int64 in 0..9 (the file says 1..10)."""
    path = _existing(folder, f"{split}_y.bin")
    labels = np.fromfile(path, np.uint8).astype(np.int64) - 1
    count = count_images(folder, split)
    if len(labels) != count or not ((labels >= 0) & (labels < 10)).all():
        raise DataError(f"{path} doesn't hold {count:,} labels from 1 to 10: get it again, or delete {folder}.")
    return labels


def read_folds(folder: Path) -> np.ndarray:
    """The official folds, int64 ``(10, 1000)`` rows of the training images; ``(0, 0)`` if the file isn't there."""
    path = folder / "fold_indices.txt"
    if not path.is_file():
        return np.empty((0, 0), np.int64)
    try:
        folds = np.loadtxt(path, np.int64, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} isn't a table of numbers ({error}): get it again, or delete it.") from error
    if folds.shape != (10, 1_000) or folds.min() < 0 or folds.max() >= COUNTS["train"]:
        raise DataError(f"{path} isn't 10 lines of 1,000 numbers from 0 to 4999: get it again, or delete it.")
    return folds


def read_images(folder: Path, split: str, start: int, count: int) -> np.ndarray:
    """Some of a split's images, uint8 ``(count, 3, 96, 96)``; in the file, the pixels of each channel go by column."""
    images = np.fromfile(folder / f"{split}_X.bin", np.uint8, count * PIXELS, offset=start * PIXELS)
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 1, 3, 2)


def _copy_images(folder: Path, split: str, target: np.ndarray) -> None:
    """Fills ``target`` with all images of a split, resized to its size."""
    size = target.shape[-1]
    with progress(f"STL10 {split}", len(target), " images") as bar:
        for start in range(0, len(target), CHUNK):
            images = read_images(folder, split, start, min(CHUNK, len(target) - start))
            if size != SIZE:
                pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
                resized = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
                images = resized.round().byte().numpy()
            target[start : start + CHUNK] = images
            bar.update(len(images))


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise DataError(f"{folder} has no {name}: put STL-10's files there, or delete the folder to download them.")
    return path
