import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_models.errors import RunError
from lit_models.runs.folder import (
    RunOptions,
    announce_to_child_ranks,
    find_checkpoint,
    new_run_folder,
    remove_if_empty_handed,
    run_of,
)
from lit_models.support.checkpoint_paths import checkpoint_in
from tests.support.fixtures import Patch

pytestmark = pytest.mark.usefixtures("no_job")


def made_checkpoint(run: str, name: str, age: float) -> Path:
    path = Path("runs/x") / run / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (path.parents[1] / "config.yaml").touch()
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_runs_started_in_the_same_second_get_folders_of_their_own() -> None:
    folders = {new_run_folder(RunOptions("x")) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and folder.parent == Path("runs/x") for folder in folders)


def test_a_requeued_slurm_job_finds_its_folder_and_array_tasks_have_their_own(monkeypatch: Patch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert new_run_folder(RunOptions("x")) == new_run_folder(RunOptions("x")) == Path("runs/x/slurm-17")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert new_run_folder(RunOptions("x")) == Path("runs/x/slurm-16_3")


def test_the_runs_of_a_sweep_within_a_job_have_their_own(monkeypatch: Patch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    for run in ("a", "b"):
        monkeypatch.setenv("WANDB_RUN_ID", run)
        assert new_run_folder(RunOptions("x")) == Path(f"runs/x/slurm-17-{run}")
        made_checkpoint(f"slurm-17-{run}", "last.ckpt", age=0)


def test_a_run_that_has_begun_is_not_trained_again_under_its_name(monkeypatch: Patch) -> None:
    options = RunOptions("x", id="a")
    assert new_run_folder(options) == new_run_folder(options)
    made_checkpoint("a", "previous.ckpt", age=0)
    with pytest.raises(RunError, match="There is a run runs/x/a already: go on with it by --ckpt_path last"):
        new_run_folder(options)
    assert new_run_folder(options, for_training=False) == Path("runs/x/a")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert new_run_folder(options) == Path("runs/x/a")


def test_other_ranks_take_the_run_of_the_first_one_though_another_is_newer_by_now() -> None:
    ours = made_checkpoint("a", "last.ckpt", age=1)
    announce_to_child_ranks(Path("runs/x/a"))
    made_checkpoint("b", "last.ckpt", age=0)
    assert find_checkpoint("last", RunOptions("x")) == ours.absolute()
    announce_to_child_ranks(None)


def test_the_newest_run_of_an_experiment_gives_its_best_checkpoint_or_its_last() -> None:
    assert checkpoint_in(Path("runs/x")) is None
    best = made_checkpoint("a", "best.ckpt", age=2)
    made_checkpoint("a", "last.ckpt", age=1)
    assert checkpoint_in(Path("runs/x")) == checkpoint_in(Path("runs/x/a")) == best
    newer = made_checkpoint("b", "last.ckpt", age=0)
    assert checkpoint_in(Path("runs/x")) == newer


def test_the_newest_checkpoint_is_meant() -> None:
    made_checkpoint("a", "last.ckpt", age=1)
    newest = made_checkpoint("b", "last.ckpt", age=0)
    best = made_checkpoint("a", "best.ckpt", age=5)
    assert find_checkpoint("last", RunOptions("x")) == newest
    assert find_checkpoint("best", RunOptions("x")) == best
    assert find_checkpoint("last", RunOptions("x", id="a")).parent == best.parent
    assert find_checkpoint(str(newest), RunOptions(None)) == newest
    assert run_of(newest) == Path("runs/x/b").absolute()
    assert run_of(Path("elsewhere/last.ckpt")) is None


@pytest.mark.parametrize("which", ["last", "best", "nothing.ckpt"])
def test_no_checkpoint(which: str) -> None:
    with pytest.raises(RunError, match="ckpt"):
        find_checkpoint(which, RunOptions("x"))


def test_a_folder_is_removed_only_if_it_holds_nothing_of_worth() -> None:
    empty, kept = new_run_folder(RunOptions("x")), new_run_folder(RunOptions("y"))
    (empty / "config.yaml").touch()
    (kept / "metrics.csv").touch()
    remove_if_empty_handed(empty)
    remove_if_empty_handed(kept)
    assert not empty.parent.exists()
    assert kept.is_dir()


@pytest.mark.long
def test_ranks_under_torchrun_agree_on_one_folder() -> None:
    # Each rank writes a separate file: lines that two processes print to one pipe can run into each other.
    code = """
import os
from pathlib import Path
from lit_models.runs.folder import RunOptions, new_run_folder
Path("rank" + os.environ["RANK"]).write_text(str(new_run_folder(RunOptions("x"))))
"""
    Path("rank.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "rank.py"]
    subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert Path("rank0").read_text() == Path("rank1").read_text()
    assert len(list(Path("runs/x").iterdir())) == 1
