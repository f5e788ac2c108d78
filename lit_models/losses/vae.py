"""The bound that a variational autoencoder learns by (Kingma & Welling 2013, arXiv:1312.6114), in nats and in bits.

The encoder gives q(z|x) = N(μ, Σ) with a diagonal Σ, and the prior is N(0, I) in d_z dimensions. For each image

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),    KL = ½ (tr Σ + ‖μ‖² − d_z − log det Σ).

The decoder gives one of two likelihoods of the d_x values of an image (appendix C of the paper):

- Bernoulli, for binary pixels: log p(x|z) = Σ_i x_i log y_i + (1 − x_i) log(1 − y_i) with y = sigmoid(logits).
- Gaussian: −log p(x|z) = ‖x − x̂‖² / 2s² + (d_x / 2) log 2πs², with one variance s² for all values.

Stored images hold integers 0..255, for which a density has no meaning in bits. The Gaussian's values in nats and bits
are therefore bounds on the *probability* of an 8-bit image: uniform noise as wide as one gray level (1/255) dequantizes
each value (Uria, Murray & Larochelle 2013, arXiv:1306.0186), and by Jensen's inequality

    log P(x) ≥ E_u[log p(x + u)] − d_x log 255,    u ~ U(−1/510, 1/510) in each value.

The encoder sees x without u. The expectation over u is exact: E‖x + u − x̂‖² = ‖x − x̂‖² + d_x / (12 · 255²).

All functions compute in float32 and return one value per image unless they say otherwise. Leading dimensions of
reconstructions (draws of z) are kept.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_models.losses.precision import at_least_float32

LEVELS = 255
"""Gray levels between black and white, whose values are 0 and 1."""

DEQUANTIZATION_VARIANCE = 1 / (12 * LEVELS**2)
"""Variance of uniform noise as wide as one gray level."""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, Σ) ‖ N(0, I)) in nats (Kingma & Welling 2013, appendix B).

    Args:
        mean: μ, ``(N, d_z)``.
        log_variance: The diagonal of log Σ, ``(N, d_z)``.
    """
    mean, log_variance = at_least_float32(mean), at_least_float32(log_variance)
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)


def gaussian_reconstruction(image: Tensor, reconstruction: Tensor, variance: Tensor | float) -> Tensor:
    """‖x − x̂‖² / 2s²: −log p(x|z) in nats without its constant.

    Args:
        image: x, ``(N, C, H, W)``.
        reconstruction: x̂, ``(..., N, C, H, W)``.
        variance: s².
    """
    return 0.5 * squared_error(image, reconstruction) / variance


def pointwise_loss(reconstruction_nats: Tensor, kl_nats: Tensor, kl_weight: float = 1.0) -> Tensor:
    """ℓ = 2 (reconstruction + β KL), twice the negative bound.

    For a Gaussian with s² = σ² d_x without its constant: ‖x − x̂‖² / (σ² d_x) + β (tr Σ + ‖μ‖² − d_z − log det Σ).

    Args:
        reconstruction_nats: −log p(x|z), perhaps without a constant.
        kl_nats: :func:`gaussian_kl`.
        kl_weight: β (Higgins et al. 2017, "beta-VAE"); 1 for the bound itself.
    """
    return 2 * (reconstruction_nats + kl_weight * kl_nats)


def bernoulli_log_likelihood(image: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) in nats of independent Bernoulli pixels.

    Args:
        image: x, ``(N, C, H, W)``; a log-probability if its values are 0 and 1.
        logits: Of the pixels' probabilities, ``(..., N, C, H, W)``.
    """
    target = at_least_float32(image).expand_as(logits)
    return -binary_cross_entropy_with_logits(at_least_float32(logits), target, reduction="none").flatten(-3).sum(-1)


def discrete_log_likelihood(image: Tensor, reconstruction: Tensor, variance: Tensor | float) -> Tensor:
    """E_u[log p(x + u | z)] − d_x log 255 in nats: at most log P(x|z) of the 8-bit image.

    Args:
        image: x, ``(N, C, H, W)``, in [0, 1] in steps of 1/255.
        reconstruction: x̂, ``(..., N, C, H, W)``, in [0, 1].
        variance: s².
    """
    values = image[0].numel()
    error = squared_error(image, reconstruction) + values * DEQUANTIZATION_VARIANCE
    log_scale = 0.5 * (variance.log() if isinstance(variance, Tensor) else math.log(variance))
    return -0.5 * error / variance - values * (log_scale + 0.5 * math.log(2 * math.pi) + math.log(LEVELS))


def optimal_variance(image: Tensor, reconstruction: Tensor) -> Tensor:
    """The s² that maximizes :func:`discrete_log_likelihood` of a batch: its mean squared error per value, plus that of
    dequantization (the optimal σ-VAE of Rybkin, Daniilidis & Levine 2021, arXiv:2006.13202). One number, without a
    gradient.

    At the optimum the likelihood is flat in s². The gradient with s² held fixed is therefore that of the likelihood
    with s² = s²(x̂) inserted.
    """
    return squared_error(image, reconstruction).detach().mean() / image[0].numel() + DEQUANTIZATION_VARIANCE


def bits_per_dim(log_probability: Tensor, image: Tensor) -> Tensor:
    """−log P(x) / (d_x log 2), from log P(x) (or a bound on it) in nats; 8 for 256 equally likely levels."""
    return -log_probability / (image[0].numel() * math.log(2))


def bits_per_dim_floor(variance: Tensor) -> Tensor:
    """Smallest bits per dimension of a decoder of variance s²: a perfect x̂ and no KL divergence. One number."""
    nats = 0.5 * (2 * math.pi * variance).log() + math.log(LEVELS) + 0.5 * DEQUANTIZATION_VARIANCE / variance
    return nats / math.log(2)


def log_importance_weight(log_likelihood: Tensor, latent: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x) in nats (Burda, Grosse & Salakhutdinov 2015, arXiv:1509.00519).

    Args:
        log_likelihood: log p(x|z), ``(..., N)``.
        latent: z, ``(..., N, d_z)``.
        mean: μ, ``(N, d_z)``.
        log_variance: The diagonal of log Σ, ``(N, d_z)``.
    """
    latent, mean, log_variance = at_least_float32(latent), at_least_float32(mean), at_least_float32(log_variance)
    standardized = (latent - mean).square() / log_variance.exp()
    return log_likelihood + 0.5 * (standardized + log_variance - latent.square()).sum(-1)


def importance_weighted_bound(log_weight: Tensor) -> Tensor:
    """log (1/k) Σᵢ wᵢ, at most log P(x) on average and tighter the larger k is (Burda et al. 2015).

    Args:
        log_weight: log w of k draws of z for each image, ``(k, N)``.
    """
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def squared_error(image: Tensor, reconstruction: Tensor) -> Tensor:
    """‖x − x̂‖² of each image."""
    return torch.sub(at_least_float32(image), at_least_float32(reconstruction)).square().flatten(-3).sum(-1)
