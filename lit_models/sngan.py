"""SN-GAN (Miyato, Kataoka, Koyama & Yoshida 2018, https://arxiv.org/abs/1802.05957): spectral normalisation.

Every weight matrix W of the discriminator is divided by its largest singular value, ``W̄ = W / σ(W)`` (eq. 8), so that
each layer has a Lipschitz constant of 1 and the whole discriminator at most 1. One step of the power iteration at each
use keeps up with σ (algorithm 1). The gradient then lacks the direction in which W stretches most (eq. 12), which keeps
the discriminator from relying on that direction alone.

Differences from the paper:

1. ``architecture: dcgan`` is DCGAN's pair of networks, which the paper doesn't use, with spectral normalisation in
   place of the discriminator's batch normalisation. The paper's own discriminators have none either: it would scale
   each channel by ``γ / standard deviation`` and so undo the bound.
2. Optional: noisy labels, and the choice of the label that means "real", both for the cross-entropy only.
3. ``architecture: cnn`` has the widths of the paper's table 3. The authors' code doubles the width at the strided
   convolutions already, and has a slope of 0.2.
"""

from itertools import pairwise
from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabelledImages
from lit_models.adversarial import NOT_SAVED, UnconditionalGAN
from lit_models.dcgan import Discriminator, Generator
from lit_models.errors import ModelError
from lit_models.losses.adversarial import discriminator_bce, discriminator_hinge, generator_bce, generator_linear
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.initialisation import initialise
from lit_models.networks.spectral import spectrally_normalised
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_label_noise


class CNNGenerator(nn.Module):
    """The paper's generator for CIFAR-10 and STL-10 (table 3a): a dense layer, three doublings, a 3x3 convolution.

    Shapes: ``(N, latent_dim)`` to ``(N, channels, image_size, image_size)`` in [−1, 1].

    Args:
        image_size: Height and width of the images, a multiple of 8.
        channels: Channels of the images.
        latent_dim: Components of the latent vector.
        feature_maps: Width at full size; the dense layer's is 8 times that.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__()
        widths = [8 * feature_maps, 4 * feature_maps, 2 * feature_maps, feature_maps]
        side = image_size // 8
        layers: list[nn.Module] = [nn.Linear(latent_dim, widths[0] * side**2), nn.Unflatten(1, (widths[0], side, side))]
        for width_in, width_out in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh())
        self.apply(initialise)

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(latent)


class CNNDiscriminator(nn.Module):
    """The paper's discriminator for CIFAR-10 and STL-10 (table 3b), before spectral normalisation.

    Shapes: ``(N, channels, image_size, image_size)`` in [−1, 1] to ``(N,)``.

    Args:
        image_size: Height and width of the images, a multiple of 8.
        channels: Channels of the images.
        feature_maps: Width of the first two layers; doubled after each halving of the size.
    """

    def __init__(self, image_size: int, channels: int, feature_maps: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = channels
        for width in (feature_maps, 2 * feature_maps, 4 * feature_maps):
            layers += [
                nn.Conv2d(width_in, width, 3, padding=1),
                nn.LeakyReLU(0.1, inplace=True),
                nn.Conv2d(width, width, 4, stride=2, padding=1),
                nn.LeakyReLU(0.1, inplace=True),
            ]
            width_in = width
        self.layers = nn.Sequential(
            *layers,
            nn.Conv2d(width_in, 2 * width_in, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Flatten(),
            nn.Linear(2 * width_in * (image_size // 8) ** 2, 1),
            nn.Flatten(0),
        )
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class SNGAN(UnconditionalGAN):
    """The spectrally normalised GAN of Miyato et al. 2018; by default with Adam as in their setting C (table 1).

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256 with ``dcgan``, a multiple of 8 with ``cnn``.
        channels: Channels of the images: 1 for grey, 3 for colour.
        latent_dim: Components of the latent vector (128 in the paper).
        feature_maps: Width of the layers next to the image; doubled at each halving of the size (64 in the paper).
        architecture: "dcgan" for DCGAN's networks, "cnn" for the paper's for CIFAR-10 and STL-10.
        loss: "bce", the cross-entropy (in the generator's non-saturating form), or "hinge" (eqs. 16 and 17).
        data_label: The label that means "real" in the cross-entropy: 1, or 0 for the other way round.
        label_noise: Half-width of the uniform noise on the discriminator's labels in the cross-entropy; 0 for none.
        generator_optimizer: Optimiser of the generator.
        discriminator_optimizer: Optimiser of the discriminator.
        **loop: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        latent_dim: int = 128,
        feature_maps: int = 64,
        architecture: Literal["dcgan", "cnn"] = "dcgan",
        loss: Literal["bce", "hinge"] = "bce",
        data_label: Literal[0, 1] = 1,
        label_noise: float = 0.0,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **loop: Any,
    ) -> None:
        require_label_noise(label_noise)
        if loss == "hinge" and (label_noise or data_label != 1):
            raise ModelError("The hinge loss has no labels: leave data_label and label_noise out, or take loss: bce.")
        generator: nn.Module
        discriminator: nn.Module
        if architecture == "dcgan":
            require_power_of_two(image_size, 16, 256)
            generator = Generator(image_size, channels, latent_dim, feature_maps)
            discriminator = Discriminator(image_size, channels, feature_maps, batch_norm=False)
        else:
            if image_size < 16 or image_size % 8:
                raise ModelError(f"image_size is {image_size}; architecture cnn needs a multiple of 8 from 16 on.")
            generator = CNNGenerator(image_size, channels, latent_dim, feature_maps)
            discriminator = CNNDiscriminator(image_size, channels, feature_maps)
        super().__init__(
            generator,
            spectrally_normalised(discriminator),
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **loop,
        )
        self.save_hyperparameters(ignore=NOT_SAVED)
        self.loss = loss
        self.data_label = data_label
        self.label_noise = label_noise

    def discriminator_loss(self, batch: LabelledImages, fake: Tensor) -> Tensor:
        real, fake = self.discriminator(batch.image * 2 - 1), self.discriminator(fake)
        if self.loss == "hinge":
            return discriminator_hinge(real, fake)
        return discriminator_bce(real, fake, self.data_label, self.label_noise)

    def generator_loss(self, batch: LabelledImages, fake: Tensor) -> Tensor:
        fake = self.discriminator(fake)
        return generator_linear(fake) if self.loss == "hinge" else generator_bce(fake, self.data_label)
