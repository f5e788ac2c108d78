"""Tiny ImageNet (Stanford CS231n): 200 classes of ImageNet, 500 training images each, at 64x64 pixels."""

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import ImageDataModule, split_rows, to_unit_interval
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, fetch, progress
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

SITES = ("https://cs231n.stanford.edu/", "http://cs231n.stanford.edu/")
ARCHIVE = RemoteFile("tiny-imagenet-200.zip", SITES, "md5:90528d7ca1a48142e341f4ef8d21d0de")

JPEG_SUFFIXES = (".jpeg", ".jpg")
CLASSES = 200
TRAIN_IMAGES_A_CLASS = 500
VAL_IMAGES = 10_000
SIZE = 64
MAX_FILE_BYTES = 1 << 24
"""More than any file of the data set has; a larger one is there to fill the memory."""
BAD_MEMBER = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a damaged member of a zip raises."""


class TinyImageNet(ImageDataModule):
    """The 100,000 training images; the 10,000 official validation images, split at random, but always alike, into 5,000
    for validation and 5,000 for test, as the labels of the official test images were never published.

    ``<root>/tiny-imagenet-200/tiny-imagenet-200.zip`` (or the zip in ``<root>``, or the unpacked folder) is looked for,
    and downloaded if it isn't there. A copy with fewer images is used, with a note; its validation images are split in
    halves. A file that isn't a whole JPEG is left out, with a note. Labels go by the sorted WordNet ids, as in
    torchvision's ``ImageFolder``.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process; unused with ``classes_per_batch``.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        augmentation: What happens to training images: "none"; "flip" (left-right, with probability 1/2); "standard"
            (also a random 64x64 crop of the image with 8 black pixels added on each side); or "strong" (also a change
            of brightness, contrast and saturation by up to 40 % each).
        max_classes: Use the first so many classes only, in all splits; None for all 200.
        images_per_class: Use the first so many training images of each class only; None for all.
        classes_per_batch: P of a batch of P classes x K images, as triplet losses need them (Hermans et al. 2017); None
            for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        split_seed: Seed of the split between validation and test.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.

    Attributes:
        class_names: Each class's first name in WordNet; after ``setup``.
    """

    name = "tiny-imagenet-200"
    image_shape = (3, SIZE, SIZE)

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        augmentation: augment.Augmentation = "none",
        max_classes: int | None = None,
        images_per_class: int | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
        split_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        if max_classes is not None and not 1 <= max_classes <= CLASSES:
            raise DataError(f"--data.max_classes is {max_classes}; Tiny ImageNet has {CLASSES} classes.")
        if images_per_class is not None and images_per_class < 1:
            raise DataError(f"--data.images_per_class is {images_per_class}; it must be at least 1.")
        self.num_classes = max_classes or CLASSES
        self.augmentation = augment.require_known(augmentation)
        self.images_per_class = images_per_class
        self.split_seed = split_seed

    @property
    def store(self) -> TensorStore:
        source = self._source()
        if source is None or source.is_file():
            files = [] if source is None else [source]
        else:
            files = [source / "wnids.txt", source / "words.txt", source / "train", source / "val"]
        return self.tensor_store("64x64", {}, files)

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        train_columns = LabeledImages(arrays["train_image"], arrays["train_label"])
        val_columns = LabeledImages(arrays["val_image"], arrays["val_label"])
        self.class_names = tuple(arrays["class_names"].numpy().tobytes().decode().split("\n"))[: self.num_classes]

        size, val_size = (int((columns.label >= 0).sum()) for columns in (train_columns, val_columns))
        if (size, val_size) != (CLASSES * TRAIN_IMAGES_A_CLASS, VAL_IMAGES):
            counts = f"{size:,} of 100,000 training and {val_size:,} of 10,000 validation images"
            note(f"TinyImageNet is a subset: {counts}.")
        rows_of_classes = [(train_columns.label == label).nonzero().flatten() for label in range(self.num_classes)]
        train = torch.cat([rows[: self.images_per_class] for rows in rows_of_classes])
        self.train_set = GatherDataset(train_columns, train)

        # Split before rows are left out, so that an image is in the same split whatever is left out.
        total = len(val_columns.label)
        halves = split_rows(total, total - total // 2, total // 2, seed=self.split_seed)
        self.val_set, self.test_set = (
            GatherDataset(val_columns, rows[_within(val_columns.label[rows], self.num_classes)]) for rows in halves
        )
        self.predict_set = self.test_set
        if self.num_classes < CLASSES or self.images_per_class is not None:
            note(
                f"TinyImageNet is limited to {self.num_classes} classes by arguments: {len(self.train_set):,} "
                f"training, {len(self.val_set):,} validation and {len(self.test_set):,} test images."
            )

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        """Augments the bytes of training images, and turns all images into floats in [0, 1]."""
        if training:
            batch = self.augment(batch)
        images: LabeledImages = to_unit_interval(batch)
        return images

    def augment(self, batch: LabeledImages) -> LabeledImages:
        """Crops and mirrors images (bytes or floats) and changes their colors at random, each apart."""
        return batch._replace(image=augment.augmented(batch.image, self.augmentation))

    def _source(self) -> Path | None:
        """The folder or zip that the images are read from, or None if it has to be downloaded."""
        unpacked = [self.folder, self.folder / self.name]
        found = [folder for folder in unpacked if (folder / "wnids.txt").is_file()]
        found += [folder / ARCHIVE.name for folder in (self.folder, self.root) if (folder / ARCHIVE.name).is_file()]
        return found[0] if found else None

    def _build(self, writer: ArrayWriter) -> None:
        source = self._source()
        if source is None or source.is_file():
            source = fetch(ARCHIVE, self.folder, self.root)
        damaged = []
        with Tree(source) as tree:
            wnids = sorted(set(tree.lines("wnids.txt")))
            if len(wnids) != CLASSES:
                raise DataError(f"wnids.txt of {source} lists {len(wnids)} classes, not {CLASSES}: get it again.")
            words = dict(line.split("\t", 1) for line in tree.lines("words.txt") if "\t" in line)
            class_names = "\n".join(words.get(wnid, wnid).partition(",")[0] for wnid in wnids)
            writer.write("class_names", np.frombuffer(class_names.encode(), np.uint8))

            splits = {"train": train_files(tree, wnids), "val": val_files(tree, wnids)}
            limits = {"train": CLASSES * TRAIN_IMAGES_A_CLASS, "val": VAL_IMAGES}
            for split, files in splits.items():
                if not 1 <= len(files) <= limits[split]:
                    raise DataError(f"{source} has {len(files):,} {split} images, not {limits[split]:,}: get it again.")
            # In one thread: with images so small, several would mostly wait for Python's lock (measured: half as fast).
            with progress("Tiny ImageNet", sum(map(len, splits.values())), " images") as bar:
                for split, files in splits.items():
                    images = writer.create(f"{split}_image", (len(files), 3, SIZE, SIZE))
                    labels = np.full(len(files), -1, np.int64)
                    for row, (name, label) in enumerate(files):
                        image = tree.image(name)
                        if image is None:
                            damaged.append(name)
                        elif image.shape != images.shape[1:]:
                            pixels = f"{image.shape[2]}x{image.shape[1]} pixels"
                            raise DataError(f"{name} of {source} has {pixels}, not 64x64: get it again.")
                        else:
                            images[row], labels[row] = image, label
                        bar.update()
                    if (labels < 0).all():
                        raise DataError(f"{source} has no {split} image that is a whole JPEG: get it again.")
                    writer.write(f"{split}_label", labels)
        if damaged:
            more = f" and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
            note(f"Left out, as they aren't whole JPEG files: {', '.join(damaged[:5])}{more}, of {source}.")


class Tree:
    """The data set's files, in the unpacked folder or in the zip, of which nothing is unpacked.

    Attributes:
        source: The folder or the zip.
        names: The files' names, with slashes, from the data set's own folder on.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.archive: zipfile.ZipFile | None = None
        if source.is_dir():
            self.names = {path.relative_to(source).as_posix() for path in source.rglob("*.*")}
            return
        try:
            self.archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DataError(f"{source} is damaged ({error}): delete it, and it is downloaded again.") from error
        for info in self.archive.infolist():
            if info.file_size > MAX_FILE_BYTES:
                raise DataError(
                    f"{source} is refused: its member {info.filename!r} would take {info.file_size:,} bytes, and no "
                    f"file of Tiny ImageNet takes {MAX_FILE_BYTES:,}."
                )
        members = self.archive.namelist()
        self.top = next((name.removesuffix("wnids.txt") for name in members if name.endswith("wnids.txt")), "")
        self.names = {name.removeprefix(self.top) for name in members if name.startswith(self.top)}

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()

    def read(self, name: str) -> bytes:
        """A file's content; one of ``BAD_MEMBER`` is raised if it is damaged in the zip."""
        try:
            return (self.source / name).read_bytes() if self.archive is None else self.archive.read(self.top + name)
        except OSError as error:
            raise DataError(f"{name} of {self.source} can't be read: {error.strerror or error}.") from error

    def image(self, name: str) -> np.ndarray | None:
        """A JPEG as uint8 ``(3, H, W)``; None if it is damaged."""
        try:
            return decode(self.read(name))
        except BAD_MEMBER:
            return None

    def lines(self, name: str) -> list[str]:
        """A text file's lines."""
        if name not in self.names:
            raise DataError(f"{self.source} has no {name}, so it isn't all of Tiny ImageNet: get it again.")
        try:
            return self.read(name).decode(errors="replace").splitlines()
        except BAD_MEMBER as error:
            raise DataError(f"{name} of {self.source} is damaged ({error}): get it again.") from error


