"""CycleGAN (Zhu, Park, Isola & Efros 2017, https://arxiv.org/abs/1703.10593): images to images without pairs.

Two generators learn to turn each kind of image into the other, G: X → Y and F: Y → X, against a discriminator each, and
so that both ways and back nothing is lost:

    L_GAN(G, D_Y) = E_y[(D_Y(y) − 1)²] + E_x[D_Y(G(x))²]                 (section 4: least squares for eq. 1)
    L_cyc(G, F)   = E_x[‖F(G(x)) − x‖₁] + E_y[‖G(F(y)) − y‖₁]            (eq. 2)
    L_idt(G, F)   = E_y[‖G(y) − y‖₁] + E_x[‖F(x) − x‖₁]                  (section 5.2)
    L             = L_GAN(G, D_Y) + L_GAN(F, D_X) + λ L_cyc + λ λ_idt L_idt,  λ = 10, λ_idt = 0.5

The generators are ResNets with 9 blocks (6 for images of 128 pixels), the discriminators judge patches of 70x70, both
with instance normalization and weights from N(0, 0.02²). A discriminator's loss is halved, and it is shown not only the
newest fakes but also earlier ones, from a buffer of 50 images (Shrivastava et al. 2017). Adam, learning rate 2e-4,
β₁ = 0.5, batches of one image, 200 epochs, of which the last 100 let the learning rate fall to 0 (section 4).

What differs from the paper and its code:

1. The discriminators take their step before the generators, from the same fakes. In the authors' PyTorch code both
   generators come first. Their Lua code trains one way after the other, each generator before its discriminator.
2. In a larger batch each image is exchanged with another place of the buffer. One by one, as in the authors' code, two
   could meet in one place.
3. The authors use the identity loss for paintings (section 5.2) and, by their code's default, for everything.
   ``lambda_identity: 0`` leaves it out.
4. Each player's two networks share an optimizer, and L_GAN of both ways is one sum, as in the authors' PyTorch code.
5. Instance normalization has no parameters, as in the authors' PyTorch code; the convolutions before it have biases.
   In the Lua code it has learned factors and shifts, and all biases of convolutions stay at 0. That code halves a
   discriminator's loss in what it prints only; under Adam that makes no difference.
6. The generators' first and last convolutions and their residual blocks mirror the borders, as in the authors' code;
   the strided ones pad with zeros.
7. An epoch has as many images of each kind as the data module has pairs, or as the larger of two sets has; each set is
   shuffled separately. The authors' PyTorch code draws the second image at random; the Lua code draws both.
8. ``cyclegan_maps`` trains at 256x256 with 9 blocks, as the paper says; the authors' script for maps has windows of 128
   pixels in images of 143, and 6 blocks. Photographs are resized by bicubic interpolation, as in the PyTorch code; the
   Lua code takes bilinear interpolation.
9. Tests are on half of the published test pairs, the other half being for validation. They compare with the true maps;
   the paper asks people.
10. ``ema_decay`` and ``gradient_clip_norm`` are not in the paper.
11. The configurations are for maps; ``PairedFolder`` reads the paper's other data sets from ``trainA`` and ``trainB``.
    Left out: the FCN score of Cityscapes, and the paper's variants with a cycle in one direction or without L_GAN.
"""

from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from datamodules import ImagePair
from lit_models.adversarial import OPTIMIZER_ARGUMENTS
from lit_models.errors import ModelError
from lit_models.losses.gan import discriminator_least_squares, generator_least_squares
from lit_models.losses.precision import at_least_float32
from lit_models.networks.patch_discriminator import PatchDiscriminator
from lit_models.networks.resnet_generator import ResNetGenerator
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least
from lit_models.support.ranks import gather
from lit_models.translation import ImageTranslator


