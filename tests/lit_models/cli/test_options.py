"""Lightning's own options work with every method, or are refused in a sentence."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lit_models.cli.refusals import require_fitting_trainer
from lit_models.errors import RunError
from lit_models.support.lightning_internals import find_unused_parameters
from tests.methods import RUNS
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import run_relit
from tests.support.small_runs import small_run
from tests.support.tables import rows_of
from tests.support.tiny import TINY, quick_run, the_run


def exits_well(run: Path, said: str) -> bool:
    return (run / "checkpoints/last.ckpt").is_file()


def shows(sentence: str) -> Callable[[Path, str], bool]:
    return lambda run, said: sentence in said


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def is_double(run: Path, said: str) -> bool:
    weights = checkpoint(run)["state_dict"].values()
    return {value.dtype for value in weights if value.is_floating_point()} == {torch.float64}


def has_trained_a_batch(run: Path, said: str) -> bool:
    return checkpoint(run)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 1


OPTIONS: dict[str, tuple[tuple[str, ...], Callable[[Path, str], bool]]] = {
    "overfit_batches": (("--trainer.overfit_batches=2",), exits_well),
    "limit_*": (("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"), has_trained_a_batch),
    "fast_dev_run": (
        ("--trainer.fast_dev_run=true",),
        lambda run, said: not Path("runs").exists() and "has gone through; nothing of it is kept" in said,
    ),
    "profiler": (("--trainer.profiler=simple",), shows("run_training_epoch")),
    "progress bar": (
        (
            "--trainer.enable_progress_bar=true",
            "--trainer.callbacks+=TQDMProgressBar",
            "--trainer.callbacks.refresh_rate=1",
        ),
        shows("Epoch 0"),
    ),
    "max_time": (("--trainer.max_time=00:00:00:00",), shows("its time (max_time) is over")),
    "64-true": (("--trainer.precision=64-true",), is_double),
    "BatchSizeFinder": (
        ("--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.max_trials=2"),
        shows("BatchSizeFinder has set --data.batch_size to "),
    ),
    "ModelCheckpoint": (
        ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=mine"),
        lambda run, said: (run / "checkpoints/mine.ckpt").is_file() and exits_well(run, said),
    ),
}
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "bf16-true": (("--trainer.precision=bf16-true",), "set bf16-mixed, 32-true or 64-true"),
    "16-true": (("--trainer.precision=16-true",), "set 16-mixed, 32-true or 64-true"),
    "LearningRateFinder": (("--trainer.callbacks+=LearningRateFinder",), "LearningRateFinder can't search for "),
    "single_device": (("--trainer.strategy=single_device", "--trainer.devices=2"), "uses one device only, in spite of"),
}
AT_ONCE = ("limit_*", "profiler", "progress bar", "64-true", "ModelCheckpoint")
"""Options that don't disturb each other, so that one run shows all of them."""
METHODS = {name: runs[0] for name, runs in RUNS.items()}
PAIR = ("previous", "last")
UNUSED = ("_find_unused_parameters_false", "_find_unused_parameters_true")
GANS = ("dcgan", "sngan", "wgan", "conditional_gan", "triplet_gan", "latent_gan", "pix2pix", "cycle_gan")


