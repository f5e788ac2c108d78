"""What a model without dependencies between pixels achieves: the bar that a generative model's nats have to clear."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import ImageDataModule
from lit_models.losses.precision import in_float64
from lit_models.support.abilities import require_image_data
from lit_models.support.ranks import batch_weight

LEVELS = 256
CHUNK = 1000
"""Training images counted at once."""


class HistogramBaseline(Callback):
    """Logs ``test/nats_histogram``: −log P(x) of the test images if all values were independent.

    Each value's distribution is the histogram of the training images at its place, with one count added to each of 256
    gray levels, or of 2 for binary images. A model whose ``test/nats`` are higher is not worth reporting.
    """

    def __init__(self) -> None:
        self._log_probability = torch.empty(0)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule = require_image_data(self, trainer)
        counts = training_histogram(datamodule, pl_module.device).cpu()  # Apple's GPUs have no float64
        self._log_probability = histogram_log_probability(counts).to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        nats = histogram_nats(batch.image, self._log_probability).mean()
        size = batch_weight(len(batch.image))
        pl_module.log("test/nats_histogram", nats, batch_size=size, sync_dist=True)


def training_histogram(datamodule: ImageDataModule, device: torch.device) -> Tensor:
    """How many training images, as the model gets them, have each level at each place, ``(values, LEVELS)``."""
    images = datamodule.train_set
    values = torch.Size(datamodule.image_shape).numel()
    counts = torch.zeros(values * LEVELS, dtype=torch.long, device=device)
    place = torch.arange(values, device=device) * LEVELS
    for rows in torch.arange(len(images)).split(CHUNK):
        batch = datamodule.transform(type(images.columns)(*(c.to(device) for c in images.__getitems__(rows))), True)
        counts += (levels(batch.image) + place).flatten().bincount(minlength=len(counts))
    return counts.view(values, LEVELS)


def histogram_log_probability(counts: Tensor) -> Tensor:
    """log P of each level at each place, ``(values, LEVELS)`` in nats, from their counts, with one added to each.

    Of binary images, 0 and LEVELS − 1 are the only levels.
    """
    smoothed = in_float64(counts) + 1
    if not counts[:, 1:-1].any():
        smoothed[:, 1:-1] = 0
    return (smoothed / smoothed.sum(1, keepdim=True)).log().float().to(counts.device)


def histogram_nats(image: Tensor, log_probability: Tensor) -> Tensor:
    """−log P(x), ``(N,)`` in nats, of images ``(N, C, H, W)`` in [0, 1] with independent values."""
    return -log_probability.gather(1, levels(image).T).sum(0)


def levels(image: Tensor) -> Tensor:
    """The gray levels 0..255 of images in [0, 1], ``(N, values)``."""
    return (image.float() * (LEVELS - 1)).round().long().flatten(1)
