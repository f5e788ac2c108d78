"""Which rows make up each batch: a pure function of seed and epoch, shared out over the ranks of a distributed run.

A sampler has ``len(sampler)``, the batches an epoch on this rank, and ``sampler.epoch(e)``, an iterator over the
int64 index tensors of epoch ``e``. As an epoch's order depends on nothing but its number, a resumed run only has to
know the epoch and how many batches of it were used. ``sampler.share``, the rows of a batch of all ranks, shows whether
those batches were of the same size.
"""

import math
from collections.abc import Iterator
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from datamodules.errors import DataError


@runtime_checkable
class BatchSampler(Protocol):
    """What :class:`datamodules.loading.loaders.BatchLoader` needs of a sampler; see :func:`draws_epochs`."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each batch of that epoch."""
        ...


@runtime_checkable
class SharedSampler(Protocol):
    """A sampler whose batches are all of one size.

    Attributes:
        share: Rows, or episodes, of a batch of all ranks together.
    """

    share: int


@runtime_checkable
class SizedSampler(Protocol):
    """A sampler of a known number of rows.

    Attributes:
        size: Rows, or episodes, in an epoch.
    """

    size: int


@runtime_checkable
class ContinuingSampler(BatchSampler, SharedSampler, SizedSampler, Protocol):
    """A sampler whose epoch can go on behind any number of rows, so also with batches of another size."""

    def epoch_after(self, epoch: int, seen: int) -> Iterator[Tensor]:
        """The rows of the batches that follow the first ``seen`` rows or episodes of that epoch."""
        ...


def share_of(sampler: object) -> int:
    """The rows, or episodes, of a batch of all ranks together; 0 if they aren't known."""
    return sampler.share if isinstance(sampler, SharedSampler) else 0


def size_of(sampler: object) -> int:
    """The rows, or episodes, in an epoch; 0 if they aren't known."""
    return sampler.size if isinstance(sampler, SizedSampler) else 0


def draws_epochs(sampler: object) -> TypeGuard[BatchSampler]:
    """Whether a sampler has the method ``epoch(e)``. (Those of torch's kind often have a number of that name, which
    ``isinstance`` takes for it.)"""
    return isinstance(sampler, BatchSampler) and callable(sampler.epoch)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A random generator that every rank can rebuild from the run's seed and the epoch alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


class ShuffledBatches:
    """Random batches for training; the last, smaller batch of an epoch is left out.

    All ranks draw the same permutation and each takes its share of every global batch, so that ``world_size`` ranks
    with ``batch_size`` rows each see the same global batches as one process with ``world_size * batch_size`` rows.

    Args:
        size: Rows in the data set.
        batch_size: Rows in a batch of one rank.
        seed: Seed of the order.
        rank: This process's rank.
        world_size: Number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise DataError(f"--data.batch_size is {batch_size}; it must be at least 1.")
        if size < batch_size * world_size:
            processes = f" on {world_size} processes" if world_size > 1 else ""
            raise DataError(
                f"A training batch of {batch_size}{processes} needs {batch_size * world_size} samples, but there are "
                f"{size}: {_lowered('batch_size', size // world_size, 'training images')}."
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.share = batch_size * world_size

    def __len__(self) -> int:
        return self.size // self.share

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each batch of that epoch, ``(batch_size,)``."""
        return self.epoch_after(epoch, 0)

    def epoch_after(self, epoch: int, seen: int) -> Iterator[Tensor]:
        """The rows of the batches that follow the first ``seen`` rows of all ranks."""
        order = torch.randperm(self.size, generator=epoch_generator(self.seed, epoch))
        for start in range(seen, self.size - self.share + 1, self.share):
            yield order[start + self.rank : start + self.share : self.world_size]


