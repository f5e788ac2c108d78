"""A killed run that is resumed equals the run that wasn't killed, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.methods import METHODS, NO_CALLBACKS, RUNS
from tests.support.compare import assert_alike
from tests.support.fixtures import Output, Relit
from tests.support.processes import environment, wait_until
from tests.support.small_runs import small_run
from tests.support.tiny import (
    QUIET,
    TINY,
    assert_same_run,
    assert_same_training,
    killed_fit,
    killer,
    quick_run,
    the_run,
    weights,
)


@pytest.mark.parametrize(
    "moment",
    [
        {"batch": 27},  # in mid-epoch, two batches after a checkpoint
        # Right after a batch with a checkpoint, before its metrics are written.
        pytest.param({"batch": 25}, marks=pytest.mark.long),
        pytest.param({"batch": 40}, marks=pytest.mark.long),  # at an epoch's last batch, before its checkpoint
        {"epoch_end": 2},  # at an epoch's end, before its checkpoint
    ],
    ids=str,
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(relit: Relit, uninterrupted: Path, moment: dict) -> None:
    killed_fit(relit, *TINY, "--checkpoint.every_n_steps=5", *killer(**moment))
    killed = the_run()
    assert relit("fit", *TINY, "--checkpoint.every_n_steps=5", "--ckpt_path=last") == 0
    assert the_run() == killed, "a resumed run goes on in its own folder"
    assert_same_run(killed, uninterrupted)


ALL_RUNS = [run for runs in RUNS.values() for run in runs]


@pytest.mark.long
@pytest.mark.parametrize("run", ALL_RUNS, ids=lambda run: " ".join(run[:2]))
def test_every_method_goes_on_within_an_epoch(relit: Relit, digits_root: Path, run: tuple[str, ...]) -> None:
    """Means over the epoch that was cut in two are over all of it. What a method keeps beyond its weights is the same,
    such as CycleGAN's buffers of images, which are full by then, and the episodes that ProtoNet has seen."""
    arguments = [*small_run(run, digits_root, epochs=2), "--trainer.limit_train_batches=4"]
    assert relit("fit", *arguments, "--run.root=whole") == 0
    whole = the_run(Path("whole"))
    batches = 4 * (torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1)
    often = [*arguments, "--checkpoint.every_n_steps=1"]
    killed_fit(relit, *often, *killer(batch=batches - 1))
    assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"][
        "epoch_loop.batch_progress"
    ]["current"]["completed"] in (1, 2), "within the epoch"
    assert relit("fit", *often, "--ckpt_path=last") == 0
    assert_same_training(the_run(), whole)


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name, record in METHODS.items() if record.starts_from])
def test_a_run_goes_on_without_the_autoencoder_that_it_started_from(
    relit: Relit, digits_root: Path, method: str
) -> None:
    """Nor is it read again to test or to predict."""
    run = [*small_run(METHODS[method].runs[0], digits_root, epochs=2), "--checkpoint.every_n_steps=1"]
    assert relit("fit", *run, "--run.root=whole") == 0
    assert relit("fit", *run, "--trainer.max_epochs=1") == 0
    (digits_root / "autoencoder.ckpt").unlink()
    assert relit("fit", *run, "--ckpt_path=last") == 0
    assert_same_training(the_run(), the_run(Path("whole")))
    for command in ("test", "predict"):
        assert relit(command, "--ckpt_path", the_run() / "checkpoints" / "last.ckpt", *QUIET) == 0
    assert any((the_run() / "predictions").iterdir())


@pytest.mark.long
def test_a_run_of_so_many_steps_goes_on_after_an_epoch(relit: Relit) -> None:
    """Lightning would end it there, after 20 of 50 steps."""
    steps = (*TINY, "--trainer.max_steps=50", "--trainer.max_epochs=-1")
    assert relit("fit", *steps, "--run.root=whole") == 0
    killed_fit(relit, *steps, *killer(batch=25))
    assert relit("fit", *steps, "--ckpt_path=last") == 0
    assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 50
    assert_same_run(the_run(), the_run(Path("whole")))


