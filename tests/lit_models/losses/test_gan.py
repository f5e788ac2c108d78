import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_models.dcgan import Discriminator
from lit_models.losses.gan import (
    IMAGES_IN_BF16,
    discriminator_bce,
    discriminator_hinge,
    generator_bce,
    generator_linear,
    gradient_penalty,
    r1_penalty,
    wasserstein_distance,
    with_r1,
)


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


def test_hinge_and_linear_losses_against_a_plain_loop() -> None:
    torch.manual_seed(0)
    real, fake = (2 * torch.randn(7)).tolist(), (2 * torch.randn(5)).tolist()
    expected = sum(max(0, 1 - x) for x in real) / 7 + sum(max(0, 1 + x) for x in fake) / 5
    assert discriminator_hinge(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(expected, rel=1e-5)
    assert generator_linear(torch.tensor(fake)).item() == pytest.approx(-sum(fake) / 5, rel=1e-5)
    expected = sum(real) / 7 - sum(fake) / 5
    assert wasserstein_distance(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(expected, rel=1e-5)


def test_hinge_has_no_gradient_beyond_the_margin() -> None:
    real = torch.tensor([2.0, 0.5, -3.0], requires_grad=True)
    fake = torch.tensor([-2.0, -0.5], requires_grad=True)
    discriminator_hinge(real, fake).backward()
    assert torch.allclose(real.grad, torch.tensor([0, -1 / 3, -1 / 3]))
    assert torch.allclose(fake.grad, torch.tensor([0, 1 / 2]))


def test_means_of_bf16_scores_are_taken_in_float32() -> None:
    score = torch.full((1000,), 256.0, dtype=torch.bfloat16)
    score[:500] = 258
    for mean in (wasserstein_distance(score, torch.zeros(4)), -generator_linear(score)):
        assert mean.item() == 257
    assert discriminator_hinge(-score, -score).item() == 258


# --- the gradient penalty ---------------------------------------------------------------------------------------------


def pairs(size: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, size, 1, 16, 16, generator=generator, dtype=torch.double).to(dtype)
    return real, fake, torch.rand(size, generator=generator, dtype=torch.double).to(dtype)


def critic(dtype: torch.dtype = torch.float32) -> Discriminator:
    torch.manual_seed(0)
    network = Discriminator(16, 1, 4, batch_norm=False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.15)
    return network.to(dtype)


def test_the_penalty_of_a_linear_critic() -> None:
    """f(x) = w · x has the slope ‖w‖ everywhere; the penalty's gradient is 2 (‖w‖ − 1) w / ‖w‖."""
    real, fake, _ = pairs()
    weight = torch.randn(256, requires_grad=True)
    penalty = gradient_penalty(lambda image: image.flatten(1) @ weight + 3, real, fake)
    length = weight.detach().norm()
    assert penalty.item() == pytest.approx((length.item() - 1) ** 2, rel=1e-5)
    penalty.backward()
    assert torch.allclose(weight.grad, 2 * (length - 1) * weight.detach() / length, rtol=1e-4)


def test_the_penalty_is_taken_between_the_pairs() -> None:
    """f(x) = ‖x‖² / 2 has the slope ‖x‖, so that the penalty tells where it was taken."""
    real, fake, mix = pairs()
    seen: list[Tensor] = []

    def norm(image: Tensor) -> Tensor:
        seen.append(image)
        return image.square().sum((1, 2, 3)) / 2

    between = [mix[i] * real[i] + (1 - mix[i]) * fake[i] for i in range(5)]
    expected = sum((x.norm().item() - 1) ** 2 for x in between) / 5
    assert gradient_penalty(norm, real, fake, mix).item() == pytest.approx(expected, rel=1e-5)
    seen.clear()
    gradient_penalty(norm, real.repeat(400, 1, 1, 1), fake.repeat(400, 1, 1, 1))
    difference = (real - fake).repeat(400, 1, 1, 1)
    drawn = ((seen[0] - fake.repeat(400, 1, 1, 1)) * difference).sum((1, 2, 3)) / difference.square().sum((1, 2, 3))
    assert drawn.min() >= -1e-5
    assert drawn.max() <= 1 + 1e-5
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.03)
    assert drawn.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_the_penaltys_gradient_by_finite_differences() -> None:
    network, (real, fake, mix) = critic(torch.double), pairs(3, torch.double)
    gradient_penalty(network, real, fake, mix).backward()
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") and parameter.numel() == 1:
            continue  # the last layer's bias has no part in any slope
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
            values.append(gradient_penalty(network, real, fake, mix).item())
            with torch.no_grad():
                parameter -= sign * 1e-6 * direction
        numerical = (values[0] - values[1]) / 2e-6
        exact = (parameter.grad * direction).sum().item() if parameter.grad is not None else 0.0
        assert numerical == pytest.approx(exact, rel=1e-4, abs=1e-7), name


def test_the_penalty_in_bf16_is_close_and_in_float32() -> None:
    network, (real, fake, mix) = critic(), pairs(IMAGES_IN_BF16)
    exact = gradient_penalty(network, real, fake, mix)
    exact.backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(network, real, fake, mix)
        penalty.backward()
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(exact.item(), rel=0.02)
    assert penalty.item() != pytest.approx(exact.item(), rel=1e-6)
    for parameter, expected in zip((p for p in network.parameters() if p.grad is not None), gradients, strict=True):
        cosine = nn.functional.cosine_similarity(parameter.grad.flatten(), expected.flatten(), dim=0)
        assert cosine > 0.99 or expected.norm() < 1e-6


@pytest.mark.parametrize("size", [2, IMAGES_IN_BF16 - 1])
def test_penalties_of_few_images_are_in_float32(size: int) -> None:
    """Second derivatives of few images in bfloat16 are wrong on some CPUs."""
    network, (real, fake, mix) = critic(), pairs(size)
    found = []
    for bf16 in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            (gradient_penalty(network, real, fake, mix) + r1_penalty(network, real)).backward()
        found.append(torch.cat([one.grad.flatten() for one in network.parameters() if one.grad is not None]))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6)


def test_a_flat_critic_has_a_finite_penalty() -> None:
    real, fake, mix = pairs()
    weight = torch.zeros(256, requires_grad=True)
    penalty = gradient_penalty(lambda image: image.flatten(1) @ weight, real, fake, mix)
    penalty.backward()
    assert penalty.item() == 1
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_r1_penalty_of_a_quadratic(mode: Any) -> None:
    """D(x) = a · x + b |x|² has the slope a + 2 b x."""
    real, a, b = torch.randn(4, 3, 2), torch.randn(3, 2), 0.7
    with mode():
        penalty = r1_penalty(lambda x: (x * a).sum((1, 2)) + b * x.square().sum((1, 2)), real.clone())
    expected = sum((a + 2 * b * x).square().sum() for x in real) / 4
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_of_the_r1_penalty() -> None:
    """For D(x) = w · x the penalty is |w|², whose gradient is 2 w; it is multiplied by γ/2 in the loss."""
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    values = with_r1(torch.tensor(3.0), lambda x: x @ weight, torch.randn(5, 2), weight=10.0)
    assert isinstance(values, dict)
    assert values["r1_penalty"].item() == pytest.approx(5.0)
    assert values["loss"].item() == pytest.approx(3 + 10 / 2 * 5)
    values["loss"].backward()
    assert torch.allclose(weight.grad, 10 / 2 * 2 * weight)
    loss = torch.tensor(3.0)
    assert with_r1(loss, lambda x: x @ weight, torch.randn(5, 2), weight=0.0) is loss
