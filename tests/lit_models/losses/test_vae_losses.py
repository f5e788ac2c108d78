"""The bound's terms against torch.distributions, plain loops, closed forms and numerical integration."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from lit_models.losses.vae import (
    bits_per_dim,
    discrete_log_likelihood,
    gaussian_kl,
    gaussian_reconstruction,
    importance_weighted_bound,
    log_importance_weight,
    pointwise_loss,
)


@pytest.fixture
def latents() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(256, (5, 2, 4, 3), generator=generator) / 255
    return image, torch.rand(5, 2, 4, 3, generator=generator)


def test_kl_against_torch_distributions(latents: tuple[Tensor, Tensor]) -> None:
    mean, log_variance = latents
    posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
    expected = kl_divergence(MultivariateNormal(mean, log_variance.exp().diag_embed()), prior)
    assert torch.allclose(gaussian_kl(mean, log_variance), expected, atol=1e-5)
    assert torch.allclose(
        gaussian_kl(mean, log_variance),
        kl_divergence(posterior, Independent(Normal(torch.zeros(5, 3), torch.ones(5, 3)), 1)),
        atol=1e-5,
    )
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0
    assert (gaussian_kl(mean, log_variance) > 0).all()


def test_pointwise_loss_by_a_plain_loop(latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]) -> None:
    """ℓ = ‖x−x̂‖²/(σ² d_x) + β (tr Σ + ‖μ‖² − d_z − log det Σ), number by number."""
    (mean, log_variance), (image, reconstruction) = latents, images
    x_sigma2, kl_weight = 0.07, 1.7
    losses = pointwise_loss(
        gaussian_reconstruction(image, reconstruction, x_sigma2), gaussian_kl(mean, log_variance), kl_weight
    )
    assert losses.shape == (5,)
    for n, loss in enumerate(losses.tolist()):
        pairs = zip(image[n].flatten().tolist(), reconstruction[n].flatten().tolist(), strict=True)
        squared = sum((x - y) ** 2 for x, y in pairs)
        variances = [math.exp(value) for value in log_variance[n].tolist()]
        latent = sum(variances) + sum(m * m for m in mean[n].tolist()) - 3 - math.log(math.prod(variances))
        assert loss == pytest.approx(squared / (x_sigma2 * 24) + kl_weight * latent, rel=1e-5)


def test_the_loss_is_twice_the_negative_bound_up_to_a_constant(
    latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]
) -> None:
    """With s² = σ² d_x, whatever the image: −2 (log p(x|z) − KL) − d_x log 2πs², by torch.distributions."""
    (mean, log_variance), (image, reconstruction) = latents, images
    scale = math.sqrt(0.01 * 24)
    log_likelihood = Normal(reconstruction, scale).log_prob(image).flatten(1).sum(1)
    kl = gaussian_kl(mean, log_variance)
    expected = -2 * (log_likelihood - kl) - 24 * math.log(2 * math.pi * scale**2)
    loss = pointwise_loss(gaussian_reconstruction(image, reconstruction, 0.01), kl)
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_the_likelihood_of_8_bit_values_by_integration() -> None:
    """E_u[log p(x + u)] − log 255 over the width of a grey level, and never more than the log of the level's mass."""
    image, reconstruction, x_sigma2 = torch.tensor([17, 200]) / 255, torch.tensor([0.1, 0.75]), 1e-4
    scale = math.sqrt(x_sigma2 * 2)
    grid = (np.arange(2000) + 0.5) / 2000 - 0.5
    expected, most = 0.0, 0.0
    for x, mean in zip(image.tolist(), reconstruction.tolist(), strict=True):
        expected += float(stats.norm.logpdf(x + grid / 255, mean, scale).mean()) - math.log(255)
        edges = stats.norm.cdf([x - 0.5 / 255, x + 0.5 / 255], mean, scale)
        most += math.log(edges[1] - edges[0])
    value = discrete_log_likelihood(image.view(1, 1, 1, 2), reconstruction.view(1, 1, 1, 2), x_sigma2).item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert value <= most
    assert value == pytest.approx(most, rel=1e-2), "a level is narrow beside this decoder's scale"


