"""Batch normalization along a direction, and that differentiated again, against torch's own differentiated twice."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lit_models.darts.batch_norm import EPSILON, batch_norm


def plain(x: Tensor, factor: Tensor | None) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    normalized = (x - mean) / ((x - mean).pow(2).mean((0, 2, 3), keepdim=True) + EPSILON).sqrt()
    return normalized if factor is None else normalized * factor[:, None, None]


@pytest.mark.parametrize("with_factor", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["", "next to a constant channel"])
def test_values_and_derivatives(with_factor: bool, scale: float) -> None:
    """Of a number that depends on the output along a direction; at a small scale EPSILON matters."""
    torch.manual_seed(0)
    x, v, towards, along_towards = torch.randn(4, 3, 5, 2, 4, dtype=torch.float64)
    x = (scale * x + 0.3).requires_grad_()
    factor = torch.randn(5, dtype=torch.float64).requires_grad_() if with_factor else None
    variables = [x] if factor is None else [x, factor]
    v = v.requires_grad_()

    value, along = torch.func.jvp(lambda moving: batch_norm(moving, factor), (x,), (v,))
    expected, expected_along = torch.autograd.functional.jvp(
        lambda moving: plain(moving, factor), x, v, create_graph=True
    )
    assert torch.allclose(value, expected, atol=1e-12)
    assert torch.allclose(value, functional.batch_norm(x, None, None, factor, training=True), atol=1e-12)
    assert torch.allclose(along, expected_along, rtol=1e-9, atol=1e-9)
    numbers = [
        (a * towards).sum() + (b * along_towards).sum() + (a * b).sum()
        for a, b in ((value, along), (expected, expected_along))
    ]
    ours, theirs = (torch.autograd.grad(number, [*variables, v]) for number in numbers)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-3
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9 * float(other.abs().max()))


def test_the_factor_must_not_move() -> None:
    x, factor = torch.randn(2, 3, 2, 2), torch.ones(3)
    with pytest.raises(ValueError, match="must not move"):
        torch.func.jvp(batch_norm, (x, factor), (x, factor))
