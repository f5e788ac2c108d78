"""Variational autoencoder (Kingma & Welling 2013, "Auto-Encoding Variational Bayes", arXiv:1312.6114).

An encoder gives a distribution of latent vectors for an image x, q(z|x) = N(μ(x), Σ(x)) with a diagonal Σ. A decoder
gives a likelihood p(x|z): for binary pixels a Bernoulli distribution with the probabilities x̂(z), for others
N(x̂(z), s² I). The prior p(z) is N(0, I). Both networks maximize the bound

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))                                                        (eq. 3)

through z = μ + Σ^½ ε, ε ~ N(0, I) (the reparameterization trick, section 2.4), with one draw of z per image and the KL
divergence in closed form (eq. 10). The loss is twice the negative bound, ℓ = 2 (−log p(x|z) + KL). With a fixed
variance s² = σ² d_x the constant is left out:

    ℓ = ‖x − x̂‖² / (σ² d_x) + tr Σ + ‖μ‖² − d_z − log det Σ      (see :mod:`lit_models.losses.vae`).

What differs from the paper:

1. Convolutional networks with ReLUs and PyTorch's initialization in place of perceptrons with one hidden layer of tanh
   units (500 for MNIST, 200 for faces) that start from N(0, 0.01).
2. Adam, batches of 64 (faces: 32) and an optional decay of the learning rate in place of Adagrad, batches of 100 and a
   constant global step size of 0.01, 0.02 or 0.1.
3. Maximum likelihood: the paper adds a weight decay, the prior N(0, I) of the decoder's parameters (MAP).
4. The Gaussian decoder has one variance s² for all values: fixed, learned, or optimal for each batch (Rybkin,
   Daniilidis & Levine 2021, σ-VAE, arXiv:2006.13202). The paper's decoder outputs a variance for each pixel. x̂ is in
   (0, 1) by a sigmoid, as in the paper (section 5).
5. Bernoulli pixels are binarized by the data module, in one of two stated ways; the paper names none. Images are padded
   from 28x28 to 32x32. Faces are LFW's, of one person, in color at 64x64; the paper has Frey's, gray, at 28x20.
6. Nats and bits of a Gaussian decoder are of 8-bit images, by dequantization; the paper's are densities.
7. Besides the bound, tests report the importance-weighted bound (Burda, Grosse & Salakhutdinov 2015), where the paper
   estimates log p(x) by Hamiltonian Monte Carlo for 3 latent components (appendix D). The paper's baselines, wake-sleep
   and Monte Carlo EM, are not implemented.
8. Optional: a weight β on the KL divergence (Higgins et al. 2017), and a warm-up of that weight (Bowman et al. 2015,
   arXiv:1511.06349). The configurations for MNIST have the warm-up.
9. 32 latent components for MNIST (and 2), 64 for faces; the paper's figures 2 and 4 have 3, 5, 10, 20 and 200 (and 2).
10. The checkpoint of the lowest validation bound is tested, after 60 epochs (MNIST, 3 million images seen) or 300
    (faces); the paper draws the bound over up to 100 million images and chooses none.
"""

