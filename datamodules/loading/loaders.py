"""The loader: asks a sampler for indices and a data set for the batch, and knows where it stands."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from datamodules.loading.samplers import BatchSampler
from datamodules.loading.tensors import Batch

BatchOut = TypeVar("BatchOut", bound=tuple[Tensor, ...], covariant=True)


class BatchSource(Protocol[BatchOut]):
    """What :class:`BatchLoader` asks of a data set; most often it is a
    :class:`datamodules.loading.tensors.GatherDataset`."""

    def __getitems__(self, indices: Tensor) -> BatchOut: ...


class BatchLoader(Generic[Batch]):
    """Iterates over the batches of one epoch, can say where it is, and can go on from there.

    It takes the place of ``torch.utils.data.DataLoader``, which can do neither. A batch is a gather from memory, so
    that worker processes would only cost time. Lightning saves and restores its state (``state_dict``) and sets its
    epoch (``loader.sampler.set_epoch``), as a plain loop may do:

        for epoch in range(3):
            loader.set_epoch(epoch)
            for batch in loader:
                ...

    Args:
        dataset: Anything with ``__getitems__(indices)``.
        sampler: Draws the indices; see :mod:`datamodules.loading.samplers`.
    """

    def __init__(self, dataset: BatchSource[Batch], batch_sampler: BatchSampler) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self.epoch = 0
        self.batches_seen = 0
        self._resumed = False

    @property
    def sampler(self) -> "BatchLoader[Batch]":
        """The object whose ``set_epoch`` Lightning calls."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        if epoch != self.epoch:
            self.epoch, self.batches_seen, self._resumed = epoch, 0, False

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator's body starts with its first `next`, thus after Lightning has set the epoch.
        if not self._resumed:
            self.batches_seen = 0
        self._resumed = False
        for indices in islice(self.batch_sampler.epoch(self.epoch), self.batches_seen, None):
            self.batches_seen += 1
            yield self.dataset.__getitems__(indices)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batches_seen": self.batches_seen, "batches": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on behind the last batch that was used.

        With another number of batches an epoch (another batch size or number of processes) there is no such place,
        and the epoch starts again.
        """
        self.epoch = state["epoch"]
        self.batches_seen = state["batches_seen"] if state["batches"] == len(self) else 0
        self._resumed = True
