"""Models and data of which two processes must equal one, for the records in ``tests/methods.py``.

In these models, each image's part of a step depends on nothing but the image, so that it can't matter how a batch is
shared out: they have no batch normalization, and random draws are made from the images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.optim import SGD

from datamodules import (
    Digits,
    EpisodeDataModule,
    FewLabels,
    ImagePair,
    LabeledImages,
    Maps,
    SearchBatch,
    SearchDataModule,
)
from datamodules.loading.samplers import BatchSampler, ClassBalancedBatches
from lit_models import (
    VAE,
    ConditionalGAN,
    DARTSRetrain,
    DARTSSearch,
    DigitClassifier,
    LatentGAN,
    LayerwiseMLP,
    MetricResNet,
    ProtoNet,
    TransferClassifier,
)
from lit_models.adversarial import AdversarialModule
from lit_models.losses.gan import gradient_penalty
from tests.support.pairs import write_maps


def without_batch_norm(model: LightningModule) -> LightningModule:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return model


def gan(kind: type[AdversarialModule], critic_lr: float = 0.05, **arguments: Any) -> LightningModule:
    class Reproducible(kind):  # type: ignore[valid-type, misc]
        def generate(self, batch: LabeledImages) -> Tensor:
            latent = batch.image[:, 0, 8:24:4, 15] * 2 - 1
            return self.generator(latent, batch.label) if kind is ConditionalGAN else self.generator(latent)

    model = without_batch_norm(
        Reproducible(
            image_size=32,
            channels=1,
            latent_dim=4,
            feature_maps=2,
            generator_optimizer=lambda p: SGD(p, lr=0.05),
            discriminator_optimizer=lambda p: SGD(p, lr=critic_lr),
            **arguments,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.2)
    return model


def penalty_between(critic: Any, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty with mixing weights that are made from the images."""
    return gradient_penalty(critic, real, fake, mix=real.flatten(1).mean(1) / 2 + 0.5)


def latent_gan(freeze_decoder: bool) -> LightningModule:
    sizes = {"hidden": 8, "code_dim": 4, "discriminator_feature_maps": 2}
    return gan(LatentGAN, decoder_checkpoint="autoencoder.ckpt", freeze_decoder=freeze_decoder, **sizes)


def vae(lr: float = 0.01, **arguments: Any) -> LightningModule:
    class Reproducible(VAE):
        def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
            return mean + (0.5 * log_variance).exp() * (5 * mean).sin()

    return Reproducible(32, 1, 3, 2, x_sigma2=1e-3, kl_warmup_steps=2, optimizer=sgd(lr), **arguments)


def classifier(**arguments: Any) -> LightningModule:
    sizes = {"encoder_checkpoint": "autoencoder.ckpt", "code_dim": 4, "feature_maps": 2}
    return TransferClassifier(**sizes, **arguments, optimizer=sgd(0.05))


def digit_classifier() -> LightningModule:
    return without_batch_norm(DigitClassifier(widths=[2, 4], optimizer=sgd(0.01)))


def metric_resnet(loss: Any, **arguments: Any) -> LightningModule:
    sizes: dict[str, Any] = {"image_size": 32, "channels": 1, "num_classes": 10, "stem": "7x7", "feature_maps": 2}
    sizes |= {"mean": [0.5], "std": [0.5], "references_per_class": 7, "knn_neighbors": 5, "center_weight": 0.1}
    # Slow steps: without normalization, rounding errors grow where a maximum changes its place.
    return without_batch_norm(MetricResNet(loss=loss, **sizes, **arguments, optimizer=sgd(0.005)))


def protonet() -> LightningModule:
    model = without_batch_norm(ProtoNet(32, feature_maps=4, lr_halving_episodes=4, optimizer=sgd(0.01)))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.3)
    return model


