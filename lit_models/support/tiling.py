"""Networks that need images of certain sizes, on images of any size."""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def apply_at_any_size(
    function: Callable[[Tensor], Tensor], image: Tensor, multiple: int, tile: int, overlap: int, smallest: int = 1
) -> Tensor:
    """Applies a function of images to an image of any size.

    An image of up to ``tile`` pixels in each direction is mirrored at its borders up to the next size that the function
    takes, and the result cut to the image again. Of a larger one the function is given overlapping tiles, evenly
    spread; where they overlap, their results are blended, with weights that rise from the tiles' borders inwards.

    Args:
        function: From ``(N, C, H, W)`` to ``(N, C', H, W)``.
        image: ``(N, C, H, W)``, of any size.
        multiple: The function needs H and W that are multiples of this number.
        tile: Side of the tiles, a multiple of ``multiple`` and at least ``smallest``.
        overlap: Pixels that neighboring tiles have at least in common, fewer than ``tile``.
        smallest: The function needs H and W of at least so many pixels.

    Returns:
        ``(N, C', H, W)``.
    """
    height, width = image.shape[-2:]
    sides = [
        tile if length > tile else math.ceil(max(length, smallest) / multiple) * multiple for length in (height, width)
    ]
    top, left = (max(0, side - length) // 2 for side, length in zip(sides, (height, width), strict=True))
    padded = mirrored(image, top, max(height, sides[0]), left, max(width, sides[1]))
    rows, columns = (starts(length, side, overlap) for length, side in zip(padded.shape[-2:], sides, strict=True))
    if len(rows) == len(columns) == 1:
        result = function(padded)
    else:
        down, across = (ramp(side, overlap).to(image.device) for side in sides)
        weight = down[:, None] * across
        blended: list[Tensor] = []
        total = padded.new_zeros(padded.shape[-2:])
        for row, column in product(rows, columns):
            window = (..., slice(row, row + sides[0]), slice(column, column + sides[1]))
            piece = function(padded[window])
            blended = blended or [piece.new_zeros(*piece.shape[:2], *padded.shape[-2:])]
            blended[0][window] += piece * weight
            total[window] += weight
        result = blended[0] / total
    return result[..., top : top + height, left : left + width]


def mirrored(image: Tensor, top: int, height: int, left: int, width: int) -> Tensor:
    """Mirrors an image ``(..., H, W)`` at its borders, as often as needed, without repeating the border itself.

    Args:
        image: The image.
        top: Rows above it.
        height: Rows of the result.
        left: Columns to the left of it.
        width: Columns of the result.
    """
    for dim, before, length in ((-2, top, height), (-1, left, width)):
        size = image.shape[dim]
        period = max(1, 2 * (size - 1))
        place = (torch.arange(length, device=image.device) - before) % period
        image = image.index_select(dim, torch.minimum(place, period - place))
    return image


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length`` pixels, evenly spread.

    Example:
        >>> starts(100, 40, 10)
        [0, 30, 60]
        >>> starts(40, 40, 10)
        [0]
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def ramp(tile: int, overlap: int) -> Tensor:
    """Weights of a tile's pixels, ``(tile,)``: 1 in the middle, falling towards both ends over ``overlap`` pixels."""
    inside = torch.arange(tile) + 0.5
    return (torch.minimum(inside, tile - inside) / max(1, overlap)).clamp(max=1)
