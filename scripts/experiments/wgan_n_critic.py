"""WGAN and WGAN-SN with 1, 2, 5 and 20 steps of the critic for each of the generator."""

from experiments.budgets import GAN_SMOKE, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_mnist import DIGITS

N_CRITIC = (1, 2, 5, 20)
EPOCHS = 20
CRITICS = {"wgan": "WGAN", "wgan_sn": "WGAN-SN"}

EXPERIMENT = Experiment(
    title="How many steps of the critic for one of the generator, at equal steps of either",
    steps=tuple(
        Step(
            f"{name}-{count}",
            f"{method}, `n_critic` {count}",
            "wgan",
            f"{name}_mnist",
            MNIST,
            (f"--model.n_critic={count}", f"--trainer.max_epochs={EPOCHS}"),
        )
        for name, method in CRITICS.items()
        for count in N_CRITIC
    ),
    figures=tuple(
        figure
        for name in CRITICS
        for count in N_CRITIC
        for step in (f"{name}-{count}",)
        for figure in (
            # an epoch is 859 batches, each a step of the critic
            Figure(
                *(step, "FID (digits, block 2) of 1,000 after 859 steps of the generator", "val/fid"),
                main=False,
                epoch=count,
                features=DIGITS,
            ),
            Figure(
                *(step, "FID (digits, block 2) of 1,000 after 17,180 steps of the critic", "val/fid"),
                main=False,
                epoch=EPOCHS,
                features=DIGITS,
            ),
            Figure(step, "FID (digits, block 2) of 10,000, best epoch", "test/fid", main=False, features=DIGITS),
            Figure(
                *(step, "Inception Score (digits) of 10,000, best epoch", "test/inception_score"),
                main=False,
                features=DIGITS,
            ),
        )
    ),
    budgets={
        # with the steps' own number of epochs, which their figures are of
        "smoke": Budget(
            {"*": tuple(argument for argument in GAN_SMOKE if not argument.startswith("--trainer.max_epochs="))},
            only=("wgan-1", "wgan-2"),
        ),
        "cpu": Budget({"*": ("--model.feature_maps=32", "--trainer.precision=bf16-mixed")}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/fid", "val/inception_score"),
)