def train_files(tree: Tree, wnids: list[str]) -> list[tuple[str, int]]:
    """The names and labels of the training images, by class, then by number."""
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    files = []
    for name in tree.names:
        parts = name.split("/")
        is_jpeg = name.lower().endswith(JPEG_SUFFIXES)
        if len(parts) == 4 and (parts[0], parts[2]) == ("train", "images") and parts[1] in labels and is_jpeg:
            files.append((name, labels[parts[1]]))
    return sorted(files, key=lambda file: (file[1], len(file[0]), file[0]))


def val_files(tree: Tree, wnids: list[str]) -> list[tuple[str, int]]:
    """The names and labels of those validation images that are there, in official order.

    Many copies have them sorted into a folder for each class (``val/<wnid>/val_0.JPEG``, or with ``images/`` below it),
    with the annotations or without.
    """
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    if sorted_files := _sorted_val_files(tree, labels):
        return sorted_files
    files = []
    for line in tree.lines("val/val_annotations.txt"):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in labels:
            raise DataError(f"val_annotations.txt of {tree.source} has the line {line[:80]!r}, which names no class.")
        if f"val/images/{name}" in tree.names:
            files.append((f"val/images/{name}", labels[wnid]))
    return files


def _sorted_val_files(tree: Tree, labels: dict[str, int]) -> list[tuple[str, int]]:
    """The validation images in folders of their classes; none if they lie in one folder."""
    files = []
    for name in tree.names:
        parts = name.split("/")
        if parts[0] == "val" and len(parts) in (3, 4) and parts[1] in labels and name.lower().endswith(JPEG_SUFFIXES):
            files.append((name, labels[parts[1]]))
    return sorted(files, key=lambda file: _official_place(file[0]))


def _official_place(name: str) -> tuple[int, str]:
    """By the number in ``val_12.JPEG``."""
    stem = PurePosixPath(name).stem
    return int(number) if (number := stem.rpartition("_")[2]).isdecimal() else 0, stem


def decode(content: bytes) -> np.ndarray | None:
    """A JPEG as uint8 ``(3, H, W)``, a gray one with three equal channels; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception:  # Pillow meets damaged files with errors of a dozen kinds
        return None


def _within(label: Tensor, num_classes: int) -> Tensor:
    return (label >= 0) & (label < num_classes)