@pytest.mark.long
@pytest.mark.parametrize("options", [AT_ONCE, *((one,) for one in OPTIONS if one not in AT_ONCE)], ids=", ".join)
@pytest.mark.parametrize("method", METHODS)
def test_options_of_lightnings_work_with_a_method(
    relit: Relit,
    digits_root: Path,
    method: str,
    options: tuple[str, ...],
    capsys: Output,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = [argument for option in options for argument in OPTIONS[option][0]]
    assert relit("fit", *small_run(METHODS[method], digits_root), *arguments) == 0
    said = "".join([*capsys.readouterr(), caplog.text])
    run = the_run() if Path("runs").exists() else Path("nothing")
    for option in options:
        assert OPTIONS[option][1](run, said), f"{option}: {said}"


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_work_with_a_method_is_a_sentence_before_training(
    relit: Relit, digits_root: Path, method: str, capsys: Output
) -> None:
    for arguments, sentence in REFUSED.values():
        assert relit("fit", *small_run(METHODS[method], digits_root), *arguments) == 1
        said = capsys.readouterr().err
        assert sentence in said
        assert "Exception" not in said
    assert not Path("runs").exists()


@pytest.mark.long
@pytest.mark.parametrize("method", GANS)
def test_a_schedule_that_goes_by_a_metric_works_with_a_gan(relit: Relit, digits_root: Path, method: str) -> None:
    """Both learning rates fall to a tenth after the second epoch, in which the metric didn't fall by a thousand."""
    fit = ["fit", *small_run(METHODS[method], digits_root, epochs=2), "--model.schedule_interval=epoch"]
    for player in ("generator", "discriminator"):
        schedule = f"--model.{player}_scheduler"
        fit += [f"{schedule}=lightning.pytorch.cli.ReduceLROnPlateau", f"{schedule}.monitor=val/generator_loss"]
        fit += [f"{schedule}.patience=0", f"{schedule}.threshold=1000", f"{schedule}.threshold_mode=abs"]
    assert relit(*fit) == 0
    before, after = ([state["_last_lr"][0] for state in checkpoint(the_run(), name)["lr_schedulers"]] for name in PAIR)
    assert len(after) == 2
    assert after == pytest.approx([0.1 * rate for rate in before])
    assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=3") == 0
    assert [state["last_epoch"] for state in checkpoint(the_run())["lr_schedulers"]] == [3, 3]


@pytest.mark.long
def test_a_schedule_rests_in_epochs_without_validation(relit: Relit) -> None:
    schedule = "--model.generator_scheduler"
    plateau = (f"{schedule}=lightning.pytorch.cli.ReduceLROnPlateau", f"{schedule}.monitor=val/generator_loss")
    assert relit("fit", *TINY, *plateau, "--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3") == 0
    assert [state["last_epoch"] for state in checkpoint(the_run())["lr_schedulers"]] == [1]


def test_a_vaes_schedule_rests_in_epochs_without_validation(relit: Relit) -> None:
    plateau = ("--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_scheduler.monitor=val/loss")
    fit = quick_run("vae_digits", *plateau, "--trainer.callbacks=null", model={"feature_maps": 2})
    few = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.max_epochs=3")
    assert relit("fit", *fit, *few, "--trainer.check_val_every_n_epoch=2") == 0
    assert [state["last_epoch"] for state in checkpoint(the_run())["lr_schedulers"]] == [1]


@pytest.mark.long
def test_a_users_checkpoints_go_on_after_a_resume(relit: Relit) -> None:
    """The best two are of the run, as if there had been no pause."""
    mine = (
        *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename={epoch}"),
        *("--trainer.callbacks.dirpath=mine", "--trainer.callbacks.monitor=val/generator_loss"),
        "--trainer.callbacks.save_top_k=2",
    )
    assert relit("fit", *TINY, *mine, "--run.root=whole") == 0
    kept = {path.name: torch.load(path, weights_only=True)["global_step"] for path in Path("mine").iterdir()}
    assert len(kept) == 2
    shutil.rmtree("mine")
    assert relit("fit", *TINY, *mine, "--trainer.max_epochs=2") == 0
    assert relit("fit", *TINY, *mine, "--ckpt_path=last") == 0
    assert {path.name: torch.load(path, weights_only=True)["global_step"] for path in Path("mine").iterdir()} == kept


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


@pytest.mark.parametrize(
    ("setting", "epoch", "reason"),
    [
        ("min_delta=1000", 2, "hasn't become better than "),
        ("stopping_threshold=1000", 1, "has reached its stopping_threshold of 1000"),
        ("divergence_threshold=-1000", 1, "is beyond its divergence_threshold of -1000"),
    ],
)
def test_why_a_training_has_ended_early_is_said(
    relit: Relit, setting: str, epoch: int, reason: str, capsys: Output
) -> None:
    """And a resume without a change has nothing left to train."""
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/generator_loss")
    fit = ("fit", *TINY, *stop, "--trainer.callbacks.patience=1", "--trainer.limit_train_batches=1")
    assert relit(*fit, f"--trainer.callbacks.{setting}") == 0
    told = f"EarlyStopping has ended the training after epoch {epoch}: val/generator_loss {reason}"
    assert told in capsys.readouterr().err
    if epoch == 1:
        return
    assert relit(*fit, f"--trainer.callbacks.{setting}", "--ckpt_path=last") == 0
    said = capsys.readouterr().err
    assert f"the checkpoint has had {epoch} epochs and {epoch} steps; then it was ended early" in said
    assert told in said
    more = (f"--trainer.callbacks.{setting}", "--trainer.callbacks.patience=3", "--trainer.max_epochs=9")
    assert relit(*fit, *more, "--ckpt_path=last") == 0
    assert "EarlyStopping has ended the training after epoch 4" in capsys.readouterr().err, "two epochs more"
    assert checkpoint(the_run())["global_step"] == 4


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


DDP = [f"{start}{unused}" for start in ("ddp", "ddp_fork", "ddp_notebook") for unused in ("", *UNUSED)]


@pytest.mark.long
@pytest.mark.parametrize("method", GANS)
def test_every_strategy_of_ddp_looks_for_unused_parameters_of_a_gan(
    relit: Relit, digits_root: Path, method: str, monkeypatch: Patch
) -> None:
    """Whatever its name says, as each backward pass reaches one of the networks only."""
    made: list[Any] = []

    def note(trainer: Trainer) -> None:
        find_unused_parameters(trainer)
        made.append(trainer.strategy)
        raise RunError("That's enough.")

    monkeypatch.setattr("lit_models.cli.command.find_unused_parameters", note)
    for strategy in DDP:
        two = (f"--trainer.strategy={strategy}", "--trainer.devices=2")
        assert relit("fit", *small_run(METHODS[method], digits_root), *two) == 1
        assert isinstance(made[-1], DDPStrategy)
        assert made[-1]._ddp_kwargs["find_unused_parameters"] is True, strategy
    assert len(made) == len(DDP)


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ("ddp_spawn", "hands everything to new processes as copies, which .* can't be: set ddp."),
        ("ddp_spawn_find_unused_parameters_true", "set ddp_find_unused_parameters_true."),
        ("single_device", "in spite of --trainer.devices 2: leave --trainer.strategy out, or set --trainer.devices to"),
    ],
)
def test_a_strategy_that_cannot_work_is_a_sentence(relit: Relit, strategy: str, sentence: str, capsys: Output) -> None:
    assert relit("fit", *TINY, f"--trainer.strategy={strategy}", "--trainer.devices=2") == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert not Path("runs").exists()


