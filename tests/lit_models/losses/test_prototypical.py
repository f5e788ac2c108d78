import math

import pytest
import torch
from torch import Tensor

from lit_models.losses.prototypical import cosine, episode_accuracy, prototypical_loss, squared_euclidean


def embedded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_squared_distances_are_the_explicit_differences() -> None:
    query, prototype = embedded(2, 7, 5), embedded(2, 3, 5, seed=1)
    distance = squared_euclidean(query, prototype)
    assert distance.shape == (2, 7, 3)
    for e in range(2):
        for m in range(7):
            for n in range(3):
                explicit = sum((query[e, m, d] - prototype[e, n, d]).item() ** 2 for d in range(5))
                assert distance[e, m, n].item() == pytest.approx(explicit, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
def test_far_from_the_origin_no_digits_are_lost(offset: float) -> None:
    """In float32, where 3000² leaves no digit for differences of about 1 in the textbook's expansion."""
    query, prototype = embedded(40, 64).float() + offset, embedded(10, 64, seed=1).float() + offset
    exact = (query.double()[:, None] - prototype.double()).square().sum(-1)
    textbook = query.square().sum(-1)[:, None] - 2 * query @ prototype.T + prototype.square().sum(-1)
    assert squared_euclidean(query, prototype).double().sub(exact).abs().max() < 1e-3
    assert (textbook.double().sub(exact).abs().max() > 1) == (offset == 3000.0)


def test_the_distance_to_itself_is_zero_and_never_negative() -> None:
    points = embedded(50, 16).float() * 1e3
    distance = squared_euclidean(points, points)
    assert distance.min() >= 0
    assert distance.diagonal().max() < 1e-6 * distance.max()


def test_cosine_distances_are_those_of_the_angles() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0], [3.0, 3.0]])
    prototype = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    quarter = 1 - math.sqrt(0.5)
    expected = torch.tensor([[0, 1], [1, 0], [2, 1], [quarter, quarter]])
    assert torch.allclose(cosine(query, prototype), expected, atol=1e-6)
    assert torch.allclose(cosine(query, prototype, scale=7.0), 7 * expected, atol=1e-5)


def test_the_scale_makes_a_sure_answer_possible() -> None:
    prototype = torch.eye(5)
    for scale, probability in ((1.0, math.e / (math.e + 4)), (10.0, 1 / (1 + 4 * math.exp(-10)))):
        answer = (-cosine(prototype[:1], prototype, scale)).softmax(-1)[0, 0].item()
        assert answer == pytest.approx(probability, rel=1e-5)
    assert math.e / (math.e + 4) < 0.41


def test_loss_and_accuracy_equal_plain_loops() -> None:
    episodes, ways, queries = 3, 4, 2
    distance = embedded(episodes, ways, queries, ways).abs()
    losses, accuracies = [], []
    for e in range(episodes):
        right = 0
        for n in range(ways):
            for q in range(queries):
                scores = [math.exp(-distance[e, n, q, k].item()) for k in range(ways)]
                losses.append(-math.log(scores[n] / sum(scores)))
                right += max(range(ways), key=lambda k: scores[k]) == n
        accuracies.append(right / (ways * queries))
    assert prototypical_loss(distance).item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert episode_accuracy(distance).tolist() == pytest.approx(accuracies)
    assert 0 < sum(accuracies) < 3, "some answers are right and some wrong"


def test_closed_forms() -> None:
    equal = torch.full((1, 5, 3, 5), 2.5)
    assert prototypical_loss(equal).item() == pytest.approx(math.log(5))
    sure = torch.full((1, 5, 3, 5), 1e4)
    sure.diagonal(dim1=1, dim2=3).zero_()
    assert prototypical_loss(sure).item() == 0
    assert episode_accuracy(sure).tolist() == [1]
    assert prototypical_loss(1e4 - sure).item() == pytest.approx(1e4, rel=1e-3), "no overflow where it is surely wrong"


@pytest.mark.parametrize("distances", [squared_euclidean, cosine])
def test_gradients_are_the_numerical_ones(distances: object) -> None:
    query, prototype = embedded(2, 6, 4).requires_grad_(), embedded(2, 3, 4, seed=1).requires_grad_()

    def loss(query: Tensor, prototype: Tensor) -> Tensor:
        return prototypical_loss(distances(query, prototype).unflatten(1, (3, 2)))  # type: ignore[operator]

    assert torch.autograd.gradcheck(loss, (query, prototype))
