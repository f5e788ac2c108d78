"""The toy of the center loss: MNIST with features of two numbers."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import MNIST
from experiments.declaration import Budget, Experiment, Figure, Step

LOSSES = {"center": ("center loss", ()), "cross_entropy": ("cross-entropy", ("--model.loss=cross_entropy",))}

EXPERIMENT = Experiment(
    title="Features of two numbers, with the center loss and without",
    steps=tuple(
        Step(name, f"LeNet++ of two features, {said}", "metric_resnet", "center_loss_mnist", MNIST, arguments)
        for name, (said, arguments) in LOSSES.items()
    ),
    figures=tuple(
        Figure(name, label, metric, kind="percent", of_images=True, main=False)
        for name in LOSSES
        for label, metric in (
            ("test accuracy / %", "test/accuracy"),
            ("accuracy by the nearest centroid / %", "test/centroid_accuracy"),
        )
    ),
    budgets={
        "smoke": Budget({"*": FEW_BATCHES}),
        "cpu": Budget(),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/accuracy", "val/centroid_accuracy"),
)