@pytest.mark.parametrize("strategy", ["single_device", SingleDeviceStrategy()])
def test_one_device_is_not_several(strategy: str | SingleDeviceStrategy, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    model = LightningModule()
    others = {"strategy": strategy, "sync_batchnorm": False, "precision": None}
    for devices in (1, "1", "auto", [3], "3,"):
        require_fitting_trainer(model, {**others, "devices": devices, "num_nodes": 1}, [])
    for devices, nodes, name in (
        *((devices, 1, "devices") for devices in (2, "2", "0,1", [0, 1], -1, "-1")),
        ("auto", 2, "num_nodes"),
    ):
        with pytest.raises(RunError, match=f"--trainer.{name} to one"):
            require_fitting_trainer(model, {**others, "devices": devices, "num_nodes": nodes}, [])
    ddp = {**others, "strategy": "ddp"}
    require_fitting_trainer(model, {**ddp, "devices": 2, "num_nodes": 2}, [])


TWO = ("--trainer.devices=2", "--data.batch_size=2")


@pytest.mark.long
@pytest.mark.parametrize("unused", ["", *UNUSED])
def test_ddp_by_name_with_a_gan(relit: Relit, digits_root: Path, unused: str) -> None:
    """The real command, which starts the second process as a command, too."""
    ran = run_relit("fit", *small_run(METHODS["dcgan"], digits_root), *TWO, f"--trainer.strategy=ddp{unused}")
    assert ran.returncode == 0, ran.stderr
    assert rows_of(the_run() / "metrics.csv")


@pytest.mark.long
@pytest.mark.parametrize("method", GANS)
def test_ddp_by_forks_with_a_gan(relit: Relit, digits_root: Path, method: str) -> None:
    assert relit("fit", *small_run(METHODS[method], digits_root), *TWO, "--trainer.strategy=ddp_fork") == 0
    assert rows_of(the_run() / "metrics.csv")


class Sums(Callback):
    """Writes the sum of each training batch into the file ``sums``."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        with Path("sums").open("a") as file:
            file.write(f"{batch_idx} {float(batch.image.double().sum())}\n")
