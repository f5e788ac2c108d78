"""Retrieval on unseen classes: a split by class of the labeled images of any other data module."""

from typing import Any

from datamodules.base import ImageDataModule, prepare_images, set_up_images
from datamodules.errors import DataError
from datamodules.loading.tensors import GatherDataset, LabeledImages


class UnseenClasses(ImageDataModule):
    """Trains on some classes of another data module, and validates and tests on others, as is usual for retrieval
    (Musgrave, Belongie & Lim 2020, https://arxiv.org/abs/2003.08505).

    Classes are taken in the order of their labels: first those for training, then those for validation, and the rest
    for the test. Their images are those of the other data module's training, validation and test split.

    Args:
        images: The data module of the labeled images, for example ``TinyImageNet``. Its augmentation is used.
        train_classes: Classes for training; by default 40 % of all.
        val_classes: Classes for validation; by default 10 % of all, at least 1.
        batch_size: Images in a training batch of one process, unless ``classes_per_batch`` is given.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        classes_per_batch: P, for training batches of P classes with K images each; random batches if None.
        samples_per_class: K.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    unseen = True
    """Validation and test images are of classes that aren't trained on."""

    def __init__(
        self,
        images: ImageDataModule,
        train_classes: int | None = None,
        val_classes: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        classes_per_batch: int | None = None,
        samples_per_class: int = 4,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(str(images.root), batch_size, eval_batch_size, on_device)
        self.images = images
        self.name, self.inverted = images.name, images.inverted
        self.image_shape = images.image_shape
        self.train_classes, self.val_classes = train_classes, val_classes
        self.classes_per_batch, self.samples_per_class = classes_per_batch, samples_per_class

    def prepare_data(self) -> None:
        prepare_images(self, self.images)

    def setup(self, stage: str) -> None:
        set_up_images(self, self.images, stage)
        self.image_shape = self.images.image_shape
        classes = self.images.num_classes
        train = round(0.4 * classes) if self.train_classes is None else self.train_classes
        val = max(1, round(0.1 * classes)) if self.val_classes is None else self.val_classes
        if train < 2 or val < 1 or train + val >= classes:
            raise DataError(
                f"train_classes is {train} and val_classes {val}; of {classes} classes at least 2 are for training, 1 "
                "is for validation and 1 for the test."
            )
        self.num_classes, self.class_names = train, tuple(self.images.class_names[:train])
        self.train_set = _of_classes(self.images.train_set, 0, train)
        self.val_set = _of_classes(self.images.val_set, train, train + val)
        self.test_set = self.predict_set = _of_classes(self.images.test_set, train + val, classes)

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        images: LabeledImages = self.images.transform(batch, training)
        return images


def _of_classes(split: GatherDataset[Any], first: int, end: int) -> GatherDataset[Any]:
    """The rows of a split whose labels are in ``first .. end - 1``."""
    label = split.column("label")
    chosen = ((label >= first) & (label < end)).nonzero().flatten()
    if not len(chosen):
        raise DataError(f"No image is of the classes {first} to {end - 1}: set --data.train_classes or val_classes.")
    return GatherDataset(split.columns, chosen if split.rows is None else split.rows[chosen])
