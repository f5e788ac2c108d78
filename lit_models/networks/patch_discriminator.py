"""A discriminator of patches (Isola, Zhu, Zhou & Efros 2017, https://arxiv.org/abs/1611.07004, section 3.2.2)."""

from torch import Tensor, nn

from lit_models.errors import ModelError
from lit_models.networks.initialization import initialize
from lit_models.networks.normalization import Norm, normalization

HALVINGS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""Strided layers for each size of patch; patches of one pixel have convolutions of 1x1 (section 6.1.2)."""


class PatchDiscriminator(nn.Module):
    """Judges each patch of an image by itself, by convolutions of 4x4 of which all but the last two have stride 2; with
    patches of one pixel, the paper's "PixelGAN", by three convolutions of 1x1.

    With patches of 70 pixels and 64 feature maps it is the paper's "70x70 PatchGAN": 2.769 million parameters for a
    source and a target of 3 channels each.

    Shapes: ``(N, channels, H, W)`` in [−1, 1] to ``(N, 1, H', W')``, a logit for each patch.

    Args:
        image_size: Height and width of the smallest image that is to be judged.
        channels: Channels of the images.
        feature_maps: Width of the first layer; doubled with each further one, up to 8 times.
        patch_size: Pixels that a logit depends on, in each direction: 1, 16, 34, 70, 142 or 286.
        norm: "batch" or "instance", in all layers but the first and the last.
    """

    def __init__(self, image_size: int, channels: int, feature_maps: int, patch_size: int, norm: Norm) -> None:
        super().__init__()
        if patch_size not in HALVINGS:
            raise ModelError(f"patch_size is {patch_size}; it must be one of {', '.join(map(str, HALVINGS))}.")
        self.patch_size = patch_size
        halvings = HALVINGS[patch_size]
        if patch_size > 1 and image_size >> halvings < 4:
            largest = max(size for size, n in HALVINGS.items() if image_size >> n >= 4 or n <= 1)
            raise ModelError(
                f"Patches of {patch_size} pixels can't be judged in images of {image_size}: set patch_size {largest}."
            )
        kernel, padding = (1, 0) if patch_size == 1 else (4, 1)
        bias = norm == "instance"
        layers: list[nn.Module] = [
            nn.Conv2d(channels, feature_maps, kernel, 2 if halvings else 1, padding),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width = feature_maps
        for i in range(1, max(halvings, 1) + 1):
            width_in, width = width, feature_maps * min(2**i, 8)
            layers += [
                nn.Conv2d(width_in, width, kernel, 2 if i < halvings else 1, padding, bias=bias),
                normalization(norm, width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, kernel, padding=padding))
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)
