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
"""

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics import MeanMetric

from datamodules import LabeledImages
from lit_models.darts.drawing import draw_genotype
from lit_models.darts.genotype import NODES, Cell, Genotype, read_genotype
from lit_models.darts.supernet import STEM_MULTIPLIER, reduction_layers
from lit_models.errors import ModelError
from lit_models.networks.depthwise import depthwise_conv2d
from lit_models.support.checks import require_image_shape, require_labels, require_num_classes, require_several_images
from lit_models.support.classes import NamedClasses
from lit_models.support.logging import log_figure
from lit_models.support.module import Part
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.ranks import batch_weight


def relu_conv_norm(channels: int, out_channels: int) -> nn.Sequential:
    """ReLU, pointwise convolution, batch normalization."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class FactorizedReduction(nn.Module):
    """Halves height and width, which must be even: of each 2x2 block, one pixel gives half of the output's channels,
    and the opposite pixel the other half.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.first = nn.Conv2d(channels, half, 1, bias=False)
        self.second = nn.Conv2d(channels, out_channels - half, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # Not by convolutions of stride 2: torch 2.14 on a CPU writes past the end of their gradients if there are less
        # than 8 channels in channels-last order.
        x = functional.relu(x)
        return self.norm(torch.cat((self.first(x[..., ::2, ::2]), self.second(x[..., 1::2, 1::2])), 1))


class DepthwiseConv(nn.Conv2d):
    """A depthwise convolution that keeps the size, or halves it. Its gradients are those of
    :mod:`lit_models.networks.depthwise`, because torch 2.14's of a dilated kernel are wrong on some CPUs.

    Args:
        channels: Channels of the input and of the output.
        kernel_size: Side of the kernel.
        stride: 1 or 2.
        dilation: 1 or 2.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.stride[0], self.dilation[0])


def separable(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution, batch normalization."""
    return [
        nn.ReLU(),
        DepthwiseConv(channels, kernel_size, stride, dilation),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def make_operation(name: str, channels: int, stride: int) -> nn.Module:
    """An operation that a genotype names, ``(B, C, H, W)`` to the same, or with stride 2 to half of the size."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kernel_size = int(name[-1])
    if name.startswith("dil_conv"):
        return nn.Sequential(*separable(channels, kernel_size, stride, dilation=2))
    return nn.Sequential(*separable(channels, kernel_size, stride), *separable(channels, kernel_size, 1))


class DerivedCell(nn.Module):
    """A cell of the final network.

    Args:
        cell: Its operations.
        channels_before: Channels of the outputs of the last cell but one and of the last cell.
        channels: Channels of each node.
        reduction: Whether the edges from the two inputs halve the size.
        reduction_before: Whether the last cell did.
    """

    def __init__(
        self, cell: Cell, channels_before: tuple[int, int], channels: int, reduction: bool, reduction_before: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduction if reduction_before else relu_conv_norm
        self.inputs = nn.ModuleList([first(channels_before[0], channels), relu_conv_norm(channels_before[1], channels)])
        self.sources = [state for _, state in cell]
        self.operations = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and state < 2 else 1) for name, state in cell
        )

    def forward(self, before_last: Tensor, last: Tensor, drop_path: Tensor | None) -> Tensor:
        """Makes ``(B, 4 * channels, H, W)``, or half of the size.

        Args:
            before_last: Output of the last cell but one.
            last: Output of the last cell.
            drop_path: Probability of leaving out each operation, but for the identity; none if None.
        """
        states = [self.inputs[0](before_last), self.inputs[1](last)]
        results = []
        for number, (source, operation) in enumerate(zip(self.sources, self.operations, strict=True)):
            result = operation(states[source])
            if drop_path is not None and not isinstance(operation, nn.Identity):
                result = drop(result, drop_path)
            results.append(result)
            if number % 2:
                states.append(results[-2] + results[-1])
        return torch.cat(states[-NODES:], 1)


