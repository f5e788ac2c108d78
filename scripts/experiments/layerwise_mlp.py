"""Layer-wise pretraining against training from scratch."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import CIFAR10, MNIST, STL10
from experiments.declaration import Budget, Experiment, Figure, Step

EXPERIMENT = Experiment(
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
        Figure(
            *(name, "test accuracy / %", "test/accuracy"),
            kind="percent",
            of_images=True,
            published="layerwise_mlp_stl10" if name == "stl10" else None,
        )
        for name in (
            *("masked", "pretrained", "scratch", "labels_10", "labels_10_scratch"),
            *("mnist", "mnist_scratch", "96", "96_scratch", "stl10"),
        )
    ),
    budgets={
        "smoke": Budget(
            {
                "*": (*FEW_BATCHES[1:], "--model.finetune_epochs=1", "--model.widths=[16,8]", "--model.code_layer=2"),
                **dict.fromkeys(("masked", "pretrained", "labels_10"), ("--model.pretrain_epochs=1",)),
            },
            only=("masked", "pretrained", "scratch", "labels_10", "labels_10_scratch"),
        ),
        "cpu": Budget(
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
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/accuracy", "val/loss"),
)
