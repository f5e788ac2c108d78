"""LeNet++, the network of the center loss's toy (Wen et al. 2016, table 1, https://ydwen.github.io/papers/WenECCV16.pdf)."""

from itertools import pairwise

from torch import nn


class LeNet(nn.Sequential):
    """Three stages of two 5x5 convolutions, each with a PReLU, and a maximum over 2x2 pixels.

    Shapes: ``(B, channels, S, S)`` to features ``(B, out_features)``, ``4 * feature_maps * (S // 8)²``.

    Args:
        channels: Channels of the images.
        feature_maps: Channels of the first stage, 32 in the paper; the others have 2 and 4 times as many.
        image_size: S, at least 8.
    """

    def __init__(self, channels: int, feature_maps: int, image_size: int) -> None:
        layers: list[nn.Module] = []
        for before, width in pairwise([channels, feature_maps, 2 * feature_maps, 4 * feature_maps]):
            for inputs in (before, width):
                layers += [nn.Conv2d(inputs, width, 5, padding=2), nn.PReLU(width)]
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.Flatten())
        self.out_features = 4 * feature_maps * (image_size // 8) ** 2
