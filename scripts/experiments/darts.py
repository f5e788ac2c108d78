"""Architecture search against random cells."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import CIFAR10
from experiments.declaration import Budget, Experiment, Figure, Step

SEARCHES = ("search", "search_2nd")
RETRAININGS = {"retrain": "darts_first_order", "retrain_2nd": "darts_second_order", "random": "darts_random"}
"""By step, the published counterpart."""
DARTS_SMOKE = (
    "--model.channels=1",
    "--model.init_channels=2",
    "--model.layers=3",
    "--model.epochs=1",
    *FEW_BATCHES[1:],
)

EXPERIMENT = Experiment(
    title="Cells found by DARTS against random cells, trained alike",
    steps=(
        Step("search", "DARTS, first-order search", "darts", "darts_search_cifar10", CIFAR10, checkpoint="last"),
        Step(
            "search_2nd",
            "DARTS, second-order search",
            "darts",
            "darts_search_cifar10_second_order",
            CIFAR10,
            checkpoint="last",
        ),
        Step(
            "retrain",
            "DARTS, cells of the first-order search",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            uses={"--model.genotype": "search/genotype.json"},
            checkpoint="last",
        ),
        Step(
            "retrain_2nd",
            "DARTS, cells of the second-order search",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            uses={"--model.genotype": "search_2nd/genotype.json"},
            checkpoint="last",
        ),
        Step(
            "random",
            "DARTS's space, random cells",
            "darts",
            "darts_retrain_cifar10",
            CIFAR10,
            ("--model.genotype=random", "--model.genotype_seed={seed}"),
            checkpoint="last",
        ),
    ),
    figures=(
        *(
            Figure(name, "test error / %", "test/accuracy", kind="error", of_images=True, published=published)
            for name, published in RETRAININGS.items()
        ),
        *(
            Figure(
                *(name, "supernet's accuracy / %", "test/accuracy"),
                kind="percent",
                of_images=True,
                main=False,
                argument="model.eval_statistics",
                published="darts_supernet" if name == "search" else None,
            )
            for name in SEARCHES
        ),
    ),
    budgets={
        "smoke": Budget(
            {
                "search": ("--data.images=Digits", "--data.batch_size=16", *DARTS_SMOKE),
                "retrain": ("--data=Digits", "--data.batch_size=16", *DARTS_SMOKE),
                "random": ("--data=Digits", "--data.batch_size=16", *DARTS_SMOKE),
            },
            {"search": "darts_search_cifar10_small", **dict.fromkeys(RETRAININGS, "darts_retrain_cifar10_small")},
            only=("search", "retrain", "random"),
        ),
        "cpu": Budget(
            {
                "search": ("--model.epochs=8",),
                "search_2nd": ("--model.order=2", "--model.epochs=3"),
                **dict.fromkeys(RETRAININGS, ("--model.epochs=7",)),
            },
            {
                **dict.fromkeys(SEARCHES, "darts_search_cifar10_small"),
                **dict.fromkeys(RETRAININGS, "darts_retrain_cifar10_small"),
            },
        ),
        "gpu": Budget(
            {"*": GPU, **dict.fromkeys(RETRAININGS, ("--model.epochs=100",))},
        ),
        "paper": Budget(
            note="one search a seed, where the paper takes the best of four (scripts/analyses/darts_selection.py)"
        ),
    },
    drawn=("val/accuracy", "val/loss"),
)
