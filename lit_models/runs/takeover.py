"""Ends a training whose run folder another process has taken over."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.runs.ownership import Ownership


class OneOwner(Callback):
    """Looks before each batch whether this process still owns the run.

    Args:
        ownership: The lock of the run.
    """

    def __init__(self, ownership: Ownership) -> None:
        self.ownership = ownership

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.ownership.require()
