"""A convolutional encoder and its mirror image, the decoder: what every autoencoder here is made of."""

from itertools import pairwise

from torch import Tensor, nn

from lit_models.errors import ModelError

SMALLEST, LARGEST = 8, 512
"""Sizes of images that the networks can be built for."""


class Encoder(nn.Module):
    """From an image to a vector, by strided convolutions that halve the size down to 4x4, and an affine head.

    There is no normalization over the batch: an image's code depends on nothing but the image, in training as in
    evaluation, for 50 images as for 50,000.

    Shapes: ``(N, channels, image_size, image_size)`` in [0, 1] to ``(N, latent_dim)``.

    Args:
        image_size: Height and width of the images, a power of two from 8 to 512.
        channels: Channels of the images.
        latent_dim: Components of the vector.
        feature_maps: Width of the first layer; each further one has twice the width, up to 8 times.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__()
        require_power_of_two(image_size, SMALLEST, LARGEST)
        widths = layer_widths(image_size, feature_maps)
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([channels, *widths]):
            layers += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(16 * widths[-1], latent_dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class Decoder(nn.Module):
    """From a vector to an image: the :class:`Encoder` in the mirror, with transposed convolutions from 4x4 on.

    Shapes: ``(N, latent_dim)`` to ``(N, channels, image_size, image_size)``, logits of pixels in [0, 1].

    Args:
        image_size: Height and width of the images, a power of two from 8 to 512.
        channels: Channels of the images.
        latent_dim: Components of the vector.
        feature_maps: Width of the last hidden layer; earlier ones have twice the width of the next, up to 8 times.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__()
        require_power_of_two(image_size, SMALLEST, LARGEST)
        widths = layer_widths(image_size, feature_maps)[::-1]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, 16 * widths[0]),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (widths[0], 4, 4)),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(latent)


def layer_widths(image_size: int, feature_maps: int) -> list[int]:
    """Widths of the layers from the image inwards, one for each halving from ``image_size`` to 4."""
    halvings = image_size.bit_length() - 3
    return [feature_maps * min(2**i, 8) for i in range(halvings)]


def require_power_of_two(image_size: int, smallest: int, largest: int) -> None:
    """Refuses an ``image_size`` that can't be reached by doubling from 4.

    Raises:
        ModelError: Not a power of two within the limits.
    """
    if not smallest <= image_size <= largest or image_size & (image_size - 1):
        sizes = [str(2**power) for power in range(12) if smallest <= 2**power <= largest]
        raise ModelError(f"image_size is {image_size}; it must be one of {', '.join(sizes)}.")
