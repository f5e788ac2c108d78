"""Variety and memorization by plain loops, and by the package of density's and coverage's authors."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from lit_models.errors import RunError
from lit_models.metrics import variety
from lit_models.metrics.variety import (
    memorized_share,
    precision_recall_density_coverage,
    spread_share,
    training_distance,
)
from tests.support.fixtures import Patch


def features(count: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) * scale + 3


def by_loops(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    def radii(images: Tensor) -> list[float]:
        return [
            sorted(math.dist(x, y) for j, y in enumerate(images.tolist()) if j != i)[k - 1]
            for i, x in enumerate(images.tolist())
        ]

    real_radius, fake_radius, x, y = radii(real), radii(fake), real.tolist(), fake.tolist()
    in_real = [[math.dist(a, b) <= radius for a, radius in zip(x, real_radius, strict=True)] for b in y]
    in_fake = [[math.dist(a, b) <= radius for b, radius in zip(y, fake_radius, strict=True)] for a in x]
    return {
        "precision": sum(map(any, in_real)) / len(y),
        "recall": sum(map(any, in_fake)) / len(x),
        "density": sum(map(sum, in_real)) / len(y) / k,
        "coverage": sum(map(any, zip(*in_real, strict=True))) / len(x),
    }


@pytest.mark.parametrize("block", [1 << 21, 100])
@pytest.mark.parametrize(("reals", "fakes", "k"), [(40, 30, 3), (20, 50, 5), (6, 6, 5)])
def test_the_four_shares_are_those_of_plain_loops(
    monkeypatch: Patch, block: int, reals: int, fakes: int, k: int
) -> None:
    monkeypatch.setattr(variety, "BLOCK", block)
    real, fake = features(reals, 1), features(fakes, 2, 0.8)
    assert precision_recall_density_coverage(real, fake, k) == pytest.approx(by_loops(real, fake, k))


def test_the_four_shares_are_those_of_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    real, fake = features(300, 3), features(200, 4, 0.7)
    expected = prdc.compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    found = precision_recall_density_coverage(real, fake, 5)
    assert found == pytest.approx({name: float(value) for name, value in expected.items()})
    assert 0.1 < found["recall"] < 0.9, "a comparison of values that say something"


def test_collapse_and_features_without_variance_have_values() -> None:
    real = features(200, 5)
    collapsed = precision_recall_density_coverage(real, real[:4].repeat(50, 1), 5)
    assert (collapsed["precision"], collapsed["recall"]) == (1.0, 0.02)
    assert collapsed["coverage"] < 0.25
    constant = torch.ones(10, 5)
    same = precision_recall_density_coverage(constant, constant, 3)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert set(precision_recall_density_coverage(constant, features(10, 6), 3).values()) == {0.0}


def test_memorized_is_the_share_that_lies_closer_than_held_out_images() -> None:
    training, held_out, fake = features(300, 7), features(200, 8), features(100, 9)
    distance = training_distance(fake, training)
    assert distance.tolist() == pytest.approx(
        [min(math.dist(x, y) for y in training.tolist()) for x in fake.tolist()], rel=1e-3
    )
    real = training_distance(held_out, training)
    limit = sorted(real.tolist())[int(0.1 * 199)]
    assert memorized_share(distance, real, 0.1) == pytest.approx(sum(d < limit for d in distance.tolist()) / 100)
    assert memorized_share(real, real, 0.1) == pytest.approx(0.1, abs=0.006), "the expected value of real images"
    assert memorized_share(training_distance(training[:30], training), real) == 1


def test_spread_is_that_of_pairs_of_a_class() -> None:
    real, fake = features(60, 10), features(50, 11, 0.5)
    real_label, fake_label = torch.arange(60) % 3, torch.arange(50) % 3

    def mean_distance(images: Tensor, label: Tensor) -> float:
        means = []
        for one in range(3):
            rows = images[label == one].tolist()
            squares = [math.dist(x, y) ** 2 for i, x in enumerate(rows) for y in rows[:i]]
            means.append(math.sqrt(sum(squares) / len(squares)))
        return sum(means) / 3

    expected = mean_distance(fake, fake_label) / mean_distance(real, real_label)
    assert spread_share(real, real_label, fake, fake_label, 3) == pytest.approx(expected, rel=1e-5)
    assert spread_share(real, real_label, fake[:3].repeat(9, 1), torch.arange(27) % 3, 3) == pytest.approx(0, abs=1e-6)
    assert spread_share(real, real_label, fake[:1], fake_label[:1], 3) is None, "no class has two images"
    one = torch.zeros(60, dtype=torch.int64)
    assert spread_share(real, one, real, one, 1) == pytest.approx(1), "one class only"
    assert spread_share(torch.ones(9, 2), one[:9], fake[:9, :2], one[:9], 1) is None, "real images don't vary"


def test_bad_features_are_refused_in_a_sentence() -> None:
    real = features(10, 12)
    with pytest.raises(
        RunError, match="There are 5 generated images, and scores need at least 6: neighbors must be at most 4"
    ):
        precision_recall_density_coverage(real, real[:5], 5)
    with pytest.raises(RunError, match=r"There are 0 real images, and scores need at least 6\."):
        precision_recall_density_coverage(real[:0], real, 5)
    with pytest.raises(RunError, match=r"There is 1 generated image, and scores need at least 6\."):
        precision_recall_density_coverage(real, real[:1], 5)
    with pytest.raises(RunError, match=r"There are 0 training images, and scores need at least 1\."):
        training_distance(real, real[:0])
    wrong = real.clone()
    wrong[2, 1] = torch.nan
    for call in (
        lambda: precision_recall_density_coverage(real, wrong, 5),
        lambda: training_distance(wrong, real),
        lambda: spread_share(wrong, torch.zeros(10), real, torch.zeros(10), 1),
    ):
        with pytest.raises(RunError, match=r"The features of 1 of 10 .* images aren't finite"):
            call()


@pytest.mark.long
def test_ten_thousand_images_fit_into_a_gibibyte() -> None:
    """The peak beyond what the process takes without them; the full matrix alone would take 0.4 GiB, three 1.2."""
    code = (
        "import resource, torch\n"
        "from lit_models.metrics.variety import precision_recall_density_coverage, training_distance\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "real, fake = torch.randn(10000, 128), torch.randn(10000, 128)\n"
        "before = peak()\n"
        "precision_recall_density_coverage(real, fake), training_distance(fake, real)\n"
        "print((peak() - before) / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5
