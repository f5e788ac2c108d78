"""The bound's terms against torch.distributions, plain loops, closed forms and numerical integration."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional

from lit_models.losses.vae import (
    DEQUANTIZATION_VARIANCE,
    bernoulli_log_likelihood,
    bits_per_dim,
    bits_per_dim_floor,
    discrete_log_likelihood,
    gaussian_kl,
    gaussian_reconstruction,
    importance_weighted_bound,
    log_importance_weight,
    optimal_variance,
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
        gaussian_reconstruction(image, reconstruction, x_sigma2 * 24), gaussian_kl(mean, log_variance), kl_weight
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
    loss = pointwise_loss(gaussian_reconstruction(image, reconstruction, 0.01 * 24), kl)
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_the_likelihood_of_8_bit_values_by_integration() -> None:
    """E_u[log p(x + u)] − log 255 over the width of a gray level, and never more than the log of the level's mass."""
    image, reconstruction, variance = torch.tensor([17, 200]) / 255, torch.tensor([0.1, 0.75]), 2e-4
    scale = math.sqrt(variance)
    grid = (np.arange(2000) + 0.5) / 2000 - 0.5
    expected, most = 0.0, 0.0
    for x, mean in zip(image.tolist(), reconstruction.tolist(), strict=True):
        expected += float(stats.norm.logpdf(x + grid / 255, mean, scale).mean()) - math.log(255)
        edges = stats.norm.cdf([x - 0.5 / 255, x + 0.5 / 255], mean, scale)
        most += math.log(edges[1] - edges[0])
    value = discrete_log_likelihood(image.view(1, 1, 1, 2), reconstruction.view(1, 1, 1, 2), variance).item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert value <= most
    assert value == pytest.approx(most, rel=1e-2), "a level is narrow compared with this decoder's scale"


def test_bits_per_dim_in_closed_form() -> None:
    """A perfect reconstruction has log₂(255 s √(2π)) bits a value, and the noise's variance over 2s² ln 2."""
    image = torch.full((1, 3, 8, 8), 0.2)
    scale = 0.05
    bits = bits_per_dim(discrete_log_likelihood(image, image, scale**2), image).item()
    expected = math.log2(255 * scale * math.sqrt(2 * math.pi)) + 1 / (12 * 255**2) / (2 * scale**2 * math.log(2))
    assert bits == pytest.approx(expected, rel=1e-6)
    assert bits_per_dim_floor(torch.tensor(scale**2)).item() == pytest.approx(expected, rel=1e-6)
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
        log_likelihood = discrete_log_likelihood(image, reconstruction, 1.2)
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


def test_the_loss_is_pytorch_vaes(latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]) -> None:
    """PyTorch-VAE minimizes the mean squared error of a value plus ``kld_weight`` times the KL divergence. That is σ² ℓ
    with σ² = kld_weight / 2: its ``kld_weight`` is a choice of the decoder's variance."""
    (mean, log_variance), (image, reconstruction) = latents, images
    kld_weight = 0.00025
    kld = torch.mean(-0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp(), dim=1), dim=0)
    theirs = functional.mse_loss(reconstruction, image) + kld_weight * kld
    x_sigma2 = kld_weight / 2
    ours = pointwise_loss(
        gaussian_reconstruction(image, reconstruction, x_sigma2 * 24), gaussian_kl(mean, log_variance)
    ).mean()
    assert (x_sigma2 * ours).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_bernoulli_by_a_plain_loop(images: tuple[Tensor, Tensor]) -> None:
    probability = images[1]
    image = (images[0] > 0.5).float()
    value = bernoulli_log_likelihood(image, probability.logit())
    for n, log_likelihood in enumerate(value.tolist()):
        pairs = zip(image[n].flatten().tolist(), probability[n].flatten().tolist(), strict=True)
        expected = sum(math.log(p if x == 1 else 1 - p) for x, p in pairs)
        assert log_likelihood == pytest.approx(expected, rel=1e-5)
    extreme = bernoulli_log_likelihood(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), -200.0))
    assert extreme.item() == -200, "finite where the probability underflows"


def test_bernoulli_is_a_distribution() -> None:
    """The probabilities of all 16 images of 4 pixels sum to 1."""
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(16, 1, 2, 2)
    logits = torch.tensor([-2.0, 0.3, 1.5, 4.0]).view(1, 1, 2, 2).expand(16, 1, 2, 2)
    assert bernoulli_log_likelihood(every, logits).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_draws_are_leading_dimensions(images: tuple[Tensor, Tensor]) -> None:
    image, reconstruction = images
    draws = torch.stack([reconstruction, reconstruction.flip(0), image])
    for function in (
        bernoulli_log_likelihood,
        lambda x, y: discrete_log_likelihood(x, y, 0.3),
        lambda x, y: gaussian_reconstruction(x, y, 0.3),
    ):
        assert torch.equal(function(image, draws), torch.stack([function(image, draw) for draw in draws]))


