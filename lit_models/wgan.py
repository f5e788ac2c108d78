"""WGAN (Arjovsky, Chintala & Bottou 2017, https://arxiv.org/abs/1701.07875), WGAN-GP (Gulrajani et al. 2017,
https://arxiv.org/abs/1704.00028) and WGAN with spectral normalisation.

A critic f with slopes of at most K tells real from fake images by the difference of its means,
``E_x[f(x)] − E_z[f(G(z))]``, which at its largest is K times the Wasserstein-1 distance of the two distributions (eq. 3
of the first). The critic climbs it in ``n_critic`` steps for each of the generator's, which descends. What keeps the
slopes bounded is the variant:

- *weight clipping* (WGAN): after each of the critic's steps all its parameters are clipped to ``±clip_value``
  (algorithm 1);
- *gradient penalty* (WGAN-GP): ``λ E[(‖∇f(x̂)‖₂ − 1)²]`` between pairs of real and fake images joins the loss;
- *spectral normalisation* (WGAN-SN): ``W / σ(W)`` in each of the critic's layers (Miyato et al. 2018).

Differences from the papers:

1. The learning rate is 5e-4 in place of 5e-5, for either network.
2. The critic has batch normalisation if it is held by clipping alone, as in the first paper's experiments. With a
   penalty it must have none, because the slope at one image would depend on all the others (section 4 of the second),
   and with spectral normalisation it has none because that would undo the bound.
3. WGAN-GP on DCGAN's networks in place of ResNets.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import RMSprop

from datamodules import LabelledImages
from lit_models.adversarial import NOT_SAVED, UnconditionalGAN
from lit_models.dcgan import Discriminator, Generator
from lit_models.errors import ModelError
from lit_models.losses.adversarial import generator_linear, gradient_penalty, wasserstein_distance
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.spectral import spectrally_normalised


class WGAN(UnconditionalGAN):
    """The Wasserstein GAN on DCGAN's networks, by default with weight clipping.

    Logged beside the losses: ``train/wasserstein_distance``, the critic's estimate (up to the factor K); with a penalty
    ``train/gradient_penalty``, too, not yet multiplied by its weight λ. ``train/discriminator_loss`` is the whole loss,
    −distance + λ · penalty. The same below ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256.
        channels: Channels of the images: 1 for grey, 3 for colour.
        latent_dim: Components of the latent vector.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size.
        clip_value: Largest magnitude of the critic's parameters; not clipped if None. With spectral normalisation, it
            bounds the weights before their division.
        spectral_norm: Divide the weights of each of the critic's layers by their largest singular value.
        gradient_penalty_weight: λ of the gradient penalty (10 in WGAN-GP); 0 for none. Needs ``clip_value`` None.
        n_critic: Steps of the critic for each step of the generator.
        generator_optimizer: Optimiser of the generator. WGAN-GP takes Adam with lr 1e-4, β₁ 0 and β₂ 0.9.
        discriminator_optimizer: Optimiser of the critic, likewise.
        **loop: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 100,
        feature_maps: int = 64,
        clip_value: float | None = 0.01,
        spectral_norm: bool = False,
        gradient_penalty_weight: float = 0.0,
        n_critic: int = 5,
        generator_optimizer: OptimizerCallable = lambda p: RMSprop(p, lr=5e-4),
        discriminator_optimizer: OptimizerCallable = lambda p: RMSprop(p, lr=5e-4),
        **loop: Any,
    ) -> None:
        require_power_of_two(image_size, 16, 256)
        if clip_value is not None and clip_value <= 0:
            raise ModelError(f"clip_value is {clip_value}; it must be positive, or null for no clipping.")
        if gradient_penalty_weight < 0:
            raise ModelError(f"gradient_penalty_weight is {gradient_penalty_weight}; it must not be negative.")
        if clip_value is not None and gradient_penalty_weight:
            raise ModelError(
                "Clipped weights can't reach the slope of 1 that the gradient penalty asks for: set clip_value to "
                "null, or gradient_penalty_weight to 0."
            )
        if clip_value is None and not gradient_penalty_weight and not spectral_norm:
            raise ModelError(
                "Nothing bounds the critic's slope: set clip_value (0.01), gradient_penalty_weight (10) or "
                "spectral_norm (true)."
            )
        critic = Discriminator(
            image_size, channels, feature_maps, batch_norm=not spectral_norm and not gradient_penalty_weight
        )
        super().__init__(
            Generator(image_size, channels, latent_dim, feature_maps),
            spectrally_normalised(critic) if spectral_norm else critic,
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            n_critic=n_critic,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **loop,
        )
        self.save_hyperparameters(ignore=NOT_SAVED)
        self.clip_value = clip_value
        self.gradient_penalty_weight = gradient_penalty_weight

    @property
    def not_compiled(self) -> tuple[str, ...]:
        """A compiled critic has no second derivatives, which the penalty needs."""
        return ("discriminator",) if self.gradient_penalty_weight else ()

    def discriminator_loss(self, batch: LabelledImages, fake: Tensor) -> dict[str, Tensor]:
        real = batch.image * 2 - 1
        distance = wasserstein_distance(self.discriminator(real), self.discriminator(fake))
        if not self.gradient_penalty_weight:
            return {"loss": -distance, "wasserstein_distance": distance}
        penalty = gradient_penalty(self.discriminator, real, fake)
        loss = -distance + self.gradient_penalty_weight * penalty
        return {"loss": loss, "wasserstein_distance": distance, "gradient_penalty": penalty}

    @torch.no_grad()
    def after_discriminator_step(self) -> None:
        if self.clip_value is not None:
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-self.clip_value, self.clip_value)

    def generator_loss(self, batch: LabelledImages, fake: Tensor) -> Tensor:
        return generator_linear(self.discriminator(fake))
