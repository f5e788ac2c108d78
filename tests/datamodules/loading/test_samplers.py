from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from datamodules import DataError
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import (
    BatchSampler,
    ClassBalancedBatches,
    EpisodeBatches,
    RowsByClass,
    SequentialBatches,
    ShuffledBatches,
)
from datamodules.loading.tensors import GatherDataset, LabeledImages

few = settings(max_examples=30, deadline=2000)

# Classes of unequal sizes under any labels, their rows in any order.
label_sets = st.lists(st.integers(4, 9), min_size=6, max_size=12).flatmap(
    lambda sizes: st.permutations([10 * label - 30 for label, size in enumerate(sizes) for _ in range(size)])
)


def tensor(labels: list[int]) -> Tensor:
    return torch.tensor(labels)


def in_global_order(batches_of_ranks: list[list[Tensor]]) -> list[Tensor]:
    """Puts the ranks' shares of each global batch together again: each rank took every world_size-th entry."""
    together = []
    for shares in zip(*batches_of_ranks, strict=True):
        whole = torch.empty(sum(len(share) for share in shares), *shares[0].shape[1:], dtype=torch.int64)
        for rank, share in enumerate(shares):
            whole[rank :: len(shares)] = share
        together.append(whole)
    return together


# --- episodes ---------------------------------------------------------------------------------------------------------


@few
@given(
    labels=label_sets.map(tensor),
    n_way=st.integers(1, 6),
    k_shot=st.integers(1, 2),
    n_query=st.integers(1, 2),
    per_batch=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_an_episode_has_distinct_classes_and_distinct_samples_of_them(
    labels: Tensor, n_way: int, k_shot: int, n_query: int, per_batch: int, seed: int, epoch: int
) -> None:
    sampler = EpisodeBatches(labels, n_way, k_shot, n_query, episodes=7, episodes_per_batch=per_batch, seed=seed)
    batches = list(sampler.epoch(epoch))
    assert len(batches) == len(sampler) == 7 // per_batch
    for batch in batches:
        assert batch.shape == (per_batch, n_way, k_shot + n_query)
        assert batch.dtype == torch.int64
        for episode in batch:
            classes = [set(labels[rows].tolist()) for rows in episode]
            assert all(len(one) == 1 for one in classes)
            assert len(set.union(*classes)) == n_way
            assert len(set(episode.flatten().tolist())) == episode.numel()  # so support and query are disjoint


@few
@given(
    labels=label_sets.map(tensor),
    world_size=st.integers(1, 4),
    per_batch=st.integers(1, 3),
    epoch=st.integers(0, 50),
    evaluation=st.booleans(),
)
def test_ranks_draw_together_the_episodes_of_one_process(
    labels: Tensor, world_size: int, per_batch: int, epoch: int, evaluation: bool
) -> None:
    def batches(per_batch: int, rank: int, world_size: int) -> list[Tensor]:
        sampler = EpisodeBatches(labels, 3, 1, 2, 24, per_batch, 5, rank, world_size, evaluation=evaluation)
        drawn = list(sampler.epoch(epoch))
        assert len(drawn) == len(sampler)
        return drawn

    ranks = [batches(per_batch, rank, world_size) for rank in range(world_size)]
    whole = batches(per_batch * world_size, 0, 1)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(in_global_order(ranks), whole, strict=True))
    everything = torch.cat(whole)
    assert len(everything.flatten(1).unique(dim=0)) == len(everything)  # no episode twice, so ranks' differ


@few
@given(
    episodes=st.integers(1, 20),
    per_batch=st.integers(1, 6),
    world_size=st.integers(1, 5),
)
def test_evaluation_uses_every_episode_once_whatever_the_batches(
    episodes: int, per_batch: int, world_size: int
) -> None:
    labels = torch.arange(8).repeat_interleave(5)
    expected = torch.cat(list(EpisodeBatches(labels, 3, 2, 2, episodes, evaluation=True).epoch(0)))
    drawn = []
    for rank in range(world_size):
        sampler = EpisodeBatches(labels, 3, 2, 2, episodes, per_batch, 0, rank, world_size, evaluation=True)
        batches = list(sampler.epoch(4))
        assert len(batches) == len(sampler)
        assert all(len(batch) == per_batch for batch in batches[:-1])
        drawn += [(i * world_size + rank, row) for i, row in enumerate(row for batch in batches for row in batch)]
    # Within a global batch the ranks take turns, and so they do from one to the next.
    order = [row for _, row in sorted(drawn, key=lambda pair: pair[0])]
    assert torch.equal(torch.stack(order), expected)


