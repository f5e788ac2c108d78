import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lit_models.losses.triplet import MININGS, TripletLoss, batch_all, batch_hard, distances, semi_hard

MARGINS: list[Any] = [0.3, 5.0, "soft"]


def embedded(size: int = 14, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


LABEL = torch.tensor([0, 1, 0, 2, 1, 3, 0, 1, 0, 2, 2, 1, 4, 0])
"""Classes of different sizes; 3 and 4 have one image each, which is an anchor without a positive."""


def plain_loss(embedding: Tensor, label: Tensor, margin: Any, mining: str, squared: bool) -> tuple[float, float]:
    """Loss and share of active triplets by loops over images."""
    points, labels = embedding.tolist(), label.tolist()

    def d(i: int, j: int) -> float:
        square = sum((x - y) ** 2 for x, y in zip(points[i], points[j], strict=True))
        return square if squared else math.sqrt(square)

    triplets = []
    for a in range(len(labels)):
        positives = [p for p in range(len(labels)) if p != a and labels[p] == labels[a]]
        negatives = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if mining == "batch_hard" and positives and negatives:
            triplets.append((max(d(a, p) for p in positives), min(d(a, n) for n in negatives)))
        elif mining == "semi_hard":
            for p in positives:
                farther = [d(a, n) for n in negatives if d(a, n) > d(a, p)]
                if farther:
                    triplets.append((d(a, p), min(farther)))
        elif mining == "batch_all":
            triplets += [(d(a, p), d(a, n)) for p, n in product(positives, negatives)]
    m = 0.0 if margin == "soft" else margin
    losses = [math.log1p(math.exp(p - n)) if margin == "soft" else max(0.0, p - n + m) for p, n in triplets]
    active = sum(p + m > n for p, n in triplets)
    counted = [x for x in losses if x > 0] if mining == "batch_all" else losses
    return sum(counted) / max(1, len(counted)), active / max(1, len(triplets))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("mining", list(MININGS))
def test_plain_loops(mining: str, margin: Any, squared: bool) -> None:
    for seed in range(3):
        embedding = embedded(seed=seed)
        loss, active = MININGS[mining](distances(embedding, squared), LABEL, margin)
        expected = plain_loss(embedding, LABEL, margin, mining, squared)
        assert (loss.item(), active.item()) == pytest.approx(expected, rel=1e-6)
        assert loss.item() > 0


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("mining", list(MININGS))
def test_gradients_are_the_numerical_ones(mining: str, margin: Any, squared: bool) -> None:
    def loss(embedding: Tensor) -> Tensor:
        return MININGS[mining](distances(embedding, squared), LABEL, margin).loss

    assert torch.autograd.gradcheck(loss, embedded().requires_grad_())


def test_a_closed_form() -> None:
    """On a line, classes at 0, 1 and at 3, 7: farthest positives 1, 1, 4, 4 and nearest negatives 3, 2, 2, 6."""
    embedding, label = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    loss, active = batch_hard(distances(embedding), label, 1.5)
    assert loss.item() == pytest.approx((0 + 0.5 + 3.5 + 0) / 4)
    assert active.item() == pytest.approx(2 / 4)
    # (a, p, n) as distances: semi-hard (1, 3), (1, 2), none for 3 whose negatives are at 2 and 3 < 4, (4, 6).
    loss, active = semi_hard(distances(embedding), label, 1.5)
    assert loss.item() == pytest.approx((0 + 0.5 + 0) / 3)
    assert active.item() == pytest.approx(1 / 3)
    # All: (1, 3), (1, 7), (1, 2), (1, 6), (4, 3), (4, 2), (4, 7), (4, 6).
    loss, active = batch_all(distances(embedding), label, 1.5)
    assert loss.item() == pytest.approx((0.5 + 2.5 + 3.5) / 3)
    assert active.item() == pytest.approx(3 / 8)


def test_distances_are_the_explicit_ones_and_far_from_the_origin_no_digits_are_lost() -> None:
    embedding = embedded(20, dtype=torch.float32)
    exact = (embedding.double()[:, None] - embedding.double()).square().sum(-1)
    assert torch.allclose(distances(embedding, squared=True).double(), exact, atol=1e-5)
    assert torch.allclose(distances(embedding).double(), exact.sqrt(), atol=1e-5)
    assert torch.allclose(distances(embedding + 300).double(), exact.sqrt(), atol=1e-3)
    assert distances(embedding).diagonal().tolist() == [0] * 20


@pytest.mark.parametrize(
    ("embedding", "label"),
    [
        (embedded(6), torch.zeros(6, dtype=torch.int64)),
        (embedded(6), torch.arange(6)),
        (embedded(1), torch.zeros(1, dtype=torch.int64)),
        (torch.ones(6, 5), torch.tensor([0, 0, 1, 1, 2, 2])),
        (torch.full((6, 5), 1 / 3), torch.tensor([0, 0, 1, 1, 2, 2])),
        (torch.zeros(6, 5), torch.tensor([0, 0, 1, 1, 2, 2])),
        (torch.eye(3, 5)[[0, 0, 1, 1, 0, 2]] * 1e4, torch.tensor([0, 0, 1, 1, 2, 2])),
        (embedded(6, dtype=torch.float32) * 1e-20, torch.tensor([0, 0, 1, 1, 2, 2])),
    ],
    ids=[
        "one class",
        "one image a class",
        "one image",
        "all equal",
        "equal, rounded",
        "all zero",
        "some equal",
        "tiny",
    ],
)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.2, "soft"])
@pytest.mark.parametrize("mining", list(MININGS))
def test_degenerate_batches(mining: str, margin: Any, squared: bool, embedding: Tensor, label: Tensor) -> None:
    """Loss and gradients are finite; 0 where there is no triplet, and the margin's own loss where all are equal."""
    embedding = embedding.clone().requires_grad_()
    loss, active = MININGS[mining](distances(embedding, squared), label, margin)
    loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert 0 <= active.item() <= 1
    counts = label.bincount()
    if len(counts) == 1 or counts.max() == 1:
        assert loss.item() == active.item() == 0
        assert not embedding.grad.any()
    elif len(embedding.unique(dim=0)) == 1:
        has_triplets = mining != "semi_hard"  # no negative is farther
        assert loss.item() == pytest.approx((0.2 if margin == 0.2 else math.log(2)) * has_triplets)
        assert not embedding.grad.any()


