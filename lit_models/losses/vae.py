"""The bound that a variational autoencoder learns by (Kingma & Welling 2013, arXiv:1312.6114), in its usual units.

The encoder gives q(z|x) = N(μ, Σ) with a diagonal Σ, the prior is N(0, I) in d_z dimensions, and the decoder gives
p(x|z) = N(x̂, s² I) over the d_x values of an image. In nats

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),
    −log p(x|z) = ‖x − x̂‖² / 2s² + (d_x / 2) log 2πs²,
    KL = ½ (tr Σ + ‖μ‖² − d_z − log det Σ).

The pointwise loss ℓ = ‖x − x̂‖² / (σ² d_x) + tr Σ + ‖μ‖² − d_z − log det Σ is twice the negative bound without its
constant, for a decoder of variance **s² = σ² d_x** for each value. All functions here take σ² as ``x_sigma2``.

An image has whole values 0..255, not densities. So a bound in bits is one on the probability of those: uniform noise of
one grey level (1/255 of the range) is added to each value (Uria, Murray & Larochelle 2013, arXiv:1306.0186), and by
Jensen's inequality

    log P(x) ≥ E_u[log p(x + u)] − d_x log 255,    u ~ U(−1/510, 1/510) in each value.

The encoder sees x without u, and the expectation over u is exact: E‖x + u − x̂‖² = ‖x − x̂‖² + d_x / (12 · 255²).

All functions compute in float32 and return one number for each image, ``(N,)``.
"""

import math

import torch
from torch import Tensor

LEVELS = 255
"""Grey levels between black and white, whose values are 0 and 1."""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, Σ) ‖ N(0, I)) in nats (Kingma & Welling 2013, appendix B).

    Args:
        mean: μ, ``(N, d_z)``.
        log_variance: The diagonal of log Σ, ``(N, d_z)``.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)


def gaussian_reconstruction(image: Tensor, reconstruction: Tensor, x_sigma2: float) -> Tensor:
    """‖x − x̂‖² / 2s² with s² = σ² d_x: −log p(x|z) in nats without its constant.

    Args:
        image: x, ``(N, C, H, W)``.
        reconstruction: x̂, likewise.
        x_sigma2: σ².
    """
    return 0.5 * squared_error(image, reconstruction) / (x_sigma2 * image[0].numel())


def pointwise_loss(reconstruction_nats: Tensor, kl_nats: Tensor, kl_weight: float = 1.0) -> Tensor:
    """ℓ = ‖x − x̂‖² / (σ² d_x) + β (tr Σ + ‖μ‖² − d_z − log det Σ), from both terms in nats.

    Args:
        reconstruction_nats: :func:`gaussian_reconstruction`.
        kl_nats: :func:`gaussian_kl`.
        kl_weight: β (Higgins et al. 2017, "beta-VAE"); 1 for the bound itself.
    """
    return 2 * (reconstruction_nats + kl_weight * kl_nats)


def discrete_log_likelihood(image: Tensor, reconstruction: Tensor, x_sigma2: float) -> Tensor:
    """E_u[log p(x + u | z)] − d_x log 255 in nats: at most log P(x|z) of the 8-bit image.

    Args:
        image: x, ``(N, C, H, W)``, in [0, 1] in steps of 1/255.
        reconstruction: x̂, ``(N, C, H, W)``, in [0, 1].
        x_sigma2: σ².
    """
    values = image[0].numel()
    variance = x_sigma2 * values
    error = squared_error(image, reconstruction) + values / (12 * LEVELS**2)
    return -0.5 * error / variance - values * (0.5 * math.log(2 * math.pi * variance) + math.log(LEVELS))


def bits_per_dim(log_probability: Tensor, image: Tensor) -> Tensor:
    """−log P(x) / (d_x log 2), from log P(x) (or a bound on it) in nats; 8 is what equal odds for all values take."""
    return -log_probability / (image[0].numel() * math.log(2))


def log_importance_weight(log_likelihood: Tensor, latent: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x) in nats (Burda, Grosse & Salakhutdinov 2015, arXiv:1509.00519, eq. 8).

    Args:
        log_likelihood: log p(x|z), ``(N,)``.
        latent: z, ``(N, d_z)``.
        mean: μ, ``(N, d_z)``.
        log_variance: The diagonal of log Σ, ``(N, d_z)``.
    """
    latent, mean, log_variance = latent.float(), mean.float(), log_variance.float()
    standardised = (latent - mean).square() / log_variance.exp()
    return log_likelihood + 0.5 * (standardised + log_variance - latent.square()).sum(1)


def importance_weighted_bound(log_weight: Tensor) -> Tensor:
    """log (1/k) Σᵢ wᵢ, at most log P(x) on average and tighter the larger k is (Burda et al. 2015, eq. 8).

    Args:
        log_weight: log w of k draws of z for each image, ``(k, N)``.
    """
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def squared_error(image: Tensor, reconstruction: Tensor) -> Tensor:
    """‖x − x̂‖² of each image."""
    return torch.sub(image.float(), reconstruction.float()).square().flatten(1).sum(1)
