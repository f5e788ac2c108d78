import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lit_models.errors import RunError
from lit_models.metrics import generation
from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance
from tests.support.fixtures import Patch


def features(count: int, dimensions: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(count, dimensions, generator=generator) @ mixing + torch.randn(dimensions, generator=generator)


def test_frechet_distance_is_heusels_formula() -> None:
    real, fake = features(50, 4, 1), features(70, 4, 2)
    x, y = real.double().numpy(), fake.double().numpy()
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * sqrtm(cov_x @ cov_y).real)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_shifted_features_is_the_squared_shift() -> None:
    real = features(100, 3, 3)
    assert frechet_distance(real, real + torch.tensor([3.0, 0, 4.0])) == pytest.approx(25, rel=1e-4)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_of_more_dimensions_than_images_is_finite() -> None:
    assert math.isfinite(frechet_distance(features(5, 20, 1), features(6, 20, 2)))


def test_kernel_distance_is_the_unbiased_estimate() -> None:
    """With as many images as a subset holds, every subset is the whole set: eq. 4 of Bińkowski et al. by loops."""
    real, fake = features(12, 4, 4).double(), features(12, 4, 5).double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    within = sum(kernel(x[i], x[j]) for x in (real, fake) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    across = sum(kernel(x, y) for x in real for y in fake) / 12**2
    assert kernel_distance(real, fake) == pytest.approx(within - 2 * across, rel=1e-6)


def test_kernel_distance_draws_its_subsets_by_its_seed(monkeypatch: Patch) -> None:
    monkeypatch.setattr(generation, "KID_SUBSET_SIZE", 20)
    real, fake = features(30, 4, 6), features(25, 4, 7)
    for device in (torch.cuda, torch.mps):
        seed_of_the_gpu = "manual_seed_all" if device is torch.cuda else "manual_seed"
        monkeypatch.setattr(device, seed_of_the_gpu, lambda seed: pytest.fail("a GPU's random stream is disturbed"))
    state = torch.get_rng_state()
    first = kernel_distance(real, fake, seed=1)
    assert torch.equal(state, torch.get_rng_state()), "the run's own random stream is left alone"
    torch.rand(5)
    assert kernel_distance(real, fake, seed=1) == first
    assert kernel_distance(real, fake, seed=2) != first


def test_inception_score_in_closed_form() -> None:
    sure = torch.eye(4).repeat(5, 1) * 1000
    assert inception_score(sure) == pytest.approx(4)
    assert inception_score(sure[:1].repeat(9, 1)) == pytest.approx(1), "all of one class"
    assert inception_score(torch.zeros(8, 4)) == pytest.approx(1), "never sure"
    logits = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(1)
    expected = math.exp(sum(float((row * (row / p.mean(0)).log()).sum()) for row in p) / 30)
    assert inception_score(logits) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_bad_features_are_refused_in_a_sentence(wrong: float) -> None:
    real = features(10, 4, 8)
    bad = real.clone()
    bad[2, 1] = wrong
    for score in (frechet_distance, kernel_distance):
        with pytest.raises(RunError, match="The features of 1 of 10 generated images aren't finite"):
            score(real, bad)
        with pytest.raises(RunError, match="The features of 1 of 10 real images aren't finite"):
            score(bad, real)
        with pytest.raises(RunError, match=r"There is 1 generated image, and scores need at least 2\."):
            score(real, real[:1])
        with pytest.raises(RunError, match=r"There are 0 real images, and scores need at least 2\."):
            score(real[:0], real)
    with pytest.raises(RunError, match="The features of 1 of 10 generated images aren't finite"):
        inception_score(bad)
    with pytest.raises(RunError, match=r"There are 0 generated images, and scores need at least 1\."):
        inception_score(real[:0])


def test_features_without_variance_and_more_generated_than_real_images_have_values() -> None:
    real, constant = features(10, 4, 9), torch.ones(25, 4)
    shift = ((real.double().mean(0) - 1) ** 2).sum() + np.trace(np.cov(real.double().numpy(), rowvar=False))
    assert frechet_distance(real, constant) == pytest.approx(float(shift), rel=1e-6)
    assert frechet_distance(constant, constant) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(constant, constant) == pytest.approx(0, abs=1e-9)
    assert math.isfinite(kernel_distance(real, constant))
    assert inception_score(torch.zeros(5, 1)) == pytest.approx(1), "one class only"