class ImageBuffer:
    """A history of generated images, in which newer ones take the place of older ones at random.

    Args:
        size: Images that it holds; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None

    def exchange(self, images: Tensor) -> Tensor:
        """Puts in images and takes out as many: while there is room, the same ones; then each with probability ½
        itself, which is not put in, or else the one whose place it takes.

        Args:
            images: ``(B, C, H, W)``, without a graph. More of them than the buffer holds go in one part after another.

        Returns:
            ``(B, C, H, W)``.
        """
        if self.size == 0:
            return images
        if len(images) > self.size:
            return torch.cat([self.exchange(part) for part in images.split(self.size)])
        held = images[:0] if self.images is None else self.images.to(images)  # restored, perhaps of another precision
        room = self.size - len(held)
        self.images = torch.cat([held, images[:room]]) if room else held
        # Drawn on the CPU, so that an accelerator isn't waited for.
        count = max(0, len(images) - room)
        swapped = (torch.rand(count) < 0.5).nonzero().flatten()
        places = torch.randperm(self.size)[:count][swapped].to(images.device, non_blocking=True)
        rows = (swapped + len(images) - count).to(images.device, non_blocking=True)
        shown = images.index_copy(0, rows, self.images.index_select(0, places))
        self.images.index_copy_(0, places, images.index_select(0, rows))
        return shown


class CycleGAN(ImageTranslator):
    """CycleGAN (Zhu et al. 2017): translation that is learned from unpaired images.

    In a batch of pairs, it doesn't matter which source comes with which target.

    Also logged: ``train/generator_gan_loss``, ``train/generator_cycle_loss`` and
    ``train/generator_identity_loss``, without their factors. The same below ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images, a multiple of 4.
        channels: Channels of the images: of the targets, if the sources have others.
        feature_maps: Width of the generators' outermost layers.
        discriminator_feature_maps: Width of the discriminators' first layers.
        patch_size: Pixels that the discriminators judge at once, in each direction: 1, 16, 34, 70, 142 or 286.
        blocks: Residual blocks of the generators.
        lambda_cycle: λ, the weight of the cycle loss.
        lambda_identity: λ_idt, the weight of the identity loss as a part of λ.
        pretrained_to_source: The second generator's weights to start from, as ``pretrained`` has the first one's.
        pretrained_source_discriminator: Weights of the sources' discriminator to start from (``latest_net_D_B.pth`` if
            A are the sources), as ``pretrained_discriminator`` has the targets' (``latest_net_D_A.pth``).
        buffer_size: Generated images that are kept for each discriminator; 0 for none.
        generator_optimizer: Optimizer of both generators.
        discriminator_optimizer: Optimizer of both discriminators.
        source_channels: Channels of the sources; ``channels`` if null. If they differ there is no identity loss.
        **training: Arguments of :class:`lit_models.translation.ImageTranslator`.
    """

    training_only: ClassVar = ImageTranslator.training_only | {"image_buffers"}

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        feature_maps: int = 64,
        discriminator_feature_maps: int = 64,
        patch_size: int = 70,
        blocks: int = 9,
        lambda_cycle: float = 10.0,
        lambda_identity: float = 0.5,
        buffer_size: int = 50,
        pretrained_to_source: str | None = None,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        source_channels: int | None = None,
        pretrained_source_discriminator: str | None = None,
        **training: Any,
    ) -> None:
        if image_size < 16 or image_size % 4:
            raise ModelError(f"image_size is {image_size}; it must be a multiple of 4, and at least 16.")
        if min(lambda_cycle, lambda_identity, buffer_size) < 0:
            raise ModelError(
                f"lambda_cycle is {lambda_cycle}, lambda_identity {lambda_identity} and buffer_size {buffer_size}; "
                "none may be negative."
            )
        require_at_least(1, channels=channels, source_channels=source_channels)
        of_source = source_channels or channels
        if of_source != channels and lambda_identity:
            raise ModelError(
                f"The identity loss gives a generator images of both kinds, but the sources have {of_source} channels "
                f"and the targets {channels}: set --model.lambda_identity 0."
            )

        def generator(source: int, target: int) -> nn.Module:
            return ResNetGenerator(target, feature_maps, blocks, "instance", source_channels=source)

        def discriminator(seen: int) -> nn.Module:
            return PatchDiscriminator(image_size, seen, discriminator_feature_maps, patch_size, "instance")

        super().__init__(
            nn.ModuleDict({"to_target": generator(of_source, channels), "to_source": generator(channels, of_source)}),
            nn.ModuleDict({"target": discriminator(channels), "source": discriminator(of_source)}),
            image_shape=(channels, image_size, image_size),
            source_channels=source_channels,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.pretrained_to_source = pretrained_to_source
        self.pretrained_source_discriminator = pretrained_source_discriminator
        self.lambda_cycle = lambda_cycle
        self.lambda_identity = lambda_identity
        self.image_buffers = (ImageBuffer(buffer_size), ImageBuffer(buffer_size))

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return (*super().restored_arguments, "pretrained_to_source", "pretrained_source_discriminator")

    @property
    def translating_network(self) -> nn.Module:
        return self._generators(self.sampling_generator)[0]

    def pretrained_generators(self, networks: nn.Module) -> list[tuple[nn.Module, str | None]]:
        to_target, to_source = self._generators(networks)
        return [(to_target, self.pretrained), (to_source, self.pretrained_to_source)]

    def pretrained_discriminators(self) -> list[tuple[nn.Module, str | None]]:
        of_targets, of_sources = self._discriminators()
        return [(of_targets, self.pretrained_discriminator), (of_sources, self.pretrained_source_discriminator)]

    def generate(self, batch: ImagePair) -> Tensor:
        """G(x) and F(y), channel by channel: ``(B, channels + source_channels, H, W)``."""
        to_target, to_source = self._generators(self.generator)
        return torch.cat([to_target(batch.source * 2 - 1), to_source(batch.target * 2 - 1)], dim=1)

    def discriminator_loss(self, batch: ImagePair, fake: Tensor) -> Tensor:
        losses = []
        real = batch.target, batch.source
        for discriminator, image, newest, buffer in zip(
            self._discriminators(), real, self._halves(fake), self.image_buffers, strict=True
        ):
            shown = buffer.exchange(newest) if self.training else newest
            losses.append(discriminator_least_squares(discriminator(image * 2 - 1), discriminator(shown)) / 2)
        return losses[0] + losses[1]

    def generator_loss(self, batch: ImagePair, fake: Tensor) -> dict[str, Tensor]:
        source, target = batch.source * 2 - 1, batch.target * 2 - 1
        to_target, to_source = self._generators(self.generator)
        target_discriminator, source_discriminator = self._discriminators()
        fake_target, fake_source = self._halves(fake)
        gan = generator_least_squares(target_discriminator(fake_target)) + generator_least_squares(
            source_discriminator(fake_source)
        )
        cycle = _l1(to_source(fake_target), source) + _l1(to_target(fake_source), target)
        parts = {"generator_gan_loss": gan, "generator_cycle_loss": cycle}
        loss = gan + self.lambda_cycle * cycle
        if self.lambda_identity:
            identity = _l1(to_target(target), target) + _l1(to_source(source), source)
            parts["generator_identity_loss"] = identity
            loss = loss + self.lambda_cycle * self.lambda_identity * identity
        return {"loss": loss, **parts}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Each rank has separate buffers."""
        super().on_save_checkpoint(checkpoint)
        images = [None if buffer.images is None else buffer.images.cpu() for buffer in self.image_buffers]
        checkpoint["image_buffers"] = gather(self.trainer, images)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        ranks = checkpoint.get("image_buffers", [])
        if self.global_rank < len(ranks):
            for buffer, images in zip(self.image_buffers, ranks[self.global_rank], strict=True):
                buffer.images = None if images is None else images[: buffer.size].clone()

    def _halves(self, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Fake targets and fake sources."""
        target, source = fake.split([self.target_shape[0], self.source_shape[0]], dim=1)
        return target, source

    def _generators(self, networks: nn.Module) -> tuple[nn.Module, nn.Module]:
        """G and F."""
        both = cast(nn.ModuleDict, networks)
        return both["to_target"], both["to_source"]

    def _discriminators(self) -> tuple[nn.Module, nn.Module]:
        """D_Y and D_X."""
        both = cast(nn.ModuleDict, self.discriminator)
        return both["target"], both["source"]


def _l1(image: Tensor, truth: Tensor) -> Tensor:
    return functional.l1_loss(at_least_float32(image), truth)