def test_training_episodes_differ_between_epochs_and_seeds_and_evaluation_episodes_do_not() -> None:
    labels = torch.arange(30).repeat_interleave(10)

    def drawn(seed: int, epoch: int, evaluation: bool) -> Tensor:
        return torch.cat(list(EpisodeBatches(labels, 5, 1, 5, 10, seed=seed, evaluation=evaluation).epoch(epoch)))

    assert torch.equal(drawn(0, 3, False), drawn(0, 3, False))
    assert not torch.equal(drawn(0, 3, False), drawn(0, 4, False))
    assert not torch.equal(drawn(0, 3, False), drawn(1, 3, False))
    assert torch.equal(drawn(0, 3, True), drawn(0, 4, True))
    assert not torch.equal(drawn(0, 3, True), drawn(1, 3, True))


def test_classes_and_samples_of_episodes_are_uniform() -> None:
    sizes = torch.tensor([4, 6, 8, 10, 12, 14])
    labels = torch.arange(6).repeat_interleave(sizes)
    drawn = torch.cat(list(EpisodeBatches(labels, 3, 2, 2, 3000, 100).epoch(0)))
    assert stats.chisquare(torch.bincount(labels[drawn[:, :, 0]].flatten())).pvalue > 0.001
    for place in range(3):  # the order of the classes is random, too
        assert stats.chisquare(torch.bincount(labels[drawn[:, place, 0]])).pvalue > 0.001
    for part in (drawn[:, :, :2], drawn[:, :, 2:]):  # support and query
        counts = torch.bincount(part.flatten(), minlength=len(labels)).double()
        for label in range(6):
            assert stats.chisquare(counts[labels == label]).pvalue > 0.001
    first, second = drawn[:, :, 0].flatten(), drawn[:, :, 1].flatten()
    pairs = torch.zeros(4, 4).index_put_((first[first < 4], second[first < 4]), torch.ones(()), accumulate=True)
    assert pairs.diagonal().sum() == 0
    assert stats.chisquare(pairs[~torch.eye(4, dtype=torch.bool)]).pvalue > 0.001


EPISODE_ERRORS: list[tuple[dict[str, int | bool], str]] = [
    ({"n_way": 9}, "Episodes of 9 classes can't be drawn from 8 classes: set --data.n_way to 8 or less."),
    ({"n_way": 9, "evaluation": True}, "can't be drawn from 8 classes: set --data.test_way to 8 or less."),
    (
        {"k_shot": 3, "n_query": 3},
        "An episode takes 3 + 3 samples of a class, but class 7 has 5: lower --data.k_shot or --data.n_query.",
    ),
    ({"k_shot": 5, "n_query": 1, "evaluation": True}, "lower --data.test_shot or --data.test_query."),
    ({"n_way": 0}, "--data.n_way is 0; it must be at least 1."),
    ({"k_shot": 0}, "--data.k_shot is 0; it must be at least 1."),
    ({"n_query": -1}, "--data.n_query is -1; it must be at least 1."),
    ({"n_query": 0, "evaluation": True}, "--data.test_query is 0; it must be at least 1."),
    ({"episodes_per_batch": 0}, "--data.episodes_per_batch is 0; it must be at least 1."),
    (
        {"episodes": 7, "episodes_per_batch": 4, "world_size": 2},
        "An epoch of 7 episodes doesn't fill one batch of 4 on 2 processes: raise --data.train_episodes or lower "
        "--data.episodes_per_batch.",
    ),
    ({"episodes": 0, "evaluation": True}, "set --data.val_episodes and --data.test_episodes."),
]


@pytest.mark.parametrize(("change", "sentence"), EPISODE_ERRORS)
def test_impossible_episodes_are_refused(change: dict[str, int | bool], sentence: str) -> None:
    labels = torch.arange(8).repeat_interleave(torch.tensor([6, 6, 6, 6, 6, 6, 6, 5]))
    arguments = {"n_way": 5, "k_shot": 1, "n_query": 3, "episodes": 10}
    EpisodeBatches(labels, **arguments)
    with pytest.raises(DataError) as error:
        EpisodeBatches(labels, **(arguments | change))
    assert sentence in str(error.value)


