"""Conditional GAN (Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784) and projection discriminator (Miyato &
Koyama 2018, https://arxiv.org/abs/1802.05637): images of a chosen class.

The generator G(z, y) makes an image of class y. The discriminator D(x, y) decides whether x is real *and* of class y.
The game is that of any GAN under the condition y (Mirza & Osindero, eq. 2).

The class enters the generator at one of two places:

- ``condition: latent``: a learned embedding of the class is joined to z before the decoder, so all layers depend on it;
- ``condition: image``: the decoder makes feature maps of the image's size from z alone. Maps that encode the class are
  joined to them, and two 3x3 convolutions make the image. Joined to the finished image, the class would have no layer
  left to act on.

It enters the discriminator in one of two ways:

- ``discriminator: concat``: maps that encode the class are joined to the image's channels;
- ``discriminator: projection``: ``D(x, y) = ψ(φ(x)) + e_y · φ(x)`` with φ the last feature maps, summed over their
  places, and ψ linear (Miyato & Koyama).

``label_encoding`` chooses the maps:

- ``one_hot``: a constant map per class, 1 for the image's class and 0 for all others;
- ``embedding``: a constant map per component of a learned embedding;
- ``pattern``: a single map with a learned pattern per class, kept for older checkpoints. The discriminator can compare
  an image with the pattern as with a template; the generator then nearly ignores z.

With ``matching_aware``, the discriminator also sees real images under a wrong class y' as fakes (Reed et al. 2016,
https://arxiv.org/abs/1605.05396, GAN-CLS): ``L_D = ½ [L(D(x, y), D(G(z, y), y)) + L(D(x, y), D(x, y'))]``.

Differences from the papers:

1. DCGAN's networks by default, in place of dense ones with maxout and dropout (Mirza & Osindero) or ResNets (Miyato &
   Koyama). φ ends with a LeakyReLU of slope 0.2, not a ReLU. ``architecture: resnet`` has the ResNets, with conditional
   batch normalization in the generator and the projection discriminator; points 3, 10 and 11 are about DCGAN's. They
   differ from the authors' code as SN-GAN's ResNets do (points 3 to 5 of its list).
2. z is normal; Mirza & Osindero draw it from the unit cube. The configurations have 256 or 100 components; the papers
   have 100 and 128.
3. A learned embedding of the class is joined to z. Mirza & Osindero pass z and a one-hot vector through a dense layer
   each; Miyato & Koyama have conditional batch normalization in each block of the generator.
4. The class enters ``concat`` as image-sized maps, with the first convolution. Mirza & Osindero pass it through a
   maxout layer first. Miyato & Koyama, who compare with ``concat``, join a learned and spectrally normalized embedding
   to the feature maps after the third block. Neither paper has ``condition: image``.
5. The fakes are of the classes of the batch's real images. Miyato & Koyama's code draws them uniformly, as
   ``fresh_latents`` does for the generator's step.
6. The generator learns from the fakes of the discriminator's step, unless ``fresh_latents`` is set. Algorithm 1 of
   Goodfellow et al. (2014) and Miyato & Koyama's code draw z again; in the latter the generator takes the first step,
   from up to twice as many fakes as a batch has images.
7. The cross-entropy is in the non-saturating form; eq. 2 of Mirza & Osindero is the saturating one.
8. Adam with learning rate 2e-4, β₁ = 0.5, β₂ = 0.999, constant, and one step of the discriminator per step of the
   generator. Mirza & Osindero use SGD with momentum and a falling learning rate; Miyato & Koyama use β₁ = 0, β₂ = 0.9,
   a linear decay, and five steps of the discriminator.
9. Spectral normalization and the hinge loss are options of the projection discriminator; Miyato & Koyama always have
   both. ``conditional_gan_mnist_projection.yaml`` has batch normalization and the cross-entropy.
10. Spectral normalization of ``concat`` covers the convolutions but not a learned embedding that becomes maps: the
    bound is on the slopes toward the image. The projection's embedding is normalized, as in the authors' code.
11. Initial weights from N(0, 0.02²) (DCGAN). The projection's embedding alone is Glorot's, as all layers are in Miyato
    & Koyama's code.
12. With ``ema_decay``, an average of the generator's weights makes the samples. Also optional: clipped gradients,
    schedules, differentiable augmentation.
13. MNIST at 32x32 in batches of 64, for 15 epochs, of which the one with the lowest validation FID is tested. Mirza &
    Osindero have 28x28 in batches of 100 and choose by the likelihood of validation images; Miyato & Koyama's main
    experiments are on ImageNet at 128x128, for 450,000 steps of the generator.
14. Scores are FID, KID, Inception Score and the share of images that a classifier assigns to the class asked for. Mirza
    & Osindero report the log-likelihood of a Parzen window, Miyato & Koyama also the FID within each class.
15. The configurations for MNIST with ``concat`` set ``matching_aware``, which is for images of texts in Reed et al.;
    here, a wrong class is any other one with equal probability.
16. Left out: Mirza & Osindero's tags of photographs (section 4.2), and Miyato & Koyama's super-resolution.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules import LabeledImages, SampleRequest
from lit_models.adversarial import OPTIMIZER_ARGUMENTS, AdversarialModule, evaluating
from lit_models.dcgan import Discriminator, Generator, downsampling, layer_widths
from lit_models.errors import ModelError
from lit_models.losses.gan import discriminator_bce, discriminator_hinge, generator_bce, generator_linear
from lit_models.losses.precision import at_least_float32
from lit_models.module import Export
from lit_models.networks.convolutional import require_power_of_two
from lit_models.networks.initialization import initialize
from lit_models.networks.label_maps import LabelEncoding, label_maps
from lit_models.networks.resnet_gan import ResidualDiscriminator, ResidualGenerator, require_layout
from lit_models.networks.spectral import spectrally_normalized
from lit_models.optimizers import FusedAdam
from lit_models.support.checks import require_at_least, require_image_shape, require_labels, require_num_classes
from lit_models.support.classes import NamedClasses, labels_of_samples


class LatentConditionedGenerator(nn.Module):
    """DCGAN's generator of the latent vector and the class's embedding.

    Shapes: ``(N, latent_dim)`` and ``(N,)`` int64 to ``(N, channels, image_size, image_size)`` in [−1, 1].
    """

    def __init__(
        self, image_size: int, channels: int, latent_dim: int, feature_maps: int, num_classes: int, embedding_dim: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embedding_dim)
        self.decoder = Generator(image_size, channels, latent_dim + embedding_dim, feature_maps)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        return self.decoder(torch.cat([latent, self.embedding(label)], dim=1))


class ImageConditionedGenerator(nn.Module):
    """DCGAN's generator makes ``feature_maps / 2`` maps of the latent vector; they and the label's make the image.

    Shapes: ``(N, latent_dim)`` and ``(N,)`` int64 to ``(N, channels, image_size, image_size)`` in [−1, 1].
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        feature_maps: int,
        num_classes: int,
        embedding_dim: int,
        label_encoding: LabelEncoding,
    ) -> None:
        super().__init__()
        width = max(feature_maps // 2, 1)
        self.decoder = Generator(image_size, width, latent_dim, feature_maps)
        self.label_channel, maps = label_maps(label_encoding, num_classes, image_size, embedding_dim)
        self.painter = nn.Sequential(
            nn.Conv2d(width + maps, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        ).apply(initialize)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        return self.painter(torch.cat([self.decoder(latent), self.label_channel(label)], dim=1))


class ConcatDiscriminator(nn.Module):
    """DCGAN's discriminator of the image and the label's maps.

    Shapes: ``(N, channels, image_size, image_size)`` and ``(N,)`` int64 to ``(N,)``.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        feature_maps: int,
        num_classes: int,
        embedding_dim: int,
        label_encoding: LabelEncoding,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        self.label_channel, maps = label_maps(label_encoding, num_classes, image_size, embedding_dim)
        body = Discriminator(image_size, channels + maps, feature_maps, batch_norm=not spectral_norm)
        self.body = spectrally_normalized(body) if spectral_norm else body

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return self.body(torch.cat([image, self.label_channel(label)], dim=1))


class ProjectionDiscriminator(nn.Module):
    """``ψ(φ(x)) + e_y · φ(x)`` on the features φ of DCGAN's discriminator (Miyato & Koyama 2018).

    Shapes: ``(N, channels, image_size, image_size)`` and ``(N,)`` int64 to ``(N,)`` float32.
    """

    def __init__(
        self, image_size: int, channels: int, feature_maps: int, num_classes: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        width = layer_widths(image_size, feature_maps)[-1]
        self.features = nn.Sequential(*downsampling(image_size, channels, feature_maps, batch_norm=not spectral_norm))
        self.unconditional = nn.Linear(width, 1)
        self.embedding = nn.Embedding(num_classes, width)
        self.apply(initialize)
        nn.init.xavier_uniform_(self.embedding.weight)
        if spectral_norm:
            spectrally_normalized(self)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        feature = at_least_float32(self.features(image)).sum((2, 3))
        return at_least_float32(self.unconditional(feature)[:, 0]) + (self.embedding(label) * feature).sum(1)


class ConditionalGAN(NamedClasses, AdversarialModule):
    """The conditional GAN, by default on DCGAN's networks.

    Args:
        image_size: Height and width of the images: 16, 32, 64, 128 or 256 with ``dcgan``; 32, 48, 64 or 128 with
            ``resnet``.
        channels: Channels of the images: 1 for gray, 3 for color.
        num_classes: Classes of the images.
        latent_dim: Components of the latent vector (100 in Mirza & Osindero).
        embedding_dim: Components of the classes' embeddings: those joined to z, and those that become maps with
            ``label_encoding: embedding``. The projection discriminator's have as many as its features.
        feature_maps: Width of the layers next to the image; doubled at each halving of the size. The ResNets for 32
            pixels have four times this width throughout the generator, twice in the discriminator.
        architecture: "dcgan" for DCGAN's networks, "resnet" for Miyato & Koyama's: the class enters the generator by
            conditional batch normalization, and ``discriminator`` must be "projection".
        condition: Where the class enters the generator: "latent" or "image".
        discriminator: How the class enters the discriminator: "concat" or "projection".
        label_encoding: The maps that stand for a class next to an image: "one_hot", "embedding", or "pattern" as in
            checkpoints that were written before this argument existed.
        spectral_norm: Divide the discriminator's weights by their largest singular value, in place of its batch
            normalization.
        loss: "bce", the cross-entropy (in the generator's non-saturating form), or "hinge".
        matching_aware: Show the discriminator real images under a wrong class as fakes, too: more images are of the
            class asked for.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        **training: Arguments of :class:`lit_models.adversarial.AdversarialModule`.
    """

    exports = (Export("generator", "images_of", ("latent", "label"), "image"),)
    older_arguments: ClassVar = {"label_encoding": "pattern"}
    """Values of arguments that older checkpoints lack."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int = 10,
        latent_dim: int = 100,
        embedding_dim: int = 20,
        feature_maps: int = 64,
        architecture: Literal["dcgan", "resnet"] = "dcgan",
        condition: Literal["latent", "image"] = "latent",
        discriminator: Literal["concat", "projection"] = "concat",
        label_encoding: LabelEncoding = "one_hot",
        spectral_norm: bool = False,
        loss: Literal["bce", "hinge"] = "bce",
        matching_aware: bool = False,
        generator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        discriminator_optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4, beta1=0.5),
        **training: Any,
    ) -> None:
        require_at_least(1, num_classes=num_classes, embedding_dim=embedding_dim)
        if matching_aware and num_classes < 2:
            raise ModelError("matching_aware needs wrong classes, but num_classes is 1: set matching_aware to false.")
        generator: nn.Module
        if architecture == "resnet":
            if discriminator != "projection" or condition != "latent":
                raise ModelError(
                    "architecture resnet has its own place for the class: set discriminator to projection, and leave "
                    "condition at latent."
                )
            layout = require_layout(image_size, feature_maps)
            generator = ResidualGenerator(image_size, channels, latent_dim, layout.generator, num_classes)
        elif condition == "latent":
            require_power_of_two(image_size, 16, 256)
            generator = LatentConditionedGenerator(
                image_size, channels, latent_dim, feature_maps, num_classes, embedding_dim
            )
        else:
            require_power_of_two(image_size, 16, 256)
            generator = ImageConditionedGenerator(
                image_size, channels, latent_dim, feature_maps, num_classes, embedding_dim, label_encoding
            )
        critic: nn.Module
        if architecture == "resnet":
            critic = ResidualDiscriminator(
                channels, layout.discriminator, layout.halvings, pooling="sum", num_classes=num_classes
            )
            critic = spectrally_normalized(critic) if spectral_norm else critic
        elif discriminator == "projection":
            critic = ProjectionDiscriminator(image_size, channels, feature_maps, num_classes, spectral_norm)
        else:
            critic = ConcatDiscriminator(
                image_size, channels, feature_maps, num_classes, embedding_dim, label_encoding, spectral_norm
            )
        super().__init__(
            generator,
            critic,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **training,
        )
        self.save_hyperparameters(ignore=OPTIMIZER_ARGUMENTS)
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes
        self.latent_dim = latent_dim
        self.loss = loss
        self.matching_aware = matching_aware

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        theirs = {**self.older_arguments, **checkpoint["hyper_parameters"]}["label_encoding"]
        if theirs == "pattern" != self.hparams["label_encoding"]:
            # The settings lack the argument, as the checkpoint does, or are newer than the checkpoint.
            older = type(self)(**{**self.hparams, "label_encoding": theirs})
            self.hparams["label_encoding"] = theirs
            self.generator, self.discriminator = older.generator, older.discriminator
            self.generator_average = older.generator_average

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)
        require_num_classes(self, self.num_classes)
        require_labels(self)
        self.take_class_names()

    def generate(self, batch: LabeledImages) -> Tensor:
        return self.generator(torch.randn(len(batch.image), self.latent_dim, device=self.device), batch.label)

    def redrawn(self, batch: LabeledImages) -> LabeledImages:
        return batch._replace(label=torch.randint_like(batch.label, self.num_classes))

    def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        loss = discriminator_hinge if self.loss == "hinge" else discriminator_bce
        image, label = batch.image * 2 - 1, batch.label
        real = self.discriminator(image, label)
        game = loss(real, self.discriminator(fake, label))
        if not self.matching_aware:
            return game
        wrong = (label + torch.randint_like(label, 1, self.num_classes)) % self.num_classes
        return (game + loss(real, self.discriminator(image, wrong))) / 2

    def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
        fake = self.discriminator(fake, batch.label)
        return generator_linear(fake) if self.loss == "hinge" else generator_bce(fake)

    def sample(
        self,
        n: int,
        labels: Tensor | Sequence[int] | int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images, in evaluation mode, with the averaged generator if there is one.

        Args:
            n: How many.
            labels: One class for all images, or n classes; if None, 0, 1, …, num_classes − 1, 0, 1, …
            generator: Random generator on the CPU, for the same images on every device; the global one if None.

        Returns:
            ``(n, C, H, W)`` in [0, 1], on the module's device.

        Raises:
            ModelError: The labels are no integers, not n, or hold a number that is no class.
        """
        labels = labels_of_samples(n, labels, self.num_classes)
        latent = torch.randn(n, self.latent_dim, generator=generator).to(self.device).type(self.dtype)
        with evaluating(self.sampling_generator):
            return self.images_of(latent, labels.to(self.device))

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of latent vectors ``(N, latent_dim)`` and classes ``(N,)``."""
        return self.images_of(latent, label)

    def images_of(self, latent: Tensor, label: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [0, 1] of latent vectors ``(N, latent_dim)`` and classes ``(N,)``, by the averaged
        generator if there is one."""
        return (self.sampling_generator(latent, label) + 1) / 2

    def predict_step(self, request: SampleRequest, batch_idx: int) -> Tensor:
        labels = request.number % self.num_classes if request.labels is None else request.labels
        return self.sample(len(labels), labels, request.generator())
