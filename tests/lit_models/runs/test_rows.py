"""A killed run that goes on logs each row once, and draws the same pictures."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.runs.loggers import MetricsCSV
from lit_models.runs.reading import read_logged
from tests.lit_models.runs.test_resume import assert_same_run
from tests.support.fixtures import Output, Relit
from tests.support.tiny import CONFIGS, QUIET, TINY, killed_fit, the_run


class KillAfter(Callback):
    """Kills the process with SIGKILL in a hook's n-th call after ``batches`` training batches."""

    def __init__(self, hook: str, batches: int) -> None:
        self.batches = batches
        setattr(self, hook, self._kill)

    def _kill(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking and trainer.fit_loop.total_batch_idx + 1 >= self.batches:
            os.kill(os.getpid(), signal.SIGKILL)


WGAN = ("wgan_gp_digits", "--model.feature_maps=2", "--model.n_critic=3", "--data.batch_size=256")
VAE = ("vae_digits", "--model.feature_maps=2", "--data.batch_size=256")
CASES = {
    "critic's batches, validation within the epoch": (WGAN, ("--trainer.val_check_interval=2",), 1),
    "critic's batches, validation at the end": (WGAN, (), 1),
    "validation within the epoch": (VAE, ("--trainer.val_check_interval=2",), 1),
    "every batch saved": (VAE, (), 1),
    "every second epoch": (VAE, ("--trainer.check_val_every_n_epoch=2",), 2),
    "no sanity check": (VAE, ("--trainer.num_sanity_val_steps=0",), 3),
}
MOMENTS = [
    ("on_validation_end", 6),
    ("on_train_epoch_start", 6),
    ("on_train_batch_start", 7),
    ("on_train_epoch_end", 6),
]


@pytest.mark.long
@pytest.mark.parametrize(("model", "options", "every"), CASES.values(), ids=CASES)
def test_each_row_once(relit: Relit, model: tuple[str, ...], options: tuple[str, ...], every: int) -> None:
    config, *small = model
    common = [
        *("--config", str(CONFIGS / f"{config}.yaml"), *small, *QUIET, *options),
        *("--trainer.max_epochs=3", "--trainer.log_every_n_steps=1", f"--checkpoint.every_n_steps={every}"),
    ]
    assert relit("fit", *common, "--run.root=whole") == 0
    whole = the_run(Path("whole"))
    for hook, batches in MOMENTS:
        root = f"--run.root={hook}"
        killer = (
            "--trainer.callbacks+=tests.lit_models.runs.test_rows.KillAfter",
            f"--trainer.callbacks.hook={hook}",
            f"--trainer.callbacks.batches={batches}",
        )
        killed_fit(relit, *common, root, *killer)
        assert relit("fit", *common, root, "--ckpt_path=last") == 0
        assert_same_run(the_run(Path(hook)), whole)
        ours = {path.name for path in the_run(Path(hook)).glob("samples/*")}
        assert ours == {path.name for path in whole.glob("samples/*")}


def test_rows_behind_a_place_go_but_for_those_of_a_test(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    for step, name in enumerate(("train/loss", "train/loss", "test/loss", "val/loss")):
        logger.log_metrics({"epoch": 0, name: 1.0}, step)
    logger.save()
    MetricsCSV(tmp_path).drop_behind(1)
    steps = [line.split(",")[1] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == ["0", "2"]


def test_a_row_that_was_cut_off_doesnt_spoil_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.5\n0,1,1.")
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"epoch": 1, "test/loss": 2.5}, 9)
    logger.save()
    assert [(row.step, row.values) for row in read_logged(tmp_path / "metrics.csv")] == [
        (0, {"train/loss": 1.5}),
        (9, {"test/loss": 2.5}),
    ]


def test_a_validation_by_itself_changes_nothing_of_a_run(relit: Relit, finished: Path, capsys: Output) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert relit("validate", *TINY, "--ckpt_path=last", "--trainer.limit_val_batches=1") == 0
    assert "val/generator_loss" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_the_threads_of_each_process_are_recorded(relit: Relit) -> None:
    two = ("--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.limit_val_batches=0")
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.callbacks=null")
    more = "--trainer.callbacks+=tests.lit_models.runs.test_rows.MoreThreadsOnRankOne"
    assert relit("fit", *TINY, *two, *short, more) == 0
    assert json.loads((the_run() / "run.json").read_text())["threads"] == [1, 2]


class MoreThreadsOnRankOne(Callback):
    """Has the second process compute with two threads."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.global_rank == 1:
            torch.set_num_threads(2)


def test_another_number_of_threads_is_said(relit: Relit, finished: Path, capsys: Output) -> None:
    torch.set_num_threads(2)
    try:
        short = ("--trainer.max_epochs=4", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1")
        assert relit("fit", *TINY, "--ckpt_path=last", *short) == 0
    finally:
        torch.set_num_threads(1)
    assert "each process computes with 2 threads (was 1)" in capsys.readouterr().err
