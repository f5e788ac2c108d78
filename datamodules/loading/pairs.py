"""Pairs of pictures: how windows are cut out of them, and how their halves are drawn, together or apart."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from datamodules.loading import augment
from datamodules.loading.samplers import BatchSampler, share_of
from datamodules.loading.tensors import GatherDataset, ImagePair

# --- windows ----------------------------------------------------------------------------------------------------------


def tile_starts(length: int, size: int) -> list[int]:
    """First pixels of the fewest tiles of one size that cover a line, evenly spread.

    Example:
        >>> tile_starts(286, 128)
        [0, 79, 158]
    """
    count = -(-length // size)
    return [round(place * (length - size) / max(1, count - 1)) for place in range(count)]


def shift_target(pair: ImagePair, max_shift: int) -> ImagePair:
    """Shifts each target against its source by whole numbers of pixels, uniform from ``-max_shift`` to ``max_shift`` in
    each direction; both lose ``max_shift`` rows and columns at the borders."""
    height, width = pair.source.shape[-2:]
    size = (height - max_shift, width - max_shift)
    down, right = torch.randint(-max_shift, max_shift + 1, (2, len(pair.source)), device=pair.source.device)
    source = augment.crop(pair.source, (-down).clamp(min=0), (-right).clamp(min=0), size)
    target = augment.crop(pair.target, down.clamp(min=0), right.clamp(min=0), size)
    return ImagePair(source, target)


# --- batches ----------------------------------------------------------------------------------------------------------


class UnpairedBatches:
    """Draws the sources' rows by one sampler and the targets' by another.

    A batch's indices are ``(B, 2)``: the row of each source, and the row of each target. An epoch goes once through the
    larger set; the smaller one is gone through again and again, each time in another order.
    """

    def __init__(self, source: BatchSampler, target: BatchSampler) -> None:
        self.source, self.target = source, target
        self.share = share_of(source)

    def __len__(self) -> int:
        return max(len(self.source), len(self.target))

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The batches of one epoch."""
        halves = (_stream(sampler, epoch * len(self), len(self)) for sampler in (self.source, self.target))
        for rows in zip(*halves, strict=True):
            yield torch.stack(rows, dim=1)


def _stream(sampler: BatchSampler, start: int, count: int) -> Iterator[Tensor]:
    """So many batches of a sampler's epochs, one after the other, from batch ``start`` on."""
    epoch, skip = divmod(start, len(sampler))
    while count > 0:
        for place, batch in enumerate(sampler.epoch(epoch)):
            if place >= skip and count > 0:
                yield batch
                count -= 1
        epoch, skip = epoch + 1, 0


class UnpairedDataset(GatherDataset[ImagePair]):
    """Pairs whose halves are of different rows: takes indices ``(B, 2)`` as :class:`UnpairedBatches` draws them.

    Of a single index, the target is the one of that number, counted round where there are fewer.

    Args:
        columns: All sources and all targets; they need not be as many.
        rows: Rows of the sources that belong to this split; all if None.
        target_rows: Rows of the targets; ``rows`` if None.
    """

    def __init__(self, columns: ImagePair, rows: Tensor | None = None, target_rows: Tensor | None = None) -> None:
        self.columns = columns
        self.source_rows = torch.arange(len(columns.source)) if rows is None else rows
        self.rows = self.source_rows
        self.target_rows = self.source_rows if target_rows is None else target_rows

    def __getitems__(self, indices: Sequence[int] | Tensor) -> ImagePair:
        places = torch.as_tensor(indices)
        if places.ndim == 1:
            places = torch.stack([places, places % len(self.target_rows)], dim=1)
        halves = []
        for column, rows, place in zip(
            self.columns, (self.source_rows, self.target_rows), places.unbind(1), strict=True
        ):
            halves.append(column.index_select(0, rows[place].to(column.device, non_blocking=True)))
        return ImagePair(*halves)

    def to(self, device: torch.device) -> Self:
        """The same data set with its columns on ``device``."""
        return type(self)(ImagePair(*(column.to(device) for column in self.columns)), self.rows, self.target_rows)
