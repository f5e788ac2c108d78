"""A run that gets a signal goes on, in its next life, as if nothing had happened."""

import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_models.runs.loggers import finish_wandb
from tests.support.compare import assert_alike
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import exit_code_in_a_fork
from tests.support.tables import rows_of
from tests.support.tiny import CONFIGS, QUIET, TINY, assert_same_run, finished_run, killed_fit, killer, the_run, weights

USR1, TERM = 138, 143
FIT = (*TINY, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1")


@dataclass(eq=False)
class SignalAt(Callback):
    """Sends this process a signal in a training or validation batch (both count from 1) or in a test, on one rank."""

    number: int
    batch: int = 0
    validation_batch: int = 0
    test: bool = False
    rank: int = 0
    validated: int = field(default=0, init=False)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            self._send(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validated += 1
            if self.validated == self.validation_batch:
                self._send(trainer)

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        if self.test:
            self._send(trainer)

    def _send(self, trainer: Trainer) -> None:
        if trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


def sending(number: signal.Signals, **moment: int) -> list[str]:
    arguments = {"number": int(number), **moment}
    name = f"{__name__}.SignalAt"
    return [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{k}={v}" for k, v in arguments.items())]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    return finished_run(tmp_path_factory.mktemp("whole"), *FIT, f"--data.root={digits_root}")


@pytest.mark.parametrize(
    "moment",
    [
        {"batch": 7},
        {"batch": 20},  # an epoch's last batch, before the validation
        {"validation_batch": 2},  # within the validation of the first epoch
        pytest.param({"validation_batch": 7}, marks=pytest.mark.slow),  # of the second
        pytest.param({"batch": 21}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_warned_job_is_requeued_and_goes_on_at_the_next_batch(
    relit: Relit, slurm: Path, uninterrupted: Path, moment: dict[str, int], monkeypatch: Patch, capsys: Output
) -> None:
    assert relit("fit", *FIT, *sending(signal.SIGUSR1, **moment)) == USR1
    assert slurm.read_text() == "requeue 17\n"
    run = the_run()
    assert run.name == "slurm-17"
    said = capsys.readouterr().err
    place = "in the validation of epoch" if moment.get("batch", 20) == 20 else "before epoch"
    assert f"stopped by SIGUSR1 {place}" in said
    assert "job 17 is requeued" in said
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    expected = moment["batch"] if "batch" in moment else 20 * (1 + (moment["validation_batch"] > 5))
    assert saved["global_step"] == expected

    # Slurm starts the same command again; the callback that sends the signal is none of its settings.
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(SignalAt, "_send", lambda self, trainer: None)
    assert relit("fit", *FIT, *sending(signal.SIGUSR1, **moment)) == 0
    assert the_run() == run
    assert_same_run(run, uninterrupted)
    if moment.get("batch", 20) % 20:
        assert f"going on with epoch {expected // 20 + 1}, batch {expected % 20 + 1} of 20" in capsys.readouterr().err


@pytest.mark.parametrize("preempted", [False, True])
def test_sigterm_requeues_only_a_job_that_makes_room(
    relit: Relit, slurm: Path, preempted: bool, monkeypatch: Patch, capsys: Output
) -> None:
    monkeypatch.setenv("PREEMPT_TIME", "2026-01-01T00:00:00" if preempted else "None")
    assert relit("fit", *FIT, *sending(signal.SIGTERM, batch=3)) == TERM
    assert slurm.read_text().splitlines() == ["show job 17", *(["requeue 17"] if preempted else [])]
    assert ("is requeued" in capsys.readouterr().err) == preempted
    assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.long
def test_without_slurm_the_checkpoint_is_saved_and_the_way_on_told(
    relit: Relit, uninterrupted: Path, capsys: Output
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    assert relit("fit", *FIT, *sending(signal.SIGTERM, batch=25)) == TERM
    assert "`--ckpt_path last` goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == handler
    assert relit("fit", *FIT, "--ckpt_path=last") == 0
    assert_same_run(the_run(), uninterrupted)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_signal_in_the_last_batch_of_all_lets_the_run_finish(relit: Relit, slurm: Path) -> None:
    without_validation = ["--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]
    assert relit("fit", *FIT, *without_validation, *sending(signal.SIGUSR1, batch=20)) == 0
    assert not slurm.exists()
    assert '"finished": true' in (the_run() / "run.json").read_text()


@pytest.mark.parametrize(
    "log_every", [pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.slow)]
)
def test_metrics_of_a_critic_whose_round_is_cut_in_two(relit: Relit, log_every: int) -> None:
    """The generator steps in every third batch, an epoch has 20: killed after an epoch's end, and warned in the 31st
    batch, in which the critic alone has learnt, the run logs each row once, with the generator's latest loss."""
    fit = ["--model.n_critic=3", f"--trainer.log_every_n_steps={log_every}", "--trainer.max_epochs=2"]
    assert relit("fit", *TINY, *fit, "--run.root=whole") == 0
    killed_fit(relit, *TINY, *fit, *killer(batch=25))
    assert relit("fit", *TINY, *fit, *sending(signal.SIGUSR1, batch=31), "--ckpt_path=last") == USR1
    assert relit("fit", *TINY, *fit, "--ckpt_path=last") == 0
    assert_same_run(the_run(), the_run(Path("whole")))
    rows = [row for row in rows_of(the_run() / "metrics.csv") if row["train/discriminator_loss"]]
    assert len(rows) == 40 // log_every
    losses = [row["train/generator_loss"] for row in rows]
    rounds = [batch // 3 for batch in range(log_every, 41, log_every)]
    assert [loss == "" for loss in losses] == [number == 0 for number in rounds], "once the generator has stepped"
    same = [one == other for one, other in pairwise(losses)]
    assert same == [one == other for one, other in pairwise(rounds)]


@pytest.mark.long
def test_validation_within_an_epoch(relit: Relit, slurm: Path, monkeypatch: Patch) -> None:
    """A signal in the batch before it, and one within it."""
    often = ["--trainer.val_check_interval=10", "--trainer.max_epochs=1"]
    assert relit("fit", *FIT, *often, "--run.root=whole", "--run.id=whole") == 0
    for life, moment in enumerate(({"batch": 10}, {"validation_batch": 1}, {"validation_batch": 2})):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(life))
        goes_on = ["--ckpt_path=last"] if life else []
        assert relit("fit", *FIT, *often, *goes_on, *sending(signal.SIGUSR1, **moment)) == USR1
    assert relit("fit", *FIT, *often, "--ckpt_path=last") == 0
    assert_same_run(the_run(), Path("whole/dcgan_digits/whole"))


@pytest.mark.long
def test_killed_in_a_validation_within_an_epoch(relit: Relit) -> None:
    """The checkpoint that is due before it isn't made: from there, the run would go on without that validation."""
    often = ["--trainer.val_check_interval=10", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
    often += ["--checkpoint.every_n_steps=5"]
    assert relit("fit", *TINY, *often, "--run.root=whole") == 0
    killed_fit(relit, *TINY, *often, *sending(signal.SIGKILL, validation_batch=2))
    assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert relit("fit", *TINY, *often, "--ckpt_path=last") == 0
    assert_same_run(the_run(), the_run(Path("whole")))


@pytest.mark.long
def test_a_warned_test_goes_on_and_a_terminated_one_ends(relit: Relit) -> None:
    assert relit("fit", *FIT, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2") == 0
    warned, ended = (sending(number, test=True) for number in (signal.SIGUSR1, signal.SIGTERM))
    assert relit("test", *FIT, *warned, "--ckpt_path=last") == 0
    assert exit_code_in_a_fork(relit, "test", *FIT, *ended, "--ckpt_path=last") == -signal.SIGTERM


def test_several_tasks_without_srun_are_refused(relit: Relit, slurm: Path, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert relit("fit", *FIT) == 1
    assert "This Slurm job has 2 tasks" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.long
def test_accumulated_gradients_are_not_left_behind(relit: Relit) -> None:
    """Of a step of four batches: it is finished first, also where a validation comes between."""
    fit = [
        *("fit", "--config", CONFIGS / "vae_digits.yaml", "--model.feature_maps=2", "--trainer.callbacks=null"),
        *("--trainer.accumulate_grad_batches=4", "--trainer.val_check_interval=10", "--trainer.max_epochs=1"),
        *QUIET,
    ]
    assert relit(*fit, "--run.root=whole") == 0
    for life, (moment, step) in enumerate((({"batch": 6}, 2), ({"batch": 10}, 3))):
        goes_on = ["--ckpt_path=last"] if life else []
        assert relit(*fit, *goes_on, *sending(signal.SIGUSR1, **moment)) == USR1
        assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == step
    assert relit(*fit, "--ckpt_path=last") == 0
    assert_alike(weights(the_run()), weights(the_run(Path("whole"))))


def test_scontrol_that_fails_or_is_missing_is_told(
    relit: Relit, slurm: Path, monkeypatch: Patch, capsys: Output
) -> None:
    (slurm.parent / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Job may not be requeued' >&2; exit 1\n")
    assert relit("fit", *FIT, *sending(signal.SIGUSR1, batch=3)) == USR1
    said = capsys.readouterr().err
    assert "couldn't be requeued (Job may not be requeued)" in said


@pytest.mark.long
def test_a_job_has_one_run_of_an_experiment_and_its_test_finds_it(
    relit: Relit, slurm: Path, monkeypatch: Patch, capsys: Output
) -> None:
    once = [*TINY, "--trainer.max_epochs=1"]
    assert relit("fit", *once) == 0
    assert relit("fit", *once, "--run.id=newer") == 0
    capsys.readouterr()
    assert relit("test", *once, "--ckpt_path=last") == 0
    assert "slurm-17" in capsys.readouterr().out
    assert relit("fit", *once) == 1
    assert "The Slurm job 17 has a run in" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert relit("fit", *once, "--seed_everything=1") == 1
    assert "with seed_everything = 0, and now has 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", [pytest.param("copy.ckpt", marks=pytest.mark.long), pytest.param("best", marks=pytest.mark.long), "last"]
)
def test_a_requeued_job_goes_on_with_the_run_that_it_went_on_with(
    relit: Relit, slurm: Path, uninterrupted: Path, given: str, monkeypatch: Patch
) -> None:
    """And not once more with the checkpoint that it was given, nor with another run that is newer by then."""
    monkeypatch.delenv("SLURM_JOB_ID")
    fit = [*FIT, "--checkpoint.monitor=val/generator_loss"]
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    run = the_run()
    shutil.copyfile(run / "checkpoints" / "last.ckpt", "copy.ckpt")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    job = ("fit", *fit, f"--ckpt_path={given}")
    assert relit(*job, *sending(signal.SIGUSR1, batch=25)) == USR1
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    assert relit("fit", *fit, *short, "--seed_everything=1") == 0
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    saved = {path: path.read_bytes() for path in Path("runs").glob("*/slurm-18/**/*") if path.is_file()}
    steps: list[int] = []
    monkeypatch.setattr(SignalAt, "on_train_batch_start", lambda self, trainer, *_: steps.append(trainer.global_step))
    assert relit(*job, *sending(signal.SIGUSR1, batch=25)) == 0
    assert steps[0] == 25
    assert all(path.read_bytes() == content for path, content in saved.items())
    if given == "copy.ckpt":
        run = run.parent / "slurm-17"
    assert_alike(weights(run), weights(uninterrupted))


def test_a_warning_followed_by_the_time_limit_is_still_a_warning(relit: Relit, slurm: Path, capsys: Output) -> None:
    """Both signals come before the ranks get round to it."""
    both = [*sending(signal.SIGUSR1, batch=3), *sending(signal.SIGTERM, batch=3)]
    assert relit("fit", *FIT, *both) == TERM
    assert slurm.read_text() == "requeue 17\n"
    assert "is requeued" in capsys.readouterr().err


def test_a_diverged_run_says_which_step_is_saved(relit: Relit, slurm: Path, capsys: Output) -> None:
    poison = ["--trainer.callbacks+=tests.support.tiny.PoisonAt", "--trainer.callbacks.batch=22"]
    warned = sending(signal.SIGUSR1, batch=25)
    assert relit("fit", *FIT, "--checkpoint.diverged=go_on", *poison, *warned) == USR1
    assert "as the training has diverged, " in (said := capsys.readouterr().err)
    assert "last.ckpt is of step 20." in said


def test_a_network_that_is_gone_does_not_keep_a_job_from_being_requeued(monkeypatch: Patch) -> None:
    waits = threading.Event()
    fake = SimpleNamespace(run=object(), finish=lambda exit_code: waits.wait(60))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    finish_wandb(exit_code=USR1, seconds=0.1)
    assert not waits.is_set()
    waits.set()


@pytest.mark.long
def test_another_job_starts_afresh(relit: Relit, slurm: Path, monkeypatch: Patch) -> None:
    """Neither a new job nor a test of another run picks up what a preempted one has left."""
    assert relit("fit", *FIT, *sending(signal.SIGUSR1, batch=5)) == USR1
    left = weights(the_run())
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert relit("fit", *FIT, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2") == 0
    (other,) = Path("runs").glob("*/slurm-18")
    assert torch.load(other / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert relit("test", *FIT, "--ckpt_path=last") == 0
    assert any(not torch.equal(left[name], value) for name, value in weights(other).items())
    assert not list(Path("runs").rglob("hpc_ckpt*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("moment", [{"batch": 6}, {"validation_batch": 1}], ids=str)
@pytest.mark.long
def test_of_two_ranks_one_gets_the_signal(
    relit: Relit, slurm: Path, moment: dict[str, int], monkeypatch: Patch
) -> None:
    """Both save, after the same batch; with the shares of the validation images unequal."""
    monkeypatch.setattr("lit_models.runs.preemption.AGREE_EVERY", 0.0)
    two = [
        "--trainer.devices=2",
        "--trainer.strategy=ddp_fork_find_unused_parameters_true",
        "--data.eval_batch_size=83",
    ]
    assert relit("fit", *FIT, *two, "--run.root=whole", "--run.id=whole") == 0
    assert relit("fit", *FIT, *two, *sending(signal.SIGUSR1, rank=1, **moment)) == 1  # the parent of both
    assert slurm.read_text() == "requeue 17\n"
    saved = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == moment.get("batch", 10)
    assert relit("fit", *FIT, *two, "--ckpt_path=last") == 0
    assert_same_run(the_run(), Path("whole/dcgan_digits/whole"))