def test_the_optimal_variance_is_the_best_of_a_grid(images: tuple[Tensor, Tensor]) -> None:
    image, reconstruction = images
    variance = optimal_variance(image, reconstruction)
    squared = [(x - y) ** 2 for x, y in zip(image.flatten().tolist(), reconstruction.flatten().tolist(), strict=True)]
    assert variance.item() == pytest.approx(sum(squared) / len(squared) + 1 / (12 * 255**2), rel=1e-5)
    best = discrete_log_likelihood(image, reconstruction, variance).mean()
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert discrete_log_likelihood(image, reconstruction, factor * variance).mean() < best
    assert optimal_variance(image, image).item() == pytest.approx(DEQUANTIZATION_VARIANCE), "never zero"


def test_the_optimal_variances_gradient_is_that_of_sigma_vae(images: tuple[Tensor, Tensor]) -> None:
    """Rybkin et al. 2021 let the gradient flow through the variance as well, log s = ½ log MSE(x, x̂)."""
    image, reconstruction = images[0], images[1].clone().requires_grad_()
    log_scale = ((image - reconstruction).square().mean() + DEQUANTIZATION_VARIANCE).log() / 2
    error = (image - reconstruction).square() + DEQUANTIZATION_VARIANCE
    theirs = (0.5 * error / (2 * log_scale).exp() + log_scale + 0.5 * math.log(2 * math.pi)).sum() / len(image)
    (expected,) = torch.autograd.grad(theirs, reconstruction)
    ours = -discrete_log_likelihood(image, reconstruction, optimal_variance(image, reconstruction)).mean()
    (gradient,) = torch.autograd.grad(ours, reconstruction)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert ours.item() == pytest.approx(theirs.item() + 24 * math.log(255), rel=1e-5)


def test_importance_weighted_bound_of_a_linear_decoder() -> None:
    """x̂ = W z + b with Gaussian noise, whose log p(x) and posterior are known: with the exact posterior's mean and
    diagonal the bound reaches log p(x) up to dequantization, from below."""
    generator = torch.Generator().manual_seed(4)
    weight, bias = 0.2 * torch.randn(12, 2, generator=generator), torch.rand(12, generator=generator)
    image = torch.randint(256, (3, 1, 3, 4), generator=generator) / 255
    variance = 0.04
    evidence = LowRankMultivariateNormal(bias, weight, torch.full((12,), variance)).log_prob(image.flatten(1))
    evidence = evidence - 12 * (math.log(255) + 0.5 * DEQUANTIZATION_VARIANCE / variance)
    precision = torch.eye(2) + weight.T @ weight / variance
    mean = torch.linalg.solve(precision, weight.T @ (image.flatten(1) - bias).T / variance).T
    log_variance = (1.2 * precision.inverse().diagonal()).log().expand(3, 2)
    bounds = []
    for draws in (1, 20_000):
        latent = mean + (log_variance / 2).exp() * torch.randn(draws, 3, 2, generator=generator)
        reconstruction = (latent @ weight.T + bias).view(draws, 3, 1, 3, 4)
        log_likelihood = discrete_log_likelihood(image, reconstruction, variance)
        weights = log_importance_weight(log_likelihood, latent, mean, log_variance)
        bounds.append(importance_weighted_bound(weights))
    assert torch.allclose(bounds[1], evidence, atol=0.02)
    exact = MultivariateNormal(mean, precision.inverse())
    normal = Normal(mean, (log_variance / 2).exp())
    latent = normal.sample((20_000,))
    gap = (normal.log_prob(latent).sum(-1) - exact.log_prob(latent)).mean(0)
    reconstruction = (latent @ weight.T + bias).view(20_000, 3, 1, 3, 4)
    single = log_importance_weight(
        discrete_log_likelihood(image, reconstruction, variance), latent, mean, log_variance
    ).mean(0)
    assert torch.allclose(single, evidence - gap, atol=0.02), "ELBO = log p(x) − KL(q ‖ p(z|x))"


def test_half_precision_is_computed_in_full(latents: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]) -> None:
    (mean, log_variance), (image, reconstruction) = latents, images
    assert gaussian_kl(mean.bfloat16(), log_variance.bfloat16()).dtype == torch.float32
    assert gaussian_reconstruction(image, reconstruction.bfloat16(), 0.1).dtype == torch.float32
