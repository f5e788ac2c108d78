"""A GAN in the latent space of an autoencoder; the two players are those of Goodfellow et al. 2014, arXiv:1406.2661.

The generator draws no pixels. A small MLP m turns z ~ N(0, I) into a code, and the decoder g of a trained autoencoder
(:mod:`lit_models.autoencoder` or :mod:`lit_models.vae`) turns the code into an image, which a convolutional
discriminator D separates from real ones:

    G(z) = tanh(g(m(z)) / 2),    L_D = −E log σ(D(x)) − E log(1 − σ(D(G(z)))),    L_G = −E log σ(D(G(z)))

with g's output before its sigmoid, so that G(z) is g's image, brought from [0, 1] to [−1, 1]. A plain autoencoder has
no prior to sample its codes from; m learns one. The decoder stays as it is ("frozen") or learns on with m. Optionally a
3x3 convolution, at first the identity, corrects the decoder's logits before the tanh. There is no paper of this very
method. Choices:

1. The discriminator is DCGAN's, on images and not on codes: it has to notice what is wrong in the picture. Its weights
   are from N(0, 0.02²). With batch normalization (the default) it can win, as a frozen decoder can't follow real
   images in every detail; samples then lose their variety. ``spectral_norm``, set in MNIST's configuration, bounds its
   slope instead (Miyato et al. 2018, arXiv:1802.05957).
2. The decoder is frozen by default, and its logits, not its sigmoid's output, are brought to [−1, 1].
3. m has two hidden layers with batch normalization and ReLU, and PyTorch's default initial weights. z is drawn from
   N(0, I); Goodfellow et al. leave its distribution open.
4. The generator's loss is the non-saturating one (Goodfellow et al., section 3).
5. Both players take one step a batch, the generator from the same fakes as the discriminator, unless
   ``fresh_latents`` is set; algorithm 1 of Goodfellow et al. draws z again.
6. Adam with β₁ = 0.5 for both, learning rate 1e-3 for the generator and 2e-4 for the discriminator.
7. Held-out losses go by the batch's statistics, as in training; those of a single image by m's running means.
8. A GAN has no encoder. The ends of its interpolations are the latent vectors whose images come nearest to the test
   images: the best of 1,024 random ones, improved by 100 steps of Adam.
"""

from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, UnconditionalGAN, evaluating
from lit_models.dcgan import Discriminator
from lit_models.errors import ModelError
from lit_models.losses.gan import discriminator_bce, generator_bce
from lit_models.losses.precision import at_least_float32
from lit_models.networks.convolutional import Decoder, require_power_of_two
from lit_models.networks.spectral import spectrally_normalized
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_several_images
from lit_models.support.interpolation import Path, decoded_between
from lit_models.support.pretrained import StartsFromWeights, load_pretrained


