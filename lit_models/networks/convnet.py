"""A small convolutional classifier."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Blocks of two 3x3 convolutions, each with batch normalization and ReLU, and a maximum over 2x2 pixels, as in VGG
    (Simonyan & Zisserman 2015, arXiv:1409.1556); then the mean over the pixels that are left, which is the image's
    embedding (Lin, Chen & Yan 2014, "Network in network", section 3.2), and a linear layer on top.

    Shapes: images ``(N, channels, H, W)`` in [0, 1] to logits ``(N, num_classes)``.

    Args:
        channels: Channels of the images.
        num_classes: Number of classes.
        widths: Feature maps of each block; the last is the size of the embedding.
    """

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise([channels, *widths]):
            for inputs in (before, width):
                layers += [
                    nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            layers.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.embed(image))

    def embed(self, image: Tensor) -> Tensor:
        """The embedding ``(N, widths[-1])``: each feature map's mean."""
        return self.blocks(image).mean((2, 3))
