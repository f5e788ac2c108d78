"""What the ranks of a distributed run have, put together. All ranks must call these functions."""

from typing import TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch import distributed as dist
from torchmetrics.utilities.distributed import gather_all_tensors

Value = TypeVar("Value")


def gather(trainer: Trainer, value: Value) -> list[Value]:
    """The values of all ranks, by rank; tensors should be on the CPU."""
    values = [value] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(values, value)
    return values


def gather_rows(trainer: Trainer, values: Tensor) -> Tensor:
    """The values of all rows of an evaluation set, in its order, on the CPU.

    Ranks take turns with the rows (:class:`datamodules.loading.samplers.SequentialBatches`).

    Args:
        trainer: The trainer that evaluates.
        values: ``(rows of this rank, ...)``, in order. (Lightning lets no rank go without rows.)

    Returns:
        ``(rows, ...)``.
    """
    return _in_order_of_rows(gather(trainer, values.cpu()))


def gather_on_device(values: Tensor) -> Tensor:
    """As :func:`gather_rows`, but on the values' own device: for large tensors on an accelerator.

    Args:
        values: ``(rows of this rank, ...)``, in order, on the device of the strategy; no gradients flow back.

    Returns:
        ``(rows, ...)``; ``values`` itself where there is one process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    return _in_order_of_rows(gather_all_tensors(values))


def _in_order_of_rows(shares: list[Tensor]) -> Tensor:
    """The rows of all ranks in the order of the evaluation set."""
    rows = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    for rank, share in enumerate(shares):
        rows[rank :: len(shares)] = share
    return rows


def batch_weight(size: int) -> int:
    """The ``batch_size`` to log a mean with under ``sync_dist=True``, if ranks may have batches of different sizes.

    Lightning averages the ranks' numbers of samples in whole numbers, which drops a remainder; a number that the ranks
    divide has none.
    """
    return size * (dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1)


def means_over_ranks(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The means of all ranks' tensors, such as gradients that DDP doesn't average; no gradients flow back."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensors
    mean = mean_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = mean.split([tensor.numel() for tensor in tensors])
    return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of all ranks' values, on their device; no gradients flow back. ``value`` itself with one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
