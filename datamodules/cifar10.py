"""CIFAR-10 (Krizhevsky 2009): 60,000 color photographs of 32x32 pixels in ten classes.

Two of the three official versions can be read: the binary one, which is what is downloaded, and the pickled one
for Python, which many people have already. See https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from datamodules.base import ImageDataModule, split_rows, to_unit_interval
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, extract, fetch
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

SITE = ("https://www.cs.toronto.edu/~kriz/",)
BINARY = RemoteFile("cifar-10-binary.tar.gz", SITE, "md5:c32a1d4ab5d03f1284b67883e8d87530")
PYTHON = RemoteFile("cifar-10-python.tar.gz", SITE, "md5:c58f30108f718f92721af3b95e74349a")
FOLDERS = {BINARY.name: "cifar-10-batches-bin", PYTHON.name: "cifar-10-batches-py"}
"""The folder in each archive."""

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
"""The official files of each split, with the suffix ``.bin`` in the binary version."""
ROWS_A_BATCH = 10_000
PIXELS = 3 * 32 * 32
TEST_LABELS = "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"
"""SHA-256 of the official test labels, a byte each: what tells the test split from other 10,000 images."""
MEAN = (0.4914, 0.4822, 0.4465)
"""The training images' mean color, with which cutout fills its squares."""


class CIFAR10(ImageDataModule):
    """The 50,000 training images, of which a tenth (drawn at random, but always the same) is for validation, and the
    10,000 test images.

    ``cifar-10-batches-bin/``, ``cifar-10-batches-py/``, ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz`` is
    looked for, in this order, in ``<root>/cifar10/`` and in ``<root>`` (where torchvision puts it); if none is there,
    the binary version is downloaded. Files with fewer images than the official ones, or with other test images, are
    used, with a note.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Height and width of the images that the model gets; other than 32, they are resized bilinearly, on
            the device and after the augmentation.
        val_fraction: The part of the training images that is kept for validation and never augmented: 0.1 for
            45,000 + 5,000 images, 0.5 for the two halves of an architecture search, 0 for none.
        augmentation: What happens to training images: "none", "flip" (left-right, with probability 1/2), or "standard"
            (also a random 32x32 crop of the image with 4 black pixels added on each side; He et al. 2016).
        cutout: Side of the square, in pixels of the 32x32 image, that is painted over with the mean color at a
            random place of each training image (DeVries & Taylor 2017); 0 for none.
        split_seed: Seed of the split between training and validation.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
    """

    name = "cifar10"
    num_classes = 10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int = 32,
        val_fraction: float = 0.1,
        augmentation: Literal["none", "flip", "standard"] = "none",
        cutout: int = 0,
        split_seed: int = 0,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        if image_size < 1:
            raise DataError(f"--data.image_size is {image_size}; it must be at least 1.")
        if not 0 <= val_fraction < 1:
            raise DataError(f"--data.val_fraction is {val_fraction}; it must be at least 0 and less than 1.")
        if augmentation not in ("none", "flip", "standard"):
            raise DataError(f"--data.augmentation is {augmentation!r}; it must be none, flip or standard.")
        if not 0 <= cutout <= 32:
            raise DataError(f"--data.cutout is {cutout}; it must be from 0 (none) to 32 (the whole image).")
        self.image_shape = (3, image_size, image_size)
        self.val_fraction = val_fraction
        self.augmentation = augmentation
        self.cutout = cutout
        self.split_seed = split_seed
        self._mean = torch.tensor(MEAN)

    @property
    def store(self) -> TensorStore:
        source = self._source()
        return self.tensor_store("32x32", {}, [] if source is None else [source])

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        train_columns = LabeledImages(arrays["train_image"], arrays["train_label"])
        test_columns = LabeledImages(arrays["test_image"], arrays["test_label"])
        size, test_size = len(train_columns.label), len(test_columns.label)
        if (size, test_size) != (50_000, 10_000):
            note(f"CIFAR10 is a subset: {size:,} of 50,000 training images and {test_size:,} of 10,000 test images.")
        labels = test_columns.label.numpy().astype(np.uint8).tobytes()
        if test_size == 10_000 and hashlib.sha256(labels).hexdigest() != TEST_LABELS:
            note("CIFAR10's 10,000 test images are not the published ones: their labels differ.")
        val_size = round(self.val_fraction * size)
        train, val = split_rows(size, size - val_size, val_size, seed=self.split_seed)
        self.train_set = GatherDataset(train_columns, train)
        self.val_set = GatherDataset(train_columns, val)
        self.test_set = self.predict_set = GatherDataset(test_columns)

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        """Augments the bytes of training images, turns all images into floats in [0, 1], and resizes them."""
        if training:
            batch = self.augment(batch)
        batch = to_unit_interval(batch)
        size = self.image_shape[-1]
        if size == 32:
            return batch
        image = functional.interpolate(batch.image, (size, size), mode="bilinear", antialias=size < 32)
        return batch._replace(image=image)

    def augment(self, batch: LabeledImages) -> LabeledImages:
        """Crops, mirrors and covers images (bytes or floats) at random, each apart."""
        image = batch.image
        if self.augmentation == "standard":
            image = augment.random_crop(image, 32, padding=4)
        if self.augmentation != "none":
            image = augment.random_horizontal_flip(image)
        batch = batch._replace(image=image)
        if self.cutout:
            batch = to_unit_interval(batch)
            self._mean = self._mean.to(image.device)
            batch = batch._replace(image=augment.cutout(batch.image, self.cutout, self._mean))
        return batch

    def _source(self) -> Path | None:
        """The folder or archive that the images are read from, or None if it has to be downloaded."""
        names = (*FOLDERS.values(), *FOLDERS)
        paths = [folder / name for name in names for folder in (self.folder, self.root)]
        return next((path for path in paths if path.exists()), None)

    def _build(self, writer: ArrayWriter) -> None:
        source = self._source()
        with tempfile.TemporaryDirectory(dir=writer.folder) as scratch:
            if source is None or source.is_file():
                version = PYTHON if source is not None and source.name == PYTHON.name else BINARY
                archive = fetch(version, self.folder, self.root)
                source = extract(archive, Path(scratch) / "unpacked") / FOLDERS[version.name]
                if not source.is_dir():
                    raise DataError(f"{archive} isn't CIFAR-10's archive: delete it, and it is downloaded again.")
            for split, names in BATCHES.items():
                images, labels = zip(*(read_batch(source, name) for name in names), strict=True)
                writer.write(f"{split}_image", np.concatenate(images))
                writer.write(f"{split}_label", np.concatenate(labels))


