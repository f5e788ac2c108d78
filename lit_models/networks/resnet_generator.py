"""The generator of CycleGAN (Zhu, Park, Isola & Efros 2017, https://arxiv.org/abs/1703.10593, section 7.2), after
Johnson, Alahi & Fei-Fei 2016 (https://arxiv.org/abs/1603.08155)."""

from torch import Tensor, nn

from lit_models.networks.initialization import initialize
from lit_models.networks.normalization import Norm, normalization


class ResNetGenerator(nn.Module):
    """Two halvings, a chain of residual blocks at a quarter of the size, two doublings.

    With 64 feature maps and instance normalization it is the paper's: 6 blocks (7.838 million parameters) for images of
    128 pixels, 9 (11.378 million) from 256 on.

    Shapes: ``(N, source_channels, H, W)`` to ``(N, channels, H, W)``, in [−1, 1]; H and W multiples of 4, and at least
    8.

    Args:
        channels: Channels of the images that it makes.
        feature_maps: Width of the outermost layers; the residual blocks have four times as many.
        blocks: Residual blocks.
        norm: "instance" as in CycleGAN, or "batch".
        dropout: Share of the values that is dropped within each residual block.
        source_channels: Channels of the images that it takes; ``channels`` if None.
    """

    size_multiple = 4
    smallest_size = 8
    """At a quarter of it, the residual blocks have two pixels, of which to mirror one at the border."""

    def __init__(
        self,
        channels: int,
        feature_maps: int,
        blocks: int,
        norm: Norm,
        dropout: float = 0.0,
        source_channels: int | None = None,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        width = feature_maps

        def after(width: int) -> list[nn.Module]:
            return [normalization(norm, width), nn.ReLU(inplace=True)]

        layers: list[nn.Module] = [
            nn.Conv2d(source_channels or channels, width, 7, padding=3, padding_mode="reflect", bias=bias),
            *after(width),
        ]
        for _ in range(2):
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias), *after(2 * width)]
            width *= 2
        layers += [ResidualBlock(width, norm, dropout) for _ in range(blocks)]
        for _ in range(2):
            upwards = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += [upwards, *after(width // 2)]
            width //= 2
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect"), nn.Tanh()
        )
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3 added to an identity, with nothing after the sum."""

    def __init__(self, width: int, norm: Norm, dropout: float) -> None:
        super().__init__()

        def convolution() -> nn.Module:
            return nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=norm == "instance")

        self.layers = nn.Sequential(
            convolution(),
            normalization(norm, width),
            nn.ReLU(inplace=True),
            *([nn.Dropout(dropout)] if dropout else []),
            convolution(),
            normalization(norm, width),
        )

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image)
