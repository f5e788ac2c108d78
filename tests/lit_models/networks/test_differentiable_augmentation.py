"""Each change against loops over single values, and what it does to gradients."""

import pytest
import torch
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.networks.differentiable_augmentation import DifferentiableAugmentation, color, cutout, translation


@pytest.fixture
def image() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)


def test_color(image: Tensor) -> None:
    brightness, saturation, contrast = torch.tensor([[-0.2, 0.0, 0.4], [0.0, 1.5, 1.0], [0.5, 1.2, 1.0]]).double()
    expected = torch.empty_like(image)
    for n in range(3):
        shifted = [[[image[n, c, i, j] + brightness[n] for j in range(6)] for i in range(5)] for c in range(2)]
        for i in range(5):
            for j in range(6):
                gray = (shifted[0][i][j] + shifted[1][i][j]) / 2
                for c in range(2):
                    expected[n, c, i, j] = gray + saturation[n] * (shifted[c][i][j] - gray)
        mean = sum(expected[n].flatten().tolist()) / 60
        expected[n] = mean + contrast[n] * (expected[n].clone() - mean)
    assert torch.allclose(color(image, brightness, saturation, contrast), expected)
    nothing = color(image, torch.zeros(3).double(), torch.ones(3).double(), torch.ones(3).double())
    assert torch.allclose(nothing, image)


def test_translation(image: Tensor) -> None:
    down, right = torch.tensor([1, 0, -2]), torch.tensor([-1, 0, 3])
    expected = torch.zeros_like(image)
    for n in range(3):
        for i in range(5):
            for j in range(6):
                from_row, from_column = i - int(down[n]), j - int(right[n])
                if 0 <= from_row < 5 and 0 <= from_column < 6:
                    expected[n, :, i, j] = image[n, :, from_row, from_column]
    moved = translation(image, down, right)
    assert torch.equal(moved, expected)
    (gradient,) = torch.autograd.grad(moved.sum(), image)
    (by_loops,) = torch.autograd.grad(expected.sum(), image)
    assert torch.equal(gradient, by_loops)


def test_cutout(image: Tensor) -> None:
    top, left = torch.tensor([-1, 2, 4]), torch.tensor([0, 5, 2])
    expected = image.detach().clone()
    for n in range(3):
        for i in range(int(top[n]), int(top[n]) + 2):
            for j in range(int(left[n]), int(left[n]) + 3):
                if 0 <= i < 5 and 0 <= j < 6:
                    expected[n, :, i, j] = 0
    cut = cutout(image, top, left, height=2, width=3)
    assert torch.equal(cut, expected)
    (gradient,) = torch.autograd.grad(cut.sum(), image)
    assert torch.equal(gradient, (expected != 0).double())


def test_the_draws_are_per_image_and_fill_their_ranges() -> None:
    torch.manual_seed(0)
    image = torch.linspace(0.1, 1, 16 * 16).reshape(1, 1, 16, 16).expand(2000, 3, 16, 16)
    moved = DifferentiableAugmentation(["translation"])(image)
    kept = (moved[:, 0] != 0).flatten(1).sum(1)
    assert kept.min() == 14 * 14
    assert kept.max() == 16 * 16, "an eighth of 16 pixels at most"
    cut = (DifferentiableAugmentation(["cutout"])(image)[:, 0] == 0).flatten(1).sum(1)
    assert cut.max() == 8 * 8
    assert cut.min() == 4 * 4, "the middle stays in the image"
    colored = DifferentiableAugmentation(["color"])(image)
    assert (colored.mean((1, 2, 3)) - image[0].mean()).abs().max().item() == pytest.approx(0.5, abs=0.01)
    spread = colored.std((1, 2, 3)) / image[0].std()
    assert spread.min().item() == pytest.approx(0.5, abs=0.01), "gray images have no saturation to change"
    assert spread.max().item() == pytest.approx(1.5, abs=0.01)


def test_all_in_a_row_let_gradients_through() -> None:
    image = torch.rand(2, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    changed = DifferentiableAugmentation(["color", "translation", "cutout"])(image)
    assert changed.shape == image.shape
    assert changed.dtype == image.dtype
    changed.float().square().sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.any()


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ModelError, match="augmentations has 'tint'; choose from color, translation, cutout"):
        DifferentiableAugmentation(["tint"])  # type: ignore[list-item]
