"""Trainers for tests."""

from typing import Any
from unittest.mock import patch

from lightning.pytorch import Trainer


class QuietTrainer(Trainer):
    """A trainer that has the cells of DARTS not drawn, which takes a second an epoch."""

    def fit(self, *arguments: Any, **named: Any) -> None:
        drawing = dict.fromkeys(("draw_genotype", "draw_search", "log_figure"), lambda _, path, *__: path)
        with patch.multiple("lit_models.callbacks.cells", **drawing):
            super().fit(*arguments, **named)


def quiet_trainer(**arguments: Any) -> QuietTrainer:
    """A trainer on one CPU that prints and writes nothing, with further arguments of Lightning's ``Trainer``."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return QuietTrainer(**{"accelerator": "cpu", "devices": 1, **quiet, **arguments})
