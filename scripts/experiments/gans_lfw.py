"""GANs of one person's face."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import LFW
from experiments.declaration import Budget, Experiment, Figure, Step
from experiments.gans_mnist import GANS

IMAGENET = "ImageNet EfficientNet-Lite0"

EXPERIMENT = Experiment(
    title="Faces of one person at 64x64",
    steps=(
        *(Step(name, method, page, f"{name}_lfw", LFW, checkpoint="last") for name, (method, page) in GANS.items()),
        Step(
            "sngan_augmented",
            "SN-GAN, differentiable augmentation",
            "sngan",
            "sngan_lfw",
            LFW,
            ("--model.augmentations=[color,translation,cutout]",),
            checkpoint="last",
        ),
    ),
    figures=tuple(
        Figure(name, f"FID ({IMAGENET}) of 2,000", "test/fid", features=IMAGENET) for name in (*GANS, "sngan_augmented")
    ),
    budgets={
        "smoke": Budget(
            {"*": (*FEW_BATCHES, "--model.feature_maps=4", '--trainer.callbacks=[{"class_path": "SampleGrid"}]')},
            only=("dcgan", "sngan"),
        ),
        "cpu": Budget({"*": ("--model.feature_maps=32", "--trainer.precision=bf16-mixed")}),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/fid", "val/coverage"),
)
