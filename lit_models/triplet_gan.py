"""Siamese-triplet GAN: the discriminator is an embedding network f that is trained by a triplet loss.

Of two real images x and y and a generated one G(z),

    L_D = E[max(0, ‖f(x) − f(y)‖² − ‖f(x) − f(G(z))‖² + α)]
    L_G = E[‖f(x) − f(G(z))‖²]

f draws real images together and pushes generated ones away, by the margin α of the triplet loss (Schroff et al. 2015,
https://arxiv.org/abs/1503.03832); the generator makes images that f embeds where the real ones are. The three branches
share f's weights, hence "siamese". There is no paper of this very method. Choices:

1. Each real image of a batch is anchor once and positive once: y is the image half a batch further on, and each anchor
   gets a separate fake. So f sees N real and N fake images for N triplets.
2. ``hinge: false`` leaves the max out of L_D, which then has no minimum: f may push fakes away for ever, only its own
   Lipschitz constant sets a limit.
3. f has spectral normalization (Miyato et al. 2018) in place of batch normalization. Without, it could keep any margin
   by making all its distances larger.
4. ``generator_objective: norm`` and ``negative_norm`` are L_G = ±E[‖f(G(z))‖²], which know nothing of where real images
   are embedded: the one draws fakes to the origin, the other away from it.
5. Distances are squared, and embeddings are not brought to length 1 as FaceNet's are; no triplets are mined.
6. The generator learns from the same fakes as f has just learned from, unless ``fresh_latents`` is set, and sees the
   updated f.
7. The networks are DCGAN's, with f's logit replaced by ``embedding_dim`` outputs; weights are drawn from N(0, 0.02²),
   and both players' optimizer is Adam with learning rate 2e-4 and β₁ = 0.5.
8. z is drawn from N(0, I).

What is known: as z and x are independent, L_G = ‖E f(x) − f(G(z))‖² + const. The generator is drawn to one point, the
mean of the real embeddings, not to their distribution. That makes for variety only as long as f sees no variety either,
that is, if it draws all real images to nearly one point: then it is a classifier of real and fake, whose "real" is that
point and which has a least-squares loss.

With the hinge and L_G the distance it trains, slowly at first, and draws varied digits. Without the hinge it does so
later, and less varied ones; with either norm it collapses to one image (MNIST, ``feature_maps: 32``, 15 epochs, one run
each: docs/methods/triplet_gan.md).
"""

from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, UnconditionalGAN
from lit_models.dcgan import Generator, downsampling, layer_widths
from lit_models.errors import ModelError
from lit_models.losses.triplet_gan import (
    discriminator_triplet,
    generator_distance,
    generator_norm,
    squared_distance,
)
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.initialization import initialize
from lit_models.networks.spectral import spectrally_normalized
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least


class EmbeddingNetwork(nn.Sequential):
    """DCGAN's discriminator with ``embedding_dim`` outputs in place of one logit.

    Shapes: ``(N, channels, image_size, image_size)`` in [−1, 1] to ``(N, embedding_dim)``.
    """

    def __init__(
        self, image_size: int, channels: int, feature_maps: int, embedding_dim: int, spectral_norm: bool
    ) -> None:
        super().__init__(
            *downsampling(image_size, channels, feature_maps, batch_norm=not spectral_norm),
            nn.Conv2d(layer_widths(image_size, feature_maps)[-1], embedding_dim, 4),
            nn.Flatten(),
        )
        self.apply(initialize)
        if spectral_norm:
            spectrally_normalized(self)


class TripletGAN(UnconditionalGAN):
    """The siamese-triplet GAN on DCGAN's networks.

    Also logged: ``train/real_distance``, the mean of ‖f(x) − f(y)‖², and ``train/fake_distance``, of
    ‖f(x) − f(G(z))‖². The same below ``val/`` and ``test/``.

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256.
        channels: Channels of the images: 1 for gray, 3 for color.
        latent_dim: Components of the latent vector.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size.
        embedding_dim: Components of the embeddings f(x).
        margin: α, by how much real images shall be nearer to each other than to generated ones.
        hinge: Whether triplets that keep the margin are left alone.
        spectral_norm: Divide f's weights by their largest singular value, in place of batch normalization.
        generator_objective: "distance" for ‖f(x) − f(G(z))‖², "norm" for ‖f(G(z))‖², "negative_norm" for −‖f(G(z))‖².
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of f.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        latent_dim: int = 100,
        feature_maps: int = 64,
        embedding_dim: int = 64,
        margin: float = 1.0,
        hinge: bool = True,
        spectral_norm: bool = True,
        generator_objective: Literal["distance", "norm", "negative_norm"] = "distance",
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **training: Any,
    ) -> None:
        require_power_of_two(image_size, 16, 256)
        require_at_least(1, embedding_dim=embedding_dim)
        if margin < 0:
            raise ModelError(f"margin is {margin}; it must not be negative.")
        super().__init__(
            Generator(image_size, channels, latent_dim, feature_maps),
            EmbeddingNetwork(image_size, channels, feature_maps, embedding_dim, spectral_norm),
            image_shape=(channels, image_size, image_size),
            latent_dim=latent_dim,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.margin = margin
        self.hinge = hinge
        self.generator_objective = generator_objective

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> dict[str, Tensor]:
        real, negative = self.discriminator(batch.image * 2 - 1), self.discriminator(fake)
        positive = real.roll(len(real) // 2, dims=0)
        return {
            "loss": discriminator_triplet(real, positive, negative, self.margin, self.hinge),
            "real_distance": squared_distance(real, positive).mean(),
            "fake_distance": squared_distance(real, negative).mean(),
        }

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        negative = self.discriminator(fake)
        if self.generator_objective == "distance":
            return generator_distance(self.discriminator(batch.image * 2 - 1), negative)
        return generator_norm(negative) * (1 if self.generator_objective == "norm" else -1)
