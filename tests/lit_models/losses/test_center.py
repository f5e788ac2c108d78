import pytest
import torch
from torch import Tensor

from lit_models.losses.center import center_loss, moved_by_equation_4, moved_by_sgd

LABEL = torch.tensor([0, 2, 0, 0, 4, 2])
"""Of five classes, two of which aren't there."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_loss_by_plain_loops() -> None:
    embedding, center = drawn(6, 3), drawn(5, 3, seed=1)
    total = 0.0
    for f, y in zip(embedding.tolist(), LABEL.tolist(), strict=True):
        total += sum((a - b) ** 2 for a, b in zip(f, center[y].tolist(), strict=True)) / 2
    assert center_loss(embedding, LABEL, center).item() == pytest.approx(total / 6, rel=1e-12)


def test_the_gradient_is_the_papers() -> None:
    """∂L_C/∂x_i = x_i − c_{y_i} (eq. 3), here divided by the batch size."""
    embedding, center = drawn(6, 3).requires_grad_(), drawn(5, 3, seed=1)
    center_loss(embedding, LABEL, center).backward()
    assert torch.allclose(embedding.grad, (embedding.detach() - center[LABEL]) / 6)
    assert torch.autograd.gradcheck(lambda x: center_loss(x, LABEL, center), embedding)


def test_the_papers_rule_by_plain_loops() -> None:
    embedding, center = drawn(6, 3), drawn(5, 3, seed=1)
    moved = moved_by_equation_4(embedding, LABEL, center, 0.3)
    for j in range(5):
        own = [x for x, y in zip(embedding.tolist(), LABEL.tolist(), strict=True) if y == j]
        for d in range(3):
            delta = sum(center[j, d].item() - x[d] for x in own) / (1 + len(own))
            assert moved[j, d].item() == pytest.approx(center[j, d].item() - 0.3 * delta, rel=1e-12)
    assert torch.equal(moved[[1, 3]], center[[1, 3]]), "classes that aren't in the batch stay"


def test_a_closed_form_of_the_rule() -> None:
    """From 0, α = 1 and one image at 1: c = 1/2, 3/4, 7/8 …"""
    center = torch.zeros(2, 1)
    for step in range(1, 6):
        center = moved_by_equation_4(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), center, 1.0)
        assert center.flatten().tolist() == [1 - 0.5**step, 0]


def test_sgd_is_that_of_torch() -> None:
    embedding, center = drawn(6, 3), drawn(5, 3, seed=1)
    parameter = torch.nn.Parameter(center.clone())
    optimizer = torch.optim.SGD([parameter], lr=7.0)
    center_loss(embedding, LABEL, parameter).backward()
    optimizer.step()
    assert torch.allclose(moved_by_sgd(embedding, LABEL, center, 7.0), parameter.detach())


@pytest.mark.parametrize("move", [moved_by_equation_4, moved_by_sgd])
def test_centers_come_to_the_means(move: object) -> None:
    embedding, center = drawn(6, 3), drawn(5, 3, seed=1)
    for _ in range(400):
        center = move(embedding, LABEL, center, 0.5)  # type: ignore[operator]
    for j in (0, 2, 4):
        assert torch.allclose(center[j], embedding[j == LABEL].mean(0), atol=1e-6)
    assert center_loss(embedding[LABEL == 4], LABEL[LABEL == 4], center).item() < 1e-12


def test_one_class_and_equal_embeddings() -> None:
    embedding = torch.ones(4, 3, requires_grad=True)
    label = torch.zeros(4, dtype=torch.int64)
    loss = center_loss(embedding, label, torch.ones(1, 3))
    loss.backward()
    assert loss.item() == 0
    assert not embedding.grad.any()
    assert torch.equal(moved_by_equation_4(embedding.detach(), label, torch.ones(1, 3), 0.5), torch.ones(1, 3))
