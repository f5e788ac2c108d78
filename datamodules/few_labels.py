"""Learning from a handful of labels: the first images of any other data module, and folds to validate with them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.base import ImageDataModule, prepare_images, run_seed, set_up_images
from datamodules.errors import DataError, note
from datamodules.loading.augment import random_affine
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import ShuffledBatches
from datamodules.loading.tensors import GatherDataset, LabeledImages


class FoldedImages(NamedTuple):
    """A batch of images with their classes and folds.

    Attributes:
        image: ``(B, C, H, W)``; uint8 in 0..255 as stored, float32 in [0, 1] once it reaches ``training_step``.
        label: ``(B,)``, int64 in ``0 .. num_classes - 1``.
        fold: ``(B,)``, int64 in ``0 .. folds - 1``: the fold that holds the image out.
    """

    image: Tensor
    label: Tensor
    fold: Tensor


class FewLabels(ImageDataModule):
    """The first ``count`` labeled images that another data module doesn't keep for testing; they are all that there is
    for training *and* validation. The test split is the other data module's.

    The first images are those in the order of the data set's files. Where the files are sorted by class, or the first
    ones lack a class, they are dealt out by class, with a note: the first image of each class, then the second, …

    The images are dealt out into folds with the same share of each class, as far as the numbers go. A model that is
    trained on all folds but one can be validated on that one: that costs no image, and no label but these
    (see :class:`lit_models.transfer_classifier.TransferClassifier`). ``val_set`` is ``train_set`` without augmentation.

    Args:
        images: The data module of the labeled images, for example ``MNIST``. Its augmentation is not used.
        count: How many images.
        folds: How many folds.
        repeats: How often an epoch goes through the images, augmented differently each time.
        batch_size: Images in a training batch of one process; if None, ``count`` (shared out over the processes).
        eval_batch_size: Images in an evaluation batch of one process.
        max_rotation: Augmentation: largest angle by which a training image is turned, in degrees.
        max_translation: Augmentation: largest shift, as a share of the image's size.
        max_scaling: Augmentation: largest change of the size; factors from 1 − this to 1 + this.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    def __init__(
        self,
        images: ImageDataModule,
        count: int = 50,
        folds: int = 4,
        repeats: int = 20,
        batch_size: int | None = None,
        eval_batch_size: int = 1000,
        max_rotation: float = 0.0,
        max_translation: float = 0.0,
        max_scaling: float = 0.0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(str(images.root), batch_size or count, eval_batch_size, on_device)
        if not 2 <= folds <= count or repeats < 1:
            raise DataError(
                f"count is {count}, folds {folds} and repeats {repeats}; there must be at least 2 folds, an image for "
                "each of them, and 1 repeat."
            )
        self.images = images
        self.name = images.name
        self.image_shape = images.image_shape
        self.inverted = images.inverted
        self.num_classes, self.class_names = images.num_classes, images.class_names
        self.count, self.folds, self.repeats = count, folds, repeats
        self.share_out = batch_size is None
        self.max_rotation, self.max_translation, self.max_scaling = max_rotation, max_translation, max_scaling

    def prepare_data(self) -> None:
        prepare_images(self, self.images)

    def setup(self, stage: str) -> None:
        set_up_images(self, self.images, stage)
        self.image_shape = self.images.image_shape
        self.num_classes, self.class_names = self.images.num_classes, self.images.class_names
        self.test_set, self.predict_set = self.images.test_set, self.images.predict_set
        chosen = first_rows(self.images.train_set, self.images.val_set, self.count, self.images.name)
        image, label = (column[chosen] for column in self.images.train_set.columns)
        self.train_set = self.val_set = GatherDataset(FoldedImages(image, label, dealt_out(label, self.folds)))

    def train_batches(self) -> ShuffledBatches:
        rank, world_size = self._rank_and_world_size()
        size = self.batch_size // world_size if self.share_out else self.batch_size
        return ShuffledBatches(self.count * self.repeats, size, run_seed(), rank, world_size)

    def train_dataloader(self) -> BatchLoader[Any]:
        rows = torch.arange(self.count).repeat(self.repeats)
        return self.training_loader(self._placed(GatherDataset(self.train_set.columns, rows)))

    def augment(self, batch: FoldedImages) -> FoldedImages:
        """Turns, shifts and resizes the images at random, by as much as the arguments say."""
        if not (self.max_rotation or self.max_translation or self.max_scaling):
            return batch
        scale = (1 - self.max_scaling, 1 + self.max_scaling)
        image = random_affine(batch.image, self.max_rotation, self.max_translation, scale)
        return batch._replace(image=image)


def first_rows(
    train_set: GatherDataset[LabeledImages], val_set: GatherDataset[LabeledImages], count: int, name: str = "the data"
) -> Tensor:
    """The first ``count`` labeled rows for training or (if drawn from the same files) validation: in the order of the
    files, or by class if that order would leave a class out, or is an order by class.

    Raises:
        DataError: There are too few, or too few for one of each class.
    """
    splits = [train_set]
    if val_set.columns.image.data_ptr() == train_set.columns.image.data_ptr():
        splits.append(val_set)
    rows = [torch.arange(len(split)) if split.rows is None else split.rows for split in splits]
    ordered = torch.cat(rows).unique()  # sorts
    label = train_set.columns.label[ordered]
    ordered, label = ordered[label >= 0], label[label >= 0]
    if len(ordered) < count:
        raise DataError(f"count is {count}, but there are {len(ordered)} images: set --data.count to that or less.")
    classes = label.unique()
    if count < len(classes):
        raise DataError(
            f"{count} images can't be of all {len(classes)} classes of {name}: set --data.count to {len(classes)} or "
            "more, or choose data of fewer classes."
        )
    is_sorted = len(classes) > 1 and bool((label.diff() >= 0).all())
    if not is_sorted and len(label[:count].unique()) == len(classes):
        first: Tensor = ordered[:count]
        return first
    note(f"The first {count} images of {name} aren't of all classes alike: they are dealt out by class.")
    chosen: Tensor = ordered[one_of_each_class_first(label)[:count].sort().values]
    return chosen


def one_of_each_class_first(label: Tensor) -> Tensor:
    """Places of the first image of each class, then of the second of each that has two, and so on.

    Example:
        >>> one_of_each_class_first(torch.tensor([0, 0, 0, 1, 1, 2])).tolist()
        [0, 3, 5, 1, 4, 2]
    """
    by_class = label.argsort(stable=True)
    counts = label.bincount()
    first = (counts.cumsum(0) - counts)[label[by_class]]
    turn = torch.arange(len(label)) - first
    return by_class[turn.argsort(stable=True)]


def dealt_out(label: Tensor, folds: int) -> Tensor:
    """The fold of each image: those of one class are dealt out in turns, then those of the next."""
    fold = torch.empty_like(label)
    fold[label.argsort(stable=True)] = torch.arange(len(label)) % folds
    return fold
