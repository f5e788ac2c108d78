import pytest
import torch

from lit_models.losses.triplet_gan import (
    discriminator_triplet,
    generator_distance,
    generator_norm,
    squared_distance,
)


def embeddings(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("hinge", [True, False])
def test_against_a_plain_loop(hinge: bool) -> None:
    anchor, positive, negative = (rows.tolist() for rows in embeddings())

    def distance(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    terms = [distance(anchor[i], positive[i]) - distance(anchor[i], negative[i]) + 0.5 for i in range(6)]
    assert min(terms) < 0 < max(terms), "some triplets keep the margin, some don't"
    expected = sum(max(0.0, term) if hinge else term for term in terms) / 6
    assert discriminator_triplet(*embeddings(), 0.5, hinge).item() == pytest.approx(expected, rel=1e-5)
    expected = sum(distance(anchor[i], negative[i]) for i in range(6)) / 6
    assert generator_distance(embeddings()[0], embeddings()[2]).item() == pytest.approx(expected, rel=1e-5)
    expected = sum(distance(row, [0, 0, 0]) for row in negative) / 6
    assert generator_norm(embeddings()[2]).item() == pytest.approx(expected, rel=1e-5)


def test_a_collapsed_embedding_pays_the_margin() -> None:
    point = torch.ones(4, 3)
    assert discriminator_triplet(point, point, point, margin=0.7).item() == pytest.approx(0.7)


def test_triplets_that_keep_the_margin_have_no_gradient() -> None:
    anchor = torch.zeros(2, 1)
    negative = torch.tensor([[2.0], [0.5]], requires_grad=True)
    discriminator_triplet(anchor, anchor, negative, margin=1.0).backward()
    assert negative.grad.flatten().tolist() == [0.0, -0.5]  # −2 · 0.5 / 2 from the second
    negative.grad = None
    discriminator_triplet(anchor, anchor, negative, margin=1.0, hinge=False).backward()
    assert negative.grad.flatten().tolist() == [-2.0, -0.5]


def test_distances_of_bf16_embeddings_are_in_float32() -> None:
    a, b = torch.full((1, 300), 16.0, dtype=torch.bfloat16), torch.full((1, 300), 17.0, dtype=torch.bfloat16)
    distance = squared_distance(a, b)
    assert distance.dtype == torch.float32
    assert distance.item() == 300
    assert generator_norm(b).item() == 300 * 289
