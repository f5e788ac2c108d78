"""What methods of image translation share: from a source image to a target image, in training, tests and prediction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from datamodules import ImagePair, Picture
from lit_models.adversarial import AdversarialModule, evaluating
from lit_models.errors import ModelError
from lit_models.module import Export
from lit_models.networks.patch_discriminator import PatchDiscriminator
from lit_models.networks.resnet_generator import ResNetGenerator
from lit_models.networks.unet import UNet
from lit_models.optimizers import linear_decay
from lit_models.support.authors_weights import load_authors_weights
from lit_models.support.checks import require_image_shape
from lit_models.support.pair_checks import require_pair_channels, require_pairs, require_tile
from lit_models.support.pretrained import StartsFromWeights
from lit_models.support.tiling import apply_at_any_size


class ImageTranslator(StartsFromWeights, AdversarialModule):
    """Base of the methods that turn images of one kind into images of another.

    A subclass builds the networks and implements the losses. ``generator`` makes targets of sources, both in [−1, 1];
    a method that has more generators overrides :meth:`generate` and :attr:`translating_network`.

    A checkpoint holds the scale of the training's sources (``source_scale`` of the data module, or None if they were of
    several sizes, then ``source_side``) and the channels that they were read with (``read_channels``), to which ``relit
    predict`` brings other pictures before they are translated.

    What a source becomes in a test or in a prediction depends on nothing but the source: the networks have no running
    means, and normalize each image by itself. (With ``dropout_at_test`` it depends on the random numbers, too.)

    Args:
        generator: Network that makes images.
        discriminator: Network that judges images.
        image_shape: ``(channels, height, width)`` of the targets.
        source_channels: Channels of the sources; those of the targets if None.
        dropout_at_test: Keep the generator's dropout in tests and predictions.
        pretrained: A generator's weights to start from, a file of the authors' code (``latest_net_G.pth``; see
            :mod:`lit_models.support.authors_weights`). A checkpoint's own weights replace them.
        pretrained_discriminator: The discriminator's weights to start from, such as ``latest_net_D.pth``, which the
            authors' code writes in training but doesn't publish.
        decay_start: Part of the training's epochs after which the learning rates, where no schedule is given, fall
            linearly to 0; 1 for never. The epochs are ``trainer.max_epochs``.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    exports = (Export("translator", "translate", ("source",), "image"),)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        image_shape: tuple[int, int, int],
        dropout_at_test: bool = False,
        decay_start: float = 0.5,
        pretrained: str | None = None,
        source_channels: int | None = None,
        pretrained_discriminator: str | None = None,
        **training: Any,
    ) -> None:
        if not 0 <= decay_start <= 1:
            raise ModelError(f"decay_start is {decay_start}; it must be from 0 to 1.")
        if training.get("fresh_latents") or training.get("augmentations"):
            raise ModelError(
                "fresh_latents and augmentations are for GANs that generate from latent vectors: leave them out."
            )
        super().__init__(generator, discriminator, **training)
        self.target_shape = image_shape
        self.source_shape = (source_channels or image_shape[0], *image_shape[1:])
        self.image_shape = max(self.source_shape, self.target_shape)
        self.source_scale: float | None = 1.0
        self.source_side: int | None = None
        self.read_channels: int | None = None
        self.dropout_at_test = dropout_at_test
        self.decay_start = decay_start
        self.pretrained = pretrained
        self.pretrained_discriminator = pretrained_discriminator

    def setup(self, stage: str) -> None:
        require_pairs(self, stage)
        require_pair_channels(self, *self.pair_channels)
        require_image_shape(self, self.image_shape, takes="pairs of images")
        require_tile(self, self.size_multiple, self.smallest_size)
        if stage == "fit":
            facts = self.facts
            self.source_scale = facts.source_scale
            self.source_side, self.read_channels = facts.source_side, facts.source_channels

    def load_starting_weights(self) -> None:
        for networks in (self.generator, self.generator_average):
            for network, path in self.pretrained_generators(networks) if networks is not None else ():
                if path is not None:
                    load_authors_weights(sized(network), path)
        for network, path in self.pretrained_discriminators():
            if path is not None:
                assert isinstance(network, PatchDiscriminator)
                load_authors_weights(network, path)

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("pretrained", "pretrained_discriminator")

    def pretrained_generators(self, networks: nn.Module) -> list[tuple[nn.Module, str | None]]:
        """Each generator of ``networks`` (the generator, or its average) with the file to start from, if any."""
        return [(networks, self.pretrained)]

    def pretrained_discriminators(self) -> list[tuple[nn.Module, str | None]]:
        """Each discriminator with the file to start from, if any."""
        return [(self.discriminator, self.pretrained_discriminator)]

    def generate(self, batch: ImagePair) -> Tensor:
        return self.generator(batch.source * 2 - 1)

    @property
    def pair_channels(self) -> tuple[int, int]:
        """Channels of the sources and of the targets that it takes."""
        return self.source_shape[0], self.target_shape[0]

    @property
    def translating_network(self) -> nn.Module:
        """The network that makes targets of sources: the averaged one if there is one."""
        return self.sampling_generator

    def forward(self, source: Tensor) -> Tensor:
        """Translated images ``(B, C, H, W)`` in [0, 1] of images in [0, 1], in the networks' present mode."""
        self.start_from_weights()
        return (self.translating_network(source * 2 - 1).float() + 1) / 2

    def translate(self, source: Tensor) -> Tensor:
        """Translates images, in evaluation mode.

        Args:
            source: ``(B, C, H, W)`` in [0, 1]; H and W multiples of :attr:`size_multiple`, and at least
                :attr:`smallest_size`.

        Returns:
            ``(B, C, H, W)`` in [0, 1], float32.
        """
        self.start_from_weights()
        network = self.translating_network
        with evaluating(network), dropout_active(network, self.dropout_at_test):
            return (network(source * 2 - 1).float() + 1) / 2

    def validation_step(self, batch: ImagePair, batch_idx: int) -> Tensor:  # type: ignore[override]
        return self._evaluated(batch, "val")

    def test_step(self, batch: ImagePair, batch_idx: int) -> Tensor:  # type: ignore[override]
        return self._evaluated(batch, "test")

    def predict_step(self, batch: ImagePair | Picture, batch_idx: int) -> Tensor:
        if isinstance(batch, ImagePair):
            return self.translate(batch.source)
        multiple, tile, overlap = self.size_multiple, batch.tile, batch.tile // 4
        return apply_at_any_size(self.translate, batch.image, multiple, tile, overlap, self.smallest_size)

    @property
    def size_multiple(self) -> int:
        """What the heights and widths of images that are to be translated must be multiples of."""
        return sized(self.translating_network).size_multiple

    @property
    def smallest_size(self) -> int:
        """What the heights and widths of such images must at least be."""
        return sized(self.translating_network).smallest_size

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["source_scale"] = self.source_scale
        checkpoint["source_side"] = self.source_side
        checkpoint["source_channels"] = self.read_channels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.source_scale = checkpoint.get("source_scale", 1.0)
        self.source_side = checkpoint.get("source_side")
        self.read_channels = checkpoint.get("source_channels")

    def _evaluated(self, batch: ImagePair, stage: str) -> Tensor:
        """Logs the losses; returns the translated sources, for callbacks."""
        self.start_from_weights()
        fake = self.generate(batch)
        self.log_losses(stage, batch, fake, len(batch.source))
        return self.translate(batch.source)

    def configure_optimizers(self) -> Any:
        optimizers, schedulers = super().configure_optimizers()
        epochs = self.trainer.max_epochs
        if any(make is not None for make in self.scheduler_callables) or epochs is None or epochs < 1:
            return optimizers, schedulers
        return optimizers, [self._decay(optimizer, epochs) for optimizer in optimizers]

    def _decay(self, optimizer: Optimizer, epochs: int) -> LambdaLR:
        return LambdaLR(optimizer, lambda epoch: linear_decay(epoch, epochs, self.decay_start))


def sized(network: nn.Module) -> UNet | ResNetGenerator:
    """A generator as one of the two networks, which say what sizes they take."""
    assert isinstance(network, (UNet, ResNetGenerator))
    return network


@contextmanager
def dropout_active(network: nn.Module, active: bool) -> Iterator[None]:
    """Within the block, dropout is at work as in training, if ``active``."""
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout) and not module.training]
    for layer in layers if active else ():
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