import math
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages, SampleRequest
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.losses.vae import (
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
from lit_models.module import Export, Method
from lit_models.networks.convolutional import Decoder, Encoder
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_image_shape, require_one_of, require_probabilities
from lit_models.support.interpolation import Path, decoded_between
from lit_models.support.lightning_internals import logs_this_batch
from lit_models.support.ranks import mean_over_ranks

DECODED_AT_ONCE = 1024
"""Images that the importance-weighted bound decodes at once: draws of z times images of a batch."""

VARIANCE_MEMORY = 0.99
"""Share of the running mean of the optimal variance that a step keeps."""


class GaussianEncoder(Encoder):
    """Encoder with two affine heads: μ and log σ², each ``(N, latent_dim)``. Arguments as for :class:`Encoder`."""

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__(image_size, channels, latent_dim, feature_maps)
        self.log_variance = nn.Linear(self.head.in_features, latent_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = self.features(image)
        return self.head(features), self.log_variance(features)


class VAE(Method):
    """The variational autoencoder of Kingma & Welling 2013.

    Logged below ``train/`` (each batch's value), ``val/`` and ``test/`` (means over all images), whatever the warm-up:
    ``loss``, the mean of ℓ, with β; ``reconstruction_nats``, −log p(x|z), for a fixed variance without its constant;
    ``kl_nats``, the KL divergence; ``nats``, the negative bound with all constants, without β; for a Gaussian decoder
    ``bits_per_dim``, the same over d_x ln 2, and in evaluation ``bits_per_dim_floor``, its smallest possible value for
    the variance s². With ``importance_samples``, tests log ``nats_importance_weighted`` (and bits).

    Args:
        image_size: Height and width of the images, a power of two from 8 to 512.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components d_z of the latent vector.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size, up to 8 times.
        x_sigma2: σ², the variance s² of the Gaussian decoder's values divided by their number
            d_x = channels · image_size². The bound is highest where s² is the mean squared error of a value; a smaller
            σ² gives sharper reconstructions, a larger one latent vectors that are closer to the prior. A learned or
            optimal variance starts from it.
        kl_weight: β, the weight of the KL divergence in the loss.
        kl_warmup_steps: Training steps in which that weight rises from 0 to β.
        importance_samples: Draws k of the latent vector for the importance-weighted bound in tests; not computed if
            None.
        optimizer: Optimizer of both networks.
        likelihood: Of the pixels: "gaussian", or "bernoulli" for binary images (``--data.binarization`` of MNIST).
        variance: Of the Gaussian decoder: "fixed" (``x_sigma2``), "learned" (one parameter), or "optimal" (each
            training batch's mean squared error; its running mean over the training batches in evaluation).
        lr_scheduler: Learning-rate schedule, stepped after each epoch; constant if None.
    """

    exports = (
        Export("encoder", "embed", ("image",), "embedding"),
        Export("decoder", "decode", ("latent",), "image"),
    )
    s2: Tensor

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
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        variance: Literal["fixed", "learned", "optimal"] = "fixed",
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, latent_dim=latent_dim, importance_samples=importance_samples)
        if not 1e-20 <= x_sigma2 <= 1e20:  # what float32 holds with the squares of its gradients
            raise ModelError(f"x_sigma2 is {x_sigma2}; it must be positive, from 1e-20 to 1e20.")
        if not 0 <= kl_weight < math.inf or kl_warmup_steps < 0:
            raise ModelError(
                f"kl_weight is {kl_weight} and kl_warmup_steps {kl_warmup_steps}; both must be finite, at least 0."
            )
        require_one_of(("gaussian", "bernoulli"), likelihood=likelihood)
        require_one_of(("fixed", "learned", "optimal"), variance=variance)
        if likelihood == "bernoulli" and variance != "fixed":
            raise ModelError(f"variance is {variance!r}, but a Bernoulli likelihood has none: leave it out.")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.image_shape = (channels, image_size, image_size)
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.variance = variance
        self.kl_weight = kl_weight
        self.kl_warmup_steps = kl_warmup_steps
        self.importance_samples = importance_samples
        self.optimizer_callable = optimizer
        self.warned_of_gray = False
        self.lr_scheduler_callable = lr_scheduler
        self.encoder = GaussianEncoder(image_size, channels, latent_dim, feature_maps)
        self.decoder = Decoder(image_size, channels, latent_dim, feature_maps)
        s2 = torch.tensor(x_sigma2 * channels * image_size**2)
        if variance == "learned":
            self.log_s2 = nn.Parameter(s2.log())
        else:
            self.register_buffer("s2", s2, persistent=variance == "optimal")

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return () if self.variance == "fixed" else ("x_sigma2",)

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of the latent vectors, ``(N, latent_dim)`` each, of images ``(N, C, H, W)`` in [0, 1]."""
        mean, log_variance = self.encoder(image)
        return at_least_float32(mean), at_least_float32(log_variance)

    def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """z ~ N(μ, Σ), ``(..., latent_dim)``, by the reparameterization trick."""
        return torch.addcmul(mean, (0.5 * log_variance).exp(), torch.randn_like(mean))

    def logits(self, latent: Tensor) -> Tensor:
        """x̂ before its sigmoid, ``(N, C, H, W)``, of latent vectors ``(N, latent_dim)``."""
        return at_least_float32(self.decoder(latent))

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructions ``(N, C, H, W)`` in [0, 1] of images of the same shape."""
        return self.decode(self.embed(image))

    def decode(self, latent: Tensor) -> Tensor:
        """x̂, images ``(N, C, H, W)`` in [0, 1], of latent vectors ``(N, latent_dim)``."""
        return self.logits(latent).sigmoid()

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        self._check(batch.image, batch_idx)
        mean, log_variance = self.encode(batch.image)
        terms = self.terms(batch.image, self.logits(self.draw(mean, log_variance)), mean, log_variance)
        if logs_this_batch(self.trainer):
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, prog_bar=True)
        if self.global_step >= self.kl_warmup_steps:
            return terms["loss"]
        kl_weight = self.kl_weight * self.global_step / self.kl_warmup_steps
        return pointwise_loss(terms["reconstruction_nats"], terms["kl_nats"], kl_weight)

    def terms(self, image: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
        """The logged values by name: means over images, from one draw of the latent vector per image.

        Args:
            image: ``(N, C, H, W)`` in [0, 1].
            logits: Of the draws' x̂, ``(N, C, H, W)``.
            mean: μ, ``(N, latent_dim)``.
            log_variance: log σ², ``(N, latent_dim)``.
        """
        s2 = self.decoder_variance(image, logits)
        log_likelihood = self.log_likelihood(image, logits, s2)
        if self.likelihood == "gaussian" and self.variance == "fixed":
            reconstruction_nats = gaussian_reconstruction(image, logits.sigmoid(), s2)
        else:
            reconstruction_nats = -log_likelihood
        kl_nats = gaussian_kl(mean, log_variance)
        bound = (log_likelihood - kl_nats).detach()
        each = {
            "loss": pointwise_loss(reconstruction_nats, kl_nats, self.kl_weight),
            "reconstruction_nats": reconstruction_nats,
            "kl_nats": kl_nats,
            "nats": -bound,
        }
        if self.likelihood == "gaussian":
            each["bits_per_dim"] = bits_per_dim(bound, image)
        return {name: value.mean() for name, value in each.items()}

    def decoder_variance(self, image: Tensor, logits: Tensor) -> Tensor:
        """s² of the Gaussian decoder. In training, an optimal one is these images' and enters the running mean."""
        if self.variance == "learned":
            return self.log_s2.exp()
        if self.variance == "fixed" or not self.training:
            return self.s2
        optimum = mean_over_ranks(optimal_variance(image, logits.sigmoid()))
        self.s2.lerp_(optimum, max(1 - VARIANCE_MEMORY, 1 / (1 + self.global_step)))
        return optimum

    def log_likelihood(self, image: Tensor, logits: Tensor, s2: Tensor) -> Tensor:
        """log p(x|z) in nats, ``(..., N)``, of images ``(N, C, H, W)`` and draws' logits ``(..., N, C, H, W)``."""
        if self.likelihood == "bernoulli":
            return bernoulli_log_likelihood(image, logits)
        return discrete_log_likelihood(image, logits.sigmoid(), s2)

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._check(batch.image, batch_idx)
        self.log_means("val", self.bounds(batch.image), len(batch.image))

    def test_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._check(batch.image, batch_idx)
        self.log_means("test", self.bounds(batch.image, self.importance_samples), len(batch.image))

    def bounds(self, image: Tensor, importance_samples: int | None = None) -> dict[str, Tensor]:
        """The terms of held-out images ``(N, C, H, W)``, and the importance-weighted bound of that many draws, if any.

        What is logged by its name: means over the images.
        """
        mean, log_variance = self.encode(image)
        logits = self.logits(self.draw(mean, log_variance))
        terms = self.terms(image, logits, mean, log_variance)
        if self.likelihood == "gaussian":
            terms["bits_per_dim_floor"] = bits_per_dim_floor(self.decoder_variance(image, logits))
        if importance_samples is not None:
            weights = self.log_importance_weights(image, mean, log_variance, importance_samples)
            bound = importance_weighted_bound(weights)
            terms["nats_importance_weighted"] = -bound.mean()
            if self.likelihood == "gaussian":
                terms["bits_per_dim_importance_weighted"] = bits_per_dim(bound, image).mean()
        return terms

    def log_importance_weights(self, image: Tensor, mean: Tensor, log_variance: Tensor, samples: int) -> Tensor:
        """log w, ``(samples, N)`` in nats, of that many draws of the latent vector per image, in blocks of draws."""
        block = max(1, DECODED_AT_ONCE // len(image))
        weights = []
        for start in range(0, samples, block):
            latent = self.draw(mean.expand(min(block, samples - start), *mean.shape), log_variance)
            logits = self.logits(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])
            log_likelihood = self.log_likelihood(image, logits, self.decoder_variance(image, logits))
            weights.append(log_importance_weight(log_likelihood, latent, mean, log_variance))
        return torch.cat(weights)

    def _check(self, image: Tensor, batch_idx: int) -> None:
        if self.likelihood == "bernoulli" and batch_idx == 0:  # once an epoch: the host waits for the device
            self.warned_of_gray = require_probabilities(image, self.warned_of_gray)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_callable(self.parameters())
        if self.lr_scheduler_callable is None:
            return optimizer
        schedule = self.lr_scheduler_callable(optimizer)
        # A lightning.pytorch.cli.ReduceLROnPlateau names the metric that it goes by, and rests in epochs without it.
        monitor = vars(schedule).get("monitor")
        every = self.trainer.check_val_every_n_epoch if str(monitor).startswith("val/") else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": monitor, "frequency": every or 1},
        }

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws images: x̂(z) for z from the prior.

        Args:
            n: How many.
            labels: Must be None; the model has no classes.
            generator: Random generator on the CPU, for the same images on every device; the global one if None.

        Returns:
            ``(n, C, H, W)`` in [0, 1], on the module's device.
        """
        if labels is not None:
            raise ModelError("VAE has no classes: leave the labels out.")
        return self.decode(torch.randn(n, self.latent_dim, generator=generator).to(self.device).type(self.dtype))

    def embed(self, image: Tensor) -> Tensor:
        """μ, ``(N, latent_dim)``, of images ``(N, C, H, W)`` in [0, 1]."""
        return self.encode(image)[0]

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """x̂(μ), ``(N, C, H, W)`` in [0, 1], of images of the same shape."""
        return self.decode(self.embed(image))

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: Path = "slerp") -> Tensor:
        """Decoded latent vectors on the way from the ``start`` images to the ``end`` images, both included.

        Args:
            start: ``(N, C, H, W)`` in [0, 1].
            end: ``(N, C, H, W)`` in [0, 1].
            steps: Images on each way.
            path: "lerp" or "slerp".

        Returns:
            ``(N, steps, C, H, W)`` in [0, 1].
        """
        return decoded_between(self.decode, self.embed(start), self.embed(end), steps, path)

    def predict_step(self, batch: SampleRequest | LabeledImages, batch_idx: int) -> Tensor:
        """The images that are asked for, or reconstructions of those that are given."""
        if isinstance(batch, SampleRequest):
            return self.sample(len(batch.number), batch.labels, batch.generator())
        return self.reconstruct(batch.image)
