"""One network trained with cross-entropy, center and triplet losses."""

from functools import partial

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import TINY_IMAGENET
from experiments.declaration import Budget, Experiment, Figure, Step

RESNETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "plain": ("ResNet18, cross-entropy, plain", "resnet18_tiny_imagenet", ()),
    "strong": ("ResNet18, cross-entropy", "resnet18_tiny_imagenet_strong", ()),
    "center": ("ResNet18, center loss", "resnet18_tiny_imagenet_center", ()),
    "triplet": (
        "ResNet18, batch-hard triplet loss",
        "resnet18_tiny_imagenet_triplet",
        ("--model.mining=batch_hard",),
    ),
    "triplet_all": ("ResNet18, triplet loss of all triplets", "resnet18_tiny_imagenet_triplet", ()),
}
share = partial(Figure, kind="percent", of_images=True, main=False)
ON_ALL = "on all 10,000 official validation images, of which ours are half"
PUBLISHED = {"plain": "tiny_imagenet_plain", "strong": "tiny_imagenet_400_epochs"}

EXPERIMENT = Experiment(
    title="One network, three losses",
    steps=tuple(
        Step(name, method, "metric_resnet", config, TINY_IMAGENET, arguments)
        for name, (method, config, arguments) in RESNETS.items()
    ),
    figures=tuple(
        figure
        for name in RESNETS
        for figure in (
            share(
                *(name, "top-1 accuracy / %", "test/accuracy"),
                main=True,
                published=PUBLISHED.get(name),
                unlike=f"{ON_ALL}, after 400 epochs" if name == "strong" else ON_ALL,
            ),
            share(name, "top-5 accuracy / %", "test/accuracy_top5"),
            share(name, "accuracy by nearest neighbors / %", "test/knn_accuracy"),
            share(name, "recall at 1 / %", "test/recall_at_1"),
            share(name, "MAP@R / %", "test/map_at_r", of_images=False),
        )
    ),
    budgets={
        "smoke": Budget(
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
            {"*": ("--model.feature_maps=32", "--model.stem=7x7", "--trainer.precision=bf16-mixed")},
            only=("strong", "center", "triplet", "triplet_all"),
        ),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=(
        *("train/loss", "train/accuracy", "val/accuracy"),
        *("val/knn_accuracy", "val/recall_at_1", "val/cross_entropy"),
    ),
)
