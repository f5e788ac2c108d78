"""Denoising autoencoder (Vincent, Larochelle, Bengio & Manzagol 2008, "Extracting and Composing Robust Features with
Denoising Autoencoders"), convolutional.

An encoder f and a decoder g learn to undo a corruption q of images x:

    minimize  E_x E_{x̃ ~ q(x̃|x)} L(g(f(x̃)), x).

With fewer components in the code than pixels in the image, and with noise to remove from strokes, the code has to hold
what images are made of. It needs no labels: :mod:`lit_models.transfer_classifier` learns classes from 50 of them on top
of it.

What differs from the paper:

1. Convolutional networks with a bottleneck, trained at once, in place of dense layers that are trained one by one and
   stacked, and may be wider than the image.
2. The corruption is Gaussian noise on every pixel, one of the kinds in Vincent et al. 2010; this paper sets a fixed
   number of pixels to 0. The noisy image is not clipped.
3. Optionally the image is turned, shifted and resized at random before the noise, and the decoder has to put it
   upright again: then the code says less about where the strokes are and more about which they are. The configuration
   for MNIST does.
4. The loss is a mean over pixels, in the paper a sum over them. In place of the paper's cross-entropy it can be the
   squared error, which a sigmoid keeps from learning once it is saturated: on MNIST, 5 of 6 trainings came to draw
   nothing but black.
5. ReLUs, PyTorch's initial weights and Adam, batches of 64, and 10 epochs, of which the one with the lowest validation
   loss is kept. The paper has sigmoid units and stochastic gradient descent, and its codes serve fine-tuning on all
   labels; here they serve the transfer from 50.
6. MNIST at 32x32 with 55,000 training images. The paper has variants of it at 28x28, and images of shapes, most with
   10,000 training images, and compares the errors of the fine-tuned classifiers.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional

from datamodules import LabeledImages
from datamodules.loading.augment import gaussian_noise, random_affine
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.module import Export, Method
from lit_models.networks.convolutional import Decoder, Encoder
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_image_shape
from lit_models.support.interpolation import Path, decoded_between
from lit_models.support.lightning_internals import logs_this_batch


class DenoisingAutoencoder(Method):
    """The denoising autoencoder of Vincent et al. 2008, convolutional.

    Logged: ``train/reconstruction_loss`` (each batch's value), ``val/reconstruction_loss`` and
    ``test/reconstruction_loss`` (means over all images; of corrupted images there, too), and for the latter two
    ``squared_error``, the mean squared error of a pixel from a corrupted image.

    Args:
        image_size: Height and width of the images, a power of two from 8 to 512.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the code.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size, up to 8 times.
        noise_std: Standard deviation of the Gaussian noise, in units of the range from black to white.
        max_rotation: Largest angle by which an image is turned, in degrees; 0 for none.
        max_translation: Largest shift, as a share of the image's size; 0 for none.
        max_scaling: Largest change of the size: factors from 1 − this to 1 + this; 0 for none.
        loss: L: "cross_entropy" of pixels in [0, 1], or "squared_error"; a mean over pixels.
        optimizer: Optimizer of both networks.
    """

    exports = (
        Export("encoder", "embed", ("image",), "embedding"),
        Export("decoder", "decode", ("code",), "image"),
    )

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 64,
        feature_maps: int = 32,
        noise_std: float = 0.3,
        max_rotation: float = 0.0,
        max_translation: float = 0.0,
        max_scaling: float = 0.0,
        loss: Literal["squared_error", "cross_entropy"] = "cross_entropy",
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3),
    ) -> None:
        super().__init__()
        require_at_least(1, latent_dim=latent_dim)
        for name, value, limit in (
            ("noise_std", noise_std, float("inf")),
            ("max_rotation", max_rotation, 90.0),
            ("max_translation", max_translation, 1.0),
            ("max_scaling", max_scaling, 1.0),
        ):
            if not 0 <= value < limit:
                raise ModelError(f"{name} is {value}; it must be at least 0 and less than {limit:g}.")
        self.save_hyperparameters(ignore=["optimizer"])
        self.image_shape = (channels, image_size, image_size)
        self.latent_dim = latent_dim
        self.noise_std = noise_std
        self.max_rotation = max_rotation
        self.max_translation = max_translation
        self.max_scaling = max_scaling
        self.loss = loss
        self.optimizer_callable = optimizer
        self.encoder = Encoder(image_size, channels, latent_dim, feature_maps)
        self.decoder = Decoder(image_size, channels, latent_dim, feature_maps)

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)

    def corrupt(self, image: Tensor) -> Tensor:
        """x̃, of the same shape as the images ``(N, C, H, W)`` in [0, 1], but for the noise of any value."""
        if self.max_rotation or self.max_translation or self.max_scaling:
            scale = (1 - self.max_scaling, 1 + self.max_scaling)
            image = random_affine(image, self.max_rotation, self.max_translation, scale)
        return gaussian_noise(image, self.noise_std, clip=False) if self.noise_std else image

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        loss = self.reconstruction_loss(batch.image)[0]
        if logs_this_batch(self.trainer):
            self.log("train/reconstruction_loss", loss.detach(), prog_bar=True)
        return loss

    def reconstruction_loss(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """L of corrupted images, the mean over all pixels, and the logits of the reconstruction."""
        logits = at_least_float32(self.decoder(self.encoder(self.corrupt(image))))
        if self.loss == "cross_entropy":
            return functional.binary_cross_entropy_with_logits(logits, image), logits
        return functional.mse_loss(logits.sigmoid(), image), logits

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: LabeledImages, stage: str) -> None:
        loss, logits = self.reconstruction_loss(batch.image)
        error = functional.mse_loss(logits.sigmoid(), batch.image)
        self.log_means(stage, {"reconstruction_loss": loss, "squared_error": error}, len(batch.image))

    def configure_optimizers(self) -> Any:
        return self.optimizer_callable(self.parameters())

    def embed(self, image: Tensor) -> Tensor:
        """Codes ``(N, latent_dim)`` of images ``(N, C, H, W)`` in [0, 1]."""
        return at_least_float32(self.encoder(image))

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructions ``(N, C, H, W)`` in [0, 1] of images of the same shape."""
        return self.decode(self.embed(image))

    def decode(self, code: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of codes ``(N, latent_dim)``."""
        return at_least_float32(self.decoder(code)).sigmoid()

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """What the autoencoder makes of images, ``(N, C, H, W)``, corrupted or not: images in [0, 1]."""
        return self.decode(self.embed(image))

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: Path = "lerp") -> Tensor:
        """Decoded codes on the way from the ``start`` images to the ``end`` images, both included.

        Args:
            start: ``(N, C, H, W)`` in [0, 1].
            end: ``(N, C, H, W)`` in [0, 1].
            steps: Images on each way.
            path: "lerp" or "slerp".

        Returns:
            ``(N, steps, C, H, W)`` in [0, 1].
        """
        return decoded_between(self.decode, self.embed(start), self.embed(end), steps, path)

    def predict_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        """Reconstructions of the images as they are."""
        return self.reconstruct(batch.image)
