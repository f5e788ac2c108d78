"""DARTS's second half (Liu, Simonyan & Yang 2019, https://arxiv.org/abs/1806.09055, section 3.2): the network that is
built of the cells that a search found, trained from scratch.

A cell's node is the sum of two operations, each of one state before it; a network is a stem, 20 cells of which those at
a third and at two thirds of the depth are reduction cells, and a linear classifier. Three things regularize it: a
second, auxiliary classifier at two thirds of the depth, whose loss is added with a small weight; "drop-path" (Larsson
et al. 2017, Zoph et al. 2018), which leaves out whole operations for a random part of the images, the more the longer
the training has lasted; and cutout, which is the data module's.

Differences from the paper and the authors' code (https://github.com/quark0/darts):

1. The auxiliary classifier takes the mean over the places that its last convolution leaves, so that images may be
   larger than 32x32; of those, it leaves one.
2. Images are in [0, 1], not normalized to the mean and deviation of the training images.
3. Each epoch leaves out the images that don't fill a batch. The authors' code takes the smaller batch.
4. The scales of batch normalization start at 1. The PyTorch of the authors' code (0.3.1) draws them from [0, 1).
5. A run is one training. The paper reports the mean of ten; ``--repeats 10`` of ``darts_selection.py`` makes them.
6. ``darts_retrain_cifar10_small`` has neither drop-path nor cutout, and holds out a tenth of the training images, by
   which it chooses the epoch. The configuration of the paper's size trains on all 50,000 and keeps the last epoch.
7. The gradient is clipped at a norm of 5, as in the authors' code. The paper doesn't mention it.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics import MeanMetric

from datamodules import LabeledImages
from lit_models.darts.genotype import read_genotype
from lit_models.darts.network import DerivedNetwork
from lit_models.errors import ModelError
from lit_models.module import Export
from lit_models.support.checks import (
    require_at_least,
    require_fraction,
    require_planned_epochs,
    require_several_images,
)
from lit_models.support.classes import Classifier


class DARTSRetrain(Classifier):
    """Trains a network of cells that a search found, from scratch (Liu et al. 2019, section 3.2).

    Logged: ``train/loss`` for each batch, ``train/accuracy`` for each epoch; ``loss`` and ``accuracy`` below ``val/``
    and ``test/``; ``learning_rate`` and ``drop_path`` for each epoch.

    Args:
        genotype: The cells: "DARTS_V1" or "DARTS_V2" (those of the paper's first- and second-order search), "random",
            or the path of the ``genotype.json`` that a search wrote (or what such a file holds).
        genotype_seed: Seed of the cells if ``genotype`` is "random".
        image_size: Height and width of the images, divisible by 4.
        channels: Channels of the images: 1 for gray, 3 for color.
        num_classes: Number of classes.
        init_channels: Channels of each node in the first cells; each of the two reduction cells doubles them.
        layers: Number of cells.
        epochs: Epochs of the training, over which the learning rate falls and drop-path rises; ``trainer.max_epochs``
            unless a smaller one is given, to stop early.
        auxiliary_weight: Weight of the auxiliary classifier's loss; 0 for no such classifier.
        drop_path: Probability of leaving out an operation at the end of the training; it rises linearly from 0.
        optimizer: Optimizer of all parameters. Its learning rate falls to 0 along half a cosine.
        gradient_clip_norm: Largest norm of the gradient; larger ones are scaled down.
    """

    exports = (Export("classifier", "forward", ("image",), "logits"),)
    training_callbacks = ("CellFigures",)

    drop_path_probability: Tensor

    def __init__(
        self,
        genotype: str = "DARTS_V2",
        genotype_seed: int = 0,
        image_size: int = 32,
        channels: int = 3,
        num_classes: int = 10,
        init_channels: int = 36,
        layers: int = 20,
        epochs: int = 600,
        auxiliary_weight: float = 0.4,
        drop_path: float = 0.2,
        optimizer: OptimizerCallable = lambda p: SGD(p, lr=0.025, momentum=0.9, weight_decay=3e-4),
        gradient_clip_norm: float = 5.0,
    ) -> None:
        if image_size < 4 or image_size % 4:
            raise ModelError(f"image_size is {image_size}; two halvings need a multiple of 4.")
        if auxiliary_weight < 0:
            raise ModelError(f"auxiliary_weight is {auxiliary_weight}; it must be at least 0.")
        if auxiliary_weight and image_size < 32:
            raise ModelError(
                f"image_size is {image_size}; the auxiliary classifier needs at least 32: set auxiliary_weight to 0, "
                "or choose larger images."
            )
        require_fraction(drop_path=drop_path)
        require_at_least(1, channels=channels, init_channels=init_channels, epochs=epochs)
        require_at_least(2, num_classes=num_classes)
        require_at_least(3, layers=layers)
        if gradient_clip_norm <= 0:
            raise ModelError(f"gradient_clip_norm is {gradient_clip_norm}; it must be positive.")
        super().__init__()
        self.cells = read_genotype(genotype, genotype_seed)
        genotype = self.cells.to_json()  # so that a checkpoint can be loaded where the file isn't
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.epochs, self.auxiliary_weight, self.drop_path = epochs, auxiliary_weight, drop_path
        self.optimizer_callable = optimizer
        self.gradient_clip_norm = gradient_clip_norm
        self.network = DerivedNetwork(self.cells, channels, num_classes, init_channels, layers, auxiliary_weight > 0)
        self.train_accuracy = MeanMetric(nan_strategy="disable")
        # A tensor, so that compiled networks needn't be compiled again when it rises.
        self.register_buffer("drop_path_probability", torch.zeros(()), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of images ``(N, C, H, W)`` in [0, 1]."""
        return self.network(image)[0]

    @property
    def planned_epochs(self) -> int:
        """Epochs of the whole training."""
        return self.epochs

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.auxiliary_weight:  # whose last normalization sees a single pixel of small images
            require_several_images(self)
        if stage == "fit":
            require_planned_epochs(self, self.epochs)

    def on_train_start(self) -> None:
        self._raise_drop_path()  # a run that is resumed within an epoch gets no on_train_epoch_start

    def on_train_epoch_start(self) -> None:
        self._raise_drop_path()

    def _raise_drop_path(self) -> None:
        self.drop_path_probability.fill_(self.drop_path * self.current_epoch / self.epochs)

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        logits, auxiliary_logits = self.network(batch.image, self.drop_path_probability if self.drop_path else None)
        loss = functional.cross_entropy(logits.float(), batch.label)
        self.train_accuracy.update((logits.argmax(1) == batch.label).float())
        self.log("train/loss", loss.detach(), prog_bar=True)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({"learning_rate": rate, "drop_path": self.drop_path_probability})
        if auxiliary_logits is None:
            return loss
        return loss + self.auxiliary_weight * functional.cross_entropy(auxiliary_logits.float(), batch.label)

    def on_train_epoch_end(self) -> None:
        self.log("train/accuracy", self.train_accuracy.compute())
        self.train_accuracy.reset()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val or self.gradient_clip_norm, gradient_clip_algorithm or "norm")

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_callable(self.network.parameters())
        return [optimizer], [CosineAnnealingLR(optimizer, self.epochs)]
