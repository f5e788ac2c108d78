"""One record per method: small models, data, configurations and expectations for the proofs that all methods share.

`scripts/benchmark.py scale` and `scripts/analyses/gpu_check.py` go by these records, too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import lit_models
from lit_models.losses.triplet import MININGS
from tests.support import two_ranks
from tests.support.two_ranks import Case, gan, sgd

Settings = dict[str, Any]
Arguments = tuple[str, ...]
Batch = Literal["labeled images", "folded images", "pairs", "episodes", "halves"]


@dataclass(frozen=True)
class Scale:
    """How `scripts/benchmark.py scale` runs a method.

    Attributes:
        config: The published configuration.
        small: Arguments for networks of which a batch takes a processor less than about half a second.
        wrapper: The data module that wraps the images, if one does.
        pairs: Whether it learns from pairs of images.
    """

    config: str
    small: Arguments = ()
    wrapper: str | None = None
    pairs: bool = False


@dataclass(frozen=True)
class Method:
    """A method under test.

    Attributes:
        page: Its page, `docs/methods/<page>.md`.
        small: Arguments of a tiny model.
        runs: Configurations, each with what makes it small.
        networks: A pass through all its networks, for two images.
        others: Further tiny models, by a title: what differs from the first.
        paths: Further paths through the code, which only some proofs take.
        batch: What it learns from.
        inputs: What its `forward` takes.
        epochs: Its own arguments that fix how long it trains, the last of which is free; the trainer's if empty.
        starts_from: The argument that names an autoencoder's checkpoint.
        unmoved: By a title, "" for all: parameters whose gradient is zero by construction, but for rounding.
        scale: For the benchmark of several processes.
        ranks: By a title: models and data of which two processes must equal one.
        loss: The loss of a training batch, computed another way; None where the method's own tests do that.
    """

    page: str
    small: Settings
    runs: tuple[Arguments, ...]
    networks: Callable[[Any], Tensor]
    scale: Scale
    ranks: dict[str, Case]
    others: dict[str, Settings] = field(default_factory=dict)
    paths: dict[str, Settings] = field(default_factory=dict)
    batch: Batch = "labeled images"
    inputs: tuple[str, ...] = ("image",)
    epochs: tuple[str, ...] = ()
    starts_from: str | None = None
    unmoved: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loss: Callable[[Any, Any], Tensor] | None = None

    def length(self, epochs: int) -> Settings:
        """The method's own arguments for so many epochs, of each earlier phase one."""
        return {name: epochs if name == self.epochs[-1] else 1 for name in self.epochs}


class Model(NamedTuple):
    """A tiny model of a method."""

    method: str
    arguments: Settings

    @property
    def record(self) -> Method:
        """Its method's."""
        return METHODS[self.method]


# --- passes through the networks of a model, of two images ------------------------------------------------------------


def translated(model: Any) -> Tensor:
    """Both networks of pix2pix, or all four of CycleGAN."""
    image = torch.rand(2, *model.image_shape)
    if isinstance(model.generator, nn.ModuleDict):
        made = [generator(image) for generator in model.generator.values()]
        judged = zip(model.discriminator.values(), made, strict=True)
        return torch.stack([discriminator(fake).mean() for discriminator, fake in judged])
    fake = model.generator(image)
    return model.discriminator(torch.cat((image, fake), 1) if model.conditional else fake)


def generated(model: Any) -> Tensor:
    """An unconditional GAN's networks."""
    return model.discriminator(model.generator(torch.randn(2, model.latent_dim)))


def generated_by_label(model: Any) -> Tensor:
    """A conditional GAN's networks."""
    label = torch.arange(2)
    return model.discriminator(model.generator(torch.randn(2, model.latent_dim), label), label)


def autoencoded(model: Any) -> Tensor:
    """An encoder and its decoder."""
    code = model.encoder(torch.rand(2, *model.image_shape))
    return model.decoder(code[0] if isinstance(code, tuple) else code)


def classified(model: Any) -> Tensor:
    """A network that takes an image. In training mode, so that its forward pass is that of a training step."""
    return model(torch.rand(2, *model.image_shape))


def retrained(model: Any) -> Tensor:
    """DARTS's network with its auxiliary classifier."""
    logits, auxiliary = model.network(torch.rand(2, *model.image_shape))
    return logits + auxiliary


