import math

import numpy as np
import pytest
import torch

from lit_models.support.interpolation import between, lerp, slerp


def test_lerp_by_the_formula() -> None:
    start, end, share = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0.0, 0.25, 1.0])
    path = lerp(start, end, share)
    assert path.shape == (3, 3, 4)
    for n in range(3):
        for step, t in enumerate(share.tolist()):
            assert torch.allclose(path[n, step], (1 - t) * start[n] + t * end[n], atol=1e-6)


def test_slerp_by_the_formula() -> None:
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 5, 7))
    path = slerp(torch.tensor(start), torch.tensor(end), torch.tensor([0.0, 0.3, 0.5, 1.0]).double()).numpy()
    for a, b, steps in zip(start, end, path, strict=True):
        angle = math.acos(sum(a * b) / math.sqrt(sum(a * a) * sum(b * b)))
        for t, point in zip((0.0, 0.3, 0.5, 1.0), steps, strict=True):
            expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
            assert np.allclose(point, expected, atol=1e-7)


def test_slerp_stays_on_the_sphere_and_goes_at_even_speed() -> None:
    start, end = torch.nn.functional.normalize(torch.randn(2, 4, 6), dim=-1).mul(3).unbind()
    path = between(start, end, 9, "slerp")
    assert torch.allclose(path.norm(dim=2), torch.full((4, 9), 3.0), atol=1e-4)
    distance = path.diff(dim=1).norm(dim=2)
    assert torch.allclose(distance, distance[:, :1].expand_as(distance), atol=1e-4)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_of_parallel_vectors_is_lerp(factor: float) -> None:
    start = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    share = torch.linspace(0, 1, 4)
    path = slerp(start, factor * start, share)
    assert path.isfinite().all()
    assert torch.allclose(path, lerp(start, factor * start, share), atol=1e-3)


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_both_ends_are_where_they_should_be(path: str) -> None:
    start, end = torch.randn(2, 3, 8)
    steps = between(start, end, 5, path)  # type: ignore[arg-type]
    assert torch.allclose(steps[:, 0], start, atol=1e-5)
    assert torch.allclose(steps[:, -1], end, atol=1e-5)