def test_no_classes_at_all_are_refused() -> None:
    none, one = torch.empty(0, dtype=torch.int64), torch.zeros(20, dtype=torch.int64)
    with pytest.raises(DataError, match="of 5 classes can't be drawn from the training split, which is empty: give it"):
        EpisodeBatches(none, 5, 1, 1, 10)
    with pytest.raises(DataError, match=r"from validation or test images of a single class: .* a sub-folder for each"):
        EpisodeBatches(one, 5, 1, 1, 10, evaluation=True)


# --- class-balanced batches -------------------------------------------------------------------------------------------


@few
@given(
    labels=label_sets.map(tensor),
    classes=st.integers(1, 3),
    samples=st.integers(1, 4),
    world_size=st.integers(1, 2),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_a_balanced_batch_has_k_samples_of_each_of_p_classes_and_ranks_share_them_out(
    labels: Tensor, classes: int, samples: int, world_size: int, seed: int, epoch: int
) -> None:
    samplers = [ClassBalancedBatches(labels, classes, samples, seed, rank, world_size) for rank in range(world_size)]
    ranks = [list(sampler.epoch(epoch)) for sampler in samplers]
    length = len(labels) // (classes * samples * world_size)
    assert [len(sampler) for sampler in samplers] == [len(batches) for batches in ranks] == [length] * world_size
    for shares in zip(*ranks, strict=True):
        for share in shares:
            assert share.shape == (classes * samples,)
            assert (labels[share].view(classes, samples) == labels[share].view(classes, samples)[:, :1]).all()
        whole = torch.cat(shares)
        assert len(whole.unique()) == len(whole)
        _, counts = labels[whole].unique(return_counts=True)
        assert counts.tolist() == [samples] * (classes * world_size)

    one = ClassBalancedBatches(labels, classes * world_size, samples, seed).epoch(epoch)
    by_class = [[batch.view(classes, samples) for batch in batches] for batches in ranks]
    for ours, theirs in zip(in_global_order(by_class), one, strict=True):
        assert torch.equal(ours.flatten(), theirs)


def test_classes_and_samples_of_balanced_batches_are_uniform() -> None:
    sizes = torch.tensor([40, 60, 80, 100, 1200, 1400])
    labels = torch.arange(6).repeat_interleave(sizes)
    drawn = torch.cat([batch for epoch in range(10) for batch in ClassBalancedBatches(labels, 2, 2).epoch(epoch)])
    assert stats.chisquare(torch.bincount(labels[drawn.view(-1, 2)[:, 0]])).pvalue > 0.001
    counts = torch.bincount(drawn, minlength=len(labels)).double()
    for label in range(6):
        assert stats.chisquare(counts[labels == label]).pvalue > 0.001


BALANCED_ERRORS: list[tuple[dict[str, int], str]] = [
    (
        {"classes_per_batch": 9},
        "A batch of 9 classes needs 9 classes; there are 8: set --data.classes_per_batch to 8 or less.",
    ),
    (
        {"classes_per_batch": 5, "world_size": 2},
        "A batch of 5 classes on 2 processes needs 10 classes; there are 8: set --data.classes_per_batch to 4 or less.",
    ),
    ({"classes_per_batch": 1, "world_size": 9}, "needs 9 classes; there are 8: choose data with more classes."),
    ({"samples_per_class": 6}, "takes 6 samples of a class, but class 7 has 5: set --data.samples_per_class to 5"),
    ({"classes_per_batch": 0}, "--data.classes_per_batch is 0; it must be at least 1."),
    ({"samples_per_class": 0}, "--data.samples_per_class is 0; it must be at least 1."),
]


@pytest.mark.parametrize(("change", "sentence"), BALANCED_ERRORS)
def test_impossible_balanced_batches_are_refused(change: dict[str, int], sentence: str) -> None:
    labels = torch.arange(8).repeat_interleave(torch.tensor([6, 6, 6, 6, 6, 6, 6, 5]))
    with pytest.raises(DataError) as error:
        ClassBalancedBatches(labels, **({"classes_per_batch": 3, "samples_per_class": 2} | change))
    assert sentence in str(error.value)


@few
@given(labels=label_sets.map(tensor))
def test_rows_are_found_by_class(labels: Tensor) -> None:
    classes = RowsByClass(labels)
    for place, label in enumerate(sorted(set(labels.tolist()))):
        rows = (labels == label).nonzero().flatten()
        keys = torch.rand(classes.most)
        drawn = classes.draw(torch.tensor(place), keys, 4)
        assert drawn.tolist() == rows[keys[: len(rows)].argsort(descending=True)[:4]].tolist()


# --- shuffled and sequential batches ----------------------------------------------------------------------------------


@few
@given(
    size=st.integers(24, 60),
    batch_size=st.integers(1, 6),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_shuffled_batches_show_no_row_twice_and_ranks_are_one_process(
    size: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    samplers = [ShuffledBatches(size, batch_size, seed, rank, world_size) for rank in range(world_size)]
    ranks = [list(sampler.epoch(epoch)) for sampler in samplers]
    assert all(len(batches) == len(sampler) for batches, sampler in zip(ranks, samplers, strict=True))
    whole = list(ShuffledBatches(size, batch_size * world_size, seed).epoch(epoch))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(in_global_order(ranks), whole, strict=True))
    rows = torch.cat(whole)
    assert len(rows) == size // (batch_size * world_size) * batch_size * world_size
    assert len(rows.unique()) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < size


def test_shuffled_orders_depend_on_seed_and_epoch() -> None:
    orders = [torch.cat(list(ShuffledBatches(50, 10, seed).epoch(epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(orders[i], orders[j]) for i in range(4) for j in range(i))


@few
@given(size=st.integers(0, 40), batch_size=st.integers(1, 7), world_size=st.integers(1, 4))
def test_sequential_batches_show_every_row_once(size: int, batch_size: int, world_size: int) -> None:
    rows = []
    for rank in range(world_size):
        sampler = SequentialBatches(size, batch_size, rank, world_size)
        batches = list(sampler.epoch(3))
        assert len(batches) == len(sampler)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        rows += [row for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(size))


def test_impossible_plain_batches_are_refused() -> None:
    with pytest.raises(DataError, match=r"needs 12 samples, but there are 10: set --data.batch_size to 5 or less"):
        ShuffledBatches(10, 6, world_size=2)
    for size, batch_size, world_size in ((0, 1, 1), (1, 1, 2)):
        with pytest.raises(DataError, match=rf"but there are {size}: choose data with more training images\."):
            ShuffledBatches(size, batch_size, world_size=world_size)
    with pytest.raises(DataError, match="batch_size is 0; it must be at least 1"):
        ShuffledBatches(10, 0)
    with pytest.raises(DataError, match="eval_batch_size is 0; it must be at least 1"):
        SequentialBatches(10, 0)


# --- going on in the middle of an epoch -------------------------------------------------------------------------------

LABELS = torch.arange(12).repeat_interleave(6)
SAMPLERS: dict[str, Callable[[], BatchSampler]] = {
    "shuffled": lambda: ShuffledBatches(72, 8, seed=3),
    "sequential": lambda: SequentialBatches(72, 8),
    "episodes": lambda: EpisodeBatches(LABELS, 4, 1, 2, 10, 2, seed=3, rank=1, world_size=2),
    "evaluation episodes": lambda: EpisodeBatches(LABELS, 4, 1, 2, 9, 2, seed=3, evaluation=True),
    "class-balanced": lambda: ClassBalancedBatches(LABELS, 3, 4, seed=3, rank=1, world_size=2),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_loader_goes_on_where_the_first_stopped(name: str) -> None:
    data = GatherDataset(LabeledImages(torch.arange(72).view(72, 1, 1, 1), LABELS))

    def loader() -> BatchLoader[LabeledImages]:
        return BatchLoader(data, batch_sampler=SAMPLERS[name]())

    def rows(batches: list[LabeledImages]) -> list[list[int]]:
        return [batch.image.flatten().tolist() for batch in batches]

    whole = loader()
    whole.set_epoch(5)
    expected = rows(list(whole))
    for used in range(len(whole)):
        killed = loader()
        killed.set_epoch(5)
        iterator = iter(killed)
        before = rows([next(iterator) for _ in range(used)])
        resumed = loader()
        resumed.load_state_dict(killed.state_dict())
        resumed.set_epoch(5)
        assert before + rows(list(resumed)) == expected


@pytest.mark.parametrize("seen", [1, 4, 7])
def test_episodes_go_on_behind_any_number_of_them(seen: int) -> None:
    labels = torch.arange(60) % 6
    one = EpisodeBatches(labels, 3, 1, 2, episodes=12, seed=4)
    three = EpisodeBatches(labels, 3, 1, 2, episodes=12, episodes_per_batch=3, seed=4)
    expected = torch.cat(list(one.epoch(5)))[seen:]
    rest = torch.cat(list(three.epoch_after(5, seen)))
    assert torch.equal(rest, expected[: len(rest)])
    assert len(expected) - len(rest) < 3
