"""The experiments that `scripts/reproduce.py` runs: their steps, what is reported of them, and what each budget cuts.

An experiment is read from top to bottom: which trainings it takes, which figures of them are reported, and by how much
a budget shortens them. Budget "paper" cuts nothing from the configurations in `configs/`.
"""

from dataclasses import dataclass, field
from typing import Literal

GPU = ("--config=configs/trainer/gpu.yaml",)


@dataclass(frozen=True)
class Data:
    """A data set, and how large it is when it is whole.

    Attributes:
        name: What the results call it.
        train: Images of the training and the validation split together.
        test: Images of the test split.
    """

    name: str
    train: int
    test: int


MNIST = Data("MNIST", 60_000, 10_000)
FIFTY_LABELS = Data("MNIST, 50 labels", 100, 10_000)  # these images are the validation split, too
CIFAR10 = Data("CIFAR-10", 50_000, 10_000)
STL10 = Data("STL-10", 5_000, 8_000)
TINY_IMAGENET = Data("Tiny ImageNet", 105_000, 5_000)  # half of the official validation images are for the test
OMNIGLOT = Data("Omniglot", 20 * (4_112 + 688), 20 * 1_692)  # Vinyals's split, whose classes include quarter turns
LAKE = Data("Omniglot, Lake's runs", 4 * 20 * 964, 4 * 20 * 659)  # each drawing in four positions
MAPS = Data("maps", 1_096, 549)
LFW = Data("LFW, one person", 424 + 53, 53)


@dataclass(frozen=True)
class Step:
    """A training with its tests.

    Attributes:
        name: Names the step on the command line and its run folders.
        method: What the results call it.
        page: The method's page, `docs/methods/<page>.md`.
        config: The configuration, `configs/<config>.yaml`.
        data: What it learns from.
        arguments: What is given to `relit fit` beside the configuration; `{seed}` stands for the seed.
        uses: Arguments whose value is the run folder of an earlier step, or a file in it.
        length_of: An earlier step. This one lasts as many epochs as that step took to its lowest `val/loss` (counted
            from 0), plus the budget's patience.
        checkpoint: Which one is tested.
        tests: The tests by name, each with what it changes in the run's own configuration.
    """

    name: str
    method: str
    page: str
    config: str
    data: Data
    arguments: tuple[str, ...] = ()
    uses: dict[str, str] = field(default_factory=dict)
    length_of: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    tests: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"test": ()})


@dataclass(frozen=True)
class Figure:
    """A number that is reported of a step.

    Attributes:
        step: The step's name.
        label: What the results call it.
        metric: The logged metric: below `test/`, or below `val/` with an epoch.
        test: Which of the step's tests.
        epoch: The epoch (from 1) after which a metric of validation is read.
        kind: How it is shown: "number", "percent", or "error" (what a share lacks to 100 %).
        interval: Metric of half a confidence interval, which is shown where there is but one seed.
        main: Whether the README's table has it, too, and not the method's page alone.
        digits: Decimals; chosen by size if None.
        features: Of a score of generated images, the features that it goes over; values over others aren't shown.
    """

    step: str
    label: str
    metric: str
    test: str = "test"
    epoch: int | None = None
    kind: Literal["number", "percent", "error"] = "number"
    interval: str | None = None
    main: bool = True
    digits: int | None = None
    features: str | None = None


@dataclass(frozen=True)
class Budget:
    """How much an experiment is shortened.

    Attributes:
        cuts: What is cut, for a reader.
        arguments: What is given to `relit fit` for it, by step; "*" for all steps.
        configs: Configurations in place of the steps' own.
        only: The steps that are affordable; all of them if None.
        analysis: What the experiment's scripts are given for it.
        patience: Epochs that a step with `length_of` lasts beyond the earlier step's best one.
    """

    cuts: str
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] | None = None
    analysis: tuple[str, ...] = ()
    patience: int = 200

    def of(self, step: Step) -> tuple[str, ...]:
        """The arguments for one step."""
        return (*self.arguments.get("*", ()), *self.arguments.get(step.name, ()))


