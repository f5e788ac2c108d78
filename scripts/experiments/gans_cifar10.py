"""SN-GAN's CNN, and the ResNets of SN-GAN and WGAN-GP, on CIFAR-10."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import CIFAR10
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_lfw import IMAGENET

CIFAR10_RESNETS = {
    "sngan": ("SN-GAN, ResNet", "sngan", "sngan_cifar10_resnet"),
    "wgan_gp": ("WGAN-GP, ResNet", "wgan", "wgan_gp_cifar10_resnet"),
}

EXPERIMENT = Experiment(
    title="The papers' networks on CIFAR-10",
    steps=(
        Step("sngan_cnn", "SN-GAN, CNN, hinge loss", "sngan", "sngan_cifar10", CIFAR10, checkpoint="last"),
        *(
            Step(name, method, page, config, CIFAR10, checkpoint="last")
            for name, (method, page, config) in CIFAR10_RESNETS.items()
        ),
    ),
    figures=(
        Figure("sngan_cnn", f"FID ({IMAGENET}) of 10,000", "test/fid", main=False, features=IMAGENET),
        Figure("sngan_cnn", f"Inception Score ({IMAGENET})", "test/inception_score", main=False, features=IMAGENET),
        *(
            Figure(name, label, metric, main=False, features="Inception")
            for name in CIFAR10_RESNETS
            for label, metric in (
                ("FID (Inception) of 5,000", "test/fid"),
                ("Inception Score (Inception) of 50,000", "test/inception_score"),
            )
        ),
    ),
    budgets={
        "smoke": Budget(
            {"*": (*FEW_BATCHES, "--model.feature_maps=2", "--data.batch_size=8", "--trainer.callbacks=SampleGrid")},
        ),
        "cpu": Budget(
            {
                "sngan_cnn": ("--model.feature_maps=32", "--trainer.max_epochs=8", "--trainer.precision=bf16-mixed"),
                **dict.fromkeys(
                    CIFAR10_RESNETS,
                    ("--model.feature_maps=16", "--trainer.max_epochs=5", "--trainer.callbacks=SampleGrid"),
                ),
            },
            note="the ResNets get no scores, as Inception is slow without a GPU",
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
)
