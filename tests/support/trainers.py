"""Trainers for tests."""

from typing import Any

from lightning.pytorch import Trainer


def quiet_trainer(**arguments: Any) -> Trainer:
    """A trainer on one CPU that prints and writes nothing, with further arguments of Lightning's ``Trainer``."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**{"accelerator": "cpu", "devices": 1, **quiet, **arguments})