def layerwise_mlp() -> LightningModule:
    phases = {
        "pretrain_epochs": 1,
        "finetune_epochs": 2,
        "pretrain_optimizer": sgd(0.1),
        "finetune_optimizer": sgd(0.1),
    }
    return LayerwiseMLP(32, 1, widths=[12, 8, 6], code_layer=2, dropout=0.0, **phases)


def darts_search(order: Any) -> LightningModule:
    class FixedStatistics(DARTSSearch):
        """Normalizes by the running means, which stay."""

        def training_step(self, batch: SearchBatch, batch_idx: int) -> None:
            self.supernet.eval()
            super().training_step(batch, batch_idx)

    # SGD, because Adam's first steps depend on the signs of gradients more than on their sizes.
    return FixedStatistics(
        16,
        1,
        10,
        2,
        3,
        1,
        order=order,
        arch_optimizer=lambda p: SGD(p, lr=1.0, momentum=0.5),
        eval_statistics="running",
    )


def darts_retrain() -> LightningModule:
    # With fewer channels some are dead from the start, as nothing normalizes them.
    sizes: dict[str, Any] = {"image_size": 32, "channels": 1, "init_channels": 6, "layers": 3, "epochs": 1}
    return without_batch_norm(DARTSRetrain(**sizes, drop_path=0.0, optimizer=sgd(0.01)))


def translator(kind: Any, **arguments: Any) -> LightningModule:
    sizes = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
    optimizers = {f"{player}_optimizer": partial(SGD, lr=0.02) for player in ("generator", "discriminator")}
    model = without_batch_norm(kind(**sizes, **optimizers, **arguments))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return model


def sgd(lr: float) -> Callable[..., SGD]:
    return partial(SGD, lr=lr, momentum=0.5)


# --- small data, of the same global batches --------------------------------------------------------------------------


def digits(root: Path, processes: int, batch_size: int = 16) -> LightningDataModule:
    return Digits(root=str(root), batch_size=batch_size // processes, eval_batch_size=32 // processes)


def few_labels(root: Path, processes: int) -> LightningDataModule:
    return FewLabels(digits(root, 1), count=40, repeats=2)


def episodes(root: Path, processes: int) -> LightningDataModule:
    ways = {"n_way": 5, "k_shot": 1, "n_query": 2, "test_way": 5, "test_query": 2, "val_episodes": 4}
    return EpisodeDataModule(digits(root, 1), episodes_per_batch=2 // processes, train_episodes=8, **ways)


class DoubleDigits(Digits):
    """Images in float64, of every other pixel."""

    image_shape = (1, 16, 16)

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        batch = super().transform(batch, training)
        return batch._replace(image=batch.image[..., ::2, ::2].double())


def halves(root: Path, processes: int) -> LightningDataModule:
    images = DoubleDigits(root=str(root))
    return SearchDataModule(images, batch_size=8 // processes, eval_batch_size=32 // processes)


class Balanced(Digits):
    """Batches of 8 classes x 4 digits."""

    def train_batches(self) -> BatchSampler:
        rank, processes = self._rank_and_world_size()
        return ClassBalancedBatches(self.train_set.column("label"), 8 // processes, 4, 0, rank, processes)


def balanced(root: Path, processes: int) -> LightningDataModule:
    return Balanced(root=str(root), eval_batch_size=32 // processes)


class FixedMaps(Maps):
    """The same window of every pair."""

    def augment(self, batch: ImagePair) -> ImagePair:
        return ImagePair(*(image[..., :32, :32] for image in batch))


def maps(root: Path, processes: int) -> LightningDataModule:
    write_maps(Path("maps"), train=12, val=4)
    return FixedMaps(root=".", image_size=32, batch_size=4 // processes, eval_batch_size=4 // processes)


@dataclass
class Case:
    """A method's model and data, and how much of both."""

    model: Callable[[], LightningModule]
    data: Callable[[Path, int], LightningDataModule] = digits
    batches: int = 4
    tolerance: float = 2e-5
    double: bool = False
    frozen: tuple[str, ...] = ()
    """Names, or their beginnings, of what isn't trained."""
    slow: bool = False
