"""WGAN and WGAN-SN with 1, 2, 5 and 20 steps of the critic for each of the generator."""

from experiments.budgets import GAN_SMOKE, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_mnist import DIGITS

N_CRITIC = (1, 2, 5, 20)
CRITICS = {"wgan": "WGAN", "wgan_sn": "WGAN-SN"}

EXPERIMENT = Experiment(
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
            {"*": GAN_SMOKE},
            only=("wgan-1", "wgan-2"),
        ),
        "cpu": Budget({"*": ("--model.feature_maps=16", "--trainer.max_epochs=5")}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/fid", "val/inception_score"),
)