class LatentGenerator(nn.Module):
    """From a latent vector through a code to an image.

    Shapes: ``(N, latent_dim)`` to ``(N, channels, image_size, image_size)`` in [−1, 1].

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        latent_dim: Components of the latent vector.
        hidden: Units of the MLP's two hidden layers.
        code_dim: Components of the code.
        feature_maps: Width of the decoder's last hidden layer.
        extra_convolution: Add the 3x3 convolution.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        hidden: int,
        code_dim: int,
        feature_maps: int,
        extra_convolution: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([latent_dim, hidden, hidden]):
            layers += [nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
        self.code = nn.Sequential(*layers, nn.Linear(hidden, code_dim))
        self.decoder = Decoder(image_size, channels, code_dim, feature_maps)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1) if extra_convolution else nn.Identity()
        if isinstance(self.convolution, nn.Conv2d) and self.convolution.bias is not None:
            nn.init.dirac_(self.convolution.weight)
            nn.init.zeros_(self.convolution.bias)

    def forward(self, latent: Tensor) -> Tensor:
        logits = self.convolution(self.decoder(self.code(latent)))
        return (logits / 2).tanh()


class LatentGAN(StartsFromWeights, UnconditionalGAN):
    """A GAN that generates codes for a trained decoder.

    A checkpoint of it holds the decoder: it needs the autoencoder's file no more.

    Args:
        decoder_checkpoint: Checkpoint of the autoencoder: a file, a run's folder, or an experiment's folder, of which
            the newest run is taken. It is read when training starts.
        freeze_decoder: Leave the decoder as it is.
        extra_convolution: Let a 3x3 convolution correct what the decoder draws.
        image_size: Height and width of the images: 16, 32, 64, 128 or 256.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the latent vector z.
        hidden: Units of the two hidden layers between z and code.
        code_dim: Components of the code (the autoencoder's ``latent_dim``).
        feature_maps: Width of the decoder's layer next to the image (the autoencoder's).
        discriminator_feature_maps: Width of the discriminator's layer next to the image.
        spectral_norm: Divide the discriminator's weights by their largest singular value, in place of batch
            normalization.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        decoder_checkpoint: str | None = None,
        freeze_decoder: bool = True,
        extra_convolution: bool = False,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 32,
        hidden: int = 256,
        code_dim: int = 64,
        feature_maps: int = 32,
        discriminator_feature_maps: int = 32,
        spectral_norm: bool = False,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=1e-3, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **training: Any,
    ) -> None:
        require_power_of_two(image_size, 16, 256)
        if decoder_checkpoint is None:
            raise ModelError(
                "LatentGAN generates codes for a trained decoder: name an autoencoder's checkpoint with "
                "--model.decoder_checkpoint."
            )
        generator = LatentGenerator(image_size, channels, latent_dim, hidden, code_dim, feature_maps, extra_convolution)
        if freeze_decoder:
            generator.decoder.requires_grad_(False)
        discriminator = Discriminator(image_size, channels, discriminator_feature_maps, batch_norm=not spectral_norm)
        super().__init__(
            generator,
            spectrally_normalized(discriminator) if spectral_norm else discriminator,
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.decoder_checkpoint = decoder_checkpoint
        self.architecture = {
            "image_size": image_size,
            "channels": channels,
            "code_dim": code_dim,
            "feature_maps": feature_maps,
        }

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("decoder_checkpoint",)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            require_several_images(self)

    def load_starting_weights(self) -> None:
        for generator in (self.generator, self.generator_average):
            if isinstance(generator, LatentGenerator):
                load_pretrained(generator.decoder, "decoder", self.decoder_checkpoint, **self.architecture)

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        return discriminator_bce(self.discriminator(batch.image * 2 - 1), self.discriminator(fake))

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        return generator_bce(self.discriminator(fake))

    def project(self, image: Tensor, candidates: int = 1024, steps: int = 100, lr: float = 0.05) -> Tensor:
        """Latent vectors whose images come near given ones, ``(N, latent_dim)``: a GAN has no encoder.

        The nearest by mean squared error of some images that are generated, then improved by Adam on the latent vector.

        Args:
            image: ``(N, C, H, W)`` in [0, 1].
            candidates: Images that are generated; always the same ones.
            steps: Steps of Adam.
            lr: Learning rate of Adam.
        """
        generator = self.sampling_generator
        drawn = torch.randn(candidates, self.latent_dim, generator=torch.Generator().manual_seed(0))
        drawn = drawn.to(self.device).type(self.dtype)
        # Lightning tests in inference mode, in which nothing can be optimized.
        with torch.inference_mode(False), evaluating(generator):
            target = image.clone() * 2 - 1
            distance = torch.cdist(target.flatten(1), at_least_float32(generator(drawn)).flatten(1))
            latent = drawn[distance.argmin(1)].requires_grad_()
            optimizer = FusedAdam([latent], lr=lr)
            with torch.enable_grad():
                for _ in range(steps):
                    error = (generator(latent) - target).square().flatten(1).mean(1).sum()
                    (latent.grad,) = torch.autograd.grad(error, [latent])
                    optimizer.step()
        return latent.detach()

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: Path = "slerp") -> Tensor:
        """Generated images on the way between what comes nearest to the ``start`` and to the ``end`` images.

        Args:
            start: ``(N, C, H, W)`` in [0, 1].
            end: ``(N, C, H, W)`` in [0, 1].
            steps: Images on each way.
            path: "lerp" or "slerp".

        Returns:
            ``(N, steps, C, H, W)`` in [0, 1].
        """
        generator, ends = self.sampling_generator, (self.project(start), self.project(end))
        with evaluating(generator):
            return decoded_between(lambda latent: (generator(latent) + 1) / 2, *ends, steps, path)
