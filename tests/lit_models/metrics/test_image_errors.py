import math

import numpy as np
import pytest
import torch

from lit_models.metrics.image_errors import (
    MAP_COLORS,
    TranslationMetrics,
    map_scores,
    nearest_colors,
    painted,
    structural_similarity,
)

KINDS = list(MAP_COLORS)


def test_nearest_colors_against_a_plain_loop() -> None:
    image = torch.randint(256, (2, 3, 9, 7), generator=torch.Generator().manual_seed(0))
    found = nearest_colors(image / 255)
    for n in range(2):
        for y in range(9):
            for x in range(7):
                pixel = image[n, :, y, x].tolist()
                distance = {
                    (kind, color): sum((a - b) ** 2 for a, b in zip(pixel, color, strict=True))
                    for kind, colors in MAP_COLORS.items()
                    for color in colors
                }
                assert KINDS[found[n, y, x]] == min(distance, key=lambda key: distance[key])[0]


def test_every_color_is_of_its_own_kind() -> None:
    for kind, colors in MAP_COLORS.items():
        for color in colors:
            pixel = torch.tensor(color).view(1, 3, 1, 1) / 255
            assert KINDS[nearest_colors(pixel)] == kind
    kinds = torch.arange(len(KINDS)).view(1, 1, -1)
    assert torch.equal(nearest_colors(painted(kinds)), kinds)


def test_an_invented_motorway_becomes_a_figure() -> None:
    """Four of ten pixels of ground painted as motorway, and half of the water as park."""
    truth = torch.tensor([[KINDS.index("ground")] * 10 + [KINDS.index("water")] * 10])[None]
    guess = truth.clone()
    guess[..., :4] = KINDS.index("motorway")
    guess[..., 10:15] = KINDS.index("park")
    metrics = TranslationMetrics()
    metrics.metrics = {"confusion": metrics.metrics["confusion"]}
    metrics.update(painted(guess), painted(truth))
    scores = metrics.compute()
    assert scores["map_accuracy"] == pytest.approx(11 / 20)
    assert scores["map_recall_ground"] == pytest.approx(0.6)
    assert scores["map_recall_water"] == pytest.approx(0.5)
    assert scores["map_precision_motorway"] == 0
    assert scores["map_precision_ground"] == 1
    assert math.isnan(scores["map_recall_park"])
    assert math.isnan(scores["map_precision_road"])
    assert metrics.confusion().sum() == 20
    assert map_scores(metrics.confusion())["map_accuracy"] == pytest.approx(11 / 20)


def test_ssim_is_scikit_images() -> None:
    """On images whose borders differ most, where windows that are mirrored there would give another value."""
    skimage = pytest.importorskip("skimage.metrics")
    numbers = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 16, 40, generator=numbers).cumsum(3) / 40
    guess = truth.clone()
    guess[..., :4] = 0
    for a, b, ours in zip(truth.double(), guess.double(), structural_similarity(truth, guess), strict=True):
        options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected = skimage.structural_similarity(a.numpy(), b.numpy(), channel_axis=0, **options)
        assert ours.item() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(structural_similarity(truth, truth), torch.ones(2))


def test_l1_psnr_and_ssim_against_other_code() -> None:
    """In batches of different sizes; SSIM by its definition, with Gaussian windows of 11x11 pixels and σ 1.5."""
    numbers = torch.Generator().manual_seed(0)
    truth = torch.randint(256, (5, 3, 24, 20), generator=numbers) / 255
    guess = (truth + 0.2 * torch.randn(truth.shape, generator=numbers)).clamp(0, 1)
    metrics = TranslationMetrics(map_colors=False)
    for rows in (slice(0, 3), slice(3, 5)):
        metrics.update(guess[rows].contiguous(memory_format=torch.channels_last), truth[rows])
    scores = metrics.compute()
    assert scores.keys() == {"l1", "psnr", "ssim"}
    a, b = (np.round(images.numpy().astype(np.float64) * 255) / 255 for images in (guess, truth))
    assert scores["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    squared = ((a - b) ** 2).mean((1, 2, 3))
    assert scores["psnr"] == pytest.approx((-10 * np.log10(squared)).mean(), rel=1e-4)

    place = np.arange(11) - 5
    window = np.exp(-(place**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for x, y in zip(a.reshape(-1, 24, 20), b.reshape(-1, 24, 20), strict=True):
        for top in range(24 - 10):
            for left in range(20 - 10):
                p, q = (image[top : top + 11, left : left + 11] for image in (x, y))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * p**2).sum() - mean_p**2, (window * q**2).sum() - mean_q**2
                covariance = (window * p * q).sum() - mean_p * mean_q
                value = (2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
                values.append(value / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4)))
    assert scores["ssim"] == pytest.approx(np.mean(values), rel=1e-5)
    metrics.reset()
    metrics.update(truth[:1], guess[:1])
    assert metrics.compute()["l1"] == pytest.approx(np.abs(a[0] - b[0]).mean(), rel=1e-4)
