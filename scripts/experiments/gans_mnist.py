"""Six GANs on MNIST."""

from experiments.budgets import GAN_SMOKE, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step

DIGITS = "digits, block 2"

GANS = {
    "dcgan": ("DCGAN", "dcgan"),
    "sngan": ("SN-GAN", "sngan"),
    "wgan_gp": ("WGAN-GP", "wgan"),
    "wgan_sn": ("WGAN-SN", "wgan"),
    "wgan": ("WGAN", "wgan"),
    "triplet_gan": ("siamese-triplet GAN", "triplet_gan"),
}

EXPERIMENT = Experiment(
    title="Six GANs on MNIST, for 15 epochs; WGAN-GP for 30",
    steps=tuple(Step(name, method, page, f"{name}_mnist", MNIST) for name, (method, page) in GANS.items()),
    figures=tuple(
        figure
        for name in GANS
        for figure in (
            Figure(name, "FID (digits, block 2) of 10,000, best epoch", "test/fid", features=DIGITS),
            Figure(
                *(name, "FID (digits, block 2) of 1,000 after 5 epochs", "val/fid"),
                main=False,
                epoch=5,
                features=DIGITS,
            ),
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
        "smoke": Budget({"*": GAN_SMOKE}),
        "cpu": Budget(
            {
                "*": ("--model.feature_maps=32", "--trainer.precision=bf16-mixed"),
                **dict.fromkeys(("wgan", "wgan_sn"), ("--trainer.max_epochs=30",)),
            },
            note="WGAN and WGAN-SN take as many steps of the generator as WGAN-GP, 5,150",
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/fid", "val/inception_score"),
)
