"""The first epochs of a DARTS supernet, evaluated by the statistics of the batch and by running means."""

from experiments.budgets import FEW_BATCHES, GPU
from experiments.data_sets import DIGITS
from experiments.declaration import Budget, Experiment, Figure, Step

STATISTICS = {"batch": "the statistics of the batch", "running": "running means"}
EPOCHS = (1, 2, 3, 4, 5)

EXPERIMENT = Experiment(
    title="How batch normalization is evaluated in a search, at the same weights",
    steps=tuple(
        Step(
            name,
            f"DARTS, first-order search, evaluated by {statistics}",
            "darts",
            "darts_search_digits",
            DIGITS,
            (f"--model.eval_statistics={name}",),
            checkpoint="last",
        )
        for name, statistics in STATISTICS.items()
    ),
    figures=tuple(
        Figure(
            *(name, f"validation accuracy / %, epoch {epoch}", "val/accuracy"),
            epoch=epoch,
            kind="percent",
            main=False,
        )
        for name in STATISTICS
        for epoch in EPOCHS
    ),
    budgets={
        "smoke": Budget({"*": (*FEW_BATCHES[1:], "--model.epochs=1")}),
        "cpu": Budget(),
        "gpu": Budget({"*": GPU}),
        "paper": Budget(),
    },
    drawn=("val/accuracy",),
)
