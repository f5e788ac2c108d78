"""Lightning's own options work with every method, or are refused in a sentence."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.methods import RUNS
from tests.support.small_runs import small_run
from tests.support.tiny import TINY, the_run

Relit = Callable[..., int]
Output = pytest.CaptureFixture[str]

OPTIONS: dict[str, tuple[tuple[str, ...], Callable[[Path, Any], bool]]] = {
    "overfit_batches": (("--trainer.overfit_batches=2",), lambda run, said: (run / "metrics.csv").is_file()),
    "fast_dev_run": (("--trainer.fast_dev_run=true",), lambda run, said: not Path("runs").exists()),
    "profiler": (("--trainer.profiler=simple",), lambda run, said: "run_training_epoch" in said),
    "progress bar": (
        (
            "--trainer.enable_progress_bar=true",
            "--trainer.callbacks+=TQDMProgressBar",
            "--trainer.callbacks.refresh_rate=1",
        ),
        lambda run, said: "Epoch 0" in said,
    ),
    "max_time": (("--trainer.max_time=00:00:00:00",), lambda run, said: "its time (max_time) is over" in said),
}
METHODS = {name: runs[0] for name, runs in RUNS.items()}


@pytest.mark.long
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_an_option_of_lightnings_works_with_a_method(
    relit: Relit, digits_root: Path, method: str, option: str, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    arguments, shows = OPTIONS[option]
    assert relit("fit", *small_run(METHODS[method], digits_root), *arguments) == 0
    said = "".join([*capsys.readouterr(), caplog.text])
    run = the_run() if Path("runs").exists() else Path("nothing")
    assert shows(run, said), said


def test_overfitting_sees_the_same_batches_in_every_epoch(relit: Relit) -> None:
    seen = ("--trainer.callbacks+=tests.lit_models.cli.test_options.Sums", "--trainer.limit_val_batches=1")
    assert relit("fit", *TINY, "--trainer.overfit_batches=2", *seen) == 0
    first, *others = [line.split()[1] for line in Path("sums").read_text().splitlines()][::2]
    assert len(others) == 2
    assert all(other == first for other in others)


def test_a_profilers_report_is_printed_and_a_bar_of_the_users_is_the_only_one(
    relit: Relit, caplog: pytest.LogCaptureFixture
) -> None:
    bar = ("--trainer.enable_progress_bar=true", "--trainer.callbacks+=TQDMProgressBar")
    assert relit("fit", *TINY, *bar, "--trainer.profiler=simple", "--trainer.limit_train_batches=1") == 0
    assert "run_training_epoch" in caplog.text


def test_why_a_training_has_ended_early_is_said(relit: Relit, capsys: Output) -> None:
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/generator_loss")
    never = ("--trainer.callbacks.min_delta=1000", "--trainer.callbacks.patience=1")
    assert relit("fit", *TINY, *stop, *never, "--trainer.limit_train_batches=1") == 0
    said = capsys.readouterr().err
    assert "EarlyStopping has ended the training after epoch 2: val/generator_loss hasn't become better than" in said


@pytest.mark.parametrize("stage", ["train", "val", "test", "predict"])
def test_one_means_one_batch_and_one_point_nought_all(relit: Relit, stage: str, capsys: Output) -> None:
    name = f"limit_{stage}_batches"
    Path("more.yaml").write_text(f"trainer: {{{name}: 1}}\n")
    for arguments, kind in (
        ((f"--trainer.{name}=1",), int),
        (("--config=more.yaml",), int),
        ((f"--trainer.{name}=1.0",), float),
        ((f"--trainer.{name}=0.5",), float),
    ):
        assert relit("fit", *TINY, *arguments, "--print_config") == 0
        value = yaml.safe_load(capsys.readouterr().out)["trainer"][name]
        assert type(value) is kind, arguments


@pytest.mark.long
def test_a_batch_size_is_found(relit: Relit) -> None:
    finder = ("--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.max_trials=2")
    small = ("--data.batch_size=8", "--trainer.limit_train_batches=2", "--trainer.max_epochs=1")
    vae = ("--config", TINY[1].replace("dcgan", "vae"), "--model.feature_maps=2", "--trainer.accelerator=cpu")
    assert relit("fit", *vae, *finder, *small) == 0
    assert torch.load(the_run() / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp"])
def test_ddp_by_name_with_a_gan(relit: Relit, strategy: str) -> None:
    two = (f"--trainer.strategy={strategy}", "--trainer.devices=2", "--trainer.limit_train_batches=2")

    command = [sys.executable, "-m", "lit_models", "fit", *TINY, *two, "--trainer.max_epochs=1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(TINY[1]).parents[1])}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    with (the_run() / "metrics.csv").open() as file:
        assert list(csv.DictReader(file))


class Sums(Callback):
    """Writes the sum of each training batch into the file ``sums``."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        with Path("sums").open("a") as file:
            file.write(f"{batch_idx} {float(batch.image.double().sum())}\n")