@dataclass(frozen=True)
class Analysis:
    """A script that is run on the first seed's runs when all steps are done.

    Attributes:
        command: The script and its arguments; `{run:STEP}` stands for a step's run folder, `{folder}` for the folder of
            the experiment's figures.
        needs: The steps whose runs it takes.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """Trainings that belong together, and what is reported of them.

    Attributes:
        title: What it asks.
        steps: In the order in which they are run.
        figures: In the order in which they are reported.
        budgets: By name; "smoke" shows within minutes that everything runs, and measures nothing.
        drawn: Metrics whose curves are drawn in one figure.
        analyses: Run at the end.
    """

    title: str
    steps: tuple[Step, ...]
    figures: tuple[Figure, ...]
    budgets: dict[str, Budget]
    drawn: tuple[str, ...] = ()
    analyses: tuple[Analysis, ...] = ()

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)


# --- What several budgets share ---------------------------------------------------------------------------------------

FEW_BATCHES = (
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
)
FEW_SCORES = (
    '--trainer.callbacks=[{"class_path": "SampleGrid"}, {"class_path": "GenerationScores", '
    '"init_args": {"extractor": "digits", "count": 50, "test_count": 50, "real_count": 50}}]'
)
DIGITS_SMOKE = ("--data=Digits", *FEW_BATCHES)
GAN_SMOKE = (*DIGITS_SMOKE, "--model.feature_maps=4", FEW_SCORES)
SAYS_SMOKE = "all but three batches of scikit-learn's digits by narrow networks"

# --- GANs -------------------------------------------------------------------------------------------------------------

DIGITS = "digits, block 2"

GANS = {
    "dcgan": ("DCGAN", "dcgan"),
    "sngan": ("SN-GAN", "sngan"),
    "wgan": ("WGAN", "wgan"),
    "wgan_sn": ("WGAN-SN", "wgan"),
    "wgan_gp": ("WGAN-GP", "wgan"),
    "triplet_gan": ("siamese-triplet GAN", "triplet_gan"),
}

gans_mnist = Experiment(
    title="Six GANs on MNIST, for 15 epochs; WGAN-GP for 30",
    steps=tuple(Step(name, method, page, f"{name}_mnist", MNIST) for name, (method, page) in GANS.items()),
    figures=tuple(
        figure
        for name in GANS
        for figure in (
            Figure(name, "FID (digits, block 2) of 1,000 after 5 epochs", "val/fid", epoch=5, features=DIGITS),
            Figure(name, "FID (digits, block 2) of 10,000, best epoch", "test/fid", main=False, features=DIGITS),
            Figure(
                name,
                "Inception Score (digits) of 10,000, best epoch",
                "test/inception_score",
                main=False,
                features=DIGITS,
            ),
            Figure(name, "recall (digits, block 2) of 10,000, best epoch", "test/recall", main=False, features=DIGITS),
            Figure(
                name, "coverage (digits, block 2) of 10,000, best epoch", "test/coverage", main=False, features=DIGITS
            ),
        )
    ),
    budgets={
        "smoke": Budget(SAYS_SMOKE, {"*": GAN_SMOKE}),
        "cpu": Budget(
            "half the width; bfloat16; WGAN and WGAN-SN take WGAN-GP's 30 epochs (5,150 steps of the generator)",
            {
                "*": ("--model.feature_maps=32", "--trainer.precision=bf16-mixed"),
                **dict.fromkeys(("wgan", "wgan_sn"), ("--trainer.max_epochs=30",)),
            },
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("val/fid", "val/inception_score"),
)

N_CRITIC = (1, 2, 5, 20)
CRITICS = {"wgan": "WGAN", "wgan_sn": "WGAN-SN"}

wgan_n_critic = Experiment(
    title="How many steps of the critic for one of the generator, at equal epochs",
    steps=tuple(
        Step(
            f"{name}-{count}",
            f"{method}, `n_critic` {count}",
            "wgan",
            f"{name}_mnist",
            MNIST,
            (f"--model.n_critic={count}",),
        )
        for name, method in CRITICS.items()
        for count in N_CRITIC
    ),
    figures=tuple(
        Figure(f"{name}-{count}", label, metric, epoch=5, main=False, features=DIGITS)
        for name in CRITICS
        for count in N_CRITIC
        for label, metric in (
            ("FID (digits, block 2) of 1,000 after 5 epochs", "val/fid"),
            ("Inception Score (digits) of 1,000 after 5 epochs", "val/inception_score"),
        )
    ),
    budgets={
        "smoke": Budget(
            f"{SAYS_SMOKE}; only n_critic 1 and 2 of WGAN",
            {"*": GAN_SMOKE},
            only=("wgan-1", "wgan-2"),
        ),
        "cpu": Budget(
            "a quarter of the width, 5 epochs of 15", {"*": ("--model.feature_maps=16", "--trainer.max_epochs=5")}
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("val/fid", "val/inception_score"),
)

ONE_HOT = "--model.label_encoding=one_hot"
PLACES = {
    "latent": ("class joined to z", "conditional_gan_mnist"),
    "image": ("class joined after decoding", "conditional_gan_mnist_image"),
}
EMBEDDING_DIMS = (20, 65)

conditional_gan = Experiment(
    title="Digits on demand",
    steps=(
        Step(
            *("concat", "conditional GAN", "conditional_gan", "conditional_gan_mnist", MNIST, (ONE_HOT,)),
            checkpoint="last",
        ),
        Step(
            "concat_image",
            "conditional GAN, class joined after decoding",
            "conditional_gan",
            "conditional_gan_mnist_image",
            MNIST,
            (ONE_HOT,),
            checkpoint="last",
        ),
        *(
            Step(
                f"embedding_{size}_{place}",
                f"conditional GAN, {where}, embeddings of {size}",
                "conditional_gan",
                config,
                MNIST,
                ("--model.label_encoding=embedding", f"--model.embedding_dim={size}"),
                checkpoint="last",
            )
            for place, (where, config) in PLACES.items()
            for size in EMBEDDING_DIMS
        ),
        Step(
            "projection",
            "conditional GAN, projection discriminator",
            "conditional_gan",
            "conditional_gan_mnist_projection",
            MNIST,
            checkpoint="last",
        ),
    ),
    figures=tuple(
        figure
        for name in (
            *("concat", "concat_image", "projection"),
            *(f"embedding_{size}_{place}" for place in PLACES for size in EMBEDDING_DIMS),
        )
        for figure in (
            Figure(
                name,
                "images judged to be the digit asked for / %",
                "test/label_accuracy",
                kind="percent",
                main=name in ("concat", "projection"),
            ),
            Figure(
                name, "spread within a class (digits, block 2) of 10,000", "test/spread", main=False, features=DIGITS
            ),
            Figure(name, "coverage (digits, block 2) of 10,000", "test/coverage", main=False, features=DIGITS),
            Figure(
                name,
                "FID (digits, block 2) of 10,000",
                "test/fid",
                main=name in ("concat", "projection"),
                features=DIGITS,
            ),
            Figure(name, "Inception Score (digits) of 10,000", "test/inception_score", main=False, features=DIGITS),
        )
    ),
    budgets={
        "smoke": Budget(
            f"{SAYS_SMOKE}; two of the embeddings",
            {"*": GAN_SMOKE},
            only=("concat", "concat_image", "embedding_20_latent", "embedding_20_image", "projection"),
        ),
        "cpu": Budget(
            "half the width, 6 epochs of 15; no embeddings as maps",
            {"*": ("--model.feature_maps=32", "--trainer.max_epochs=6")},
            only=("concat", "concat_image", "projection"),
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("val/label_accuracy", "val/fid"),
)

CIFAR10_RESNETS = {
    "sngan": ("SN-GAN, ResNet", "sngan", "sngan_cifar10_resnet"),
    "wgan_gp": ("WGAN-GP, ResNet", "wgan", "wgan_gp_cifar10_resnet"),
}

gans_cifar10 = Experiment(
    title="The papers' ResNets on CIFAR-10",
    steps=tuple(
        Step(name, method, page, config, CIFAR10, checkpoint="last")
        for name, (method, page, config) in CIFAR10_RESNETS.items()
    ),
    figures=tuple(
        Figure(name, label, metric, main=False, features="Inception")
        for name in CIFAR10_RESNETS
        for label, metric in (
            ("FID (Inception) of 5,000", "test/fid"),
            ("Inception Score (Inception) of 50,000", "test/inception_score"),
        )
    ),
    budgets={
        "smoke": Budget(
            "all but three batches of 8 images, width, and scores",
            {"*": (*FEW_BATCHES, "--model.feature_maps=2", "--data.batch_size=8", "--trainer.callbacks=SampleGrid")},
        ),
        "cpu": Budget(
            "a quarter of the width, 5 epochs; no scores, as Inception is slow without a GPU",
            {"*": ("--model.feature_maps=16", "--trainer.max_epochs=5", "--trainer.callbacks=SampleGrid")},
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
)

IMAGENET = "ImageNet EfficientNet-Lite0"

gans_lfw = Experiment(
    title="Faces of one person at 64x64",
    steps=tuple(
        Step(name, method, page, f"{name}_lfw", LFW, checkpoint="last") for name, (method, page) in GANS.items()
    ),
    figures=tuple(
        Figure(name, f"FID ({IMAGENET}) of 2,000", "test/fid", features=IMAGENET) for name in ("dcgan", "sngan")
    ),
    budgets={
        "smoke": Budget(
            "all but three batches, and width; DCGAN and SN-GAN only",
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", '--trainer.callbacks=[{"class_path": "SampleGrid"}]')},
            only=("dcgan", "sngan"),
        ),
        "cpu": Budget(
            "half the width, 100 epochs of 500; DCGAN and SN-GAN only",
            {"*": ("--model.feature_maps=32", "--trainer.max_epochs=100")},
            only=("dcgan", "sngan"),
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
)

# --- Image translation ------------------------------------------------------------------------------------------------

TRANSLATORS = {
    "gan": ("plain GAN of images to images", "pix2pix", "gan_translator_maps_64"),
    "pix2pix": ("pix2pix", "pix2pix", "pix2pix_maps_64"),
    "cyclegan": ("CycleGAN", "cycle_gan", "cyclegan_maps_64"),
}
PAIRINGS = {"paired": "paired", "loose": "loosely paired", "unpaired": "unpaired"}


def map_figures(step: str) -> tuple[Figure, ...]:
    """How near the maps come to the true ones."""
    return (
        Figure(step, "pixels of the right kind / %", "test/map_accuracy", kind="percent"),
        Figure(step, "L1", "test/l1", main=False),
        Figure(step, "SSIM", "test/ssim", main=False),
    )


translation_grid = Experiment(
    title="Photographs to maps at 64x64: three methods on paired, loosely paired and unpaired data",
    steps=tuple(
        Step(
            *(f"{kind}_{pairing}", f"{method}, {name} data", page, config, MAPS),
            arguments=(f"--data.pairing={pairing}",),
            checkpoint="last",
        )
        for kind, (method, page, config) in TRANSLATORS.items()
        for pairing, name in PAIRINGS.items()
    ),
    figures=tuple(
        figure for kind in TRANSLATORS for pairing in PAIRINGS for figure in map_figures(f"{kind}_{pairing}")
    ),
    budgets={
        "smoke": Budget(
            "all but three batches, and width",
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", "--model.discriminator_feature_maps=4")},
            only=("gan_paired", "pix2pix_loose", "cyclegan_unpaired"),
        ),
        "cpu": Budget("5 epochs of 40", {"*": ("--trainer.max_epochs=5",)}),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
)

pix2pix = Experiment(
    title="Satellite photographs to maps",
    steps=(
        Step("256", "pix2pix, 256x256", "pix2pix", "pix2pix_maps", MAPS, checkpoint="last"),
        Step("128", "pix2pix, 128x128", "pix2pix", "pix2pix_maps_128", MAPS, checkpoint="last"),
        Step("cyclegan", "CycleGAN, 256x256", "cycle_gan", "cyclegan_maps", MAPS, checkpoint="last"),
    ),
    figures=tuple(figure for step in ("256", "128", "cyclegan") for figure in map_figures(step)),
    budgets={
        "smoke": Budget(
            "all but three batches, and width; 128x128 only",
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", "--model.discriminator_feature_maps=4")},
            only=("128",),
        ),
        "cpu": Budget(
            "half the width, 48 epochs of 200; 128x128 only",
            {"*": ("--model.feature_maps=32", "--model.discriminator_feature_maps=32", "--trainer.max_epochs=48")},
            only=("128",),
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
)

# --- Few-shot ---------------------------------------------------------------------------------------------------------

TWENTY_WAY = ("--data.test_way=20", "--data.eval_episodes_per_batch=1")
WAYS = {"5-way": (), "20-way": TWENTY_WAY}
FEW_EPISODES = (
    "--trainer.max_epochs=1",
    "--data.n_way=5",
    "--data.train_episodes=3",
    "--data.val_episodes=3",
    "--data.test_episodes=4",
    "--model.feature_maps=8",
)

ON_VALIDATION_CLASSES = ("--data.train_on_val=true", "--trainer.callbacks=null", "--checkpoint.monitor=null")
"""The authors' last training (their run_trainval.py), with which nothing is left to choose an epoch by."""
INPUTS = {"": "antialiased input", "-nearest": "nearest-pixel input, as in the authors' code"}
"""By the end of a step's name. The published accuracies are of nearest-pixel input."""

