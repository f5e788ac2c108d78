"""Losses of the two players of a generative adversarial network, on the discriminator's outputs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from lit_models.losses.precision import at_least_float32

IMAGES_IN_BF16 = 16
"""On a CPU, penalties of fewer images are computed in float32. The gradient of a penalty convolves feature maps by
feature maps, with the images of the batch as channels. With an even number of channels below 16, and a kernel so wide
that channels times width is a multiple of 32 above 32, oneDNN 3.12 returns numbers without meaning in bfloat16 on a CPU
with AMX (torch 2.14.1; seen with the ResNet critic at 32x32)."""


def discriminator_bce(
    real_logits: Tensor,
    fake_logits: Tensor,
    data_label: float = 1.0,
    label_noise: float = 0.0,
) -> Tensor:
    """Cross-entropy of telling real from fake images (Goodfellow et al. 2014, eq. 1, as a loss to be minimized).

    With ``y`` the label of real images and ``σ`` the sigmoid,
    ``L_D = E_x[BCE(σ(D(x)), y)] + E_z[BCE(σ(D(G(z))), 1 − y)]``.

    Args:
        real_logits: The discriminator's outputs for real images, of any shape.
        fake_logits: The discriminator's outputs for generated images, of any shape.
        data_label: The label that means "real", 1 or 0.
        label_noise: Half-width ε of the uniform noise on every label ("fuzzy" labels in [y ± ε]); 0 for none.

    Returns:
        The sum of both means, a scalar.
    """
    return _bce(real_logits, data_label, label_noise) + _bce(fake_logits, 1 - data_label, label_noise)


def generator_bce(fake_logits: Tensor, data_label: float = 1.0) -> Tensor:
    """The generator's non-saturating loss ``−E_z[log σ(D(G(z)))]`` (Goodfellow et al. 2014, section 3), for
    ``data_label`` 1; with ``data_label`` 0 the same with the discriminator's two answers exchanged.

    Args:
        fake_logits: The discriminator's outputs for generated images, of any shape.
        data_label: The label that means "real", 1 or 0.

    Returns:
        The mean, a scalar.
    """
    return _bce(fake_logits, data_label, 0.0)


def discriminator_least_squares(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """``E_x[(D(x) − 1)²] + E_z[D(G(z))²]`` (Mao et al. 2017, arXiv:1611.04076, with targets 0 and 1).

    Their factor of a half is left out.

    Args:
        real_score: The discriminator's outputs for real images, of any shape.
        fake_score: The discriminator's outputs for generated images, of any shape.

    Returns:
        The sum of both means, a scalar.
    """
    return (at_least_float32(real_score) - 1).square().mean() + at_least_float32(fake_score).square().mean()


def generator_least_squares(fake_score: Tensor) -> Tensor:
    """``E_z[(D(G(z)) − 1)²]`` (Mao et al. 2017, with target 1 and without their factor of a half).

    Args:
        fake_score: The discriminator's outputs for generated images, of any shape.

    Returns:
        The mean, a scalar.
    """
    return (at_least_float32(fake_score) - 1).square().mean()


def discriminator_hinge(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """``L_D = E_x[max(0, 1 − D(x))] + E_z[max(0, 1 + D(G(z)))]`` (Lim & Ye 2017; Miyato et al. 2018, eq. 16).

    The generator's loss that goes with it is :func:`generator_linear`.

    Args:
        real_score: The discriminator's outputs for real images, of any shape.
        fake_score: The discriminator's outputs for generated images, of any shape.

    Returns:
        The sum of both means, a scalar.
    """
    return (
        functional.relu(1 - at_least_float32(real_score)).mean()
        + functional.relu(1 + at_least_float32(fake_score)).mean()
    )


def generator_linear(fake_score: Tensor) -> Tensor:
    """``L_G = −E_z[D(G(z))]``: the generator's loss of WGAN (Arjovsky et al. 2017, theorem 3), also for the hinge
    loss (Miyato et al. 2018, eq. 17).

    Args:
        fake_score: The discriminator's outputs for generated images, of any shape.

    Returns:
        A scalar.
    """
    return -at_least_float32(fake_score).mean()


def wasserstein_distance(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """``E_x[f(x)] − E_z[f(G(z))]``, which WGAN's critic f maximizes (Arjovsky et al. 2017, section 3).

    If f is the best of all functions with slopes of at most K, it is K times the Wasserstein-1 distance.

    Args:
        real_score: The critic's outputs for real images, of any shape.
        fake_score: The critic's outputs for generated images, of any shape.

    Returns:
        A scalar.
    """
    return at_least_float32(real_score).mean() - at_least_float32(fake_score).mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor | None = None
) -> Tensor:
    """``E[(‖∇_x̂ f(x̂)‖₂ − 1)²]`` at ``x̂ = ε x + (1 − ε) G(z)`` (Gulrajani et al. 2017, eq. 3 without its λ).

    Works in every grad mode, and so for held-out losses, too. The points and the norms of the slopes are in float32,
    whatever precision the critic computes in; on a CPU, the critic computes in float32 for fewer than 16 images, too.

    Args:
        critic: f; each of its outputs must depend on one image only, which rules out batch normalization.
        real: ``(N, ...)``.
        fake: ``(N, ...)``.
        mix: ``(N,)`` in float32, the ε of each pair; drawn from U(0, 1) if None.

    Returns:
        The mean, a scalar.
    """
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        if mix is None:
            mix = torch.rand(len(real), device=real.device)
        mix = mix.view(-1, *(1,) * (real.ndim - 1))
        # Copies, because autograd refuses tensors that were made in inference mode.
        real, fake = real.detach().clone(), fake.detach().clone()
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        with _precision_of_penalty(between):
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=graph)
    norm: Tensor = slope.flatten(1).norm(dim=1)
    return (norm - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """``E_x[‖∇_x D(x)‖²]`` on real images (Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, eq. 9 without its γ/2).

    Works in every grad mode. The slopes are squared in float32; on a CPU, those of fewer than 16 images are computed in
    float32, too.

    Args:
        discriminator: D; each of its outputs must depend on one image only, which rules out batch normalization.
        real: ``(N, ...)``.

    Returns:
        The mean, a scalar.
    """
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        real = at_least_float32(real.detach().clone()).requires_grad_()
        with _precision_of_penalty(real):
            (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=graph)
    return slope.flatten(1).float().square().sum(1).mean()


def with_r1(
    loss: Tensor, discriminator: Callable[[Tensor], Tensor], real: Tensor, weight: float
) -> Tensor | dict[str, Tensor]:
    """The discriminator's loss; with a weight γ, ``loss + γ/2 · penalty`` and the penalty of :func:`r1_penalty`."""
    if not weight:
        return loss
    penalty = r1_penalty(discriminator, real)
    return {"loss": loss + weight / 2 * penalty, "r1_penalty": penalty}


def _precision_of_penalty(images: Tensor) -> AbstractContextManager[object]:
    """Without autocast where its second derivatives can't be trusted."""
    few = images.device.type == "cpu" and len(images) < IMAGES_IN_BF16
    return torch.autocast("cpu", enabled=False) if few else nullcontext()


def _bce(logits: Tensor, label: float, noise: float) -> Tensor:
    labels = torch.full_like(logits, label)
    if noise:
        labels = labels + torch.empty_like(logits).uniform_(-noise, noise)
    return functional.binary_cross_entropy_with_logits(logits, labels)
