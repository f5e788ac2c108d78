"""Variational autoencoder (Kingma & Welling 2013, "Auto-Encoding Variational Bayes", arXiv:1312.6114).

An encoder says where in latent space an image x comes from, q(z|x) = N(μ(x), Σ(x)) with a diagonal Σ; a decoder says
what z looks like, p(x|z) = N(x̂(z), s² I); the prior p(z) is N(0, I). Both networks learn to raise the bound

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))                                                        (eq. 3)

through z = μ + Σ^½ ε, ε ~ N(0, I) (the reparametrisation trick, section 2.4). Minimised is, for each image,

    ℓ = ‖x − x̂‖² / (σ² d_x) + tr Σ + ‖μ‖² − d_z − log det Σ,

twice the negative bound up to a constant, with s² = σ² d_x (see :mod:`lit_models.losses.vae`).

What differs from the paper:

1. Convolutional networks in place of perceptrons with one hidden layer.
2. s² is given, by σ² (``x_sigma2``), where the paper's Gaussian decoder has a variance of its own for each pixel; x̂ is
   kept within the pixels' range by a sigmoid.
3. Optional: a weight β on the KL divergence (Higgins et al. 2017), a warm-up of that weight (Bowman et al. 2015,
   arXiv:1511.06349), and the importance-weighted bound in tests (Burda et al. 2015).
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabelledImages, SampleRequest
from lit_models.errors import ModelError
from lit_models.losses.vae import (
    bits_per_dim,
    discrete_log_likelihood,
    gaussian_kl,
    gaussian_reconstruction,
    importance_weighted_bound,
    log_importance_weight,
    pointwise_loss,
)
from lit_models.networks.convolutional import Decoder, Encoder
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_image_shape
from lit_models.support.interpolation import Path, decoded_between
from lit_models.support.lightning_internals import logs_this_batch
from lit_models.support.parts import Part
from lit_models.support.ranks import batch_weight


class GaussianEncoder(Encoder):
    """An encoder with two affine heads: μ and log σ², each ``(N, latent_dim)``. Arguments as for :class:`Encoder`."""

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__(image_size, channels, latent_dim, feature_maps)
        self.log_variance = nn.Linear(self.head.in_features, latent_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = self.features(image)
        return self.head(features), self.log_variance(features)


class VAE(LightningModule):
    """The variational autoencoder of Kingma & Welling 2013, with a Gaussian decoder.

    Logged below ``train/`` (each batch's value), ``val/`` and ``test/`` (means over all images), all by the same
    formulas, whatever the warm-up: ``loss``, the mean of ℓ, with β; ``reconstruction_nats``, ‖x − x̂‖² / 2s²;
    ``kl_nats``, the KL divergence; ``bits_per_dim``, the negative bound of the 8-bit images with all constants, without
    β; and in tests, with ``importance_samples``, ``bits_per_dim_importance_weighted``.

    Args:
        image_size: Height and width of the images, a power of two from 8 to 512.
        channels: Channels of the images: 1 for grey, 3 for colour.
        latent_dim: Components d_z of the latent vector.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size, up to 8 times.
        x_sigma2: σ², the variance s² of the decoder's pixels divided by their number d_x = channels · image_size². The
            bound is highest where s² is the mean squared error of a pixel; smaller values give sharper reconstructions,
            larger ones a latent space that is closer to the prior.
        kl_weight: β, the weight of the KL divergence in the loss.
        kl_warmup_steps: Training steps in which that weight rises from 0 to β.
        importance_samples: Draws k of the latent vector for the importance-weighted bound in tests; not computed if
            None.
        optimizer: Optimiser of both networks.
    """

    exports = (
        Part("encoder", "embed", ("image",), "embedding"),
        Part("decoder", "decode", ("latent",), "image"),
    )

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 32,
        feature_maps: int = 32,
        x_sigma2: float = 1e-5,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        importance_samples: int | None = None,
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ModelError(f"latent_dim is {latent_dim}; it must be at least 1.")
        if x_sigma2 <= 0:
            raise ModelError(f"x_sigma2 is {x_sigma2}; it must be greater than 0.")
        if kl_weight < 0 or kl_warmup_steps < 0:
            raise ModelError(
                f"kl_weight is {kl_weight} and kl_warmup_steps {kl_warmup_steps}; neither may be less than 0."
            )
        if importance_samples is not None and importance_samples < 1:
            raise ModelError(f"importance_samples is {importance_samples}; it must be at least 1, or null.")
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.latent_dim = latent_dim
        self.x_sigma2 = x_sigma2
        self.kl_weight = kl_weight
        self.kl_warmup_steps = kl_warmup_steps
        self.importance_samples = importance_samples
        self.optimizer_callable = optimizer
        self.encoder = GaussianEncoder(image_size, channels, latent_dim, feature_maps)
        self.decoder = Decoder(image_size, channels, latent_dim, feature_maps)

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of the latent vectors, ``(N, latent_dim)`` each, of images ``(N, C, H, W)`` in [0, 1]."""
        mean, log_variance = self.encoder(image)
        return mean.float(), log_variance.float()

    def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """z ~ N(μ, Σ), ``(N, latent_dim)``, by the reparametrisation trick."""
        return torch.addcmul(mean, (0.5 * log_variance).exp(), torch.randn_like(mean))

    def decode(self, latent: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of latent vectors ``(N, latent_dim)``."""
        return self.decoder(latent).float().sigmoid()

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        mean, log_variance = self.encode(batch.image)
        reconstruction = self.decode(self.draw(mean, log_variance))
        terms = self.terms(batch.image, reconstruction, mean, log_variance)
        if logs_this_batch(self.trainer):
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, prog_bar=True)
        if self.global_step >= self.kl_warmup_steps:
            return terms["loss"]
        kl_weight = self.kl_weight * self.global_step / self.kl_warmup_steps
        return pointwise_loss(terms["reconstruction_nats"], terms["kl_nats"], kl_weight)

    def terms(self, image: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
        """What is logged, by name: means over images, from one draw of the latent vector for each.

        Args:
            image: ``(N, C, H, W)`` in [0, 1].
            reconstruction: Of the draws, likewise.
            mean: μ, ``(N, latent_dim)``.
            log_variance: log σ², ``(N, latent_dim)``.
        """
        reconstruction_nats = gaussian_reconstruction(image, reconstruction, self.x_sigma2)
        kl_nats = gaussian_kl(mean, log_variance)
        bound = discrete_log_likelihood(image, reconstruction.detach(), self.x_sigma2) - kl_nats.detach()
        each = {
            "loss": pointwise_loss(reconstruction_nats, kl_nats, self.kl_weight),
            "reconstruction_nats": reconstruction_nats,
            "kl_nats": kl_nats,
            "bits_per_dim": bits_per_dim(bound, image),
        }
        return {name: value.mean() for name, value in each.items()}

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: LabelledImages, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: LabelledImages, stage: str) -> None:
        image = batch.image
        mean, log_variance = self.encode(image)
        terms = self.terms(image, self.decode(self.draw(mean, log_variance)), mean, log_variance)
        if stage == "test" and self.importance_samples is not None:
            weight = self.log_importance_weights(image, mean, log_variance, self.importance_samples)
            terms["bits_per_dim_importance_weighted"] = bits_per_dim(importance_weighted_bound(weight), image).mean()
        self.log_dict(
            {f"{stage}/{name}": value for name, value in terms.items()},
            batch_size=batch_weight(len(image)),
            sync_dist=True,
        )

    def log_importance_weights(self, image: Tensor, mean: Tensor, log_variance: Tensor, samples: int) -> Tensor:
        """log w, ``(samples, N)`` in nats, of that many draws of the latent vector for each image."""
        weights = []
        for _ in range(samples):  # one draw at a time: all at once would take `samples` times the memory
            latent = self.draw(mean, log_variance)
            log_likelihood = discrete_log_likelihood(image, self.decode(latent), self.x_sigma2)
            weights.append(log_importance_weight(log_likelihood, latent, mean, log_variance))
        return torch.stack(weights)

    def configure_optimizers(self) -> Any:
        return self.optimizer_callable(self.parameters())

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws images: x̂(z) for z from the prior.

        Args:
            n: How many.
            labels: Must be None; the model knows no classes.
            generator: Random generator on the CPU, for the same images on every device; the global one if None.

        Returns:
            ``(n, C, H, W)`` in [0, 1], on the module's device.
        """
        if labels is not None:
            raise ModelError("VAE knows no classes: leave the labels out.")
        return self.decode(torch.randn(n, self.latent_dim, generator=generator).to(self.device))

    def embed(self, image: Tensor) -> Tensor:
        """μ, ``(N, latent_dim)``, of images ``(N, C, H, W)`` in [0, 1]."""
        return self.encode(image)[0]

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """x̂(μ), ``(N, C, H, W)`` in [0, 1], of images likewise."""
        return self.decode(self.embed(image))

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: Path = "slerp") -> Tensor:
        """Decoded latent vectors on the way from the ``start`` images to the ``end`` images, both included.

        Args:
            start: ``(N, C, H, W)`` in [0, 1].
            end: Likewise.
            steps: Images on each way.
            path: "lerp" or "slerp".

        Returns:
            ``(N, steps, C, H, W)`` in [0, 1].
        """
        return decoded_between(self.decode, self.embed(start), self.embed(end), steps, path)

    def predict_step(self, request: SampleRequest, batch_idx: int) -> Tensor:
        return self.sample(len(request.number), request.labels, request.generator())