protonet = Experiment(
    title="New characters from one or five examples",
    steps=(
        *(
            step
            for end, said in INPUTS.items()
            for shot in (1, 5)
            for resample in (("--data.resample=nearest",) if end else (),)
            for step in (
                Step(
                    f"{shot}-shot{end}",
                    f"ProtoNet, {shot}-shot, {said}",
                    "protonet",
                    f"protonet_omniglot_5way{shot}shot",
                    OMNIGLOT,
                    resample,
                    tests=WAYS,
                ),
                Step(
                    f"{shot}-shot-all{end}",
                    f"ProtoNet, {shot}-shot, trained on the validation classes, too, {said}",
                    "protonet",
                    f"protonet_omniglot_5way{shot}shot",
                    OMNIGLOT,
                    (*ON_VALIDATION_CLASSES, *resample),
                    length_of=f"{shot}-shot{end}",
                    checkpoint="last",
                    tests=WAYS,
                ),
            )
        ),
        Step("lake", "ProtoNet, Lake's one-shot runs, antialiased input", "protonet", "protonet_omniglot_lake", LAKE),
    ),
    figures=(
        *(
            Figure(f"{step}{end}", f"{way} accuracy / %", "test/accuracy", way, None, "percent", "test/accuracy_ci95")
            for end in INPUTS
            for step in ("1-shot", "1-shot-all", "5-shot", "5-shot-all")
            for way in WAYS
        ),
        Figure("lake", "20-way error / %", "test/error", kind="percent"),
    ),
    budgets={
        "smoke": Budget("all but three 5-way episodes, and width", {"*": FEW_EPISODES}, patience=1),
        "cpu": Budget(
            "60 epochs of 1-shot, 50 of 5-shot, 15 for Lake's runs; with the validation classes 60 beyond the best "
            "epoch, not 200",
            {
                "*": ("--trainer.max_epochs=50",),
                "1-shot": ("--trainer.max_epochs=60",),
                "1-shot-nearest": ("--trainer.max_epochs=60",),
                "lake": ("--trainer.max_epochs=15",),
            },
            patience=60,
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("train/accuracy", "train/loss", "val/accuracy", "val/loss"),
)

# --- Layer-wise pretraining -------------------------------------------------------------------------------------------

layerwise_mlp = Experiment(
    title="Is layer-wise pretraining worth anything?",
    steps=(
        Step(
            "masked",
            "layer-wise MLP, pretrained with 25 % masking noise",
            "layerwise_mlp",
            "layerwise_mlp_cifar10",
            CIFAR10,
            ("--model.mask_fraction=0.25",),
        ),
        Step("pretrained", "layer-wise MLP, pretrained", "layerwise_mlp", "layerwise_mlp_cifar10", CIFAR10),
        Step("scratch", "the same MLP from scratch", "layerwise_mlp", "layerwise_mlp_cifar10_scratch", CIFAR10),
        Step(
            "labels_10",
            "layer-wise MLP, pretrained with 25 % masking noise on all images, 10 % of the labels",
            "layerwise_mlp",
            "layerwise_mlp_cifar10",
            CIFAR10,
            ("--model.mask_fraction=0.25", "--model.labeled_fraction=0.1"),
        ),
        Step(
            "labels_10_scratch",
            "the same MLP from scratch, 10 % of the labels",
            "layerwise_mlp",
            "layerwise_mlp_cifar10_scratch",
            CIFAR10,
            ("--model.labeled_fraction=0.1",),
        ),
        Step("mnist", "layer-wise MLP, pretrained", "layerwise_mlp", "layerwise_mlp_mnist", MNIST),
        Step(
            "mnist_scratch",
            "the same MLP from scratch",
            "layerwise_mlp",
            "layerwise_mlp_mnist",
            MNIST,
            ("--model.pretrain_epochs=0",),
        ),
        Step(
            "96",
            "layer-wise MLP, pretrained with 25 % masking noise, on images enlarged to 96x96",
            "layerwise_mlp",
            "layerwise_mlp_cifar10_96",
            CIFAR10,
            ("--model.mask_fraction=0.25",),
        ),
        Step(
            "96_scratch",
            "the same MLP from scratch, on images enlarged to 96x96",
            "layerwise_mlp",
            "layerwise_mlp_cifar10_96",
            CIFAR10,
            ("--model.pretrain_epochs=0",),
        ),
        Step("stl10", "layer-wise MLP, pretrained", "layerwise_mlp", "layerwise_mlp_stl10", STL10),
    ),
    figures=tuple(
        Figure(name, "test accuracy / %", "test/accuracy", kind="percent")
        for name in (
            *("masked", "pretrained", "scratch", "labels_10", "labels_10_scratch"),
            *("mnist", "mnist_scratch", "96", "96_scratch", "stl10"),
        )
    ),
    budgets={
        "smoke": Budget(
            "all but an epoch of three batches a layer, and width; CIFAR-10 only",
            {
                "*": (*FEW_BATCHES[1:], "--model.finetune_epochs=1", "--model.widths=[16,8]", "--model.code_layer=2"),
                **dict.fromkeys(("masked", "pretrained", "labels_10"), ("--model.pretrain_epochs=1",)),
            },
            only=("masked", "pretrained", "scratch", "labels_10", "labels_10_scratch"),
        ),
        "cpu": Budget(
            "half of MNIST's epochs, 62 of 80 epochs with 96x96 pixels (14 of 20 from scratch); STL-10",
            {
                "mnist": ("--model.pretrain_epochs=5", "--model.finetune_epochs=10"),
                "mnist_scratch": ("--model.finetune_epochs=10",),
                "96": ("--model.pretrain_epochs=2", "--model.finetune_epochs=6"),
                "96_scratch": ("--model.finetune_epochs=6",),
            },
            only=(
                *("masked", "pretrained", "scratch", "labels_10", "labels_10_scratch"),
                *("mnist", "mnist_scratch", "96", "96_scratch"),
            ),
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("val/accuracy", "val/loss"),
)

# --- Autoencoders -----------------------------------------------------------------------------------------------------

AUTOENCODER = {"--model.encoder_checkpoint": "autoencoder"}
TRANSFERS = {
    "linear_frozen": "linear layer on frozen codes",
    "mlp_frozen": "MLP on frozen codes",
    "linear_finetuned": "linear layer, encoder trained along",
    "mlp_finetuned": "MLP, encoder trained along",
}
GRAY_DIGITS = ("--data=Digits", "--model.likelihood=gaussian", "--model.importance_samples=2")
VAE_MNIST = Step("vae_bernoulli", "VAE", "vae", "vae_mnist", MNIST)

autoencoders_transfer = Experiment(
    title="What an autoencoder's codes are good for: classes from 50 labels, and ways from one digit to another",
    steps=(
        Step("classifier", "digit classifier", "digit_classifier", "digit_classifier_mnist", MNIST, checkpoint="last"),
        Step("autoencoder", "denoising autoencoder", "autoencoder", "autoencoder_mnist", MNIST),
        *(
            Step(name, f"transfer: {method}", "autoencoder", f"transfer_mnist_{name}", FIFTY_LABELS, uses=AUTOENCODER)
            for name, method in TRANSFERS.items()
        ),
        Step(
            "scratch", "transfer: the same network from scratch", "autoencoder", "transfer_mnist_scratch", FIFTY_LABELS
        ),
        VAE_MNIST,
        Step(
            "latent_gan",
            "latent-space GAN",
            "latent_gan",
            "latent_gan_mnist",
            MNIST,
            uses={"--model.decoder_checkpoint": "autoencoder"},
            checkpoint="last",
        ),
    ),
    figures=(
        Figure("classifier", "test accuracy / %", "test/accuracy", kind="percent"),
        Figure("autoencoder", "squared error of a pixel, denoised", "test/squared_error", main=False),
        *(Figure(name, "test accuracy / %", "test/accuracy", kind="percent") for name in (*TRANSFERS, "scratch")),
        *(
            Figure(name, "images on the way that are surely one of both digits / %", metric, kind="percent", main=False)
            for name, metric in (
                ("autoencoder", "test/sure_of_either_lerp"),
                ("vae_bernoulli", "test/sure_of_either_slerp"),
                ("latent_gan", "test/sure_of_either_slerp"),
            )
        ),
    ),
    budgets={
        "smoke": Budget(
            SAYS_SMOKE,
            {
                "*": FEW_BATCHES,
                **dict.fromkeys(("classifier", "autoencoder", "latent_gan"), ("--data=Digits",)),
                "vae_bernoulli": GRAY_DIGITS,
                **dict.fromkeys((*TRANSFERS, "scratch"), ("--data.images=Digits",)),
            },
            analysis=("--data", "Digits", "--per_pair", "1"),
        ),
        "cpu": Budget("30 epochs of 100 of the latent-space GAN", {"latent_gan": ("--trainer.max_epochs=30",)}),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    analyses=(
        Analysis(
            (
                "scripts/compare_interpolations.py",
                *("--checkpoints", "{run:autoencoder}", "{run:vae_bernoulli}", "{run:latent_gan}"),
                *("--figure", "{folder}/interpolations.png", "--csv", "{folder}/interpolations.csv"),
            ),
            needs=("autoencoder", "vae_bernoulli", "latent_gan"),
        ),
    ),
)

FIXED = "--model.variance=fixed"
FACES = {
    "vae_faces": ("optimal variance", ()),
    "vae_faces_low": ("low variance, σ² = 1e-7", (FIXED, "--model.x_sigma2=1e-7")),
    "vae_faces_middle": ("σ² = 4e-6", (FIXED, "--model.x_sigma2=4e-6")),
    "vae_faces_high": ("high variance, σ² = 4e-5", (FIXED, "--model.x_sigma2=4e-5")),
    "vae_faces_no_kl": ("optimal variance, no KL term", ("--model.kl_weight=0",)),
}

vae = Experiment(
    title="Variational autoencoders of digits and of a face",
    steps=(
        VAE_MNIST,
        Step("vae_dynamic", "VAE, dynamic binarization", "vae", "vae_mnist", MNIST, ("--data.binarization=dynamic",)),
        Step("vae_2d", "VAE, 2 latent components", "vae", "vae_mnist_2d", MNIST),
        *(Step(name, f"VAE, {what}", "vae", "vae_lfw", LFW, arguments) for name, (what, arguments) in FACES.items()),
    ),
    figures=(
        *(
            figure
            for name in ("vae_bernoulli", "vae_dynamic", "vae_2d")
            for figure in (
                Figure(name, "nats, importance-weighted bound, 200 draws", "test/nats_importance_weighted", digits=2),
                Figure(name, "nats, bound", "test/nats", main=False, digits=2),
                Figure(name, "nats, independent pixels (histogram)", "test/nats_histogram", main=False, digits=2),
            )
        ),
        *(
            figure
            for name in FACES
            for figure in (
                Figure(name, "bits per dimension, bound", "test/bits_per_dim", main=name == "vae_faces"),
                Figure(name, "bits per dimension, smallest possible", "test/bits_per_dim_floor", main=False),
                Figure(name, "nats, KL divergence", "test/kl_nats", main=False),
            )
        ),
        Figure("vae_faces", "nats, bound", "test/nats", main=False),
        Figure("vae_faces", "nats, independent pixels (histogram)", "test/nats_histogram", main=False),
    ),
    budgets={
        "smoke": Budget(
            "all but three batches of scikit-learn's digits, MNIST and LFW",
            {
                "*": (*FEW_BATCHES, "--model.importance_samples=2"),
                **dict.fromkeys(("vae_bernoulli", "vae_2d"), GRAY_DIGITS),
                "vae_dynamic": ("--data.batch_size=32",),
            },
        ),
        "cpu": Budget("nothing"),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=("val/nats", "val/reconstruction_nats", "val/kl_nats"),
)

# --- Architecture search ----------------------------------------------------------------------------------------------

SEARCHES = ("search", "search_2nd")
RETRAININGS = ("retrain", "retrain_2nd", "random")
DARTS_SMOKE = (
    "--model.channels=1",
    "--model.init_channels=2",
    "--model.layers=3",
    "--model.epochs=1",
    *FEW_BATCHES[1:],
)

darts = Experiment(
    title="Cells found by DARTS against random cells, trained alike",
    steps=(
        Step("search", "DARTS, first-order search", "darts", "darts_search_cifar10", CIFAR10, checkpoint="last"),
        Step(
            "search_2nd",
            "DARTS, second-order search",
            "darts",
            "darts_search_cifar10_second_order",
            CIFAR10,
            checkpoint="last",
        ),
        Step(
            "retrain",
            "DARTS, cells of the first-order search",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            uses={"--model.genotype": "search/genotype.json"},
            checkpoint="last",
        ),
        Step(
            "retrain_2nd",
            "DARTS, cells of the second-order search",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            uses={"--model.genotype": "search_2nd/genotype.json"},
            checkpoint="last",
        ),
        Step(
            "random",
            "DARTS's space, random cells",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            ("--model.genotype=random", "--model.genotype_seed={seed}"),
            checkpoint="last",
        ),
    ),
    figures=(
        *(Figure(name, "test error / %", "test/accuracy", kind="error") for name in RETRAININGS),
        *(Figure(name, "supernet's accuracy / %", "test/accuracy", kind="percent", main=False) for name in SEARCHES),
    ),
    budgets={
        "smoke": Budget(
            "all but three batches of scikit-learn's digits, three cells and two channels; first order only",
            {
                "search": ("--data.images=Digits", "--data.batch_size=16", *DARTS_SMOKE),
                "retrain": ("--data=Digits", "--data.batch_size=16", *DARTS_SMOKE),
                "random": ("--data=Digits", "--data.batch_size=16", *DARTS_SMOKE),
            },
            {"search": "darts_search_cifar10_small", **dict.fromkeys(RETRAININGS, "darts_retrain_cifar10_small")},
            only=("search", "retrain", "random"),
        ),
        "cpu": Budget(
            "3/4 of the search's channels, half of its cells, 42 of its 50 epochs (47 in second order); in retraining "
            "28 of 36 channels, 15 of 20 cells, 593 of 600 epochs",
            {
                "search": ("--model.epochs=8",),
                "search_2nd": ("--model.order=2", "--model.epochs=3"),
                **dict.fromkeys(RETRAININGS, ("--model.epochs=7",)),
            },
            {
                **dict.fromkeys(SEARCHES, "darts_search_cifar10_small"),
                **dict.fromkeys(RETRAININGS, "darts_retrain_cifar10_small"),
            },
        ),
        "gpu": Budget(
            "100 epochs of 600 of retraining; bfloat16",
            {"*": GPU, **dict.fromkeys(RETRAININGS, ("--model.epochs=100",))},
        ),
        "paper": Budget(
            "nothing; one search a seed, where the paper takes the best of four (scripts/darts_selection.py)"
        ),
    },
    drawn=("val/accuracy", "val/loss"),
)

# --- Embeddings -------------------------------------------------------------------------------------------------------

RESNETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "plain": ("ResNet18, cross-entropy, plain", "resnet18_tiny_imagenet", ()),
    "strong": ("ResNet18, cross-entropy", "resnet18_tiny_imagenet_strong", ()),
    "center": ("ResNet18, center loss", "resnet18_tiny_imagenet_center", ()),
    "triplet": ("ResNet18, batch-hard triplet loss", "resnet18_tiny_imagenet_triplet", ()),
    "triplet_all": (
        "ResNet18, triplet loss of all triplets",
        "resnet18_tiny_imagenet_triplet",
        ("--model.mining=batch_all",),
    ),
}

resnet18 = Experiment(
    title="One network, three losses",
    steps=tuple(
        Step(name, method, "metric_resnet", config, TINY_IMAGENET, arguments)
        for name, (method, config, arguments) in RESNETS.items()
    ),
    figures=tuple(
        figure
        for name in RESNETS
        for figure in (
            Figure(name, "top-1 accuracy / %", "test/accuracy", kind="percent"),
            Figure(name, "top-5 accuracy / %", "test/accuracy_top5", kind="percent", main=False),
            Figure(name, "accuracy by nearest neighbors / %", "test/knn_accuracy", kind="percent", main=False),
            Figure(name, "recall at 1 / %", "test/recall_at_1", kind="percent", main=False),
        )
    ),
    budgets={
        "smoke": Budget(
            SAYS_SMOKE,
            {
                "*": (*FEW_BATCHES, "--model.feature_maps=8"),
                "center": ("--model.loss=center",),
                "triplet": ("--model.loss=triplet",),
                "triplet_all": ("--model.loss=triplet",),
            },
            dict.fromkeys(RESNETS, "resnet18_digits"),
            only=("strong", "center", "triplet", "triplet_all"),
        ),
        "cpu": Budget(
            "half the width, the 7x7 stem; bfloat16",
            {"*": ("--model.feature_maps=32", "--model.stem=7x7", "--trainer.precision=bf16-mixed")},
            only=("strong", "center", "triplet", "triplet_all"),
        ),
        "gpu": Budget("nothing; bfloat16", {"*": GPU}),
        "paper": Budget("nothing"),
    },
    drawn=(
        *("train/loss", "train/accuracy", "val/accuracy"),
        *("val/knn_accuracy", "val/recall_at_1", "val/cross_entropy"),
    ),
)

EXPERIMENTS: dict[str, Experiment] = {
    "gans_mnist": gans_mnist,
    "wgan_n_critic": wgan_n_critic,
    "gans_cifar10": gans_cifar10,
    "conditional_gan": conditional_gan,
    "gans_lfw": gans_lfw,
    "pix2pix": pix2pix,
    "translation_grid": translation_grid,
    "vae": vae,
    "autoencoders_transfer": autoencoders_transfer,
    "protonet": protonet,
    "layerwise_mlp": layerwise_mlp,
    "darts": darts,
    "resnet18": resnet18,
}
"""In the order of the README's table."""
