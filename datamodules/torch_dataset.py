"""Any data set of torch's kind, by the name of its class: read once into the same arrays as relit's own."""

import contextlib
import difflib
import hashlib
import inspect
import json
import os
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import numpy as np
from PIL import Image
from torch import Tensor

from datamodules.base import DRAWN, ImageDataModule, note_unused_fractions, split_rows, to_unit_interval
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import progress
from datamodules.loading.decoding import GRAY_MODES, Reading, as_array, as_looked_at, central_square
from datamodules.loading.folders import UNLABELED
from datamodules.loading.paths import expanded
from datamodules.loading.tensors import ArrayWriter, GatherDataset, LabeledImages, TensorStore

RULES = 1
"""Raised when samples are read in another way, so that arrays of an older relit are written again."""


class TorchDataset(ImageDataModule):
    """A map-style data set of (image, label), such as ``--data TorchDataset --data.train FashionMNIST``.

    The class is one of ``torchvision.datasets`` by its name, or any other by its path (``mine.Cells``). It gets
    ``root`` (the data root) and ``download`` if it takes them, and is made a second time for testing if it has an
    argument ``train`` or ``split``. Each sample is a pair, of an image (Pillow's, an array or a tensor of uint8, or of
    floats in [0, 1]) and a whole number; a sample that is an image only has no label.

    All samples are read once, when the data are prepared, so random transforms would be drawn once: put them into
    ``augmentation``. The samples are read again if the file of your class changes, or a file or folder among its
    arguments; if anything else behind the class changes, delete the folder ``prepared``.

    ``num_classes``, ``class_names`` (of the attribute ``classes``, else the numbers) and ``image_shape`` are known
    after ``setup``.

    Args:
        train: Class of the training images.
        train_args: More of its arguments; test images of the same class get them too, but for ``train`` and ``split``.
        test: Class of the test images; if None, the same with ``train=False`` or ``split="test"``, and if it takes
            neither, test images are drawn from the training images.
        test_args: More of its arguments, in place of those in ``train_args``.
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process; unused with ``classes_per_batch``.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the central square to which images are resized; if None, the model's. Without a model (in
            Python) they stay as they are, and must be of one size.
        channels: 3 for color, 1 for gray; if None, the model's, or else those of the first image.
        val_fraction: Share of the training images that is drawn for validation.
        test_fraction: Share of the training images that is drawn for testing if there is no data set for it.
        split_seed: Seed of these draws.
        augmentation: What happens to training images: "none", "flip", "standard" or "strong", as in ``ImageFolder``.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        background: What shows through transparent pixels: "white" or "black".
        value_range: Values of black and white in Pillow's images of more than 8 bits, as in ``ImageFolder``.
    """

    def __init__(
        self,
        train: str,
        train_args: dict[str, Any] | None = None,
        test: str | None = None,
        test_args: dict[str, Any] | None = None,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        image_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        val_fraction: float = DRAWN,
        test_fraction: float = DRAWN,
        split_seed: int = 0,
        augmentation: augment.Augmentation = "none",
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
        on_device: bool | None = None,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device, classes_per_batch, samples_per_class)
        if image_size is not None and image_size < 1:
            raise DataError(f"--data.image_size is {image_size}; it must be at least 1.")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction and test_fraction must not be negative and leave something for training; they are "
                f"{val_fraction} and {test_fraction}."
            )
        self.train, self.test = full_name(train), None if test is None else full_name(test)
        self.train_args = train_args or {}
        shared = {key: value for key, value in self.train_args.items() if key not in ("train", "split")}
        self.test_args = (shared if test is None else {}) | (test_args or {})
        self.has_test_args = bool(test_args)
        self.name = self.train.rpartition(".")[2].lower()
        self.reading = Reading.of(3 if channels is None else channels, background, value_range)
        self.image_size, self.channels = image_size, channels
        if image_size is not None and channels is not None:
            self.image_shape = (channels, image_size, image_size)
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.augmentation = augment.require_known(augmentation)

    @property
    def store(self) -> TensorStore:
        channels, size = self.channels_and_size(self.channels, self.image_size)
        identity: dict[str, Any] = {
            "train": [self.train, self.train_args],
            "test": [self.test, self.test_args],
            "image_size": size,
            "channels": channels,
        }
        if self.reading.background != "white" or self.reading.value_range is not None:
            identity |= {"background": self.reading.background, "value_range": self.reading.value_range}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:12]
        text = json.loads(json.dumps(identity, default=str))
        return self.tensor_store(f"{self.name}-{digest}", {**text, "rules": RULES}, self._sources())

    def _sources(self) -> list[Path]:
        """What makes the samples, as far as it is known: files of a user's classes, files and folders as arguments."""
        paths = [expanded(value) for value in (*self.train_args.values(), *self.test_args.values()) if _is_path(value)]
        for name in (self.train, self.test):
            if name is not None and not name.startswith("torchvision."):
                with contextlib.suppress(DataError, TypeError, OSError):  # a class that is gone needn't be read again
                    paths.append(Path(inspect.getfile(dataset_class(name))))
        return list(dict.fromkeys(paths))

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        dataset = self._made(self.train, self.train_args, for_training=True)
        shape = self._write_split(writer, "train", dataset, None)
        names = getattr(dataset, "classes", None)  # torchvision's classifications have them
        if self.test is not None or self.has_test_args or {"train", "split"} & arguments_of(dataset_class(self.train)):
            test_set = self._made(self.test or self.train, self.test_args, for_training=False)
            self._write_split(writer, "test", test_set, shape)
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            names = ()
        writer.write("names", np.frombuffer(json.dumps(list(names)).encode(), np.uint8))

    def _made(self, name: str, arguments: dict[str, Any], for_training: bool) -> Any:
        """An object of the data set's class, with what it takes of the usual arguments."""
        made_class = dataset_class(name)
        takes = arguments_of(made_class)
        usual: dict[str, Any] = {"root": str(self.root), "download": True, "train": for_training}
        if "train" not in takes:  # EMNIST has both, and its ``split`` is another thing
            usual["split"] = "train" if for_training else "test"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return made_class(**{key: value for key, value in usual.items() if key in takes} | arguments)
        except Exception as error:  # anything that the class does
            which = "train" if for_training else "test"
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, URLError) or reason.startswith("Error downloading"):
                fault = re.findall("<urlopen error (?:\\[.*?\\] )?(.*?)>", reason)
                raise DataError(
                    f"{name} can't be downloaded ({fault[-1] if fault else reason}): try again with a network, or put "
                    f"its files into {self.root} as its download would leave them."
                ) from error
            raise DataError(
                f"{name} can't be made ({reason}): set --data.{which}_args to what it needs, put its files into "
                f"{self.root}, or choose other data."
            ) from error

    def _write_split(
        self, writer: ArrayWriter, split: str, dataset: Any, shape: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Reads all samples; returns the shape of an image."""
        count = len(dataset)
        if count == 0:
            raise DataError(f"{self.train} has no {split} images: choose other data.")
        labels = np.full(count, UNLABELED, np.int64)
        images = None
        with progress(f"reading {self.name} ({split})", count, " images") as bar:
            for row in range(count):
                image, labels[row] = sample_of(dataset[row], f"Sample {row} of {self.train}")
                try:
                    pixels = self._pixels(image, shape)
                except DataError as error:
                    raise DataError(f"Sample {row} of {self.train}: {error}") from error
                shape = shape or pixels.shape
                if images is None:
                    images = writer.create(f"{split}_image", (count, *shape))
                if pixels.shape != shape:
                    raise DataError(
                        f"Sample {row} of {self.train} has the shape {_shape_text(pixels.shape)}, but another has "
                        f"{_shape_text(shape)} (channels x height x width): set --data.image_size and --data.channels."
                    )
                images[row] = pixels
                bar.update()
        writer.write(f"{split}_label", labels)
        assert shape is not None
        return shape

    def _pixels(self, image: Image.Image, shape: tuple[int, ...] | None) -> np.ndarray:
        """uint8, ``(channels, height, width)``."""
        channels, size = self.channels_and_size(self.channels, self.image_size)
        if channels is None:
            channels = shape[0] if shape is not None else 1 if image.mode in GRAY_MODES else 3
        reading = self.reading._replace(channels=channels)
        if size is None:
            return as_array(as_looked_at(image, reading))
        return central_square(image, size, reading)

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        train = LabeledImages(arrays["train_image"], arrays["train_label"])
        self.image_shape = tuple(train.image.shape[1:])  # type: ignore[assignment]  # of three numbers
        names = json.loads(arrays["names"].numpy().tobytes())
        labels = [column for name, column in arrays.items() if name.endswith("_label")]
        count = max(int(column.max()) for column in labels) + 1
        # A data set may have names of other things than its labels.
        self.class_names = tuple(names if len(names) >= count else map(str, range(count))) if count else ()
        self.num_classes = len(self.class_names)
        present = train.label.unique().tolist()
        if never := [str(number) for number in range(count) if number not in present]:
            note(
                f"No training image of {self.train} has the label {', '.join(never[:3])}{', …' * (len(never) > 3)}; "
                f"labels count from 0 to {count - 1}."
            )
        size = len(train.label)
        has_test = "test_image" in arrays
        if has_test and stage == "fit":
            note_unused_fractions(self.train, {"test_fraction": self.test_fraction})
        sizes = round(self.val_fraction * size), 0 if has_test else round(self.test_fraction * size)
        train_rows, val_rows, test_rows = split_rows(size, size - sum(sizes), *sizes, seed=self.split_seed)
        self.train_set, self.val_set = GatherDataset(train, train_rows), GatherDataset(train, val_rows)
        self.test_set = GatherDataset(train, test_rows)
        if has_test:
            self.test_set = GatherDataset(LabeledImages(arrays["test_image"], arrays["test_label"]))
        self.predict_set = self.test_set

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        """Augments the bytes of training images, and turns all images into floats in [0, 1]."""
        if training:
            batch = self.augment(batch)
        images: LabeledImages = to_unit_interval(batch)
        return images

    def augment(self, batch: LabeledImages) -> LabeledImages:
        """Crops and mirrors images (bytes or floats) and changes their colors at random, each separately."""
        return batch._replace(image=augment.augmented(batch.image, self.augmentation))


def full_name(name: str) -> str:
    """A class's path: a name without a module is one of torchvision's."""
    return name if "." in name else f"torchvision.datasets.{name}"


def dataset_class(name: str) -> type:
    """The class of that path.

    Raises:
        DataError: There is none, or it is no map-style data set.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        known = dir(import_module("torchvision.datasets")) if module == "torchvision.datasets" else []
        guess = difflib.get_close_matches(attribute, known, n=1)
        meant = (
            f"set --data.train to {guess[0]}"
            if guess
            else "set --data.train to MODULE.CLASS, such as mine.Cells of mine.py in the current folder"
        )
        raise DataError(f"There is no data set {name} ({error}): {meant}.") from error
    if not isinstance(found, type) or not hasattr(found, "__getitem__") or not hasattr(found, "__len__"):
        raise DataError(f"{name} isn't a class of data sets with __len__ and __getitem__: set --data.train to one.")
    return found


def arguments_of(made_class: type) -> set[str]:
    """The names of a class's arguments, those included that it hands on to its bases (``**kwargs``)."""
    names: set[str] = set()
    for base in made_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            break
    return names - {"self"}


def sample_of(sample: Any, which: str) -> tuple[Image.Image, int]:
    """The image and the label of a sample; ``UNLABELED`` if it has none.

    Raises:
        DataError: It is neither an image nor an image and a whole number.
    """
    image, label = (sample[0], sample[1]) if isinstance(sample, (tuple, list)) and len(sample) > 1 else (sample, None)
    try:
        return as_picture(image), UNLABELED if label is None else _whole_number(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{which} is {type(sample).__name__} of {type(image).__name__} and {type(label).__name__} ({error}); it "
            "must be an image (Pillow's, or uint8 or floats in [0, 1]) and a whole number."
        ) from error


def as_picture(image: Any) -> Image.Image:
    """Pillow's image of one, of a tensor ``(C, H, W)`` or of an array ``(H, W[, C])``."""
    if isinstance(image, Image.Image):
        return image
    array = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) and image.ndim == 3 else np.asarray(image)
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"values of type {array.dtype}")
        if not (array.min() >= 0 and array.max() <= 1):  # nor numbers that are none
            raise ValueError(f"values from {array.min():g} to {array.max():g}")
        array = (array * 255).round().astype(np.uint8)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] not in (3, 4)):
        raise ValueError(f"the shape {_shape_text(image.shape)}")
    return Image.fromarray(np.ascontiguousarray(array))


def _whole_number(label: Any) -> int:
    number = int(label)
    if number != label or number < UNLABELED:
        raise ValueError(f"the label {label}")
    return number


def _is_path(value: Any) -> bool:
    """Whether an argument names a file or folder, and isn't a word such as ``train``."""
    looks_like_one = isinstance(value, Path) or (isinstance(value, str) and bool(set("/.") & set(value)))
    return looks_like_one and os.path.exists(os.path.expanduser(value))


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
