"""Requests for generated images: the "data" of ``relit predict`` for a generative model."""

from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from datamodules.errors import DataError
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import SequentialBatches


class SampleRequest(NamedTuple):
    """Asks a generative module for images.

    Attributes:
        number: ``(B,)`` int64, the numbers of the images within the whole request.
        label: ``(B,)`` int64 classes to generate; −1 where the model may choose.
        seed: ``(B,)`` int64, all alike: the request's seed.
    """

    number: Tensor
    label: Tensor
    seed: Tensor

    @property
    def labels(self) -> Tensor | None:
        """The classes, or None if none were asked for."""
        return None if bool((self.label < 0).any()) else self.label

    def generator(self) -> torch.Generator:
        """The random generator of this batch: depends on the seed and the batch's place only."""
        return torch.Generator().manual_seed(int(self.seed[0]) * 1_000_003 + int(self.number[0]))


class _Requests:
    def __init__(self, count: int, labels: list[int], seed: int) -> None:
        self.count, self.labels, self.seed = count, labels or [-1], seed

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, number: Tensor) -> SampleRequest:
        labels = torch.tensor(self.labels)
        return SampleRequest(number, labels[number % len(labels)], torch.full_like(number, self.seed))


class Samples(LightningDataModule):
    """Asks a generative model for ``count`` images: ``relit predict --ckpt_path FILE --data Samples --data.count 100``.

    Args:
        count: How many images.
        seed: Seed of their latent vectors; the same seed and batch size give the same images.
        labels: Class to generate, or several to cycle through; only for models with classes.
        batch_size: Images made at once.
    """

    shares_out_batches = True

    def __init__(
        self, count: int = 64, seed: int = 0, labels: int | list[int] | None = None, batch_size: int = 64
    ) -> None:
        super().__init__()
        if count < 1 or batch_size < 1:
            raise DataError(f"count is {count} and batch_size {batch_size}; both must be at least 1.")
        self.labels = [labels] if isinstance(labels, int) else list(labels or ())
        if self.labels and min(self.labels) < 0:
            raise DataError(f"labels holds {min(self.labels)}; classes are numbered from 0 on.")
        self.requests = _Requests(count, self.labels, seed)
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise DataError("Samples can only be predicted from: for anything else choose other --data.")

    def predict_dataloader(self) -> BatchLoader[SampleRequest]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        return BatchLoader(
            self.requests, batch_sampler=SequentialBatches(len(self.requests), self.batch_size, rank, world_size)
        )
