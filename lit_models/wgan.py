"""WGAN (Arjovsky, Chintala & Bottou 2017, https://arxiv.org/abs/1701.07875), WGAN-GP (Gulrajani et al. 2017,
https://arxiv.org/abs/1704.00028) and WGAN with spectral normalization.

A critic f with slopes of at most K separates real from fake images by the difference of its means,
``E_x[f(x)] − E_z[f(G(z))]``, which at its largest is K times the Wasserstein-1 distance of the two distributions
(section 3 of the first). The critic climbs it in ``n_critic`` steps for each of the generator's, which descends.
Algorithm 1, with the methods below that hold its lines:

    for each step of the generator:
        for n_critic steps of the critic:                                    (critic_steps)
            draw real images x and latent vectors z
            step f along the gradient of E[f(x)] − E[f(G(z))]                (discriminator_loss)
            clip the parameters of f to [−c, c]                              (after_discriminator_step)
        step G along the gradient of E[f(G(z))]                              (generator_loss)

The variants bound the slopes in different ways:

- *weight clipping* (WGAN): after each of the critic's steps all its parameters are clipped to ``±clip_value``
  (algorithm 1);
- *gradient penalty* (WGAN-GP): ``λ E[(‖∇f(x̂)‖₂ − 1)²]`` between pairs of real and fake images joins the loss;
- *spectral normalization* (WGAN-SN): ``W / σ(W)`` in each of the critic's layers (Miyato et al. 2018).

Differences from the papers:

1. WGAN: the learning rate is 5e-4 in place of 5e-5, for either network; 15 epochs of MNIST are about 2,580 steps of the
   generator. Latent vectors have 256 components (MNIST), 100 (digits) or 8 (faces, in batches of 32); 100 in the first
   paper's code and 128 in the second's.
2. All on MNIST, digits and faces; the papers have LSUN bedrooms, ImageNet and CIFAR-10. On MNIST the epoch with the
   lowest validation FID is tested.
3. The generator learns from the fakes from which the critic has just learned, unless ``fresh_latents`` is set.
   Algorithm 1 of either paper draws fresh ones.
4. The critic has batch normalization if it is held by clipping alone, as in the first paper's experiments. With a
   penalty it must have none, because the slope at one image would depend on all the others (section 4 of the second),
   and with spectral normalization it has none because that would undo the bound. Its first and last layers have a
   bias, and so has the generator's last one; the first paper's code leaves them out. That code clips before each of
   the critic's steps, here and in algorithm 1 after it, and draws as many fakes for an epoch's smaller last batch as
   for the others.
5. Optional: the warm-up of the first paper's code, in which the critic takes 100 steps before each of the generator's
   first 25 steps and before every 500th (``critic_warmup``). The paper doesn't have it. In the
   code an epoch's end cuts the critic's steps short; here they go on in the next. The code clips before each step, so
   the generator learns from a critic whose last step isn't clipped; here clipping follows, as in algorithm 1.
6. WGAN-GP with ``architecture: dcgan``: DCGAN's networks with batch normalization in the generator, weights from
   N(0, 0.02²), β₁ = 0. The authors' code for MNIST has kernels of 5x5, no batch normalization in the generator, He's
   initial weights, β₁ = 0.5, batches of 50, 200,000 steps of the generator at 1e-4, and images of 28x28 in [0, 1] by a
   sigmoid.
   The configurations for MNIST and digits take about 5,000 and 2,000 steps at 5e-4, which falls linearly to 0.
7. WGAN-GP with ``architecture: resnet``, the network of the CIFAR-10 experiments: the authors' code adds uniform noise
   of one gray level to the real images, takes the generator's step with 128 images instead of 64, and is by default
   class-conditional with an auxiliary classifier. Also for 48, 64 and 128 pixels, with SN-GAN's widths.
8. WGAN-SN is no paper's: Miyato et al. combine spectral normalization with the cross-entropy and the hinge loss. σ is
   that of the reshaped kernel, so the critic's slope is bounded, by an unknown K.
9. Samples and scores go by the running means of the generator's batch normalization. In both papers' codes they go by
   the statistics of the batch.
10. Optional: averaged weights, clipped gradients, schedules, differentiable augmentation.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import RMSprop

from datamodules import LabeledImages
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, UnconditionalGAN
from lit_models.dcgan import Discriminator, Generator
from lit_models.errors import ModelError
from lit_models.losses.gan import generator_linear, gradient_penalty, wasserstein_distance
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.resnet_gan import ResidualDiscriminator, ResidualGenerator, require_layout
from lit_models.networks.spectral import spectrally_normalized


class WGAN(UnconditionalGAN):
    """The Wasserstein GAN, by default on DCGAN's networks and with weight clipping.

    Also logged: ``train/wasserstein_distance``, the critic's estimate (up to the factor K); with a penalty
    ``train/gradient_penalty``, too, not yet multiplied by its weight λ. ``train/discriminator_loss`` is the full loss,
    −distance + λ · penalty. The same below ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256 with ``dcgan``; 32, 48, 64 or 128 with
            ``resnet``.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the latent vector.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size. The ResNets for 32
            pixels have twice this width throughout (64 for the paper's).
        architecture: "dcgan" for DCGAN's networks, "resnet" for WGAN-GP's of CIFAR-10.
        clip_value: Largest magnitude of the critic's parameters; not clipped if None. With spectral normalization, it
            bounds the weights before their division.
        spectral_norm: Divide the weights of each of the critic's layers by their largest singular value.
        gradient_penalty_weight: λ of the gradient penalty (10 in WGAN-GP); 0 for none. Needs ``clip_value`` None.
        n_critic: Steps of the critic for each step of the generator.
        critic_warmup: 100 steps of the critic before each of the generator's first 25 steps, and before every 500th.
        generator_optimizer: Optimizer of the generator. WGAN-GP takes Adam with lr 1e-4, β₁ 0 and β₂ 0.9.
        discriminator_optimizer: Optimizer of the critic. WGAN-GP takes the same.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 100,
        feature_maps: int = 64,
        architecture: Literal["dcgan", "resnet"] = "dcgan",
        clip_value: float | None = 0.01,
        spectral_norm: bool = False,
        gradient_penalty_weight: float = 0.0,
        n_critic: int = 5,
        critic_warmup: bool = False,
        generator_optimizer: OptimizerCallable = lambda p: RMSprop(p, lr=5e-4),
        discriminator_optimizer: OptimizerCallable = lambda p: RMSprop(p, lr=5e-4),
        **training: Any,
    ) -> None:
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
        generator: nn.Module
        critic: nn.Module
        if architecture == "resnet":
            layout = require_layout(image_size, feature_maps)
            generator_widths = layout.discriminator if image_size == 32 else layout.generator
            generator = ResidualGenerator(image_size, channels, latent_dim, generator_widths)
            critic = ResidualDiscriminator(channels, layout.discriminator, layout.halvings, pooling="mean")
        else:
            require_power_of_two(image_size, 16, 256)
            bounded_by_clipping = not spectral_norm and not gradient_penalty_weight
            generator = Generator(image_size, channels, latent_dim, feature_maps)
            critic = Discriminator(image_size, channels, feature_maps, batch_norm=bounded_by_clipping)
        super().__init__(
            generator,
            spectrally_normalized(critic) if spectral_norm else critic,
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            n_critic=n_critic,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.clip_value = clip_value
        self.gradient_penalty_weight = gradient_penalty_weight
        self.critic_warmup = critic_warmup

    @property
    def not_compiled(self) -> tuple[str, ...]:
        """A compiled critic has no second derivatives, which the penalty needs."""
        return ("discriminator",) if self.gradient_penalty_weight else ()

    def critic_steps(self, generator_step: int) -> int:
        warm_up = self.critic_warmup and (generator_step < 25 or generator_step % 500 == 0)
        return 100 if warm_up else self.n_critic

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> dict[str, Tensor]:
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

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        return generator_linear(self.discriminator(fake))
