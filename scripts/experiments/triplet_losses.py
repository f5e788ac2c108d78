"""The siamese-triplet GAN without the margin's max, and with the literal objectives of the generator."""

from experiments.budgets import GAN_SMOKE, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_mnist import DIGITS

OBJECTIVES = {
    "no_hinge": ("without hinge", "--model.hinge=false"),
    "norm": ("objective `norm`", "--model.generator_objective=norm"),
    "negative_norm": ("objective `negative_norm`", "--model.generator_objective=negative_norm"),
}

EXPERIMENT = Experiment(
    title="The siamese-triplet GAN with its literal objectives; gans_mnist has the one with distances and a hinge",
    steps=tuple(
        Step(name, f"siamese-triplet GAN, {said}", "triplet_gan", "triplet_gan_mnist", MNIST, (argument,))
        for name, (said, argument) in OBJECTIVES.items()
    ),
    figures=tuple(
        Figure(name, f"{label} of 10,000, best epoch", f"test/{metric}", main=False, features=DIGITS)
        for name in OBJECTIVES
        for label, metric in (
            ("FID (digits, block 2)", "fid"),
            ("Inception Score (digits)", "inception_score"),
            ("recall (digits, block 2)", "recall"),
            ("coverage (digits, block 2)", "coverage"),
        )
    ),
    budgets={
        "smoke": Budget({"*": GAN_SMOKE}),
        "cpu": Budget({"*": ("--model.feature_maps=32", "--trainer.precision=bf16-mixed")}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/fid", "val/coverage"),
)
