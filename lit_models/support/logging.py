"""What goes to the loggers besides metrics: pictures and tables, for W&B if the run has it."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

LARGEST_CONFUSION_CHART = 100
"""Classes; W&B shows no more than 10,000 rows of a chart's table, and there is one for each cell."""


def log_image(trainer: Trainer, key: str, image: Tensor) -> None:
    """Sends a float image ``(C, H, W)`` in [0, 1] to W&B.

    W&B takes float tensors as they are, and shows [0, 1] as black; so it gets 8-bit pixels.
    """
    for logger in _wandb_loggers(trainer):
        logger.log_image(key, [to_pil_image(image.clamp(0, 1).cpu())], step=trainer.global_step)


def log_figure(trainer: Trainer, path: Path) -> None:
    """Sends a picture that was written into the run folder to W&B, as ``figures/<name>``."""
    for logger in _wandb_loggers(trainer):
        logger.log_image(f"figures/{path.stem}", [Image.open(path).convert("RGB")], step=trainer.global_step)


def log_table(trainer: Trainer, path: Path) -> None:
    """Sends a CSV file that was written into the run folder to W&B, as the table ``tables/<name>``."""
    for logger in _wandb_loggers(trainer):
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        # A column is of one type: numbers if all its cells are (an empty cell is a missing one), else text.
        columns = [_cells(column) for column in zip(*rows, strict=True)]
        data = [list(row) for row in zip(*columns, strict=True)]
        logger.log_table(f"tables/{path.stem}", _distinct(header), data, step=trainer.global_step)


def log_confusion(trainer: Trainer, name: str, counts: Tensor, names: Sequence[str]) -> None:
    """Sends a confusion matrix to W&B as an interactive chart, ``charts/<name>``; none of very many classes.

    Args:
        trainer: The trainer.
        name: Of the chart.
        counts: ``(num_classes, num_classes)``, rows are the true classes.
        names: The classes' names.
    """
    if len(names) > LARGEST_CONFUSION_CHART:
        return
    for logger in _wandb_loggers(trainer):
        import wandb

        columns: list[Any] = ["Actual", "Predicted", "nPredictions"]
        rows = [
            [true, taken_for, count]
            for true, row in zip(names, counts.tolist(), strict=True)
            for taken_for, count in zip(names, row, strict=True)
        ]
        fields = {column: column for column in columns}
        chart = wandb.plot_table("wandb/confusion_matrix/v1", wandb.Table(columns, rows), fields, {"title": name})
        logger.log_metrics({f"charts/{name}": cast(Any, chart)}, step=trainer.global_step)


def _wandb_loggers(trainer: Trainer) -> Iterator[WandbLogger]:
    return (logger for logger in trainer.loggers if isinstance(logger, WandbLogger))


def _cells(column: Sequence[str]) -> list[float | None] | list[str]:
    try:
        return [float(cell) if cell else None for cell in column]
    except ValueError:
        return list(column)


def _distinct(header: Sequence[str]) -> list[str]:
    """The names of columns, with a number where a name comes again."""
    return [
        name if name not in header[:place] else f"{name} {header[:place].count(name) + 1}"
        for place, name in enumerate(header)
    ]
