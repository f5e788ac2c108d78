"""A discriminator of patches (Isola, Zhu, Zhou & Efros 2017, https://arxiv.org/abs/1611.07004, section 3.2.2)."""

from torch import Tensor, nn

from lit_models.errors import ModelError
from lit_models.networks.initialisation import initialise
from lit_models.networks.normalization import Norm, normalization

HALVINGS = {16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""Strided layers for each size of patch."""


class PatchDiscriminator(nn.Module):
    """Judges each patch of an image by itself, by convolutions of 4x4 of which all but the last two have stride 2.

    With patches of 70 pixels and 64 feature maps it is the paper's "70x70 PatchGAN": 2.769 million parameters for a
    source and a target of 3 channels each.

    Shapes: ``(N, channels, H, W)`` in [−1, 1] to ``(N, 1, H', W')``, a logit for each patch.

    Args:
        image_size: Height and width of the smallest image that is to be judged.
        channels: Channels of the images.
        feature_maps: Width of the first layer; doubled with each further one, up to 8 times.
        patch_size: Pixels that a logit depends on, in each direction: 16, 34, 70, 142 or 286.
        norm: "batch" or "instance", in all layers but the first and the last.
    """

    def __init__(self, image_size: int, channels: int, feature_maps: int, patch_size: int, norm: Norm) -> None:
        super().__init__()
        if patch_size not in HALVINGS:
            raise ModelError(f"patch_size is {patch_size}; it must be one of {', '.join(map(str, HALVINGS))}.")
        halvings = HALVINGS[patch_size]
        if image_size >> halvings < 4:
            largest = max(size for size, n in HALVINGS.items() if image_size >> n >= 4 or n == 1)
            raise ModelError(
                f"Patches of {patch_size} pixels can't be judged in images of {image_size}: set patch_size {largest}."
            )
        layers: list[nn.Module] = [
            nn.Conv2d(channels, feature_maps, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width = feature_maps
        for i in range(1, halvings + 1):
            width_in, width = width, feature_maps * min(2**i, 8)
            layers += [
                nn.Conv2d(width_in, width, 4, stride=2 if i < halvings else 1, padding=1, bias=norm == "instance"),
                normalization(norm, width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)
