"""The generator of pix2pix (Isola, Zhu, Zhou & Efros 2017, https://arxiv.org/abs/1611.07004, section 6.1.1)."""

import torch
from torch import Tensor, nn

from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.few_pixels import DoublingConv2d, HalvingConv2d
from lit_models.networks.initialization import initialize
from lit_models.networks.normalization import BatchStatisticsNorm2d

SMALLEST, LARGEST = 32, 1024
"""Sizes of images that the network can be built for."""


class UNet(nn.Module):
    """An encoder that halves the image down to one pixel, a decoder that doubles it again, and connections from each
    layer of the one to the layer of the same size of the other.

    At 256 pixels and 64 feature maps it is the paper's, with 54.414 million parameters. Two layers have no
    normalization: the first, and the innermost, which a batch of one image would set to zero. Only the last one has
    biases. (All of this follows the authors' code.)

    Shapes: ``(N, source_channels, H, W)`` to ``(N, channels, H, W)``, in [−1, 1]; H and W multiples of ``image_size``.

    Args:
        image_size: Height and width at which the innermost layer has one pixel, a power of two from 32 to 1024.
        channels: Channels of the images that it makes.
        feature_maps: Width of the outermost layer; doubled at each halving of the size, up to 8 times.
        dropout: Share of the values that is dropped in the first three layers of the decoder, as far as they have the
            full width.
        source_channels: Channels of the images that it takes; ``channels`` if None.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        feature_maps: int,
        dropout: float = 0.5,
        source_channels: int | None = None,
    ) -> None:
        super().__init__()
        require_power_of_two(image_size, SMALLEST, LARGEST)
        depth = image_size.bit_length() - 1
        self.size_multiple = self.smallest_size = image_size
        widths = [feature_maps * min(2**i, 8) for i in range(depth)]

        first = nn.Conv2d(source_channels or channels, widths[0], 4, stride=2, padding=1, bias=False)
        self.encoder = nn.ModuleList([first])
        for i in range(1, depth):
            # In place: the decoder gets the same values, but takes their ReLU, which is the same before and after.
            self.encoder.append(
                nn.Sequential(
                    nn.LeakyReLU(0.2, inplace=True),
                    HalvingConv2d(widths[i - 1], widths[i], bias=False),
                    *([BatchStatisticsNorm2d(widths[i])] if i < depth - 1 else []),
                )
            )

        self.decoder = nn.ModuleList()
        for i in range(depth - 1, 0, -1):
            width_in = widths[i] if i == depth - 1 else 2 * widths[i]
            drops = i > depth - 4 and widths[i - 1] == 8 * feature_maps
            self.decoder.append(
                nn.Sequential(
                    nn.ReLU(inplace=i < depth - 1),
                    DoublingConv2d(width_in, widths[i - 1], bias=False),
                    BatchStatisticsNorm2d(widths[i - 1]),
                    *([nn.Dropout(dropout)] if drops and dropout else []),
                )
            )
        self.head = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * widths[0], channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        features = []
        for layer in self.encoder:
            image = layer(image)
            features.append(image)
        image = features.pop()
        for layer in self.decoder:
            image = torch.cat([layer(image), features.pop()], dim=1)
        return self.head(image)
