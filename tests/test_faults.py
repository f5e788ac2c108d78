"""What goes wrong around a run: it is said in a sentence, and what was reached is kept."""

import csv
import multiprocessing
import os
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.__main__ import main
from lit_models.checkpoints import put_in_place
from lit_models.loggers import MetricsCSV
from tests.test_resume import assert_same_run
from tests.tiny import TINY, the_run, weights

Relit = Callable[..., int]


def in_a_process(relit: Relit, *args: str, before: Callable[[], object] = lambda: None) -> int | None:
    """The exit code of ``relit fit`` in a forked process, which does ``before`` first."""

    def run() -> None:
        before()
        os._exit(relit("fit", *TINY, *args))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert main(["fit", *TINY, f"--data.root={digits_root}", f"--run.root={root}"]) == 0
    return the_run(root)


# --- a last.ckpt that can't be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1000, 0.9], ids=["empty", "1000 bytes", "nine tenths"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    relit: Relit, uninterrupted: Path, capfd: pytest.CaptureFixture[str], left: float
) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=2") == 0
    run = the_run()
    last, previous = run / "checkpoints/last.ckpt", run / "checkpoints/previous.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
    capfd.readouterr()
    assert relit("fit", *TINY, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    said = capfd.readouterr().err
    assert f"{last} can't be read as a checkpoint" in said.replace(str(Path.cwd()) + "/", "")
    assert f"{previous} of step 20, is taken" in said.replace(str(Path.cwd()) + "/", "")
    assert torch.load(last, weights_only=True)["global_step"] == 40
    assert torch.load(previous, weights_only=True)["global_step"] == 20, "the damaged one didn't replace the good one"
    assert relit("fit", *TINY, "--ckpt_path=last") == 0
    assert_same_run(run, uninterrupted)


def test_without_a_readable_checkpoint_before_it_is_refused(relit: Relit, capsys: pytest.CaptureFixture[str]) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=2") == 0
    for name in ("last", "previous"):
        (the_run() / f"checkpoints/{name}.ckpt").write_bytes(b"")
    capsys.readouterr()
    assert relit("fit", *TINY, "--ckpt_path=last") == 1
    assert "previous.ckpt can't be read as a checkpoint" in capsys.readouterr().err


def test_a_run_killed_between_two_renames_goes_on_from_the_previous_checkpoint(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1") == 0
    folder = the_run() / "checkpoints"
    (folder / "last.ckpt").rename(folder / "previous.ckpt")
    assert relit("fit", *TINY, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 40


def test_only_a_whole_checkpoint_becomes_the_previous_one(tmp_path: Path) -> None:
    last, previous, written = tmp_path / "last.ckpt", tmp_path / "previous.ckpt", tmp_path / "written"
    for number in range(2):
        torch.save({"n": number}, written)
        put_in_place(written, last)
    assert [torch.load(path)["n"] for path in (previous, last)] == [0, 1]
    last.write_bytes(last.read_bytes()[:-10])
    torch.save({"n": 2}, written)
    put_in_place(written, last)
    assert [torch.load(path)["n"] for path in (previous, last)] == [0, 2]


# --- killed while saving and while preparing data ---------------------------------------------------------------------


def kill_at_call(module: Any, name: str, count: int, when: Callable[..., bool] = lambda *_: True) -> None:
    """From the ``count``-th call of ``module.name`` that ``when`` picks: SIGKILL in place of the call."""
    original, seen = getattr(module, name), [0]

    def killer(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, name, killer)


def renames_to(name: str) -> Callable[..., bool]:
    return lambda source, target: Path(target).name == name


@pytest.mark.parametrize(
    ("before", "reached"),
    [
        # The 6th checkpoint is of step 30; every 5 steps one is saved.
        (lambda: kill_at_call(os, "fsync", 6), 25),
        (lambda: kill_at_call(os, "replace", 6, renames_to(".last.ckpt.written")), 25),
        (lambda: kill_at_call(os, "replace", 6, renames_to("last.ckpt")), 25),
        (lambda: kill_at_call(os, "replace", 5, renames_to("previous.ckpt")), 25),
    ],
    ids=["half-written", "written", "between the renames", "before the renames"],
)
def test_killed_while_saving(relit: Relit, uninterrupted: Path, before: Callable[[], None], reached: int) -> None:
    assert in_a_process(relit, "--checkpoint.every_n_steps=5", before=before) == -signal.SIGKILL
    run = the_run()
    found = [path for name in ("last", "previous") if (path := run / f"checkpoints/{name}.ckpt").is_file()]
    assert torch.load(found[0], weights_only=True)["global_step"] == reached
    assert relit("fit", *TINY, "--checkpoint.every_n_steps=5", "--ckpt_path=last") == 0
    assert_same_run(run, uninterrupted)
