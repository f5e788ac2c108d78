"""Random changes to a whole batch of images at once, drawn for each image apart, on the batch's own device.

All functions take and return float images ``(B, C, H, W)`` in [0, 1], draw from the optional ``generator`` (on the
images' device; else torch's default one, thus from the run's seed), and never make the host wait for the device. Crops,
flips, turns and cutout move pixels without changing them. Each random function is equal in distribution to
torchvision's transform of one image (cutout to its paper's), except that ``random_affine`` shifts by fractions of a
pixel, where torchvision rounds to whole pixels; what it calls with what it drew is public, too.

Compared on a CPU core: torchvision's transforms image by image are 9 to 30 times slower (resized crops: as fast),
kornia 0.9 is 2 to 8 times slower at moving pixels and on par at noise, color and resized crops, and
``torchvision.transforms.v2`` on a whole batch is up to 4 times faster, but draws once for all of its images.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional

from datamodules.errors import DataError

Augmentation = Literal["none", "flip", "standard", "strong"]
"""The usual recipes for images of a fixed size; see :func:`augmented`."""

# Luma of ITU-R BT.601, as in Pillow and torchvision.
RED, GREEN, BLUE = 0.2989, 0.587, 0.114


def augmented(image: Tensor, recipe: Augmentation) -> Tensor:
    """Images (bytes or floats) after one of the usual recipes.

    "flip": left-right with probability 1/2. "standard": also a random window of the image with an eighth of its side
    added all around in black, as for CIFAR-10 (4 of 32 pixels; He et al. 2016). "strong": also a change of brightness,
    contrast and saturation by up to 40 % each.
    """
    if recipe in ("standard", "strong"):
        image = random_crop(image, (image.shape[-2], image.shape[-1]), padding=image.shape[-1] // 8)
    if recipe != "none":
        image = random_horizontal_flip(image)
    if recipe == "strong":
        image = image if image.is_floating_point() else image.float().div_(255)
        image = color_jitter(image, brightness=0.4, contrast=0.4, saturation=0.4)
    return image


def require_known(recipe: Augmentation) -> Augmentation:
    """The recipe, if there is one of that name.

    Raises:
        DataError: There is none.
    """
    if recipe not in get_args(Augmentation):
        raise DataError(f"--data.augmentation is {recipe!r}; it must be none, flip, standard or strong.")
    return recipe


def random_crop(
    image: Tensor,
    size: int | tuple[int, int],
    padding: int = 0,
    padding_mode: Literal["constant", "reflect"] = "constant",
    generator: Generator | None = None,
) -> Tensor:
    """Pads every side, then cuts out a window at a random place: CIFAR's usual augmentation with ``padding=4``.

    Args:
        image: ``(B, C, H, W)``.
        size: Height and width of the window.
        padding: Pixels added on each side.
        padding_mode: "constant" pads with black, "reflect" mirrors the image (without repeating its border).
        generator: Source of the randomness.
    """
    if padding:
        image = functional.pad(image, (padding,) * 4, mode=padding_mode)
    size = (size, size) if isinstance(size, int) else size
    return crop(image, *_random_corner(image, size, generator), size)


def crop(image: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts a window of one size out of each image.

    Args:
        image: ``(B, C, H, W)``.
        top: ``(B,)``, int64: the windows' first rows.
        left: ``(B,)``, int64: the windows' first columns.
        size: Height and width of the windows.
    """
    batch, channels, height, width = image.shape
    pieces = image.flatten().unfold(0, size[1], 1)  # a view: every run of so many pixels, by the place where it starts
    plane = torch.arange(batch * channels, device=image.device).view(batch, channels, 1)
    row = top[:, None, None] + torch.arange(size[0], device=image.device)
    start = (plane * height + row) * width + left[:, None, None]
    return pieces.index_select(0, start.flatten()).view(batch, channels, *size)