def test_equal_embeddings_among_others_get_no_infinite_gradient() -> None:
    """Two images at one place: the distance's slope there is that of the rest of the loss alone."""
    embedding = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.5, 2.0], [4.0, 4.0]], requires_grad=True)
    loss, _ = batch_hard(distances(embedding), torch.tensor([0, 0, 1, 1]), 1.0)
    loss.backward()
    assert embedding.grad is not None
    assert 0.01 < embedding.grad.abs().max() < 2


def test_bfloat16_embeddings_give_the_loss_of_their_own_values() -> None:
    embedding = embedded(14).bfloat16()
    rounded = batch_hard(distances(embedding.float()), LABEL, 0.3)
    exact = batch_hard(distances(embedding.double()), LABEL, 0.3)
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=1e-5)


@pytest.mark.parametrize("squared", [False, True])
def test_pytorch_metric_learning(squared: bool) -> None:
    distance_module = pytest.importorskip("pytorch_metric_learning.distances")
    from pytorch_metric_learning import losses, miners
    from pytorch_metric_learning.reducers import AvgNonZeroReducer, MeanReducer

    metric = distance_module.LpDistance(normalize_embeddings=False, p=2, power=2 if squared else 1)
    embedding, label = embedded(14, dtype=torch.float32), LABEL

    def theirs(mined: Any, reducer: Any, **arguments: Any) -> float:
        return losses.TripletMarginLoss(distance=metric, reducer=reducer, **arguments)(embedding, label, mined).item()

    def ours(function: Any, margin: Any) -> float:
        result: TripletLoss = function(distances(embedding, squared), label, margin)
        return result.loss.item()

    hard = miners.BatchHardMiner(distance=metric)(embedding, label)
    everything = miners.TripletMarginMiner(margin=-1e9, type_of_triplets="easy", distance=metric)(embedding, label)
    assert ours(batch_hard, 0.3) == pytest.approx(theirs(hard, MeanReducer(), margin=0.3), rel=1e-5)
    assert ours(batch_all, 0.3) == pytest.approx(theirs(everything, AvgNonZeroReducer(), margin=0.3), rel=1e-5)
    soft = theirs(hard, MeanReducer(), margin=0.0, smooth_loss=True)
    assert ours(batch_hard, "soft") == pytest.approx(soft, rel=1e-5)


def test_training_by_each_mining_separates_classes() -> None:
    """Points of four classes that lie anyhow, moved by gradient descent."""
    label = torch.arange(16) % 4
    for mining, margin in product(MININGS, (0.5, "soft")):
        points = (embedded(16, dtype=torch.float32) * 0.5).requires_grad_()
        optimizer = torch.optim.Adam([points], lr=0.1)
        for _ in range(60):
            loss = MININGS[mining](distances(points), label, margin).loss  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        distance = torch.cdist(points.detach(), points.detach()).fill_diagonal_(torch.inf)
        assert functional.one_hot(label[distance.argmin(1)], 4).equal(functional.one_hot(label, 4)), (mining, margin)