class SequentialBatches:
    """Every row once, in order, for evaluation; ranks take turns, and no row is padded or seen twice."""

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise DataError(f"--data.batch_size or --data.eval_batch_size is {batch_size}; it must be at least 1.")
        self.rows = torch.arange(size)[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each batch, ``(batch_size,)`` or fewer in the last one; the same in every epoch."""
        return iter(self.rows.split(self.batch_size) if len(self.rows) else ())


class EpisodeBatches:
    """N-way K-shot episodes (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080): N classes, and of each K samples
    for the support and Q for the query.

    A batch is an int64 tensor of rows, ``(episodes_per_batch, n_way, k_shot + n_query)``; within a class the first
    ``k_shot`` rows are the support. The classes of an episode and the samples of a class are drawn without replacement.

    All ranks draw the same episodes and each takes its share: ``world_size`` ranks with ``episodes_per_batch`` episodes
    each see the same global batches as one process with ``world_size * episodes_per_batch``. The episodes of an epoch
    don't even depend on how they are put into batches.

    Args:
        labels: ``(size,)``: the class of each row of the data set, as any whole number.
        n_way: Classes in an episode.
        k_shot: Support samples of each class.
        n_query: Query samples of each class.
        episodes: Episodes in an epoch, of all ranks together; in training, those that don't fill a batch on every rank
            are left out.
        episodes_per_batch: Episodes in a batch of one rank.
        seed: Seed of the episodes.
        rank: This process's rank.
        world_size: Number of processes.
        evaluation: Draw the same episodes in every epoch, and use all of them: the last batch may be smaller.
    """

    def __init__(
        self,
        labels: Tensor,
        n_way: int,
        k_shot: int,
        n_query: int,
        episodes: int,
        episodes_per_batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        evaluation: bool = False,
    ) -> None:
        way, shot, query = ("test_way", "test_shot", "test_query") if evaluation else ("n_way", "k_shot", "n_query")
        _at_least_one({way: n_way, shot: k_shot, query: n_query, "episodes_per_batch": episodes_per_batch})
        self.classes = RowsByClass(labels)
        if n_way > len(self.classes):
            split = "validation or test" if evaluation else "training"
            count = len(self.classes)
            fault = {
                0: f"the {split} split, which is empty: give it images",
                1: f"{split} images of a single class: sort the folder's images into a sub-folder for each class",
            }.get(count, f"{count} classes: set --data.{way} to {count} or less")
            raise DataError(f"Episodes of {n_way} classes can't be drawn from {fault}.")
        fewest, label = self.classes.fewest()
        if k_shot + n_query > fewest:
            raise DataError(
                f"An episode takes {k_shot} + {n_query} samples of a class, but class {label} has {fewest}: lower "
                f"--data.{shot} or --data.{query}."
            )
        if evaluation and episodes < 1:
            raise DataError(
                f"{episodes} evaluation episodes are none: set --data.val_episodes and --data.test_episodes."
            )
        if not evaluation and episodes < episodes_per_batch * world_size:
            processes = f" on {world_size} processes" if world_size > 1 else ""
            raise DataError(
                f"An epoch of {episodes} episodes doesn't fill one batch of {episodes_per_batch}{processes}: raise "
                "--data.train_episodes or lower --data.episodes_per_batch."
            )
        self.n_way, self.samples = n_way, k_shot + n_query
        self.episodes, self.episodes_per_batch, self.seed = episodes, episodes_per_batch, seed
        self.rank, self.world_size, self.evaluation = rank, world_size, evaluation
        self.size, self.share = episodes, episodes_per_batch * world_size

    def __len__(self) -> int:
        if not self.evaluation:
            return self.episodes // (self.episodes_per_batch * self.world_size)
        return math.ceil(len(range(self.rank, self.episodes, self.world_size)) / self.episodes_per_batch)

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each batch of that epoch, ``(episodes_per_batch, n_way, k_shot + n_query)``."""
        return self.epoch_after(epoch, 0)

    def epoch_after(self, epoch: int, seen: int) -> Iterator[Tensor]:
        """The rows of the batches that follow the first ``seen`` episodes of all ranks."""
        generator = epoch_generator(self.seed, 0 if self.evaluation else epoch)
        class_keys = len(self.classes)
        sample_keys = self.n_way * self.classes.most
        torch.rand(seen, class_keys + sample_keys, generator=generator)
        last = self.episodes if self.evaluation else self.episodes - self.share + 1
        for first in range(seen, last, self.share):
            episodes = min(self.share, self.episodes - first)
            keys = torch.rand(episodes, class_keys + sample_keys, generator=generator)[self.rank :: self.world_size]
            if not len(keys):
                return  # the last, smaller batch of an evaluation has nothing for this rank
            classes = keys[:, :class_keys].topk(self.n_way).indices
            yield self.classes.draw(classes, keys[:, class_keys:].unflatten(1, (self.n_way, -1)), self.samples)


class ClassBalancedBatches:
    """P random classes and K random samples of each (Hermans, Beyer & Leibe 2017, https://arxiv.org/abs/1703.07737).

    A batch is an int64 tensor of ``classes_per_batch * samples_per_class`` rows, class after class; classes and samples
    are drawn without replacement. An epoch has as many batches as would show every row once.

    All ranks draw the same global batch of ``world_size * classes_per_batch`` classes, and each takes its share of the
    classes.

    Args:
        labels: ``(size,)``: the class of each row of the data set, as any whole number.
        classes_per_batch: Classes in a batch of one rank (P).
        samples_per_class: Samples of each class (K).
        seed: Seed of the batches.
        rank: This process's rank.
        world_size: Number of processes.
    """

    def __init__(
        self,
        labels: Tensor,
        classes_per_batch: int,
        samples_per_class: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _at_least_one({"classes_per_batch": classes_per_batch, "samples_per_class": samples_per_class})
        self.classes = RowsByClass(labels)
        if classes_per_batch * world_size > len(self.classes):
            processes = f" on {world_size} processes" if world_size > 1 else ""
            raise DataError(
                f"A batch of {classes_per_batch} classes{processes} needs {classes_per_batch * world_size} classes; "
                f"there are {len(self.classes)}: "
                f"{_lowered('classes_per_batch', len(self.classes) // world_size, 'classes')}."
            )
        fewest, label = self.classes.fewest()
        if samples_per_class > fewest:
            raise DataError(
                f"A batch takes {samples_per_class} samples of a class, but class {label} has {fewest}: set "
                f"--data.samples_per_class to {fewest} or less, or leave such classes out."
            )
        self.size, self.seed = len(labels), seed
        self.classes_per_batch, self.samples_per_class = classes_per_batch, samples_per_class
        self.rank, self.world_size = rank, world_size
        self.share = classes_per_batch * samples_per_class * world_size

    def __len__(self) -> int:
        return self.size // self.share

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each batch of that epoch, ``(classes_per_batch * samples_per_class,)``."""
        generator = epoch_generator(self.seed, epoch)
        drawn = self.classes_per_batch * self.world_size
        for _ in range(len(self)):
            classes = torch.rand(len(self.classes), generator=generator).topk(drawn).indices
            keys = torch.rand(drawn, self.classes.most, generator=generator)
            share = slice(self.rank, None, self.world_size)
            yield self.classes.draw(classes[share], keys[share], self.samples_per_class).flatten()


class RowsByClass:
    """The rows of each class, in one tensor, so that samples of many classes are drawn at once.

    Args:
        labels: ``(size,)``: the class of each row.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels, self.counts = labels.unique(return_counts=True)
        self.rows = labels.argsort(stable=True)
        self.starts = self.counts.cumsum(0) - self.counts
        self.most = int(self.counts.max()) if len(self.counts) else 0

    def __len__(self) -> int:
        return len(self.counts)

    def fewest(self) -> tuple[int, int]:
        """The size of the smallest class, and its label."""
        smallest = int(self.counts.argmin())
        return int(self.counts[smallest]), int(self.labels[smallest])

    def draw(self, classes: Tensor, keys: Tensor, samples: int) -> Tensor:
        """Rows of the samples with the highest keys, ``(..., samples)``.

        Args:
            classes: ``(...)``: places of the classes in ``labels``.
            keys: ``(..., most)``: a random number in [0, 1) for each sample that a class may have.
            samples: Samples to draw of each class.
        """
        keys = keys.masked_fill(torch.arange(self.most) >= self.counts[classes].unsqueeze(-1), -1.0)
        return self.rows[self.starts[classes].unsqueeze(-1) + keys.topk(samples).indices]


def _lowered(name: str, most: int, what: str) -> str:
    """What to do about a number that is too large; if 1 is too large as well, there is too little of something."""
    return f"set --data.{name} to {most} or less" if most else f"choose data with more {what}"


def _at_least_one(numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise DataError(f"--data.{name} is {number}; it must be at least 1.")
