"""Architecture search: for each step a batch for the weights and a batch for the architecture, of any data module."""

from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor

from datamodules.base import ImageDataModule, prepare_images, run_seed, set_up_images
from datamodules.errors import DataError
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import BatchSampler, ShuffledBatches, share_of
from datamodules.loading.tensors import GatherDataset, LabeledImages, SearchBatch


class PairedBatches:
    """Draws each batch's rows in two data sets: an epoch is one of the first, and the second goes on from one epoch to
    the next, over and over, so that all of its rows have their turn whatever the sizes.

    A batch's indices are ``(2, B)``.

    Args:
        first: Draws the rows of the first data set.
        second: Draws the rows of the second.
    """

    def __init__(self, first: BatchSampler, second: BatchSampler) -> None:
        self.first, self.second = first, second
        self.share = share_of(first)

    def __len__(self) -> int:
        return len(self.first)

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The batches of one epoch, a function of nothing but its number."""
        passes, used = divmod(epoch * len(self.first), len(self.second))
        second = chain.from_iterable(self.second.epoch(number) for number in count(passes))
        for rows in zip(self.first.epoch(epoch), islice(second, used, None), strict=False):
            yield torch.stack(rows)


class PairedDataset:
    """Gathers the two batches that :class:`PairedBatches` drew."""

    def __init__(self, train: GatherDataset[LabeledImages], val: GatherDataset[LabeledImages]) -> None:
        self.train, self.val = train, val

    def __getitems__(self, indices: Tensor) -> SearchBatch:
        return SearchBatch(self.train.__getitems__(indices[0]), self.val.__getitems__(indices[1]))


class SearchDataModule(ImageDataModule):
    """Batches for an architecture search (Liu et al. 2019): the weights learn from the training images of another data
    module, the architecture from its validation images, which also tell the accuracy after each epoch.

    For CIFAR-10 the paper takes half of the training images for each (``val_fraction: 0.5`` of the data module). An
    epoch is one of the weights' images; the architecture's are drawn with them, over and over.

    Args:
        images: The data module of the labeled images. What it does to training images at random, it does to those of
            the weights.
        batch_size: Images in each of the two batches of one process.
        eval_batch_size: Images in a validation or test batch of one process; if None, ``batch_size``.
        augment_val: Change the architecture's images at random, too, as the authors' code does.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    def __init__(
        self,
        images: ImageDataModule,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        augment_val: bool = False,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(str(images.root), batch_size, eval_batch_size, on_device)
        self.images = images
        self.augment_val = augment_val
        self.name, self.inverted = images.name, images.inverted
        self.image_shape = images.image_shape

    def prepare_data(self) -> None:
        prepare_images(self, self.images)

    def setup(self, stage: str) -> None:
        set_up_images(self, self.images, stage)
        self.image_shape = self.images.image_shape
        self.num_classes, self.class_names = self.images.num_classes, self.images.class_names
        self.train_set, self.val_set = self.images.train_set, self.images.val_set
        self.test_set, self.predict_set = self.images.test_set, self.images.predict_set
        if len(self.val_set) == 0:
            raise DataError(
                f"{type(self.images).__name__} has no validation images, from which the architecture could learn: set "
                "--data.images.val_fraction 0.5."
            )
        if (self.val_set.column("label") < 0).any():
            raise DataError(f"{type(self.images).__name__} gives validation images without labels; choose other data.")
        self.train_batches()  # impossible batch sizes are refused now

    def train_batches(self) -> PairedBatches:
        place = self._rank_and_world_size()
        seeds = (2 * run_seed(), 2 * run_seed() + 1)
        halves = (self.train_set, self.val_set)
        return PairedBatches(
            *(
                ShuffledBatches(len(half), self.batch_size, seed, *place)
                for half, seed in zip(halves, seeds, strict=True)
            )
        )

    def train_dataloader(self) -> BatchLoader[Any]:
        dataset = PairedDataset(self._placed(self.train_set), self._placed(self.val_set))
        return self.training_loader(dataset)

    def transform(self, batch: SearchBatch | LabeledImages, training: bool) -> SearchBatch | LabeledImages:
        """Turns uint8 images into floats in [0, 1]; augments those of the weights in training."""
        if isinstance(batch, SearchBatch):
            train = self.images.transform(batch.train, training)
            return SearchBatch(train, self.images.transform(batch.val, training and self.augment_val))
        images: LabeledImages = self.images.transform(batch, training)
        return images
