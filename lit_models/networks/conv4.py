"""Conv4-64, the usual few-shot encoder (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080)."""

from torch import nn


class Conv4(nn.Sequential):
    """Four blocks of a 3x3 convolution, batch normalization, a maximum over 2x2 pixels and ReLU.

    Shapes: ``(B, channels, H, W)`` to ``(B, feature_maps * (H // 16) * (W // 16))``: 64 features of 28x28 images.

    Args:
        channels: Channels of the images.
        feature_maps: Width of every block.
        image_size: Height and width of the images, for :attr:`out_features` only.
    """

    def __init__(self, channels: int, feature_maps: int, image_size: int = 28) -> None:
        layers: list[nn.Module] = []
        for width in (channels, feature_maps, feature_maps, feature_maps):
            layers += [
                nn.Conv2d(width, feature_maps, 3, padding=1),
                nn.BatchNorm2d(feature_maps),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Flatten())
        self.out_features = feature_maps * (image_size // 16) ** 2
