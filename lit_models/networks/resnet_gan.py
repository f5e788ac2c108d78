"""The residual networks of SN-GAN (Miyato et al. 2018, https://arxiv.org/abs/1802.05957, tables 4 to 6), which are also
those of WGAN-GP on CIFAR-10 (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028), and of the projection
discriminator with its class-conditional generator (Miyato & Koyama 2018, https://arxiv.org/abs/1802.05637).

Equal to the authors' code and, with two other arguments, to mimicry (https://github.com/kwotsin/mimicry).

Every block is a sum of two convolutions of 3x3, each after a ReLU, and a shortcut. A block of the generator normalizes
before each ReLU and doubles the size before its first convolution; a block of the discriminator halves the size after
its last.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.errors import ModelError

Upsampling = Literal["nearest", "bilinear"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.Embedding)
HE = math.sqrt(2)
"""Gain of a block's 3x3 convolutions, in the code of both papers."""


class Layout(NamedTuple):
    """Widths of both networks for images of one size.

    Attributes:
        generator: Width of the dense layer, and of each block that doubles the size after it.
        discriminator: Width of each block.
        halvings: How many of the discriminator's blocks, from the first on, halve the size.
    """

    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    halvings: int


LAYOUTS = {
    32: Layout((4, 4, 4, 4), (2, 2, 2, 2), halvings=2),  # table 4, CIFAR-10
    48: Layout((8, 4, 2, 1), (1, 2, 4, 8, 16), halvings=4),  # table 5, STL-10
    64: Layout((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), halvings=5),  # as in the authors' code
    128: Layout((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), halvings=5),  # table 6, ImageNet
}
"""By the image's size, in multiples of ``feature_maps``, which are 64 in the paper."""


def require_layout(image_size: int, feature_maps: int) -> Layout:
    """The widths for images of one size.

    Raises:
        ModelError: There are no such networks.
    """
    if image_size not in LAYOUTS:
        sizes = ", ".join(map(str, LAYOUTS))
        raise ModelError(f"image_size is {image_size}; architecture resnet needs one of {sizes}.")
    generator, discriminator, halvings = LAYOUTS[image_size]
    return Layout(
        tuple(factor * feature_maps for factor in generator),
        tuple(factor * feature_maps for factor in discriminator),
        halvings,
    )


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization whose scale and shift are of the image's class (Dumoulin et al. 2017, de Vries et al. 2017).

    Shapes: ``(N, num_features, H, W)`` and ``(N,)`` int64 to the first.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.normalization = nn.BatchNorm2d(num_features, affine=False)
        self.scale = nn.Embedding(num_classes, num_features)
        self.shift = nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.scale(label)[:, :, None, None], self.shift(label)[:, :, None, None]
        return scale * self.normalization(features) + shift


class GeneratorBlock(nn.Module):
    """A residual block that doubles height and width.

    Shapes: ``(N, width_in, H, W)``, and ``(N,)`` int64 with classes, to ``(N, width_out, 2 H, 2 W)``.

    Args:
        num_classes: Classes of a conditional batch normalization; a plain one if None.
        upsampling: Interpolation by which the size is doubled.
    """

    def __init__(self, width_in: int, width_out: int, num_classes: int | None, upsampling: Upsampling) -> None:
        super().__init__()

        def normalization(width: int) -> nn.Module:
            return nn.BatchNorm2d(width) if num_classes is None else ConditionalBatchNorm2d(width, num_classes)

        self.normalization1 = normalization(width_in)
        self.convolution1 = glorot(nn.Conv2d(width_in, width_out, 3, padding=1), HE)
        self.normalization2 = normalization(width_out)
        self.convolution2 = glorot(nn.Conv2d(width_out, width_out, 3, padding=1), HE)
        self.shortcut = glorot(nn.Conv2d(width_in, width_out, 1))
        self.upsample = nn.Upsample(scale_factor=2, mode=upsampling)

    def forward(self, features: Tensor, *label: Tensor) -> Tensor:
        residual = self.upsample(functional.relu(self.normalization1(features, *label)))
        residual = self.convolution1(residual)
        residual = self.convolution2(functional.relu(self.normalization2(residual, *label)))
        # A 1x1 convolution and an interpolation can change places: this order takes a quarter of the multiplications.
        return residual + self.upsample(self.shortcut(features))


