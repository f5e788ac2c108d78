"""What goes to the loggers besides metrics: pictures and tables."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

LARGEST_CONFUSION_CHART = 100
"""Classes; W&B shows no more than 10,000 rows of a chart's table, and there is one for each cell."""
LONGEST_TEXT_TABLE = 200
"""Rows of a table that TensorBoard gets as text."""


def log_image(trainer: Trainer, key: str, image: Tensor) -> None:
    """Sends a float image ``(C, H, W)`` in [0, 1] to every logger that takes pictures."""
    # W&B would show floats in [0, 1] as black, so loggers get 8-bit pixels.
    _send_picture(trainer, key, to_pil_image(image.clamp(0, 1).cpu()))


def log_figure(trainer: Trainer, path: Path) -> None:
    """Sends a picture that was written into the run folder to every logger that takes some, as ``figures/<name>``."""
    with Image.open(path) as picture:
        _send_picture(trainer, f"figures/{path.stem}", picture.convert("RGB"))


def _send_picture(trainer: Trainer, key: str, picture: Image.Image) -> None:
    if not trainer.is_global_zero:
        return
    step = trainer.global_step
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)  # most loggers have one, by no common class
        if isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, key=key, step=step)
        elif hasattr(logger, "log_image"):  # W&B's way, which Lightning documents for other loggers
            logger.log_image(key, [picture], step=step)
        elif hasattr(experiment, "add_image"):  # TensorBoard's
            experiment.add_image(key, np.array(picture.convert("RGB")), step, dataformats="HWC")
        elif hasattr(experiment, "log_image"):  # Comet's
            experiment.log_image(picture, name=key, step=step)


def log_table(trainer: Trainer, path: Path) -> None:
    """Sends a CSV file that was written into the run folder to every logger that takes tables, as ``tables/<name>``:
    TensorBoard gets it as text, MLflow and Comet the file."""
    if not trainer.is_global_zero or not trainer.loggers:
        return
    key, step = f"tables/{path.stem}", trainer.global_step
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)  # most loggers have one, by no common class
        if isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), "tables")
        elif hasattr(logger, "log_table"):
            # A column is of one type: numbers if all its cells are (an empty cell is a missing one), else text.
            columns = [_cells(column) for column in zip(*rows, strict=True)]
            data = [list(row) for row in zip(*columns, strict=True)]
            logger.log_table(key, _distinct(header), data, step=step)
        elif hasattr(experiment, "add_text"):
            experiment.add_text(key, _markdown(header, rows[:LONGEST_TEXT_TABLE]), step)
        elif hasattr(experiment, "log_table"):
            experiment.log_table(str(path))


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as TensorBoard shows it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


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
