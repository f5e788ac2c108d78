"""What all data modules share: where files lie, how batches reach the model, and the loaders.

A data module says in ``prepare_data`` how its source files become arrays, in ``setup`` which rows make up each split,
and if it likes in ``augment`` what happens to training batches. Everything else is here.
"""

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules.errors import DataError, note
from datamodules.loading.loaders import BatchLoader, BatchSource
from datamodules.loading.paths import expanded, user_cache
from datamodules.loading.samplers import BatchSampler, ClassBalancedBatches, SequentialBatches, ShuffledBatches
from datamodules.loading.tensors import Codes, GatherDataset, LabeledImages, TensorStore

SANITY_IMAGES = 2
"""Images of each batch of the sanity check, which shows that validation works before a training waits for it."""
DRAWN = 0.1
"""Share of the training images that is drawn for validation, and for testing, if none is given."""


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root`` if given, else ``$RELIT_DATA``, else the user's cache folder."""
    return expanded(root or os.environ.get("RELIT_DATA") or user_cache())


def arrays_in_cache(root: Path) -> Path:
    """The user's folder for arrays of data sets below a root that may only be read."""
    return user_cache() / "prepared" / hashlib.sha256(os.fsencode(root)).hexdigest()[:12]


def run_seed() -> int:
    """The seed that Lightning's ``seed_everything`` gave to this run (and to all its ranks); 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def split_rows(size: int, *sizes: int, seed: int) -> list[Tensor]:
    """Random disjoint splits of ``range(size)`` of the given sizes, always the same for one seed.

    Example:
        >>> [len(rows) for rows in split_rows(10, 7, 3, seed=0)]
        [7, 3]
    """
    if sum(sizes) > size:
        raise DataError(f"Splits of {', '.join(map(str, sizes))} rows can't be taken from {size} rows.")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return list(order.split([*sizes, size - sum(sizes)])[: len(sizes)])


def note_unused_fractions(source: object, fractions: Mapping[str, float]) -> None:
    """Says which shares have no effect, as ``source`` has images for these splits; the default isn't remarked on."""
    for name, fraction in fractions.items():
        if fraction not in (0, DRAWN):
            note(f"--data.{name} has no effect: {source} has a split of these images.")


@runtime_checkable
class HasImageShape(Protocol):
    """A model that was built for images of ``(channels, height, width)``."""

    image_shape: tuple[int, int, int]


@runtime_checkable
class LearnsClasses(Protocol):
    """A model of so many classes, 0 for none."""

    num_classes: int


@runtime_checkable
class TakesPairs(Protocol):
    """A model that takes sources and targets, of so many channels each."""

    @property
    def pair_channels(self) -> tuple[int, int]: ...