def drop(x: Tensor, probability: Tensor) -> Tensor:
    """Sets random images of a batch to 0, each with the given probability, and makes up for it in the others."""
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


class AuxiliaryHead(nn.Sequential):
    """The classifier at two thirds of the depth, for feature maps of 8x8 or more.

    Args:
        channels: Channels of the feature maps.
        num_classes: Number of classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(768, num_classes),
        )


class DerivedNetwork(nn.Module):
    """A stem, cells of a genotype, and a linear classifier.

    Args:
        genotype: The cells.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        channels: Channels of each node in the first cells; each reduction doubles them.
        layers: Number of cells, at least 3.
        auxiliary: Whether there is an auxiliary classifier.
    """

    def __init__(
        self, genotype: Genotype, in_channels: int, num_classes: int, channels: int, layers: int, auxiliary: bool
    ) -> None:
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        self.auxiliary_layer = max(reduction_layers(layers)) if auxiliary else None
        self.auxiliary: nn.Module | None = None
        before, reduction_before = (stem, stem), False
        for layer in range(layers):
            reduction = layer in reduction_layers(layers)
            channels *= 2 if reduction else 1
            cell = genotype.reduction if reduction else genotype.normal
            self.cells.append(DerivedCell(cell, before, channels, reduction, reduction_before))
            before, reduction_before = (before[1], NODES * channels), reduction
            if layer == self.auxiliary_layer:
                self.auxiliary = AuxiliaryHead(before[1], num_classes)
        self.classifier = nn.Linear(before[1], num_classes)

    def forward(self, image: Tensor, drop_path: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits ``(B, num_classes)`` of the classifier and, in training, of the auxiliary one.

        Args:
            image: ``(B, in_channels, H, W)``; height and width must be divisible by 4.
            drop_path: Probability of leaving out each operation, a scalar; none if None.
        """
        before_last = last = self.stem(image)
        auxiliary_logits = None
        for layer, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, drop_path)
            if layer == self.auxiliary_layer and self.auxiliary is not None and self.training:
                auxiliary_logits = self.auxiliary(last)
        return self.classifier(last.mean((2, 3))), auxiliary_logits


class DARTSRetrain(NamedClasses):
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

    exports = (Part("classifier", "forward", ("image",), "logits"),)

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
        if not 0 <= drop_path < 1:
            raise ModelError(f"drop_path is {drop_path}; it must be at least 0 and less than 1.")
        for name, number, least in (
            ("channels", channels, 1),
            ("num_classes", num_classes, 2),
            ("init_channels", init_channels, 1),
            ("layers", layers, 3),
            ("epochs", epochs, 1),
        ):
            if number < least:
                raise ModelError(f"{name} is {number}; it must be at least {least}.")
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
        require_image_shape(self, self.image_shape)
        if stage != "predict":
            require_num_classes(self, self.num_classes)
            require_labels(self)
            self.take_class_names()
            if self.auxiliary_weight:  # whose last normalization sees a single pixel of small images
                require_several_images(self)

    def on_fit_start(self) -> None:
        if self.trainer.is_global_zero and not cast(Any, self.trainer).fast_dev_run:
            run = Path(self.trainer.default_root_dir)
            path = draw_genotype(self.cells, run / "figures" / "cells.png")
            (run / "genotype.json").write_text(self.cells.to_json(), encoding="utf-8")
            log_figure(self.trainer, path)

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

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        """Returns the logits, for callbacks."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: LabeledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(self(batch.image).float().softmax(1))

    def _evaluate(self, batch: LabeledImages, stage: str) -> Tensor:
        logits = self(batch.image).float()
        loss = functional.cross_entropy(logits, batch.label)
        accuracy = (logits.argmax(1) == batch.label).float().mean()
        means = {f"{stage}/loss": loss, f"{stage}/accuracy": accuracy}
        self.log_dict(means, batch_size=batch_weight(len(batch.label)), prog_bar=stage == "val", sync_dist=True)
        return logits
