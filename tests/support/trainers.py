"""Trainers for tests."""

from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


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


def trainer_of(processes: int, **arguments: Any) -> QuietTrainer:
    """A quiet trainer of one process, or of several that are forked."""
    strategy = "auto" if processes == 1 else "ddp_fork"
    return quiet_trainer(devices=processes, strategy=strategy, use_distributed_sampler=False, **arguments)


def seeded_fit(model: LightningModule, data: Any, *callbacks: Callback, **arguments: Any) -> Trainer:
    """Trains for an epoch, unless the arguments say otherwise, with seed 3; returns the trainer."""
    trainer = quiet_trainer(callbacks=list(callbacks), **{"max_epochs": 1, **arguments})
    torch.manual_seed(3)
    trainer.fit(model, data)
    return trainer


class Recorder(LightningModule):
    """Keeps its batches, and has one weight, which learns nothing.

    Attributes:
        train_batches: Batches of training.
        val_batches: Batches of validation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches: list[Any] = []
        self.val_batches: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.train_batches.append(batch)
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_batches.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Rates(Callback):
    """Keeps the optimizers' learning rates as each training batch begins."""

    def __init__(self) -> None:
        self.all: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.all.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])

    @property
    def first(self) -> list[float]:
        """Those of the first optimizer."""
        return [rates[0] for rates in self.all]