class ImageDataModule(LightningDataModule):
    """Base of all data modules: uint8 tensors in, batches of float images in [0, 1] on the model's device out.

    Attributes:
        name: The data set's folder below the data root.
        image_shape: ``(channels, height, width)`` of the images that the model gets; zeros before it is known.
        num_classes: Number of classes; 0 if the data set has none.
        class_names: The classes' names by label.
        inverted: Whether dark strokes on light paper are given as light on dark (1 for ink), so that a model has to
            see other pictures inverted, too.
        train_set, val_set, test_set, predict_set: The splits, after ``setup``.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in a validation, test or prediction batch of one process; if None, ``batch_size``.
        on_device: Hold the data set in the accelerator's memory. If None, it is held there when it takes at most
            a quarter of the memory that is free.
        classes_per_batch: P of a batch of P classes x K images; None for batches drawn without regard to the class.
        samples_per_class: K of such a batch.
    """

    shares_out_batches = True
    """Whether the loaders give each process its own batches, so that Lightning mustn't share them out again."""

    name: str
    image_shape: tuple[int, int, int] = (0, 0, 0)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    inverted: bool = False
    train_set: GatherDataset[Any]
    val_set: GatherDataset[Any]
    test_set: GatherDataset[Any]
    predict_set: GatherDataset[Any]

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        on_device: bool | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int | None = None,
    ) -> None:
        super().__init__()
        if (classes_per_batch is None) != (samples_per_class is None):
            raise DataError("Set --data.classes_per_batch and --data.samples_per_class both, or neither.")
        self.root = data_root(root)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.on_device = on_device
        self.classes_per_batch, self.samples_per_class = classes_per_batch, samples_per_class

    @property
    def tiles_of_an_image(self) -> int:
        """Windows into which an image is cut for evaluation; they follow each other in a split."""
        return 1

    @property
    def folder(self) -> Path:
        """Where this data set's source files lie or are downloaded to."""
        return self.root / self.name

    @property
    def prepared_folder(self) -> Path:
        """Where this data set's arrays are written, if the data root may be written to."""
        return self.folder / "prepared"

    def tensor_store(self, name: str, identity: Mapping[str, Any], sources: Iterable[Path] = ()) -> TensorStore:
        """The arrays of this name, next to the source files; in the user's cache folder if they aren't there already
        and may not be written there (among a cluster's shared data sets, for example).

        Args:
            name: Their folder's name.
            identity: See :class:`datamodules.loading.tensors.TensorStore`.
            sources: Files whose change makes the arrays stale.
        """
        sources = tuple(sources)
        store = TensorStore(self.prepared_folder / name, identity, sources)
        if store.may_be_written() or store.is_current():
            return store
        return TensorStore(arrays_in_cache(self.root) / self.name / name, identity, sources)

    def reorder_classes(self, class_names: Sequence[str]) -> None:
        """Gives the classes, after ``setup``, the labels that their names have in ``class_names``."""
        places = {unicodedata.normalize("NFC", name): place for place, name in enumerate(class_names)}
        new = torch.tensor([places[unicodedata.normalize("NFC", name)] for name in self.class_names])
        for split in ("train_set", "val_set", "test_set", "predict_set"):
            images = vars(self).get(split)
            if isinstance(images, GatherDataset) and "label" in images.columns._fields:
                label = images.columns.label
                is_named = (label >= 0) & (label < len(new))  # not unlabeled, and no class that isn't trained on
                relabeled = torch.where(is_named, new[label.clamp(0, len(new) - 1)], label)
                columns = images.columns._replace(label=relabeled)
                setattr(self, split, type(images)(columns, images.rows))
        self.class_names = tuple(class_names)

    def channels_and_size(self, channels: int | None, size: int | None) -> tuple[int | None, int | None]:
        """What is given, or else the channels and the size of the model's images; None for what isn't known."""
        model = self.model_in_training
        shape = model.image_shape if isinstance(model, HasImageShape) else (None, None)
        return channels or shape[0], size or shape[1]

    @property
    def model_in_training(self) -> LightningModule | None:
        """The trainer's model; None without one."""
        return self.trainer.lightning_module if isinstance(self.trainer, Trainer) else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes of a batch of images what the model gets; a method's own codes are left alone."""
        if isinstance(batch, Codes):
            return batch
        if isinstance(self.trainer, Trainer) and self.trainer.sanity_checking:
            batch = first_of(batch, SANITY_IMAGES)
        training = self.trainer is not None and self.trainer.training
        return in_precision(self.trainer, self.transform(batch, training))

    def transform(self, batch: Any, training: bool) -> Any:
        """Turns uint8 images into floats in [0, 1], on the device; augments them if they are for training."""
        batch = to_unit_interval(batch)
        return self.augment(batch) if training else batch

    def augment(self, batch: Any) -> Any:
        """Changes a training batch (float images in [0, 1], on the device) at random; by default it doesn't."""
        return batch

    def train_batches(self) -> BatchSampler:
        """The training split's sampler; override for episodes."""
        if self.classes_per_batch is not None and self.samples_per_class is not None:
            labels, place = self.train_set.column("label"), self._rank_and_world_size()
            if (labels < 0).any():
                raise DataError("Batches of P classes x K images need a label on each: leave unlabeled images out.")
            return ClassBalancedBatches(labels, self.classes_per_batch, self.samples_per_class, run_seed(), *place)
        return ShuffledBatches(len(self.train_set), self.batch_size, run_seed(), *self._rank_and_world_size())

    def train_dataloader(self) -> BatchLoader[Any]:
        self._require_validation()
        return self.training_loader(self._placed(self.train_set))

    def training_loader(self, dataset: BatchSource[Any]) -> BatchLoader[Any]:
        """Draws from a data set by :meth:`train_batches`; with ``overfit_batches`` the same batches in every epoch."""
        try:
            batches = self.train_batches()
        except DataError as error:
            callbacks = () if self.trainer is None else vars(self.trainer).get("callbacks", ())
            if not any(isinstance(callback, BatchSizeFinder) for callback in callbacks):
                raise
            raise DataError(
                f"BatchSizeFinder has come to a batch_size of {self.batch_size}, for which {type(self).__name__} has "
                "too few images: set its max_val to half of that or less."
            ) from error
        loader: BatchLoader[Any] = BatchLoader(dataset, batch_sampler=batches)
        # Lightning's class doesn't declare it.
        loader.same_every_epoch = self.trainer is not None and bool(vars(self.trainer).get("overfit_batches"))
        return loader

    def val_dataloader(self) -> BatchLoader[Any]:
        return self.eval_dataloader(self.val_set)

    def test_dataloader(self) -> BatchLoader[Any]:
        return self.eval_dataloader(self.test_set)

    def predict_dataloader(self) -> BatchLoader[Any]:
        return self.eval_dataloader(self.predict_set)

    def eval_dataloader(self, dataset: GatherDataset[Any]) -> BatchLoader[Any]:
        """Goes once through this process's share of a split, in order."""
        self._require_enough(len(dataset))
        sampler = SequentialBatches(len(dataset), self.eval_batch_size, *self._rank_and_world_size())
        return BatchLoader(self._placed(dataset), batch_sampler=sampler)

    def _require_validation(self) -> None:
        """Refuses a training that waits for a validation metric without validation images, and notes that there are
        none where some were to be drawn."""
        if self.trainer is None or "val_set" not in vars(self) or len(self.val_set):
            return
        for callback in vars(self.trainer).get("callbacks", ()):  # which Lightning's class doesn't declare
            monitor = getattr(callback, "monitor", None)  # any callback may have one
            if isinstance(monitor, str) and monitor.startswith("val/"):
                remedy = self._remedy("val_fraction")
                raise DataError(
                    f"{type(callback).__name__} waits for {monitor}, but {type(self).__name__} has no validation "
                    f"images: {remedy}, or set the monitor to null or to a training metric."
                )
        if vars(self).get("val_fraction"):
            note(f"{type(self).__name__} has no validation images, as it has too few: {self._remedy('val_fraction')}.")

    def _require_enough(self, size: int) -> None:
        """Refuses an evaluation of nothing, or of fewer images than there are processes."""
        if self.trainer is None:
            return
        stage, processes = self.trainer.state.fn, self.trainer.world_size
        splits = {TrainerFn.TESTING: "test", TrainerFn.PREDICTING: "prediction"}
        split = splits.get(stage, "validation") if stage is not None else "validation"
        if size == 0 and split != "validation":
            remedy = self._remedy("test_fraction")
            raise DataError(f"{type(self).__name__} has no {split} images: {remedy}.")
        if 0 < size < processes:
            raise DataError(
                f"{type(self).__name__} has {size} {split} image{'s' * (size > 1)}, fewer than the {processes} "
                f"processes: give it more images, or set --trainer.devices to {size} or less."
            )

    def _remedy(self, argument: str) -> str:
        settable = argument in signature(type(self)).parameters
        return f"raise --data.{argument}" if settable else "choose other data"

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():  # in a loop without Lightning
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _placed(self, dataset: GatherDataset[Any]) -> GatherDataset[Any]:
        """The data set on the trainer's device if it should be held there."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        if device.type != "cuda" or self.on_device is False:
            return dataset
        size = sum(column.numel() * column.element_size() for column in dataset.columns)
        if self.on_device or size <= torch.cuda.mem_get_info(device)[0] // 4:
            return dataset.to(device)
        return dataset


def prepare_images(datamodule: ImageDataModule, images: ImageDataModule) -> None:
    """Prepares the data module that another one is made of."""
    images.trainer = datamodule.trainer
    with _options_of_images(datamodule):
        images.prepare_data()


def set_up_images(datamodule: ImageDataModule, images: ImageDataModule, stage: str) -> None:
    """Sets up the data module that another one is made of.

    Raises:
        DataError: It gives pairs or episodes in place of labeled images.
    """
    images.trainer = datamodule.trainer  # whose model they may be made for
    with _options_of_images(datamodule):
        images.setup(stage)
    if not isinstance(images.train_set.columns, LabeledImages):
        raise DataError(
            f"{type(datamodule).__name__} is made of labeled images, which {type(images).__name__} doesn't give: set "
            "--data.images to other data."
        )


@contextmanager
def _options_of_images(datamodule: ImageDataModule) -> Iterator[None]:
    """Within the block, errors and notes name options as they are typed: ``--data.images.path``, not ``--data.path``,
    where ``datamodule`` takes other images as an argument."""
    if "images" not in signature(type(datamodule)).parameters:
        yield
        return
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    except DataError as error:
        raise DataError(_of_images(str(error))) from error
    finally:
        for one in caught:
            warnings.warn_explicit(_of_images(str(one.message)), one.category, one.filename, one.lineno)


def _of_images(text: str) -> str:
    return text.replace("--data.", "--data.images.")


def first_of(batch: Any, count: int) -> Any:
    """The batch, or batch of batches, with the first ``count`` entries of every tensor."""
    if isinstance(batch, tuple):
        return type(batch)(*(first_of(part, count) for part in batch))
    return batch[:count] if isinstance(batch, Tensor) else batch


def to_unit_interval(batch: Any) -> Any:
    """The batch, or batch of batches, with every uint8 tensor turned into float32 in [0, 1] (255 becomes 1)."""
    if isinstance(batch, Tensor):
        # In place on the fresh copy: `batch / 255` allocates twice, which may cost ten times what the arithmetic does.
        return batch.float().div_(255) if batch.dtype == torch.uint8 else batch
    return type(batch)(*map(to_unit_interval, batch)) if isinstance(batch, tuple) else batch


def in_precision(trainer: Trainer | None, batch: Any) -> Any:
    """The batch with its floats in the precision of the trainer's module. (Lightning converts a batch earlier, when its
    images are still uint8.)"""
    return batch if trainer is None else trainer.precision_plugin.convert_input(batch)