def read_batch(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One file's images, uint8 ``(N, 3, 32, 32)``, and labels, int64 ``(N,)``.

    Args:
        folder: An official folder, of the binary or the Python version.
        name: The file's name without ``.bin``.
    """
    path = folder / f"{name}.bin"
    if not path.is_file():
        path = folder / name
    if not path.is_file():
        raise DataError(f"{folder} has no {name} or {name}.bin: put CIFAR-10's files there, or delete the folder.")
    rows = _read_binary(path) if path.suffix == ".bin" else _read_pickle(path)
    if rows is None:
        raise DataError(f"{path} is damaged or not of CIFAR-10: get it again, or delete {folder}.")
    images, labels = rows
    if not 1 <= len(images) <= ROWS_A_BATCH:
        raise DataError(f"{path} has {len(images):,} images, but the official file has {ROWS_A_BATCH:,}: get it again.")
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Each row is one byte of label and 3,072 of pixels."""
    content = np.fromfile(path, np.uint8)
    if len(content) % (1 + PIXELS):
        return None
    rows = content.reshape(-1, 1 + PIXELS)
    return (rows[:, 1:], rows[:, 0]) if (rows[:, 0] < 10).all() else None


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """A pickled dictionary with the pixels in ``data``, an array of shape (N, 3072), and the list ``labels``."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        images, labels = batch["data"].to_numpy(), np.array(batch["labels"])
    except Exception as error:  # damaged pickles raise errors of any kind
        raise DataError(f"{path} can't be read ({error}): get it again, or delete {path.parent}.") from error
    of_one_length = images.shape == (len(labels), PIXELS) and labels.ndim == 1 and labels.dtype.kind == "i"
    return (images, labels) if of_one_length and ((labels >= 0) & (labels < 10)).all() else None


class _PickledArray:
    """Stands for an array while it is unpickled, so that no constructor is ever called with what a file says."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.content = state

    def to_numpy(self) -> np.ndarray:
        # Bytes that Python 2 has written are read as a string.
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        if self.dtype.name not in ("u1", "|u1") or self.is_fortran:
            raise ValueError("its pixels aren't bytes in rows")
        return np.frombuffer(content, np.uint8).reshape(self.shape)


class _PickledDtype:
    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


def _latin1(text: str, encoding: str) -> bytes:
    """The bytes that Python 3 writes as a string if it pickles for Python 2 (protocols 0 to 2)."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"its bytes are encoded as {encoding}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, strings, numbers and arrays, and refuses to look up anything else: a pickle may name
    any function of the computer to be called."""

    allowed = {  # noqa: RUF012
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return self.allowed[module, name]
