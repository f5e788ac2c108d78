import math

import pytest
import torch

from lit_models.losses.adversarial import discriminator_bce, generator_bce


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("label", [0, 1])
def test_against_a_plain_loop(label: int) -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(7).tolist(), torch.randn(5).tolist()

    def cross_entropy(logit: float, y: float) -> float:
        return -(y * math.log(sigmoid(logit)) + (1 - y) * math.log(1 - sigmoid(logit)))

    expected = sum(cross_entropy(x, label) for x in real) / 7 + sum(cross_entropy(x, 1 - label) for x in fake) / 5
    assert discriminator_bce(torch.tensor(real), torch.tensor(fake), label).item() == pytest.approx(expected, rel=1e-5)
    expected = sum(cross_entropy(x, label) for x in fake) / 5
    assert generator_bce(torch.tensor(fake), label).item() == pytest.approx(expected, rel=1e-5)


def test_closed_forms() -> None:
    """A discriminator that can't tell pays 2 log 2; the generator then pays log 2 with gradient −1/2 a logit."""
    zeros = torch.zeros(4, requires_grad=True)
    assert discriminator_bce(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    loss = generator_bce(zeros)
    assert loss.item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(loss, zeros)
    assert torch.allclose(gradient, torch.full((4,), -0.5 / 4))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([-1e4, 1e4])
    assert discriminator_bce(logits, logits).isfinite()
    assert generator_bce(logits).isfinite()


def test_fuzzy_labels_lie_around_each_label() -> None:
    """BCE is linear in the label with slope −logit: the loss's spread gives the labels away."""
    torch.manual_seed(0)
    real = torch.full((100_000,), 3.0)
    losses = torch.stack([discriminator_bce(real[i : i + 1], real[i : i + 1], 1, 0.1) for i in range(2000)])
    exact = discriminator_bce(real[:1], real[:1], 1)
    # Each of the two labels moves by U(−0.1, 0.1), each loss by 3 times that: a variance of 2 · 9 · 0.2²/12.
    assert (losses - exact).abs().max() <= 2 * 3 * 0.1 + 1e-5
    assert losses.var().item() == pytest.approx(2 * 9 * 0.04 / 12, rel=0.1)
    assert losses.mean().item() == pytest.approx(exact.item(), abs=0.03)