class DiscriminatorBlock(nn.Module):
    """A residual block that may halve height and width, by averages of 2x2.

    Shapes: ``(N, width_in, H, W)`` to ``(N, width_out, H, W)``, or to ``(N, width_out, H / 2, W / 2)``.

    Args:
        halve: Whether it halves the size.
        first: Whether it comes right after the image, which no ReLU should cut.
        rectified_shortcut: Whether the shortcut, too, comes after the first ReLU.
    """

    def __init__(
        self, width_in: int, width_out: int, halve: bool, first: bool = False, rectified_shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = width_out if first else width_in
        self.first = first
        self.rectified_shortcut = rectified_shortcut
        self.convolution1 = glorot(nn.Conv2d(width_in, hidden, 3, padding=1), HE)
        self.convolution2 = glorot(nn.Conv2d(hidden, width_out, 3, padding=1), HE)
        learned = halve or width_in != width_out
        self.shortcut = glorot(nn.Conv2d(width_in, width_out, 1)) if learned else nn.Identity()
        self.downsample = nn.AvgPool2d(2) if halve else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        rectified = features if self.first else functional.relu(features)
        residual = self.convolution1(rectified)
        residual = self.downsample(self.convolution2(functional.relu(residual)))
        return residual + self.shortcut(self.downsample(rectified if self.rectified_shortcut else features))


class ResidualGenerator(nn.Module):
    """A dense layer to 4x4 or 6x6, a residual block for each doubling, a convolution of 3x3 to the image.

    Shapes: ``(N, latent_dim)``, and ``(N,)`` int64 with classes, to ``(N, channels, image_size, image_size)`` in
    [−1, 1].

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        latent_dim: Components of the latent vector.
        widths: Width of the dense layer, and of each block after it.
        num_classes: Classes of a conditional batch normalization in the blocks; a plain one if None.
        upsampling: Interpolation in the blocks. The authors of both papers repeat pixels ("nearest"); mimicry takes
            "bilinear".
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        widths: tuple[int, ...],
        num_classes: int | None = None,
        upsampling: Upsampling = "nearest",
    ) -> None:
        super().__init__()
        side = image_size // 2 ** (len(widths) - 1)
        self.dense = nn.Sequential(
            glorot(nn.Linear(latent_dim, widths[0] * side**2)), nn.Unflatten(1, (widths[0], side, side))
        )
        self.blocks = nn.ModuleList(
            GeneratorBlock(width_in, width_out, num_classes, upsampling) for width_in, width_out in pairwise(widths)
        )
        self.image = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
            glorot(nn.Conv2d(widths[-1], channels, 3, padding=1)),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor, *label: Tensor) -> Tensor:
        features = self.dense(latent)
        for block in self.blocks:
            features = block(features, *label)
        return self.image(features)


class ResidualDiscriminator(nn.Module):
    """Residual blocks, a sum or mean over all places, a dense layer; with classes, the projection discriminator
    ``ψ(φ(x)) + e_y · φ(x)`` (Miyato & Koyama 2018).

    Shapes: ``(N, channels, H, W)``, and ``(N,)`` int64 with classes, to ``(N,)`` float32.

    Args:
        channels: Channels of the images.
        widths: Width of each block.
        halvings: How many blocks, from the first on, halve the size.
        pooling: "sum" as in SN-GAN, or "mean" as in WGAN-GP.
        num_classes: Classes of the images; it gets no class if None.
        rectified_shortcut: Whether the shortcuts come after the blocks' first ReLU, as in mimicry, whose ReLU
            overwrites the shortcut's input. In the papers and their authors' code they come before it.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        halvings: int,
        pooling: Literal["sum", "mean"] = "sum",
        num_classes: int | None = None,
        rectified_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                DiscriminatorBlock(width_in, width_out, number < halvings, number == 0, rectified_shortcut)
                for number, (width_in, width_out) in enumerate(pairwise((channels, *widths)))
            ),
            nn.ReLU(),
        )
        self.pool: Callable[..., Tensor] = torch.sum if pooling == "sum" else torch.mean
        self.unconditional = glorot(nn.Linear(widths[-1], 1))
        self.embedding = None if num_classes is None else glorot(nn.Embedding(num_classes, widths[-1]))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.blocks(image)
        precise = torch.promote_types(features.dtype, torch.float32)  # bfloat16 would round a sum to 3 digits
        feature = self.pool(features, dim=(2, 3), dtype=precise)
        score = self.unconditional(feature.to(self.unconditional.bias.dtype))[:, 0].to(precise)
        if self.embedding is None or label is None:
            return score
        return score + (self.embedding(label) * feature).sum(1)


def glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Draws the weights of a layer as Glorot & Bengio 2010 do, uniformly, times ``gain``; its bias is 0.

    Returns:
        The same layer.
    """
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding):
        nn.init.zeros_(cast(Tensor, layer.bias))
    return layer