def random_horizontal_flip(image: Tensor, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Mirrors each image left to right with probability ``p``."""
    return horizontal_flip(image, _rand(image, 1, generator) < p)


def horizontal_flip(image: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the images (of any type) that are ``chosen`` (bool, ``(B,)``) left to right."""
    mirrored = image.flip(-1)
    if not image.is_floating_point():
        rows = torch.arange(len(image), device=image.device)
        return torch.cat((image, mirrored)).index_select(0, rows + len(image) * chosen)
    return _choose(image, mirrored, _per_image(chosen))


def random_quarter_turn(image: Tensor, generator: Generator | None = None) -> Tensor:
    """Turns each square image by 0, 90, 180 or 270 degrees, all equally likely."""
    return quarter_turn(image, _randint(image, 4, generator))


def quarter_turn(image: Tensor, turns: Tensor) -> Tensor:
    """Turns square images counterclockwise by quarter turns.

    Args:
        image: ``(..., C, H, H)``, of any type.
        turns: ``(...)``, int64 in 0..3.
    """
    if image.shape[-1] != image.shape[-2]:
        raise ValueError(f"Only square images can be turned by 90 degrees, not {image.shape[-2]}x{image.shape[-1]}.")
    place = torch.arange(image.shape[-1] ** 2, device=image.device).view(image.shape[-2:])
    origin = torch.stack([place.rot90(quarter).flatten() for quarter in range(4)])  # of each pixel, after each turn
    pixels = image.flatten(-2)
    return pixels.gather(-1, origin[turns].unsqueeze(-2).expand(pixels.shape)).view(image.shape)


def cutout(image: Tensor, size: int, fill: float | Tensor = 0.0, generator: Generator | None = None) -> Tensor:
    """Covers a square of each image (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).

    The square's center is anywhere in the image, so that a part of the square may lie outside, as in the paper (and not
    in torchvision's ``RandomErasing``).

    Args:
        image: ``(B, C, H, W)``.
        size: Side of the square in pixels.
        fill: What covers it: a number, or one for each channel, ``(C,)`` on the images' device. (To cover with zeros as
            they are after normalization, give the mean that is subtracted there.)
        generator: Source of the randomness.
    """
    row = _randint(image, image.shape[-2], generator)
    column = _randint(image, image.shape[-1], generator)
    return cover(image, row - size // 2, column - size // 2, size, fill)


def cover(image: Tensor, top: Tensor, left: Tensor, size: int, fill: float | Tensor = 0.0) -> Tensor:
    """Covers the square of ``size`` whose upper left corner is at ``top``, ``left`` (int64, ``(B,)``) with ``fill``."""
    rows = torch.arange(image.shape[-2], device=image.device) - top[:, None]
    columns = torch.arange(image.shape[-1], device=image.device) - left[:, None]
    row_covered, column_covered = (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)
    covered = (row_covered[:, :, None] & column_covered[:, None, :])[:, None]
    fill = fill.view(-1, 1, 1) if isinstance(fill, Tensor) else image.new_full((), fill)
    return _choose(image, fill, covered)


def paired_crop_flip(
    source: Tensor,
    target: Tensor,
    size: int,
    flip: bool = True,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Cuts the same random window out of both halves of each pair, and mirrors both or none.

    On images of 286x286 with ``size=256`` this is the "random jitter" of pix2pix (Isola et al. 2017,
    https://arxiv.org/abs/1611.07004, section 6.2).

    Args:
        source: ``(B, C, H, W)``.
        target: ``(B, C', H, W)``.
        size: Height and width of the window.
        flip: Mirror half of the pairs.
        generator: Source of the randomness.
    """
    if source.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"The halves of a pair differ in size: {tuple(source.shape)} and {tuple(target.shape)}.")
    top, left = _random_corner(source, (size, size), generator)
    source, target = (crop(image, top, left, (size, size)) for image in (source, target))
    if flip:
        chosen = _rand(source, 1, generator) < 0.5
        source, target = horizontal_flip(source, chosen), horizontal_flip(target, chosen)
    return source, target


def gaussian_noise(image: Tensor, std: float, clip: bool = True, generator: Generator | None = None) -> Tensor:
    """Adds independent normal noise of standard deviation ``std`` to every value.

    Args:
        image: ``(B, C, H, W)``.
        std: Standard deviation, in units of the full range from black to white.
        clip: Keep the result in [0, 1].
        generator: Source of the randomness.
    """
    noise = torch.randn(image.shape, dtype=image.dtype, device=image.device, generator=generator)
    noisy = torch.add(image, noise, alpha=std)
    return noisy.clamp_(0, 1) if clip else noisy


def color_jitter(
    image: Tensor,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Changes brightness, contrast and saturation of each image by random factors, in random order.

    Args:
        image: ``(B, C, H, W)`` with one or three channels.
        brightness: The factor is uniform in ``[max(0, 1 - brightness), 1 + brightness]``.
        contrast: Its factor has the same form of range.
        saturation: Its factor has the same form of range.
        generator: Source of the randomness.
    """
    ranges = [(max(0.0, 1 - strength), 1 + strength) for strength in (brightness, contrast, saturation)]
    factors = torch.stack([low + (high - low) * _rand(image, 1, generator) for low, high in ranges], dim=1)
    return adjust_color(image, factors, order=_rand(image, 3, generator).argsort(1))


def adjust_color(image: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Blends each image with black (brightness), with its mean gray (contrast) and with its gray copy (saturation).

    Args:
        image: ``(B, C, H, W)`` with one or three channels.
        factors: ``(B, 3)``: the image's weight in these three blends; 1 changes nothing.
        order: ``(B, 3)``, int64: a permutation of 0 (brightness), 1 (contrast), 2 (saturation) for each image.
    """
    for kind, factor in zip(order.unbind(1), factors.gather(1, order).unbind(1), strict=True):
        kind, factor = _per_image(kind), _per_image(factor)
        gray = _gray(image)
        other = torch.where(kind == 1, gray.mean((-2, -1), keepdim=True), gray) * (kind != 0)
        image = torch.lerp(other, image, factor).clamp_(0, 1)
    return image


def random_resized_crop(
    image: Tensor,
    size: int,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    generator: Generator | None = None,
) -> Tensor:
    """Cuts out a window of random area and shape and resizes it: ImageNet's usual augmentation.

    Args:
        image: ``(B, C, H, W)``.
        size: Height and width of the result.
        scale: Least and largest area of the window, as a share of the image's.
        ratio: Least and largest width of the window divided by its height.
        generator: Source of the randomness.
    """
    return resized_crop(image, *_random_windows(image, scale, ratio, generator), size)


def resized_crop(image: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Cuts a window out of each image and resizes it by antialiased bilinear interpolation.

    Args:
        image: ``(B, C, H, W)``.
        top: ``(B,)``: the windows' first rows.
        left: ``(B,)``: the windows' first columns.
        height: ``(B,)``: the windows' heights.
        width: ``(B,)``: the windows' widths.
        size: Height and width of the result.
    """
    vertical = _resampling(image.shape[-2], top, height, size).to(image.dtype)
    horizontal = _resampling(image.shape[-1], left, width, size).to(image.dtype)
    return vertical[:, None] @ image @ horizontal[:, None].mT


def random_affine(
    image: Tensor,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: Sequence[float] = (1.0, 1.0),
    generator: Generator | None = None,
) -> Tensor:
    """Turns, moves and resizes each image a little, by bilinear interpolation; what comes in at the sides is black.

    Args:
        image: ``(B, C, H, W)``.
        degrees: The angle is uniform in ``[-degrees, degrees]``.
        translate: The shifts down and to the right are uniform in ``[-translate, translate]``, as shares of the height
            and of the width.
        scale: The factor is uniform between these two.
        generator: Source of the randomness.
    """
    angle, down, right = ((2 * _rand(image, 1, generator) - 1) * bound for bound in (degrees, translate, translate))
    factor = scale[0] + (scale[1] - scale[0]) * _rand(image, 1, generator)
    return affine(image, angle, down * image.shape[-2], right * image.shape[-1], factor)


def affine(image: Tensor, degrees: Tensor, down: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Turns and resizes each image about its center, then moves it.

    Args:
        image: ``(B, C, H, W)``.
        degrees: ``(B,)``: the angles, clockwise.
        down: ``(B,)``: the shifts downwards in pixels.
        right: ``(B,)``: the shifts to the right in pixels.
        scale: ``(B,)``: the factors by which the content grows.
    """
    height, width = image.shape[-2:]
    # Where each pixel's content comes from: the inverse of the motion, in units of half a side for grid_sample.
    cos, sin = (turn(degrees.deg2rad()) / scale for turn in (torch.cos, torch.sin))
    x, y = 2 * right / width, 2 * down / height
    rows = (
        torch.stack([cos, sin * height / width, -cos * x - sin * height / width * y], 1),
        torch.stack([-sin * width / height, cos, sin * width / height * x - cos * y], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1).to(image.dtype), list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False)


def _random_corner(image: Tensor, size: tuple[int, int], generator: Generator | None) -> tuple[Tensor, Tensor]:
    """First rows and columns, ``(B,)`` each, of windows of ``size`` that lie within the images."""
    if image.shape[-2] < size[0] or image.shape[-1] < size[1]:
        raise ValueError(
            f"Windows of {size[0]}x{size[1]} don't fit into images of {image.shape[-2]}x{image.shape[-1]}."
        )
    top = _randint(image, image.shape[-2] - size[0] + 1, generator)
    left = _randint(image, image.shape[-1] - size[1] + 1, generator)
    return top, left


def _random_windows(
    image: Tensor, scale: Sequence[float], ratio: Sequence[float], generator: Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tops, lefts, heights and widths, ``(B,)`` each: the first of ten tries that lies within the image."""
    full_height, full_width = image.shape[-2:]
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    area = full_height * full_width * (scale[0] + (scale[1] - scale[0]) * _rand(image, 10, generator))
    shape = (log_low + (log_high - log_low) * _rand(image, 10, generator)).exp()
    widths, heights = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (widths > 0) & (widths <= full_width) & (heights > 0) & (heights <= full_height)

    first = fits.byte().argmax(1, keepdim=True)
    width, height = widths.gather(1, first).squeeze(1), heights.gather(1, first).squeeze(1)
    top = (_rand(image, 1, generator) * (full_height - height + 1)).floor()
    left = (_rand(image, 1, generator) * (full_width - width + 1)).floor()

    # If none of the tries fits: the largest central window of an allowed shape.
    central_width = min(full_width, round(full_height * ratio[1]))
    central_height = min(full_height, round(full_width / ratio[0]))
    found = fits.any(1)
    return (
        torch.where(found, top, (full_height - central_height) // 2),
        torch.where(found, left, (full_width - central_width) // 2),
        torch.where(found, height, central_height),
        torch.where(found, width, central_width),
    )


def _resampling(length: int, start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Matrices ``(B, size, length)`` that resize the pixels ``start .. start + extent - 1`` of a line to ``size``.

    Each weight is a triangle's height: as wide as a pixel of the result, or of the image if that is larger.
    """
    extent = extent[:, None, None].float()
    step = extent / size
    reach = step.clamp(min=1)
    pixel = torch.arange(length, device=start.device) - start[:, None, None].float() + 0.5
    center = (torch.arange(size, device=start.device)[:, None] + 0.5) * step
    weight = (1 - (pixel - center).abs() / reach).clamp(min=0) * ((pixel > 0) & (pixel < extent))
    return weight / weight.sum(-1, keepdim=True)


def _choose(first: Tensor, second: Tensor, is_second: Tensor) -> Tensor:
    """``torch.where(is_second, second, first)`` for numbers: exact, and two to ten times as fast on a CPU."""
    return torch.lerp(first, second, is_second.to(first.dtype))


def _gray(image: Tensor) -> Tensor:
    if image.shape[1] == 1:
        return image
    red, green, blue = image.unbind(1)
    return (RED * red + GREEN * green + BLUE * blue).unsqueeze(1)


def _per_image(values: Tensor) -> Tensor:
    """One value an image, in a shape that broadcasts over its channels, rows and columns."""
    return values[..., None, None, None]


def _rand(image: Tensor, numbers: int, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1): ``(B, numbers)``, or ``(B,)`` if it is one."""
    shape = (len(image), numbers) if numbers > 1 else (len(image),)
    return torch.rand(shape, device=image.device, generator=generator)


def _randint(image: Tensor, high: int, generator: Generator | None) -> Tensor:
    """``(B,)`` whole numbers, uniform in ``0 .. high - 1``."""
    return torch.randint(high, (len(image),), device=image.device, generator=generator)
