"""DCGAN (Radford, Metz & Chintala 2015, arXiv:1511.06434): the convolutional GAN that trains.

The paper's guidelines (section 3): strided convolutions instead of pooling, batch normalization in both networks
except at the generator's output and the discriminator's input, no hidden fully connected layers, ReLU in the generator
with tanh at its end, LeakyReLU with slope 0.2 in the discriminator; all weights drawn from N(0, 0.02²), Adam with
learning rate 2e-4 and β₁ = 0.5.

Differences from the paper:

1. Any power-of-two size from 16 to 256, where the paper has 64.
2. ``feature_maps`` is 64 by default, and kernels are 4x4, as in one author's Torch code (soumith/dcgan.torch). The
   paper's figure 1 shows 128 maps, and the first author's Theano code (Newmu/dcgan_code) has them with kernels of 5x5.
3. z is drawn from N(0, I), as in the Torch code; in the paper's figure 1 it is uniform. There it
   has 100 components, in the configurations 256 (MNIST), 100 (digits) or 8 (faces).
4. Batches of 64 images in the configurations for MNIST and digits, 32 for faces; the paper has 128 (section 4). The
   configuration for faces has noisy labels, too, and β₁ = 0.3 for the generator.
5. The generator learns from the fakes from which the discriminator has just learned, unless ``fresh_latents`` is set.
   Algorithm 1 of Goodfellow et al. 2014 draws fresh ones. The Torch code shares the fakes, too, and even the judgment
   from before the discriminator's step; the Theano code has both players learn from different batches.
6. The layers next to the image and the discriminator's last one have a bias. In both codes no convolution has one.
7. The losses are computed on logits, which is the same but for rounding.
8. The scales of batch normalization start from N(1, 0.02²), as in both codes; the paper doesn't say. The Theano code
   normalizes each unit of the generator's first layer by itself, here and in the Torch code a channel at a time, and
   adds 1e-8 to the variance, here 1e-5.
9. MNIST and scikit-learn's digits at 32x32, and faces of one person (LFW); the paper has LSUN's bedrooms, ImageNet and
   other faces, and judges features and pictures. Here samples get scores over a classifier's features, and on MNIST the
   epoch with the lowest validation FID is tested.
10. Optional: noisy labels, the choice of the label that means "real", averaged weights, clipped gradients, schedules.
11. Samples and held-out scores go by batch normalization's running means, in both codes by the batch's statistics. The
    Theano code has a weight decay of 1e-5.
12. Optional, for small data: differentiable augmentation (Zhao et al. 2020), and the R1 penalty (Mescheder et al.
    2018), with which the discriminator has no batch normalization.
"""

from itertools import pairwise
from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, LossTerms, UnconditionalGAN
from lit_models.losses.gan import discriminator_bce, generator_bce, with_r1
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.initialization import initialize
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_label_noise, require_r1_weight


class Generator(nn.Module):
    """From a latent vector to an image, by transposed convolutions that double the size from 4x4 on.

    Shapes: ``(N, latent_dim)`` to ``(N, channels, image_size, image_size)`` in [−1, 1].

    Args:
        image_size: Height and width of the images, a power of two from 16 to 256.
        channels: Channels of the images.
        latent_dim: Components of the latent vector.
        feature_maps: Width of the last hidden layer; earlier ones have twice the width of the next, up to 16 times.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__()
        widths = layer_widths(image_size, feature_maps)[::-1]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(initialize)

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(latent[:, :, None, None])


class Discriminator(nn.Module):
    """From an image to one logit, by strided convolutions that halve the size down to 4x4.

    Shapes: ``(N, channels, image_size, image_size)`` in [−1, 1] to ``(N,)``.

    Args:
        image_size: Height and width of the images, a power of two from 16 to 256.
        channels: Channels of the images.
        feature_maps: Width of the first layer; each further one has twice the width, up to 16 times.
        batch_norm: As in the paper. Methods that bound the discriminator's slope leave it out.
    """

    def __init__(self, image_size: int, channels: int, feature_maps: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *downsampling(image_size, channels, feature_maps, batch_norm),
            nn.Conv2d(layer_widths(image_size, feature_maps)[-1], 1, 4),
            nn.Flatten(0),
        )
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def downsampling(image_size: int, channels: int, feature_maps: int, batch_norm: bool) -> list[nn.Module]:
    """The discriminator's layers from ``(N, channels, image_size, image_size)`` to ``(N, widest, 4, 4)``."""
    widths = layer_widths(image_size, feature_maps)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for width_in, width_out in pairwise(widths):
        layers += [
            nn.Conv2d(width_in, width_out, 4, stride=2, padding=1, bias=not batch_norm),
            *([nn.BatchNorm2d(width_out)] if batch_norm else []),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return layers


def layer_widths(image_size: int, feature_maps: int) -> list[int]:
    """Widths of the layers from the image inwards, one for each halving from ``image_size`` to 4."""
    halvings = image_size.bit_length() - 3
    return [feature_maps * min(2**i, 16) for i in range(halvings)]


class DCGAN(UnconditionalGAN):
    """The deep convolutional GAN of Radford et al. 2015.

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the latent vector (the paper's z has 100).
        feature_maps: Width of the layers next to the image; doubled at each halving of the size.
        data_label: The label that means "real" to the discriminator: 1, or 0 for the other way round.
        label_noise: Half-width of the uniform noise on the discriminator's labels; 0 for none.
        r1_weight: γ of the penalty ``γ/2 E‖∇D(x)‖²`` on real images (10 in Mescheder et al.); 0 for none. It leaves the
            discriminator's batch normalization out, because the slope at one image would depend on all the others.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        feature_maps: int = 64,
        data_label: Literal[0, 1] = 1,
        label_noise: float = 0.0,
        r1_weight: float = 0.0,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **training: Any,
    ) -> None:
        require_power_of_two(image_size, 16, 256)
        require_label_noise(label_noise)
        require_r1_weight(r1_weight)
        super().__init__(
            Generator(image_size, channels, latent_dim, feature_maps),
            Discriminator(image_size, channels, feature_maps, batch_norm=not r1_weight),
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.data_label = data_label
        self.label_noise = label_noise
        self.r1_weight = r1_weight

    @property
    def not_compiled(self) -> tuple[str, ...]:
        """A compiled discriminator has no second derivatives, which the penalty needs."""
        return ("discriminator",) if self.r1_weight else ()

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> LossTerms:
        real = batch.image * 2 - 1
        loss = discriminator_bce(self.discriminator(real), self.discriminator(fake), self.data_label, self.label_noise)
        return with_r1(loss, self.discriminator, real, self.r1_weight)

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        return generator_bce(self.discriminator(fake), self.data_label)