# --- losses, image by image -------------------------------------------------------------------------------------------


def cross_entropy(model: Any, batch: Any) -> Tensor:
    """The mean over images of the cross-entropy to targets of which all classes share a part, the label smoothing."""
    losses = []
    for logits, label in zip(model(batch.image), batch.label, strict=True):
        probability = logits.exp() / logits.exp().sum()
        shared, own = model.label_smoothing / len(logits), 1 - model.label_smoothing
        target = [shared + own * (place == label) for place in range(len(logits))]
        losses.append(-sum(share * p.log() for share, p in zip(target, probability, strict=True)))
    return torch.stack(losses).mean()


# --- the records ------------------------------------------------------------------------------------------------------

GAN: Settings = {"image_size": 16, "channels": 1, "latent_dim": 4, "feature_maps": 2}
TRANSLATOR: Settings = {"channels": 1, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
CLASSES: Settings = {"image_size": 16, "channels": 1, "num_classes": 3}
NO_CALLBACKS = "--trainer.callbacks=null"
SCORES = (
    '--trainer.callbacks=[{"class_path": "GenerationScores", "init_args": {"test_count": 20, "count": 20, '
    '"real_count": 20}}]'
)
NARROW_DIGITS = ("--data=Digits", "--model.feature_maps=2")
NARROW = ("--model.feature_maps=16",)
SMALL_PAIRS = (
    *("--model.image_size=64", "--data.image_size=64", "--model.patch_size=34"),
    *("--model.feature_maps=8", "--model.discriminator_feature_maps=8"),
)
TRANSLATION_RUN = (
    *("--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
    *("--trainer.callbacks=[TranslationScores]", "--trainer.check_val_every_n_epoch=1"),
)
PENALTY: Settings = {"clip_value": None, "gradient_penalty_weight": 10.0}

METHODS: dict[str, Method] = {
    "DCGAN": Method(
        "dcgan",
        GAN,
        (("dcgan_digits", "--model.feature_maps=2", NO_CALLBACKS),),
        generated,
        Scale("dcgan_mnist", NARROW),
        {
            "": Case(partial(gan, lit_models.DCGAN)),
            "n_critic 2": Case(partial(gan, lit_models.DCGAN, n_critic=2)),
        },
        others={"averaged": {"ema_decay": 0.9}},
        paths={
            "R1 and augmentations": {
                "r1_weight": 1.0,
                "label_noise": 0.1,
                "augmentations": ["color", "translation", "cutout"],
            }
        },
        inputs=("latent",),
    ),
    "SNGAN": Method(
        "sngan",
        GAN,
        (("sngan_mnist", *NARROW_DIGITS, NO_CALLBACKS),),
        generated,
        Scale("sngan_mnist", NARROW),
        {"": Case(partial(gan, lit_models.SNGAN, loss="hinge", ema_decay=0.5))},
        others={
            "cnn": {"architecture": "cnn"},
            "resnet": {"image_size": 32, "feature_maps": 1, "architecture": "resnet"},
        },
        paths={
            "fresh latents": {"fresh_latents": True, "gradient_clip_norm": 1.0},
            **{
                f"{architecture} by {loss}": {"architecture": architecture, "loss": loss, "image_size": 32}
                for architecture in ("dcgan", "cnn", "resnet")
                for loss in ("bce", "hinge")
            },
        },
        inputs=("latent",),
    ),
    "WGAN": Method(
        "wgan",
        GAN,
        (("wgan_gp_digits", "--model.feature_maps=2", "--model.n_critic=1", NO_CALLBACKS),),
        generated,
        Scale("wgan_gp_mnist", NARROW),
        {
            "": Case(partial(gan, lit_models.WGAN, clip_value=0.3, n_critic=2)),
            # A critic's steps of 0.05 on large random weights diverge, which magnifies rounding errors.
            "gradient penalty": Case(partial(gan, lit_models.WGAN, **PENALTY, n_critic=2, critic_lr=0.002)),
            "gradient penalty and spectral norm": Case(
                partial(gan, lit_models.WGAN, **PENALTY, spectral_norm=True, n_critic=1)
            ),
        },
        paths={
            "gradient penalty": PENALTY,
            "spectral norm": {"clip_value": None, "spectral_norm": True},
            "spectral norm and clipping": {"spectral_norm": True},
            "gradient penalty and spectral norm": {**PENALTY, "spectral_norm": True},
            "ResNet": {**PENALTY, "architecture": "resnet", "image_size": 32},
        },
        inputs=("latent",),
    ),
    "TripletGAN": Method(
        "triplet_gan",
        {**GAN, "embedding_dim": 4},
        (("triplet_gan_mnist", *NARROW_DIGITS, NO_CALLBACKS),),
        generated,
        Scale("triplet_gan_mnist", NARROW),
        {"": Case(partial(gan, lit_models.TripletGAN))},
        paths={
            f"{objective}{', batch norm' if not spectral_norm else ''}": {
                "generator_objective": objective,
                "spectral_norm": spectral_norm,
                "hinge": objective != "norm",
            }
            for objective in ("distance", "norm", "negative_norm")
            for spectral_norm in (True, False)
            if (objective, spectral_norm) != ("distance", True)  # the default
        },
        inputs=("latent",),
    ),
    "LatentGAN": Method(
        "latent_gan",
        {**GAN, "hidden": 8, "code_dim": 4, "extra_convolution": True},
        (("latent_gan_mnist", "--data=Digits", NO_CALLBACKS),),
        generated,
        Scale("latent_gan_mnist"),
        {
            "": Case(partial(two_ranks.latent_gan, freeze_decoder=True), frozen=("generator.decoder",)),
            "decoder learns": Case(partial(two_ranks.latent_gan, freeze_decoder=False)),
        },
        paths={"decoder learns": {"freeze_decoder": False}, "spectral norm": {"spectral_norm": True}},
        inputs=("latent",),
        starts_from="decoder_checkpoint",
    ),
    "ConditionalGAN": Method(
        "conditional_gan",
        {**GAN, "num_classes": 3, "embedding_dim": 4, "ema_decay": 0.9},
        (("conditional_gan_mnist", *NARROW_DIGITS, SCORES),),
        generated_by_label,
        Scale("conditional_gan_mnist", NARROW),
        {
            "concat": Case(partial(gan, lit_models.ConditionalGAN, condition="image")),
            "projection": Case(
                partial(gan, lit_models.ConditionalGAN, discriminator="projection", spectral_norm=True, critic_lr=0.01)
            ),
        },
        others={"image": {"ema_decay": None, "condition": "image", "discriminator": "projection"}},
        paths={
            "fresh latents": {"fresh_latents": True},
            "patterns": {"label_encoding": "pattern"},
            "one-hot at the image": {"condition": "image", "label_encoding": "one_hot"},
            "embeddings at the image": {
                "condition": "image",
                "label_encoding": "embedding",
                "spectral_norm": True,
                "loss": "hinge",
            },
            "projection by hinge": {"discriminator": "projection", "spectral_norm": True, "loss": "hinge"},
        },
        inputs=("latent", "label"),
    ),
    "Pix2Pix": Method(
        "pix2pix",
        {**TRANSLATOR, "image_size": 32},
        (("pix2pix_maps_64", *TRANSLATION_RUN),),
        translated,
        Scale("pix2pix_maps", SMALL_PAIRS, pairs=True),
        {
            "": Case(partial(two_ranks.translator, lit_models.Pix2Pix, dropout=0.0), two_ranks.maps, 3),
            "plain GAN": Case(
                partial(
                    *(two_ranks.translator, lit_models.Pix2Pix),
                    dropout=0.0,
                    conditional=False,
                    lambda_l1=0.0,
                    loss="lsgan",
                ),
                two_ranks.maps,
                3,
            ),
        },
        others={"resnet": {"generator": "resnet", "blocks": 1}},
        paths={"LSGAN": {"loss": "lsgan", "conditional": False}, "averaged": {"ema_decay": 0.9}},
        batch="pairs",
    ),
    "CycleGAN": Method(
        "cycle_gan",
        {**TRANSLATOR, "image_size": 16, "blocks": 1},
        (("cyclegan_maps_64", *TRANSLATION_RUN, "--model.buffer_size=3"),),
        translated,
        Scale("cyclegan_maps", (*SMALL_PAIRS, "--model.blocks=3"), pairs=True),
        # Each rank has a separate buffer of generated images; they aren't full by then.
        {"": Case(partial(two_ranks.translator, lit_models.CycleGAN, blocks=1), two_ranks.maps, 3, 1e-9, double=True)},
        paths={"averaged": {"ema_decay": 0.9}},
        batch="pairs",
    ),
    "VAE": Method(
        "vae",
        GAN,
        (
            ("vae_digits", "--model.feature_maps=2", "--model.importance_samples=2", NO_CALLBACKS),
            ("vae_mnist", *NARROW_DIGITS, "--model.importance_samples=2", "--trainer.callbacks=[HistogramBaseline]"),
        ),
        autoencoded,
        Scale("vae_mnist"),
        {
            "": Case(two_ranks.vae),
            "optimal variance": Case(partial(two_ranks.vae, lr=0.001, variance="optimal")),
        },
        paths={
            "Bernoulli": {"likelihood": "bernoulli", "kl_warmup_steps": 5, "importance_samples": 2},
            "learned variance": {"variance": "learned"},
            "optimal variance": {"variance": "optimal"},
        },
    ),
    "DenoisingAutoencoder": Method(
        "autoencoder",
        GAN,
        (("autoencoder_digits", "--model.feature_maps=2", NO_CALLBACKS),),
        autoencoded,
        Scale("autoencoder_mnist"),
        {"": Case(lambda: lit_models.DenoisingAutoencoder(32, 1, 4, 2, noise_std=0.0, optimizer=sgd(0.5)))},
        paths={
            "all corruptions": {
                "max_rotation": 10.0,
                "max_translation": 0.1,
                "max_scaling": 0.1,
                "loss": "cross_entropy",
            }
        },
    ),
    "DigitClassifier": Method(
        "digit_classifier",
        {**CLASSES, "widths": [2, 3], "label_smoothing": 0.1},
        (("digit_classifier_mnist", "--data=Digits", "--model.widths=[2,2]", NO_CALLBACKS),),
        classified,
        Scale("digit_classifier_mnist"),
        {"": Case(two_ranks.digit_classifier)},
        loss=cross_entropy,
    ),
    "TransferClassifier": Method(
        "autoencoder",
        {**CLASSES, "code_dim": 4, "feature_maps": 2, "folds": 2, "head": "mlp"},
        (("transfer_mnist_linear_frozen", "--data.images=Digits", NO_CALLBACKS),),
        classified,
        Scale("transfer_mnist_mlp_finetuned", wrapper="FewLabels"),
        {
            "": Case(partial(two_ranks.classifier, freeze_encoder=False), two_ranks.few_labels),
            "frozen": Case(
                partial(two_ranks.classifier, freeze_encoder=True), two_ranks.few_labels, frozen=("encoders",)
            ),
        },
        paths={"encoder learns": {"freeze_encoder": False}},
        batch="folded images",
        starts_from="encoder_checkpoint",
    ),
    "LayerwiseMLP": Method(
        "layerwise_mlp",
        {**CLASSES, "widths": [8, 4], "code_layer": 1},
        (("layerwise_mlp_digits", "--model.widths=[4,4]", "--model.code_layer=1", NO_CALLBACKS),),
        classified,
        Scale("layerwise_mlp_cifar10"),
        {"": Case(two_ranks.layerwise_mlp, partial(two_ranks.digits, batch_size=128))},
        paths={"fine-tuning": {"pretrain_epochs": 0, "contrast_normalization": True}},
        epochs=("pretrain_epochs", "finetune_epochs"),
    ),
    "MetricResNet": Method(
        "metric_resnet",
        {**CLASSES, "channels": 3, "feature_maps": 2, "loss": "center", "embedding_dim": 4},
        tuple(
            ("resnet18_digits", f"--model.loss={loss}", "--model.feature_maps=8", NO_CALLBACKS)
            for loss in ("cross_entropy", "center", "triplet")
        ),
        classified,
        Scale("resnet18_tiny_imagenet", NARROW),
        {
            "cross-entropy": Case(partial(two_ranks.metric_resnet, "cross_entropy"), two_ranks.balanced, 3),
            "center": Case(partial(two_ranks.metric_resnet, "center"), two_ranks.balanced, 3),
            "center by sgd": Case(
                partial(two_ranks.metric_resnet, "center", center_rule="sgd", center_rate=5.0), two_ranks.balanced, 3
            ),
            "triplet": Case(partial(two_ranks.metric_resnet, "triplet"), two_ranks.balanced, 3),
        },
        others={"triplet": {"loss": "triplet", "embedding_dim": None}},
        paths={
            "cross-entropy": {"loss": "cross_entropy", "label_smoothing": 0.1},
            "centers by SGD": {"center_rule": "sgd"},
            "triplet of projections": {"loss": "triplet"},
            **{mining: {"loss": "triplet", "mining": mining, "unit_length": True} for mining in MININGS},
        },
        # What is added to all embeddings alike changes no distance.
        unmoved={"triplet of projections": ("projection.bias",)},
    ),
    "ProtoNet": Method(
        "protonet",
        {"image_size": 16, "feature_maps": 2},
        (
            (
                *("protonet_omniglot_5way1shot", "--model.feature_maps=2", "--data.n_way=5"),
                *("--model.lr_halving_episodes=3", "--data.test_episodes=4", NO_CALLBACKS),
            ),
        ),
        classified,
        Scale("protonet_omniglot_5way1shot", (*NARROW, "--data.n_way=20"), "EpisodeDataModule"),
        {"": Case(two_ranks.protonet, two_ranks.episodes)},
        paths={"cosine": {"distance": "cosine"}},
        batch="episodes",
        # What a convolution adds to all pixels alike is what the batch normalization after it takes away.
        unmoved={"": ("encoder.0.bias", "encoder.4.bias", "encoder.8.bias", "encoder.12.bias")},
    ),
    "DARTSSearch": Method(
        "darts",
        {**CLASSES, "init_channels": 4, "layers": 3},
        (("darts_search_digits", "--data.batch_size=8", "--data.eval_batch_size=20", NO_CALLBACKS),),
        classified,
        Scale("darts_search_cifar10", ("--model.init_channels=4", "--model.layers=3"), "SearchDataModule"),
        {
            "first order": Case(partial(two_ranks.darts_search, 1), two_ranks.halves, 2, 1e-9, double=True),
            "second order": Case(partial(two_ranks.darts_search, 2), two_ranks.halves, 2, 1e-9, double=True, slow=True),
        },
        batch="halves",
        epochs=("epochs",),
    ),
    "DARTSRetrain": Method(
        "darts",
        {**CLASSES, "genotype": "DARTS_V1", "init_channels": 4, "layers": 3, "auxiliary_weight": 0.0},
        (
            (
                *("darts_retrain_cifar10_small", "--data=Digits", "--data.batch_size=8", "--data.eval_batch_size=20"),
                *("--model.channels=1", "--model.init_channels=2", "--model.layers=3", NO_CALLBACKS),
            ),
        ),
        retrained,
        Scale("darts_retrain_cifar10", ("--model.init_channels=4", "--model.layers=5")),
        {"": Case(two_ranks.darts_retrain)},
        paths={"auxiliary classifier": {"image_size": 32, "auxiliary_weight": 0.4}},
        epochs=("epochs",),
    ),
}
"""In the order of docs/methods/README.md, as far as it goes."""


def _models(further: Callable[[Method], dict[str, Settings]]) -> Iterator[tuple[str, Model]]:
    for name, method in METHODS.items():
        start = {method.starts_from: "a.ckpt"} if method.starts_from else {}
        for title, changes in further(method).items():
            yield f"{name}, {title}" if title else name, Model(name, {**start, **method.small, **changes})


SMALL_MODELS = dict(_models(lambda method: {"": {}, **method.others}))
"""By a title that begins with the method's name."""
ALL_MODELS = {**SMALL_MODELS, **dict(_models(lambda method: method.paths))}
"""Those and further paths through the code."""
RUNS = {
    page: [run for method in METHODS.values() if method.page == page for run in method.runs]
    for page in dict.fromkeys(method.page for method in METHODS.values())
}
"""By the page in docs/methods/: configurations, with what makes them small."""
CASES = {
    f"{name}, {title}" if title else name: case
    for name, method in METHODS.items()
    for title, case in method.ranks.items()
}
"""For the proof that two processes equal one, by a title that begins with the method's name."""
