"""The loader: asks a sampler for indices and a data set for the batch, and keeps its place in the epoch."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import BatchSampler as TorchBatchSampler
from torch.utils.data import DataLoader, DistributedSampler, Sampler, SequentialSampler

from datamodules.loading.samplers import BatchSampler, ContinuingSampler, draws_epochs, share_of, size_of
from datamodules.loading.tensors import Batch

BatchOut = TypeVar("BatchOut", bound=tuple[Tensor, ...], covariant=True)


class BatchSource(Protocol[BatchOut]):
    """What :class:`BatchLoader` asks of a data set; most often it is a
    :class:`datamodules.loading.tensors.GatherDataset`."""

    def __getitems__(self, indices: Tensor) -> BatchOut: ...


@dataclass(slots=True)
class Used:
    """What a loader has used of an epoch; a separate object, as setting an attribute of a ``DataLoader`` is slow."""

    batches: int = 0
    rows: int = 0


class BatchLoader(DataLoader[Any], Generic[Batch]):
    """Iterates over the batches of one epoch, reports its place in it, and can go on from there.

    A ``torch.utils.data.DataLoader`` that gathers a batch in one step, without worker processes: from memory they would
    only cost time. Lightning saves and restores its state (``state_dict``) and sets its epoch
    (``loader.sampler.set_epoch``), as a plain loop may do:

        for epoch in range(3):
            loader.set_epoch(epoch)
            for batch in loader:
                ...

    With one of relit's samplers, Lightning and Fabric leave the order and the share of each process alone. With torch's
    samplers they treat it as any other ``DataLoader``; an epoch can't be resumed exactly then.

    Args:
        dataset: Anything with ``__getitems__(indices)``.
        batch_size: Rows in a batch of ``sampler``.
        shuffle: Draw the rows at random by torch's sampler.
        sampler: A sampler of torch's.
        batch_sampler: In place of the three: one of :mod:`datamodules.loading.samplers`, or a batch sampler of torch's.
        drop_last: Leave out a last, smaller batch of ``sampler``.
    """

    dataset: Any

    # The names are torch's: Lightning builds the loaders of a prediction again by them, to note each image's row.
    def __init__(
        self,
        dataset: BatchSource[Batch],
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Any = None,
        batch_sampler: Any = None,
        drop_last: bool = False,
    ) -> None:
        self.batches: BatchSampler | None = batch_sampler if draws_epochs(batch_sampler) else None
        self.epoch = 0
        self._used = Used()
        self.same_every_epoch = False
        self.change: str | None = None
        """How the place of a checkpoint has been carried over to batches of another size, None if it is the same."""
        self._resumed = False
        rows = None
        if self.batches is not None:
            rows = EpochSampler(self, self.batches)
            batch_sampler = EpochBatches(rows)
        super().__init__(
            cast(Any, dataset),
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            drop_last=drop_last,
        )
        if rows is not None:
            self.sampler = rows
        # Lightning's advice to load with several processes, which this loader has no use for.
        warnings.filterwarnings("ignore", message=".*_dataloader' does not have many workers")
        # An empty split is refused or noted by the data module, which can name the argument to change.
        warnings.filterwarnings("ignore", message="Total length of `BatchLoader` across ranks is zero")

    def __setattr__(self, name: str, value: Any) -> None:
        # Not torch's, which forbids to change the data set: :mod:`lit_models.support.phase_data` does.
        object.__setattr__(self, name, value)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        for theirs in (self.sampler, self.batch_sampler) if self.batches is None else ():
            set_epoch = getattr(theirs, "set_epoch", None)  # torch's samplers of distributed runs have it
            if set_epoch is not None:
                set_epoch(epoch)
        if epoch != self.epoch:
            self.epoch, self._used, self._resumed = epoch, Used(), False

    @property
    def batches_seen(self) -> int:
        """Batches of this epoch that were given."""
        return self._used.batches

    @property
    def rows_seen(self) -> int:
        """Their rows, or episodes, of all ranks together."""
        return self._used.rows

    # A generator, where torch has an object with state for worker processes.
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator's body starts with its first `next`, thus after Lightning has set the epoch.
        if not self._resumed:
            self._used = Used()
        self._resumed = False
        used, share = self._used, self._share
        for indices in self._rest():
            used.batches += 1
            used.rows += share
            yield self.dataset.__getitems__(indices)

    def _rest(self) -> Iterator[Tensor]:
        epoch = 0 if self.same_every_epoch else self.epoch
        if isinstance(self.batches, ContinuingSampler):
            return self.batches.epoch_after(epoch, self.rows_seen)
        if self.batches is not None:
            return islice(self.batches.epoch(epoch), self.batches_seen, None)
        batches = cast(Any, self.batch_sampler)
        return (torch.as_tensor(indices) for indices in islice(batches, self.batches_seen, None))

    def start_over(self) -> None:
        """Makes the next iteration go through the whole epoch, whatever place was loaded."""
        self._used = Used()
        self.change = "starts over"

    @property
    def _share(self) -> int:
        """Rows, or episodes, of a batch of all ranks together."""
        return share_of(self.batches)

    @property
    def _rows(self) -> int:
        return size_of(self.batches)

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
        of rows, or the sampler can't start there, the epoch starts over. :attr:`change` says which.
        """
        self.epoch, self._resumed, self.change = state["epoch"], True, None
        # Earlier versions knew neither of some samplers.
        share, rows = state.get("share") or self._share, state.get("rows") or self._rows
        if (state["batches"], share, rows) == (len(self), self._share, self._rows):
            batches = state["batches_seen"]
            self._used = Used(batches, state.get("rows_seen", batches * share))
            # Lightning sets the epoch of torch's samplers without the loader: after an epoch's end the next one begins.
            self._resumed = self.batches is not None or batches < len(self)
        elif rows == self._rows and "rows_seen" in state and isinstance(self.batches, ContinuingSampler):
            used = state["rows_seen"]
            self._used = Used(len(self) - (rows - used) // self._share, used)
            self.change = f"goes on after the {self.rows_seen} of {rows} that it has used"
        else:
            self.start_over()


class EpochSampler(SequentialSampler, DistributedSampler[Any]):
    """The rows of a loader's epoch, batch after batch.

    Sequential and distributed by its bases: so Lightning and Fabric neither reorder the rows nor share them out again.

    Args:
        loader: Its epoch is set.
        batches: Draws the rows.
    """

    def __init__(self, loader: BatchLoader[Any], batches: BatchSampler) -> None:
        Sampler.__init__(self)  # the bases' own need a length, and the processes
        self.loader, self.batches = loader, batches

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        for rows in self.batches.epoch(self.loader.epoch):
            yield from rows.tolist()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.batches.epoch(self.loader.epoch))


class EpochBatches(TorchBatchSampler):
    """Those batches as lists, as torch's batch samplers give them.

    Args:
        sampler: Draws the batches.
        batch_size: Not used: the sampler has it. (Lightning builds batch samplers again by these names.)
        drop_last: Not used.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int = 1, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.epochs = sampler

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in self.epochs.batches.epoch(self.epochs.loader.epoch):
            yield rows.tolist()

    def __len__(self) -> int:
        return len(self.epochs.batches)
