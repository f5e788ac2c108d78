import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler, OneCycleLR

from datamodules import Digits
from lit_models import VAE
from lit_models.callbacks.learning_rate import LearningRateScaling, Rule
from tests.support.fixtures import Relit
from tests.support.tiny import TINY, the_run
from tests.support.trainers import Rates, quiet_trainer


class Scheduled(VAE):
    def __init__(self, lr: float, schedule: Callable[[Any], LRScheduler]) -> None:
        super().__init__(16, 1, 2, 2, optimizer=lambda p: SGD(p, lr=lr, momentum=0.9))
        self.schedule = schedule

    def setup(self, stage: str) -> None:
        """The images' size doesn't matter here."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return sum(parameter.sum() for parameter in self.parameters()) * 0.0  # type: ignore[return-value]

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }


def rates(root: Path, model: LightningModule, rule: Rule, **trainer: Any) -> list[float]:
    keep = Rates()
    quiet_trainer(
        max_epochs=1, limit_train_batches=8, limit_val_batches=0, callbacks=[LearningRateScaling(rule), keep], **trainer
    ).fit(model, Digits(root=str(root), batch_size=4))
    return keep.first


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
        lambda optimizer: ExponentialLR(optimizer, 0.7),
        lambda optimizer: CosineAnnealingLR(optimizer, 4),
    ],
    ids=["lambda", "exponential", "cosine"],
)
@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_schedules_start_from_the_new_rate(
    digits_root: Path, schedule: Callable[[Any], LRScheduler], rule: Rule, factor: float
) -> None:
    found = rates(digits_root, Scheduled(0.1, schedule), rule, accumulate_grad_batches=4)
    expected = rates(digits_root, Scheduled(0.1 * factor, schedule), "none", accumulate_grad_batches=4)
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(0.1 * factor)


def test_one_cycle(digits_root: Path) -> None:
    cycles = [
        Scheduled(0.1, lambda optimizer, top=top: OneCycleLR(optimizer, top, total_steps=8)) for top in (0.1, 0.4)
    ]
    found = rates(digits_root, cycles[0], "linear", accumulate_grad_batches=4)
    assert found == pytest.approx(rates(digits_root, cycles[1], "none", accumulate_grad_batches=4))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.long
def test_by_the_number_of_processes_and_once_only(relit: Relit) -> None:
    """From the command, for both players of a GAN; and a run that is resumed doesn't raise them again."""
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    for epochs in (1, 2):
        goes_on = ["--ckpt_path=last"] if epochs == 2 else []
        arguments = [*TINY, *two, *goes_on, f"--trainer.max_epochs={epochs}", "--lr_scaling=linear"]
        assert relit("fit", *arguments) == 0
        states = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
        assert [state["param_groups"][0]["lr"] for state in states] == [pytest.approx(4e-4)] * 2
