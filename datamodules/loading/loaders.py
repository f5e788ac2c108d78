"""The loader: asks a sampler for indices and a data set for the batch, and knows where it stands."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from datamodules.loading.samplers import BatchSampler, ContinuingSampler
from datamodules.loading.tensors import Batch

BatchOut = TypeVar("BatchOut", bound=tuple[Tensor, ...], covariant=True)


class BatchSource(Protocol[BatchOut]):
    """What :class:`BatchLoader` asks of a data set; most often it is a
    :class:`datamodules.loading.tensors.GatherDataset`."""

    def __getitems__(self, indices: Tensor) -> BatchOut: ...


class BatchLoader(Generic[Batch]):
    """Iterates over the batches of one epoch, can say where it is, and can go on from there.

    It has the attributes of ``torch.utils.data.DataLoader`` that Lightning uses, but is none: Lightning builds those of
    a prediction again, without their sampler. A batch is a gather from memory, so worker processes would only cost
    time. Lightning saves and restores its state
    (``state_dict``) and sets its epoch (``loader.sampler.set_epoch``), as a plain loop may do:

        for epoch in range(3):
            loader.set_epoch(epoch)
            for batch in loader:
                ...

    Args:
        dataset: Anything with ``__getitems__(indices)``.
        batch_sampler: Draws the indices; see :mod:`datamodules.loading.samplers`. A batch sampler of torch's will do,
            but has no place to go on from.
    """

    def __init__(self, dataset: BatchSource[Batch], batch_sampler: BatchSampler) -> None:
        self.dataset = dataset
        self.batch_sampler: Any = batch_sampler
        self.epoch = 0
        self.batches_seen = 0
        self.rows_seen = 0
        self.same_every_epoch = False
        self.change: str | None = None
        """How the place of a checkpoint has been carried over to batches of another size, None if it is the same."""
        self._resumed = False

    @property
    def sampler(self) -> "_SetsEpoch":
        """The object whose ``set_epoch`` Lightning calls; a sequential one, which Lightning leaves in place."""
        return _SetsEpoch(self)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        if epoch != self.epoch:
            self.epoch, self.batches_seen, self.rows_seen, self._resumed = epoch, 0, 0, False

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator's body starts with its first `next`, thus after Lightning has set the epoch.
        if not self._resumed:
            self.batches_seen = self.rows_seen = 0
        self._resumed = False
        share = self._share
        for indices in self._rest():
            self.batches_seen += 1
            self.rows_seen += share
            yield self.dataset.__getitems__(indices)

    def _rest(self) -> Iterator[Tensor]:
        epoch = 0 if self.same_every_epoch else self.epoch
        if isinstance(self.batch_sampler, ContinuingSampler):
            return self.batch_sampler.epoch_after(epoch, self.rows_seen)
        if isinstance(self.batch_sampler, BatchSampler):
            return islice(self.batch_sampler.epoch(epoch), self.batches_seen, None)
        set_epoch = getattr(self.batch_sampler, "set_epoch", lambda _: None)  # of a user's own sampler
        set_epoch(epoch)
        return (torch.as_tensor(indices) for indices in islice(self.batch_sampler, self.batches_seen, None))

    @property
    def _share(self) -> int:
        """Rows, or episodes, of a batch of all ranks together."""
        return self.batch_sampler.share if isinstance(self.batch_sampler, ContinuingSampler) else 0

    @property
    def _rows(self) -> int:
        return getattr(self.batch_sampler, "size", 0)  # a user's own sampler may lack it

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "batches_seen": self.batches_seen,
            "batches": len(self),
            "rows_seen": self.rows_seen,
            "share": self._share,
            "rows": self._rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on behind the last batch that was used.

        If a batch of all processes has another size by now (another batch size or number of processes), the epoch goes
        on behind the rows that were used; a last part of less than a batch is left out. If the data have another number
        of rows, or the sampler knows no such place, the epoch starts over. :attr:`change` says which.
        """
        self.epoch, self._resumed, self.change = state["epoch"], True, None
        share, rows = state.get("share", self._share), state.get("rows", self._rows)
        if (state["batches"], share, rows) == (len(self), self._share, self._rows):
            self.batches_seen = state["batches_seen"]
            self.rows_seen = state.get("rows_seen", self.batches_seen * share)
        elif rows == self._rows and "rows_seen" in state and isinstance(self.batch_sampler, ContinuingSampler):
            self.rows_seen = state["rows_seen"]
            self.batches_seen = len(self) - (rows - self.rows_seen) // self._share
            self.change = f"goes on after the {self.rows_seen} of {rows} that it has used"
        else:
            self.batches_seen = self.rows_seen = 0
            self.change = "starts over"


class _SetsEpoch(SequentialSampler):
    """Passes the epoch on to a loader."""

    def __init__(self, loader: BatchLoader[Any]) -> None:
        super().__init__(cast(Any, loader.dataset))
        self.set_epoch = loader.set_epoch
