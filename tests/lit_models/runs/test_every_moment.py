"""A run that is killed at any moment at which it writes goes on as if nothing had happened."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from datamodules import LabeledImages
from tests.lit_models.runs.test_resume import ALL_RUNS
from tests.support.fixtures import Relit
from tests.support.moments import Moments
from tests.support.small_runs import FEW, small_run
from tests.support.tiny import CONFIGS, assert_same_run, the_run

OFTEN = ("--run.id=one", "--run.root=runs", "--checkpoint.every_n_steps=1", "--channels_last=false")
VAE = ("--config", str(CONFIGS / "vae_digits.yaml"), "--model.feature_maps=2", *FEW, "--trainer.max_epochs=2")


class LogsLate(LightningModule):
    """A module that logs its batches after the hooks in which checkpoints are written."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32 * 32, 1)

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        return self.layer(batch.image.flatten(1)).square().mean()

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def on_train_batch_end(self, outputs: Any, batch: LabeledImages, batch_idx: int) -> None:
        self.log("train/loss", outputs["loss"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


OTHERS = {
    "two batches a step": (
        *VAE,
        *("--trainer.limit_train_batches=4", "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=2"),
    ),
    "a row of every second batch, a best epoch": (
        *VAE,
        *("--trainer.limit_train_batches=3", "--trainer.log_every_n_steps=2", "--checkpoint.monitor=val/loss"),
    ),
    "rows of a learning rate": (
        *(*VAE, "--trainer.limit_train_batches=2", "--trainer.callbacks+=LearningRateMonitor"),
        "--trainer.callbacks.logging_interval=epoch",
    ),
    "a training that is stopped early": (
        *(*VAE, "--trainer.limit_train_batches=2", "--trainer.max_epochs=4", "--trainer.callbacks+=EarlyStopping"),
        *("--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.min_delta=1000"),
        "--trainer.callbacks.patience=1",
    ),
    "a last step within an epoch": (*VAE, "--trainer.limit_train_batches=4", "--trainer.max_steps=6"),
    "rows of a batch's end": (
        *(f"--model={__name__}.LogsLate", "--data=Digits", *FEW),
        *("--trainer.limit_train_batches=4", "--trainer.max_epochs=2"),
    ),
}
ONLY_AN_EPOCHS_ROWS = next(run for run in ALL_RUNS if run[0] == "transfer_mnist_linear_frozen")


def assert_goes_on_from_every_moment(relit: Relit, *arguments: str) -> None:
    """Each state in which a kill can leave the run, or one that goes on from such a state, leads to the same end."""
    moments = Moments(Path("runs"), Path("moments"))
    with moments.watched():
        assert relit("fit", *arguments, *OFTEN) == 0
    whole = Path("runs").rename("whole")
    assert len(moments.taken) > 5
    for moment in moments.taken:  # to which the runs that go on may add
        shutil.rmtree("runs", ignore_errors=True)
        moment.rename("runs")
        resume = ["--ckpt_path=last"] if list(the_run().glob("checkpoints/[!.]*")) else []
        with moments.watched():
            assert relit("fit", *arguments, *OFTEN, *resume) == 0
        print(f"{moment.name} goes on{' with a checkpoint' if resume else ''}")
        assert_same_run(the_run(), the_run(whole))
    print(f"{len(moments.taken)} states, all of which led to the same end")


@pytest.mark.long
def test_a_method_that_logs_its_epochs_only(relit: Relit, digits_root: Path) -> None:
    assert_goes_on_from_every_moment(relit, *small_run(ONLY_AN_EPOCHS_ROWS, digits_root, epochs=2))


@pytest.mark.long
@pytest.mark.parametrize("arguments", OTHERS.values(), ids=OTHERS)
def test_rows_and_steps_of_other_kinds(relit: Relit, arguments: tuple[str, ...]) -> None:
    assert_goes_on_from_every_moment(relit, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("run", ALL_RUNS, ids=lambda run: " ".join(run[:2]))
def test_every_method(relit: Relit, digits_root: Path, run: tuple[str, ...]) -> None:
    assert_goes_on_from_every_moment(relit, *small_run(run, digits_root, epochs=2))


@pytest.mark.long
def test_a_row_that_was_cut_off_is_logged_again(relit: Relit) -> None:
    arguments = (*VAE, "--trainer.limit_train_batches=2", *OFTEN)
    assert relit("fit", *arguments) == 0
    metrics = the_run() / "metrics.csv"
    whole = Path("runs").rename("whole")
    shutil.copytree(whole, "runs")
    expected = metrics.read_text()
    metrics.write_text(expected[:-3])
    (the_run() / "checkpoints" / "previous.ckpt").replace(the_run() / "checkpoints" / "last.ckpt")
    assert relit("fit", *arguments, "--ckpt_path=last") == 0
    assert_same_run(the_run(), the_run(whole))