@pytest.mark.parametrize(
    "run",
    [
        ("vae_digits", "--trainer.accumulate_grad_batches=2", "--trainer.max_steps=4"),
        (
            *("dcgan_digits", "--model.schedule_interval=step", "--model.generator_scheduler=StepLR"),
            *("--model.generator_scheduler.step_size=2", "--trainer.max_steps=7"),
        ),
    ],
    ids=lambda run: run[0],
)
def test_a_run_that_has_ended_within_an_epoch_goes_on_with_its_other_images(relit: Relit, run: tuple[str, ...]) -> None:
    """By more steps, right after a validation within the epoch; each image is seen once, as are steps of a schedule."""
    config, *arguments, ended = run
    more = ("--model.feature_maps=2", NO_CALLBACKS, "--trainer.max_epochs=3", "--trainer.limit_val_batches=1")
    few = ("--trainer.limit_train_batches=5", "--trainer.val_check_interval=0.5", "--trainer.log_every_n_steps=1")
    fit = ("fit", *quick_run(config, *arguments, *more, *few))
    assert relit(*fit, "--trainer.max_steps=9", "--run.root=whole") == 0
    assert relit(*fit, ended) == 0
    assert relit(*fit, "--trainer.max_steps=9", "--ckpt_path=last") == 0
    assert_same_training(the_run(), the_run(Path("whole")))


@pytest.mark.long
def test_a_run_killed_before_its_first_checkpoint_starts_afresh_in_its_folder(
    relit: Relit, uninterrupted: Path
) -> None:
    one = "--run.id=one"
    killed_fit(relit, *TINY, one, *killer(batch=15))
    assert (the_run() / "metrics.csv").is_file()
    assert relit("fit", *TINY, one) == 0
    assert_same_run(the_run(), uninterrupted)


@pytest.mark.long
def test_a_run_that_begins_with_a_checkpoint_from_elsewhere_is_killed_before_its_first_one(
    relit: Relit, uninterrupted: Path
) -> None:
    """That checkpoint counts the rows of another run's file."""
    shutil.copy(uninterrupted / "checkpoints" / "last.ckpt", "elsewhere.ckpt")
    fit = (
        *TINY,
        "--ckpt_path=elsewhere.ckpt",
        "--trainer.max_epochs=4",
        "--run.id=one",
        "--trainer.log_every_n_steps=1",
    )
    assert relit("fit", *fit, "--run.root=whole") == 0
    killed_fit(relit, *fit, *killer(batch=15))
    assert (the_run() / "metrics.csv").is_file()
    assert relit("fit", *fit) == 0
    assert_same_run(the_run(), the_run(Path("whole")))


