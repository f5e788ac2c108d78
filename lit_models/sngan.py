"""SN-GAN (Miyato, Kataoka, Koyama & Yoshida 2018, https://arxiv.org/abs/1802.05957): spectral normalization.

Every weight matrix W of the discriminator is divided by its largest singular value, ``W̄ = W / σ(W)`` (eq. 8). A dense
layer then has a slope of at most 1. A convolution's W is its kernel as a matrix ``(out, in · height · width)``; as its
windows overlap, its slope may be larger, by a factor that depends on kernel, stride and padding only (footnote 3). So
the discriminator's slope is bounded, but not by 1. One step of the power iteration at each use keeps up with σ
(algorithm 1). The gradient then lacks the direction in which W stretches most (eq. 12), which keeps the discriminator
from relying on that direction alone.

Differences from the paper:

1. ``architecture: dcgan``, for MNIST, digits and faces, is DCGAN's pair of networks, which the paper doesn't use, with
   spectral normalization in place of the discriminator's batch normalization. The paper's own discriminators have none
   either: it would scale each channel by ``γ / standard deviation`` and so undo the bound. On MNIST the epoch with the
   lowest validation FID is tested. Latent vectors have 256 components (MNIST) or 8 (faces), 128 in the paper; faces
   come in batches of 32, with noisy labels and β₁ = 0.3 for the generator.
2. ``architecture: cnn`` has the layers and widths of the paper's table 3. In the authors' code the generator has batch
   normalization and a ReLU after the dense layer, where the table, and so this network, has two linear layers in a row;
   the discriminator doubles the width at the strided convolutions already, and has a slope of 0.2; z is uniform. Scales
   of batch normalization start from N(1, 0.02²), there at 1.
3. ``architecture: resnet`` has the layers and widths of tables 4 (32 pixels), 5 (48) and 6 (128), and for 64 pixels
   those of the authors' code. It repeats pixels to double the size, as that code does. The discriminator's last layer
   has a bias, which the code for 32 pixels leaves out. It adds uniform noise of one gray level to the real images.
   ``sngan_cifar10_resnet`` has its 50,000 steps at rates that fall to 0; the paper has 100,000, and no decay but for
   ImageNet.
4. The generator learns from the fakes from which the discriminator has just learned, unless ``fresh_latents`` is set;
   with ``resnet`` from 64 of them. The authors' code draws fresh ones, 128 with CIFAR-10's ResNets, and its
   generator takes the first step.
5. Spectral normalization is PyTorch's: a step of the power iteration takes u before v, and 15 come before the first
   use. In algorithm 1 v comes first, and one step from a random vector is all. Batch normalization adds 1e-5 to the
   variance, in the authors' code 2e-5.
6. Optional: noisy labels, and the choice of the label that means "real", both for the cross-entropy only; averaged
   weights, clipped gradients, schedules.
7. Optional, for small data: differentiable augmentation (Zhao et al. 2020) and the R1 penalty (Mescheder et al. 2018).
8. Scores over Inception's features are an option; ``sngan_cifar10`` has ImageNet features that need no download.
"""

from itertools import pairwise
from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, LossTerms, UnconditionalGAN
from lit_models.dcgan import Discriminator, Generator
from lit_models.errors import ModelError
from lit_models.losses.gan import (
    discriminator_bce,
    discriminator_hinge,
    generator_bce,
    generator_linear,
    with_r1,
)
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.initialization import initialize
from lit_models.networks.resnet_gan import ResidualDiscriminator, ResidualGenerator, require_layout
from lit_models.networks.spectral import spectrally_normalized
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_label_noise, require_r1_weight


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
        self.apply(initialize)

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(latent)


class CNNDiscriminator(nn.Module):
    """The paper's discriminator for CIFAR-10 and STL-10 (table 3b), before spectral normalization.

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
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class SNGAN(UnconditionalGAN):
    """The spectrally normalized GAN of Miyato et al. 2018; by default with Adam as in their setting C (table 1).

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256 with ``dcgan``, a multiple of 8 with ``cnn``;
            32, 48, 64 or 128 with ``resnet``.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the latent vector (128 in the paper).
        feature_maps: Width of the layers next to the image; doubled at each halving of the size (64 in the paper). The
            ResNets for 32 pixels have four times this width throughout the generator, twice in the discriminator.
        architecture: "dcgan" for DCGAN's networks, "cnn" for the paper's standard CNNs, "resnet" for its ResNets.
        loss: "bce", the cross-entropy (in the generator's non-saturating form), or "hinge" (eqs. 16 and 17).
        data_label: The label that means "real" in the cross-entropy: 1, or 0 for the other way round.
        label_noise: Half-width of the uniform noise on the discriminator's labels in the cross-entropy; 0 for none.
        r1_weight: γ of the penalty ``γ/2 E‖∇D(x)‖²`` on real images (10 in Mescheder et al.); 0 for none.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        latent_dim: int = 128,
        feature_maps: int = 64,
        architecture: Literal["dcgan", "cnn", "resnet"] = "dcgan",
        loss: Literal["bce", "hinge"] = "bce",
        data_label: Literal[0, 1] = 1,
        label_noise: float = 0.0,
        r1_weight: float = 0.0,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **training: Any,
    ) -> None:
        require_label_noise(label_noise)
        require_r1_weight(r1_weight)
        if loss == "hinge" and (label_noise or data_label != 1):
            raise ModelError("The hinge loss has no labels: leave data_label and label_noise out, or take loss: bce.")
        generator: nn.Module
        discriminator: nn.Module
        if architecture == "dcgan":
            require_power_of_two(image_size, 16, 256)
            generator = Generator(image_size, channels, latent_dim, feature_maps)
            discriminator = Discriminator(image_size, channels, feature_maps, batch_norm=False)
        elif architecture == "resnet":
            layout = require_layout(image_size, feature_maps)
            generator = ResidualGenerator(image_size, channels, latent_dim, layout.generator)
            discriminator = ResidualDiscriminator(channels, layout.discriminator, layout.halvings)
        else:
            if image_size < 16 or image_size % 8:
                raise ModelError(f"image_size is {image_size}; architecture cnn needs a multiple of 8 from 16 on.")
            generator = CNNGenerator(image_size, channels, latent_dim, feature_maps)
            discriminator = CNNDiscriminator(image_size, channels, feature_maps)
        super().__init__(
            generator,
            spectrally_normalized(discriminator),
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.loss = loss
        self.data_label = data_label
        self.label_noise = label_noise
        self.r1_weight = r1_weight

    @property
    def not_compiled(self) -> tuple[str, ...]:
        """A compiled discriminator has no second derivatives, which the penalty needs."""
        return ("discriminator",) if self.r1_weight else ()

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> LossTerms:
        real = batch.image * 2 - 1
        real_score, fake_score = self.discriminator(real), self.discriminator(fake)
        if self.loss == "hinge":
            loss = discriminator_hinge(real_score, fake_score)
        else:
            loss = discriminator_bce(real_score, fake_score, self.data_label, self.label_noise)
        return with_r1(loss, self.discriminator, real, self.r1_weight)

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        fake = self.discriminator(fake)
        return generator_linear(fake) if self.loss == "hinge" else generator_bce(fake, self.data_label)
