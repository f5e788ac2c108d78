"""What the ranks of a distributed run have, put together. All ranks must call these functions."""

from typing import TypeVar

from lightning.pytorch import Trainer
from torch import Tensor
from torch import distributed as dist

Value = TypeVar("Value")


def gather(trainer: Trainer, value: Value) -> list[Value]:
    """The values of all ranks, by rank; tensors should be on the CPU."""
    values = [value] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(values, value)
    return values


def gather_rows(trainer: Trainer, values: Tensor) -> Tensor:
    """The values of all rows of an evaluation set, in its order, on the CPU.

    Ranks take turns with the rows (:class:`datamodules.samplers.SequentialBatches`).

    Args:
        trainer: The trainer that evaluates.
        values: ``(rows of this rank, ...)``, in order. (Lightning lets no rank go without rows.)

    Returns:
        ``(rows, ...)``.
    """
    shares = gather(trainer, values.cpu())
    rows = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    for rank, share in enumerate(shares):
        rows[rank :: trainer.world_size] = share
    return rows


def batch_weight(size: int) -> int:
    """The ``batch_size`` to log a mean with under ``sync_dist=True``, if ranks may have batches of different sizes.

    Lightning averages the ranks' numbers of samples in whole numbers, which drops a remainder; a number that the ranks
    divide has none.
    """
    return size * (dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1)