@pytest.mark.long
def test_a_run_killed_from_outside(relit: Relit, uninterrupted: Path) -> None:
    """The same through the real command in a separate process, killed whenever its first checkpoint is there."""
    command = [sys.executable, "-m", "lit_models", "fit", *TINY, "--checkpoint.every_n_steps=3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(Path("runs").glob("*/*/checkpoints/last.ckpt")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = the_run()
    reached = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < reached < 60
    assert relit("fit", *TINY, "--checkpoint.every_n_steps=3", "--ckpt_path=last") == 0
    assert_same_run(killed, uninterrupted)


@pytest.mark.long
def test_torchrun_with_one_process_goes_on_after_a_kill(relit: Relit, uninterrupted: Path) -> None:
    """Killed 25 batches after each start: in the second epoch, and again in the third."""
    fit = [*TINY, *killer(batch=25)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=3"]
    subprocess.run([*torchrun, "-m", "lit_models", "fit", *fit], env=environment(), timeout=300, check=True)
    assert_same_run(the_run(), uninterrupted)


@pytest.mark.long
def test_resume_from_a_file_with_optimizer_state(relit: Relit, uninterrupted: Path) -> None:
    """Two epochs, then one more from the file, equal three: Adam's moments and the schedule come back, too."""
    assert relit("fit", *TINY, "--trainer.max_epochs=2") == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    assert relit("fit", *TINY, f"--ckpt_path={checkpoint}") == 0
    assert_alike(weights(the_run()), weights(uninterrupted))


@pytest.mark.long
def test_spectral_normalization_goes_on_from_its_checkpoint(relit: Relit) -> None:
    """The vectors of the power iteration are part of the state, and so are a critic's rounds that were cut in two."""
    model = ["--model=WGAN", "--model.spectral_norm=true", "--model.clip_value=null", "--model.n_critic=3"]
    small = ["--model.feature_maps=2", "--model.latent_dim=4", "--data=Digits", "--data.batch_size=256"]
    quiet = [f"--trainer.{name}=false" for name in ("enable_progress_bar", "enable_model_summary")]
    run = ["fit", *model, *small, *quiet, "--trainer.accelerator=cpu", "--trainer.max_epochs=2"]
    assert relit(*run, "--run.root=whole") == 0
    assert relit(*run, "--trainer.max_epochs=1") == 0
    assert relit(*run, "--ckpt_path=last") == 0
    whole = the_run(Path("whole"))
    assert any(name.endswith("_u") for name in weights(whole))
    assert_same_run(the_run(), whole)


def test_a_checkpoint_alone_goes_on_as_its_run(relit: Relit, uninterrupted: Path, capsys: Output) -> None:
    """Without --config, the epochs, the pictures and all that matters to the numbers are the run's own."""
    killed_fit(relit, *TINY, "--checkpoint.every_n_steps=5", *killer(batch=27))
    killed = the_run()
    capsys.readouterr()
    assert relit("fit", f"--ckpt_path={killed}") == 0
    said = capsys.readouterr().err
    assert "The run goes on without tests.support.tiny.KillAt, as only relit's own callbacks are taken" in said
    assert "trainer.max_epochs" not in said
    assert_same_run(killed, uninterrupted)
    assert {path.name for path in killed.glob("samples/*")} == {path.name for path in uninterrupted.glob("samples/*")}
    config = yaml.safe_load((killed / "config.yaml").read_text())
    assert config["checkpoint"]["every_n_steps"] == 5
    capsys.readouterr()
    short = ("--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1")
    assert relit("fit", f"--ckpt_path={killed}", "--trainer.max_epochs=4", "--checkpoint.every_n_steps=3", *short) == 0
    said = capsys.readouterr().err
    assert "resuming with trainer.max_epochs = 4 (was 3)" in said
    assert "resuming with checkpoint.every_n_steps = 3 (was 5)" in said
    capsys.readouterr()
    assert relit("fit", f"--ckpt_path={killed}", "--trainer.max_epochs=5", "--trainer.callbacks=null", *short) == 0
    assert "resuming with trainer.callbacks = None" in capsys.readouterr().err, "what is typed counts"


def test_a_changed_setting_is_printed(relit: Relit, finished: Path, capsys: Output) -> None:
    changes = ["--trainer.max_epochs=4", "--trainer.limit_train_batches=2", "--model.label_noise=0.1"]
    assert relit("fit", *TINY, *changes, "--ckpt_path=last") == 0
    said = capsys.readouterr().err
    assert "model.label_noise = 0.1 (was 0.0); it applies from here on" in said
    assert (finished / "config_before_resume_1.yaml").is_file()


def test_a_cut_off_checkpoint_is_refused_in_a_sentence(relit: Relit, finished: Path, capsys: Output) -> None:
    (finished / "checkpoints" / "previous.ckpt").unlink()
    checkpoint = finished / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert relit("fit", *TINY, "--ckpt_path=last") == 1
    assert "can't be read as a checkpoint" in capsys.readouterr().err
