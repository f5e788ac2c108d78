"""The ResNets of SN-GAN and WGAN-GP on CIFAR-10."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import CIFAR10
from experiments.declaration import Budget, Experiment, Figure, Step

CIFAR10_RESNETS = {
    "sngan": ("SN-GAN, ResNet", "sngan", "sngan_cifar10_resnet"),
    "wgan_gp": ("WGAN-GP, ResNet", "wgan", "wgan_gp_cifar10_resnet"),
}

EXPERIMENT = Experiment(
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
            {"*": (*FEW_BATCHES, "--model.feature_maps=2", "--data.batch_size=8", "--trainer.callbacks=SampleGrid")},
        ),
        "cpu": Budget(
            {"*": ("--model.feature_maps=16", "--trainer.max_epochs=5", "--trainer.callbacks=SampleGrid")},
            note="no scores, as Inception is slow without a GPU",
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
)
