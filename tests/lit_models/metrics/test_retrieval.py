import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.functional.retrieval import retrieval_hit_rate

from lit_models.errors import ModelError
from lit_models.metrics import retrieval
from lit_models.metrics.retrieval import (
    best_sharpness,
    centroid_scores,
    class_centroids,
    nearest,
    neighbor_votes,
    share_of_hits,
)
from tests.support.fixtures import Patch


def points(count: int, seed: int, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Embeddings that tell their classes, but not surely."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (count,), generator=generator)
    return torch.nn.functional.one_hot(label, 8) + torch.randn(count, 8, generator=generator) * 0.7, label


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_neighbors_in_blocks_are_those_of_the_whole_matrix(monkeypatch: Patch, block: int) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    query, reference = points(13, 0)[0], points(40, 1)[0]
    square, row = nearest(query, reference, 7)
    whole = torch.cdist(query, reference).square()
    expected = whole.sort(1)
    assert torch.equal(row, expected.indices[:, :7])
    assert torch.allclose(square, expected.values[:, :7], atol=1e-5)


def test_no_more_distances_than_a_block_are_held(monkeypatch: Patch) -> None:
    sizes = []

    def recorded(query: Tensor, reference: Tensor) -> Tensor:
        distance = torch.cdist(query, reference).square()
        sizes.append(distance.numel())
        return distance

    monkeypatch.setattr(retrieval, "squared_euclidean", recorded)
    monkeypatch.setattr(retrieval, "BLOCK", 200)
    nearest(points(13, 0)[0], points(40, 1)[0], 3)
    assert sizes == [200, 200, 120]


def test_no_queries() -> None:
    square, row = nearest(torch.empty(0, 8), points(4, 1)[0], 3)
    assert square.shape == row.shape == (0, 3)


def test_an_image_is_not_its_own_neighbor_even_if_it_has_a_twin() -> None:
    embedding = torch.tensor([[0.0], [0.0], [5.0], [1.0]])
    _, row = nearest(embedding[1:], embedding, 1, itself=torch.tensor([1, 2, 3]))
    assert row.flatten().tolist() == [0, 3, 0] or row.flatten().tolist() == [0, 3, 1]


def test_votes_are_scikit_learns() -> None:
    (query, _), (reference, label) = points(50, 0), points(200, 1)
    square, row = nearest(query, reference, 20)
    votes = neighbor_votes(square, label[row], 5)
    classifier = KNeighborsClassifier(20, weights="distance").fit(reference.numpy(), label.numpy())
    assert np.allclose(votes.numpy(), classifier.predict_proba(query.numpy()), atol=1e-4)


def test_neighbors_at_distance_zero_have_all_the_votes() -> None:
    votes = neighbor_votes(torch.tensor([[0.0, 0.0, 1e-3, 1e-3, 1e-3]]), torch.tensor([[1, 2, 0, 0, 0]]), 3)
    assert torch.allclose(votes, torch.tensor([[0.0, 0.5, 0.5]]))


def test_centroids_are_scikit_learns() -> None:
    (query, _), (reference, label) = points(50, 0), points(200, 1)
    centroid = class_centroids(reference, label, 5)
    classifier = NearestCentroid().fit(reference.numpy(), label.numpy())
    assert np.allclose(centroid.numpy(), classifier.centroids_, atol=1e-5)
    score = centroid_scores(query, centroid)
    assert score.argmax(1).tolist() == classifier.predict(query.numpy()).tolist()
    assert torch.allclose(score, -torch.cdist(query, centroid).square(), atol=1e-4)


def test_a_class_without_images_is_never_chosen() -> None:
    reference, label = points(60, 1)
    score = centroid_scores(reference, class_centroids(reference, label * 2, 10))
    assert score[:, 1::2].eq(-torch.inf).all()
    assert score[:, ::2].isfinite().all()
    sharpness = best_sharpness(score, label * 2)
    compact = centroid_scores(reference, class_centroids(reference, label, 5))
    assert sharpness.item() == pytest.approx(best_sharpness(compact, label).item(), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_sharpness_is_the_likeliest(scale: float) -> None:
    """Against a fine grid; whatever the embeddings are multiplied by, the probabilities are the same."""
    reference, label = points(300, 1)
    score = centroid_scores(scale * reference, class_centroids(scale * reference, label, 5))
    grid = torch.linspace(0.2, 5, 2000) / scale**2
    likelihood = torch.tensor([torch.nn.functional.cross_entropy(beta * score, label) for beta in grid])
    best = grid[likelihood.argmin()].item()
    assert 0.3 < best * scale**2 < 4.9
    assert best_sharpness(score, label).item() == pytest.approx(best, rel=0.01)


def test_the_sharpness_of_degenerate_scores_is_finite() -> None:
    label = torch.arange(6) % 3
    for embedding in (torch.zeros(6, 2), torch.nn.functional.one_hot(label, 3).float()):
        score = centroid_scores(embedding, class_centroids(embedding, label, 3))
        sharpness = best_sharpness(score, label)
        assert sharpness.isfinite()
        assert sharpness > 0
        assert (sharpness * score).softmax(1).isfinite().all()


@pytest.mark.parametrize("k", [1, 3])
def test_hits_are_torchmetrics(k: int) -> None:
    score, label = torch.randn(80, 5, generator=torch.Generator().manual_seed(0)), points(80, 2)[1]
    found = share_of_hits(score.topk(k).indices, label)
    assert found.item() == pytest.approx(multiclass_accuracy(score, label, 5, "micro", top_k=k).item())
    assert 0 < found < 1


def test_recall_is_torchmetrics_hit_rate() -> None:
    embedding, label = points(60, 3)
    _, row = nearest(embedding, embedding, 5, torch.arange(60))
    rates = []
    for i in range(60):
        others = [j for j in range(60) if j != i]
        similarity = -torch.cdist(embedding[i : i + 1], embedding[others])[0]
        rates.append(retrieval_hit_rate(similarity, label[others] == label[i], top_k=5).item())
    assert share_of_hits(label[row], label).item() == pytest.approx(math.fsum(rates) / 60)
    assert 0 < sum(rates) < 60


def by_plain_loops(query: Tensor, label: Tensor, reference: Tensor, own: list[int], others: Tensor) -> dict[str, float]:
    """Each measure as it is defined, query by query; ``own`` are the queries' rows among the references."""
    found: dict[str, list[float]] = {}
    for i in range(len(query)):
        rows = [j for j in range(len(reference)) if j != own[i]]
        ranked = sorted(rows, key=lambda j: (query[i] - reference[j]).square().sum().item())
        right = [bool(others[j] == label[i]) for j in ranked]
        r = sum(right)
        if not r:
            continue
        precision = [sum(right[: k + 1]) / (k + 1) if right[k] else 0.0 for k in range(len(ranked))]
        values = {"map_at_r": sum(precision[:r]) / r, "mean_average_precision": sum(precision) / r}
        values |= {"r_precision": sum(right[:r]) / r} | {f"recall_at_{k}": float(any(right[:k])) for k in (1, 5, 10)}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("block", [1, 500, 1 << 25])
def test_retrieval_is_pytorch_metric_learnings_and_that_of_plain_loops(monkeypatch: Patch, block: int) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    embedding, label = points(70, 4)
    label[3] = 7  # the only image of its class
    found = retrieval.retrieval(embedding, label, embedding, label, torch.arange(70))
    means = {name: values.nanmean().item() for name, values in found.items()}
    assert found["map_at_r"].isnan().tolist() == (label == 7).tolist()
    assert means == pytest.approx(by_plain_loops(embedding, label, embedding, list(range(70)), label), rel=1e-5)
    measures = ("precision_at_1", "mean_average_precision", "mean_average_precision_at_r", "r_precision")
    calculator = AccuracyCalculator(
        measures, knn_func=CustomKNN(LpDistance(normalize_embeddings=False)), device=torch.device("cpu")
    )
    theirs = calculator.get_accuracy(embedding, label)
    ours = [means[name] for name in ("recall_at_1", "mean_average_precision", "map_at_r", "r_precision")]
    assert ours == pytest.approx([theirs[name] for name in measures], rel=1e-5)
    assert 0.1 < means["map_at_r"] < means["mean_average_precision"] < means["recall_at_1"] < 1


def test_retrieval_among_other_images_is_pytorch_metric_learnings() -> None:
    (query, label), (reference, others) = points(30, 5), points(50, 6)
    found = retrieval.retrieval(query, label, reference, others)
    calculator = AccuracyCalculator(
        ("mean_average_precision", "mean_average_precision_at_r"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(query, label, reference, others)
    assert found["map_at_r"].mean().item() == pytest.approx(theirs["mean_average_precision_at_r"], rel=1e-5)
    assert found["mean_average_precision"].mean().item() == pytest.approx(theirs["mean_average_precision"], rel=1e-5)


def test_ties_count_between_their_worst_and_their_best_order() -> None:
    """Embeddings on a coarse grid, so that most distances occur several times, for a net that has nearly collapsed."""
    embedding, label = points(60, 7)
    embedding = embedding[:, :2].round()
    itself = torch.arange(60)
    found = retrieval.retrieval(embedding, label, embedding, label, itself)
    orders = {}
    for name, first in (("worst", False), ("best", True)):
        values = []
        for i in range(60):
            rows = [j for j in range(60) if j != i]
            key = [((embedding[i] - embedding[j]).square().sum().item(), (label[j] == label[i]) != first) for j in rows]
            right = [bool(label[rows[k]] == label[i]) for k in sorted(range(59), key=key.__getitem__)]
            r = sum(right)
            values.append(sum(sum(right[: k + 1]) / (k + 1) for k in range(r) if right[k]) / r)
        orders[name] = torch.tensor(values)
    ours = found["map_at_r"]
    assert (ours >= orders["worst"] - 1e-6).all()
    assert (ours <= orders["best"] + 1e-6).all()
    assert orders["best"].mean() - orders["worst"].mean() > 0.2
    calculator = AccuracyCalculator(
        ("mean_average_precision_at_r",),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(embedding, label)["mean_average_precision_at_r"]
    assert orders["worst"].mean() <= theirs <= orders["best"].mean()


def test_r_may_be_fixed_but_not_larger_than_a_class() -> None:
    embedding, label = points(40, 4)
    itself = torch.arange(40)
    _, row = nearest(embedding, embedding, 3, itself)
    found = retrieval.retrieval(embedding, label, embedding, label, itself, r=3)["r_precision"]
    assert torch.allclose(found, (label[row] == label[:, None]).float().mean(1))
    smallest = int(label.bincount().min()) - 1
    with pytest.raises(ModelError, match=f"has {smallest} images to be found: set r to at most {smallest}"):
        retrieval.retrieval(embedding, label, embedding, label, itself, r=smallest + 1)


def test_without_a_relevant_image_nothing_is_measured() -> None:
    values = retrieval.retrieval(torch.rand(3, 2), torch.arange(3), torch.rand(3, 2), torch.arange(3), torch.arange(3))
    assert all(one.isnan().all() for one in values.values())