def test_bits_per_dim_in_closed_form() -> None:
    """A perfect reconstruction has log₂(255 s √(2π)) bits a value, and the noise's variance over 2s² ln 2."""
    image = torch.full((1, 3, 8, 8), 0.2)
    scale = 0.05
    bits = bits_per_dim(discrete_log_likelihood(image, image, scale**2 / 192), image).item()
    expected = math.log2(255 * scale * math.sqrt(2 * math.pi)) + 1 / (12 * 255**2) / (2 * scale**2 * math.log(2))
    assert bits == pytest.approx(expected, rel=1e-6)
    assert bits_per_dim(torch.tensor([-192 * math.log(256)]), image).item() == pytest.approx(8)


def test_all_of_one_value_is_a_distribution() -> None:
    """Summed over the 256 levels, the probabilities are at most 1, and nearly 1 for a decoder inside the range."""
    levels = (torch.arange(256) / 255).view(-1, 1, 1, 1)
    logs = discrete_log_likelihood(levels, torch.full_like(levels, 0.5), 0.05**2)
    total = logs.double().exp().sum().item()
    assert total <= 1
    assert total == pytest.approx(1, abs=1e-2)


def test_importance_weighted_bound_against_a_direct_computation(
    latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]
) -> None:
    (mean, log_variance), (image, _) = latents, images
    torch.manual_seed(3)
    weights, direct = [], []
    for _ in range(4):
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        reconstruction = torch.rand_like(image)
        log_likelihood = discrete_log_likelihood(image, reconstruction, 0.05)
        weights.append(log_importance_weight(log_likelihood, latent, mean, log_variance))
        posterior = Normal(mean, (log_variance / 2).exp()).log_prob(latent).sum(1)
        prior = Normal(0.0, 1.0).log_prob(latent).sum(1)
        direct.append((log_likelihood + prior - posterior).double().numpy())
    expected = np.log(np.mean(np.exp(np.array(direct)), axis=0))
    assert np.allclose(importance_weighted_bound(torch.stack(weights)).numpy(), expected, rtol=1e-5)


def test_importance_weighted_bound_reaches_the_evidence() -> None:
    """x = z + noise, for which log p(x) is known: the bound is exact for the true posterior, and rises towards log p(x)
    with the number of draws for another one."""
    torch.manual_seed(0)
    x, noise = 1.3, 0.5
    evidence = stats.norm.logpdf(x, 0, math.sqrt(1 + noise**2))
    variance = noise**2 / (1 + noise**2)
    for mean, log_variance, exact in ((x / (1 + noise**2), math.log(variance), True), (0.3, 0.0, False)):
        bounds = []
        for draws in (1, 10, 1000):
            mu, log_var = torch.full((2000, 1), mean), torch.full((2000, 1), log_variance)
            latent = mu + (log_var / 2).exp() * torch.randn(draws, 2000, 1)
            log_likelihood = Normal(latent, noise).log_prob(torch.tensor(x)).sum(-1)
            weight = torch.stack(
                [log_importance_weight(one, z, mu, log_var) for one, z in zip(log_likelihood, latent, strict=True)]
            )
            bounds.append(importance_weighted_bound(weight).mean().item())
        if exact:
            assert bounds == pytest.approx([evidence] * 3, abs=1e-4)
        else:
            assert bounds[0] < bounds[1] - 0.1
            assert bounds[1] < bounds[2] < evidence + 0.01
            assert bounds[2] == pytest.approx(evidence, abs=0.01)


def test_half_precision_is_computed_in_full(latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]) -> None:
    (mean, log_variance), (image, reconstruction) = latents, images
    assert gaussian_kl(mean.bfloat16(), log_variance.bfloat16()).dtype == torch.float32
    assert gaussian_reconstruction(image, reconstruction.bfloat16(), 0.1).dtype == torch.float32
