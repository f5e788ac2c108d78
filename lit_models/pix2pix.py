"""pix2pix (Isola, Zhu, Zhou & Efros 2017, https://arxiv.org/abs/1611.07004): images to images by a conditional GAN.

From a source x (a satellite photograph) the generator G makes a target (a map); the discriminator D sees the source
and the target as channels of one image, and judges whether they belong together, patch by patch:

    L_cGAN = E[log D(x, y)] + E[log(1 − D(x, G(x)))]                     (eq. 1; without x in D: eq. 2)
    L_L1   = E[‖y − G(x)‖₁]                                              (eq. 3)
    G*     = arg min_G max_D L_cGAN + λ L_L1,  λ = 100                   (eq. 4)

The only noise is dropout in the generator's decoder. G is a U-Net, or a ResNet; D judges patches of 70x70. Both have
batch normalization by the statistics of the batch, in tests, too, and weights from N(0, 0.02²). The generator's loss is
the non-saturating one; D's is halved, so that it learns more slowly (section 3.3). Adam with a constant learning rate
of 2e-4 and β₁ = 0.5, batches of one image, 200 epochs (sections 3.3 and 6.2).

``conditional: false`` takes x from D, and ``lambda_l1: 0`` the pairs from G's loss. With both it is a plain GAN
without pairs: any map will do that D takes for real ("GAN" in the paper's table 1).

What differs from the paper and its code (phillipi/pix2pix):

1. The learning rate falls linearly to 0 over the last half of the epochs, as in the authors' PyTorch port; the paper's
   is constant: ``decay_start: 1``.
2. Dropout is off in tests and predictions, so that they can be repeated; ``dropout_at_test: true`` leaves it on, as the
   paper does.
3. Evaluation normalizes each image by its own statistics, whatever the batch, which the paper gets by batches of one.
4. G learns from the judgment of the updated D, on the same fakes that D has just learned from, as in the authors'
   PyTorch port. Their Lua code takes the judgment from before D's step, and its gradient through the updated D.
5. The innermost encoder layer has no batch normalization, as in the authors' public code. The paper's experiments had
   it (see the errata), which sets that layer to zero for a single image.
6. The U-Net is built for powers of two from 32 pixels on. Dropout is in the decoder's first three layers, as in
   the paper; in the PyTorch port it is in the second to fourth (of 128 pixels, to the third), so the innermost has
   none. Only layers of full width have it, which below 128 pixels are fewer.
7. Patches of 34 and 142 pixels are not in the paper, which compares 1 (its PixelGAN), 16, 70 and 286.
8. G's last layer has biases, and so have D's first and last, as in the PyTorch port (but in its PixelGAN the last has
   none). The authors' Lua code keeps all biases of convolutions at 0. It halves D's loss in what it prints only; under
   Adam that makes no difference.
9. The 1,098 published test pairs of maps are halved: 549 for validation, 549 for the test. The last epoch is tested, as
   in the paper. The paper translates images of 512x512, shows them at half the size and asks people which map is
   real; here tests measure distances to the true map at the size of the training, and the share of pixels of the right
   kind.
10. ``pix2pix_maps_128`` cuts windows of 128 pixels from photographs of the paper's scale; ``pix2pix_maps_64`` squeezes
    the photographs to 64.
11. Photographs are resized by bicubic interpolation, and an epoch has each pair once, as in the PyTorch port. The Lua
    code takes bilinear interpolation, and draws pairs with replacement.
12. ``generator: resnet``, ``loss: lsgan`` (Mao et al. 2017), ``ema_decay`` and ``gradient_clip_norm`` are not in the
    paper.
13. The configurations are for maps; ``PairedFolder`` reads the pairs of the paper's other tasks. Left out: G without
    connections across ("encoder-decoder"), the L1 loss alone, coloring in L*a*b*, and the FCN score.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from datamodules import ImagePair
from lit_models.adversarial import OPTIMIZER_ARGUMENTS
from lit_models.errors import ModelError
from lit_models.losses.gan import (
    discriminator_bce,
    discriminator_least_squares,
    generator_bce,
    generator_least_squares,
)
from lit_models.losses.precision import at_least_float32
from lit_models.networks.patch_discriminator import PatchDiscriminator
from lit_models.networks.resnet_generator import ResNetGenerator
from lit_models.networks.unet import UNet
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_fraction
from lit_models.translation import ImageTranslator


class Pix2Pix(ImageTranslator):
    """pix2pix, or with other arguments a plain GAN of images to images.

    Also logged: ``train/generator_gan_loss``, what D adds to the generator's loss, and
    ``train/generator_l1_loss``, the mean absolute difference of G(x) and y in [−1, 1], without its factor. The same
    below ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images: a power of two from 32 to 1024.
        channels: Channels of the images: of the targets, if the sources have others.
        generator: "unet", or "resnet", CycleGAN's generator.
        feature_maps: Width of the generator's outermost layer.
        discriminator_feature_maps: Width of the discriminator's first layer.
        patch_size: Pixels that the discriminator judges at once, in each direction: 1, 16, 34, 70, 142 or
            286; of 1, it is the paper's PixelGAN.
        blocks: Residual blocks of the generator "resnet".
        dropout: Share of the values that the generator drops in training.
        dropout_at_test: Drop them in tests and predictions, too.
        conditional: Whether the discriminator sees the source.
        lambda_l1: λ, the weight of the L1 loss.
        loss: "bce", the cross-entropy, or "lsgan", least squares.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        source_channels: Channels of the sources; ``channels`` if null. 1 with 3 ``channels`` colors gray images.
        **training: Arguments of :class:`lit_models.translation.ImageTranslator`.
    """

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        generator: Literal["unet", "resnet"] = "unet",
        feature_maps: int = 64,
        discriminator_feature_maps: int = 64,
        patch_size: int = 70,
        blocks: int = 9,
        dropout: float = 0.5,
        dropout_at_test: bool = False,
        conditional: bool = True,
        lambda_l1: float = 100.0,
        loss: Literal["bce", "lsgan"] = "bce",
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        source_channels: int | None = None,
        **training: Any,
    ) -> None:
        if lambda_l1 < 0:
            raise ModelError(f"lambda_l1 is {lambda_l1}; it must not be negative.")
        require_fraction(dropout=dropout)
        require_at_least(1, channels=channels, source_channels=source_channels)
        painter: nn.Module
        if generator == "unet":
            painter = UNet(image_size, channels, feature_maps, dropout, source_channels)
        else:
            painter = ResNetGenerator(channels, feature_maps, blocks, "batch", dropout, source_channels)
        seen = channels + (source_channels or channels) * conditional
        super().__init__(
            painter,
            PatchDiscriminator(image_size, seen, discriminator_feature_maps, patch_size, "batch"),
            image_shape=(channels, image_size, image_size),
            source_channels=source_channels,
            dropout_at_test=dropout_at_test,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.conditional = conditional
        self.lambda_l1 = lambda_l1
        self.loss = loss

    def score(self, batch: ImagePair, target: Tensor) -> Tensor:
        """The discriminator's logits of targets in [−1, 1], joined to their sources if it sees them."""
        seen = torch.cat([batch.source * 2 - 1, target], dim=1) if self.conditional else target
        if seen.device.type == "cpu":  # a batch takes 0.96 of the time in bfloat16 and 0.98 in float32 (256x256)
            seen = seen.contiguous(memory_format=torch.channels_last)
        return self.discriminator(seen)

    def discriminator_loss(self, batch: ImagePair, fake: Tensor) -> Tensor:
        real, fake = self.score(batch, batch.target * 2 - 1), self.score(batch, fake)
        return (discriminator_bce if self.loss == "bce" else discriminator_least_squares)(real, fake) / 2

    def generator_loss(self, batch: ImagePair, fake: Tensor) -> dict[str, Tensor]:
        gan = (generator_bce if self.loss == "bce" else generator_least_squares)(self.score(batch, fake))
        l1 = functional.l1_loss(at_least_float32(fake), batch.target * 2 - 1)
        return {"loss": gan + self.lambda_l1 * l1, "generator_gan_loss": gan, "generator_l1_loss": l1}
