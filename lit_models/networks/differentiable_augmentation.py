"""Differentiable augmentation of all images that a discriminator gets (Zhao et al. 2020,
https://arxiv.org/abs/2006.10738), for small data.

Augmenting only the real images would teach the generator to make augmented ones. With the same random changes of
generated images, too, and gradients through them, the discriminator has more images to learn by heart, and the
generator's target stays.

The functions are pure, take one draw per image, and work on the range [−1, 1] of a GAN's images. The draws' ranges are
those of the authors' code.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_models.errors import ModelError

Augmentation = Literal["color", "translation", "cutout"]


def color(image: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Adds ``brightness``, then multiplies each pixel's distance from its gray value by ``saturation``, then each
    value's distance from the image's mean by ``contrast``.

    Args:
        image: ``(N, C, H, W)``.
        brightness: ``(N,)``; 0 changes nothing.
        saturation: ``(N,)``; 1 changes nothing.
        contrast: ``(N,)``; 1 changes nothing.
    """
    brightness, saturation, contrast = (draw[:, None, None, None] for draw in (brightness, saturation, contrast))
    image = image + brightness
    image = torch.lerp(image.mean(1, keepdim=True), image, saturation)
    return torch.lerp(image.mean((1, 2, 3), keepdim=True), image, contrast)


def translation(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Moves each image, with zeros (gray) where nothing comes from.

    Args:
        image: ``(N, C, H, W)``.
        down: ``(N,)`` int64, pixels; negative for up.
        right: ``(N,)`` int64, pixels; negative for left.
    """
    height, width = image.shape[2:]
    row = torch.arange(height, device=image.device) - down[:, None]
    column = torch.arange(width, device=image.device) - right[:, None]
    moved = image.gather(2, row.clamp(0, height - 1)[:, None, :, None].expand_as(image))
    moved = moved.gather(3, column.clamp(0, width - 1)[:, None, None, :].expand_as(image))
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    return moved * inside[:, None]


def cutout(image: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Sets a rectangle of each image to zero (gray).

    Args:
        image: ``(N, C, H, W)``.
        top: ``(N,)`` int64, its first row; it may begin above the image and end below it.
        left: ``(N,)`` int64, its first column.
        height: Its rows.
        width: Its columns.
    """
    row = torch.arange(image.shape[2], device=image.device) - top[:, None]
    column = torch.arange(image.shape[3], device=image.device) - left[:, None]
    cut = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    return image * ~cut[:, None]


class DifferentiableAugmentation:
    """Draws the changes of each image and applies them one after the other.

    Brightness changes by up to ±0.5, saturation by a factor of 0 to 2, contrast by one of 0.5 to 1.5. The image moves
    by up to an eighth of its size either way. The rectangle is half as high and wide as the image; its middle may lie
    anywhere in it.

    Args:
        augmentations: Any of "color", "translation" and "cutout", in the order in which they are applied.

    Raises:
        ModelError: One that isn't known.
    """

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        known = get_args(Augmentation)
        unknown = [name for name in augmentations if name not in known]
        if unknown:
            raise ModelError(f"augmentations has {unknown[0]!r}; choose from {', '.join(known)}.")
        of_name: dict[str, Callable[[Tensor], Tensor]] = {
            "color": _random_color,
            "translation": _random_translation,
            "cutout": _random_cutout,
        }
        self.functions = [of_name[name] for name in augmentations]

    def __call__(self, image: Tensor) -> Tensor:
        for function in self.functions:
            image = function(image)
        return image


def _random_color(image: Tensor) -> Tensor:
    uniform = torch.rand(3, len(image), device=image.device, dtype=image.dtype)
    return color(image, brightness=uniform[0] - 0.5, saturation=2 * uniform[1], contrast=uniform[2] + 0.5)


def _random_translation(image: Tensor) -> Tensor:
    down, right = (
        torch.randint(-(size // 8), size // 8 + 1, (len(image),), device=image.device) for size in image.shape[2:]
    )
    return translation(image, down, right)


def _random_cutout(image: Tensor) -> Tensor:
    height, width = (size // 2 for size in image.shape[2:])
    # The middle lies in the image; that of an even number of pixels lies between two, and so may be at either border.
    top, left = (
        torch.randint(0, size + 1 - cut % 2, (len(image),), device=image.device) - cut // 2
        for size, cut in zip(image.shape[2:], (height, width), strict=True)
    )
    return cutout(image, top, left, height, width)
