import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_models.__main__ import main
from lit_models.cli import processes, sweep, sweep_settings, sweep_training, sweep_worker
from lit_models.errors import RunError
from tests.support import fake_training
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import REPOSITORY, environment, wait_until
from tests.support.tables import rows_of

optuna = pytest.importorskip("optuna")

SCORE = ("--metric", "val/score", "--direction", "minimize")
IN_A_PROCESS = """
import sys
from lit_models.cli import sweep, sweep_training
from tests.support import fake_training
sweep_training.RELIT = fake_training.COMMAND
def resolved(given):
    return {"run": {"experiment": "toy"}, **fake_training.settings_of(list(given))}
sweep.resolved = sweep_training.resolved = resolved
sys.exit(sweep.main(sys.argv[1:]))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: Patch) -> Any:
    """Runs a sweep whose trainings are those of ``tests.support.fake_training``."""

    def resolve(arguments: Any) -> dict[str, Any]:
        settings = fake_training.settings_of(list(arguments))
        if unknown := [name for name in settings if name.startswith("model.") and name[6:] not in "xyz"]:
            raise RunError(f"There is no argument --{unknown[0]}.")
        return {"run": {"experiment": "toy"}, **settings}

    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text("{}")
    monkeypatch.setattr(sweep_training, "RELIT", fake_training.COMMAND)
    for module in (sweep, sweep_training):
        monkeypatch.setattr(module, "resolved", resolve)
    return lambda *given: main(["sweep", "toy.yaml", *SCORE, *map(str, given)])


def started() -> Counter[str]:
    return Counter(Path("runs/toy/started.txt").read_text().splitlines())


def rows_of_table() -> list[dict[str, str]]:
    (path,) = Path("runs/toy/sweeps").glob("*/table.csv")
    return rows_of(path)


GRID = ("--vary", "model.x", 1, 3, "--vary", "seed_everything", 0, 1, 2)


def test_a_grid_is_sorted_with_seeds_as_mean_and_deviation(toy: Any, capsys: Output) -> None:
    assert toy(*GRID) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert len(lines) == 6, "one line a trial"
    assert lines[0].startswith("[1/6] x=1 seed_everything=0: val/score 6 (")
    table = [line for line in said.splitlines() if line.startswith("| ")]
    assert table[2].split() == ["|", "3", "|", "2.1", "±", "0.1", "|", "3", "|"], "2, 2.1 and 2.2"
    assert table[3].split() == ["|", "1", "|", "6.1", "±", "0.1", "|", "3", "|"]
    best, other = rows_of_table()
    assert float(best["mean"]) == pytest.approx(2.1)
    assert float(best["sd"]) == pytest.approx(0.1)
    assert (best["n"], other["model.x"]) == ("3", "1")
    assert set(started()) == {f"x={x}+seed_everything={seed} new" for x in (1, 3) for seed in (0, 1, 2)}


def test_a_sweep_that_is_repeated_trains_nothing(toy: Any) -> None:
    seeds = ("--vary", "seed_everything", 0, 1)
    assert toy("--vary", "model.x", 1, 3, *seeds) == 0
    before = started()
    assert toy("--vary", "model.x", 1, 3, *seeds) == 0
    assert started() == before
    assert toy("--vary", "model.x", 1, 3, 5, *seeds) == 0
    assert started() - before == Counter({f"x=5+seed_everything={seed} new": 1 for seed in (0, 1)})


def test_runs_with_other_settings_are_not_reused(toy: Any) -> None:
    assert toy("--vary", "model.x", 1, 3) == 0
    assert toy("--vary", "model.x", 1, 3, "--", "--model.y=10") == 0
    assert set(started()) == {"x=1 new", "x=3 new", "x=1@2 new", "x=3@2 new"}


def test_failures_are_listed_and_tried_again_on_demand(toy: Any, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    assert toy("--vary", "model.x", 1, 2, 3) == 0
    said = capsys.readouterr().out
    assert "failed: x is unlucky." in said
    assert "Failed: model.x=1: x is unlucky." in said
    monkeypatch.setenv("FAKE_FAILS", "no")
    assert toy("--vary", "model.x", 1, 2, 3) == 0
    assert "Failed: model.x=1" in capsys.readouterr().out
    assert toy("--vary", "model.x", 1, 2, 3, "--retry_failed") == 0
    assert "Failed" not in capsys.readouterr().out
    assert started() == {"x=1 new": 2, "x=2 new": 1, "x=3 new": 1}


@pytest.mark.parametrize(("sampler", "trials"), [("random", 5), ("tpe", 12)])  # of which tpe draws ten at random
def test_samplers_search_ranges_with_every_seed(toy: Any, sampler: str, trials: int) -> None:
    ranges = ("--range", "model.x", "0.001", "10.0", "log", "--range", "model.y", 0, 5)
    assert toy("--sampler", sampler, "--trials", trials, *ranges, "--vary", "seed_everything", 0, 1) == 0
    rows = rows_of_table()
    assert len(rows) >= trials - 1, "a setting that comes again is no further row"
    means = [float(row["mean"]) for row in rows]
    assert means == sorted(means)
    for row in rows:
        runs = row["runs"].split()
        assert row["n"] == "2"
        assert [run.rpartition("=")[2] for run in runs] == ["0", "1"]
        assert float(row["model.y"]) == int(row["model.y"])
        expected = [fake_training.value_of({**row, "seed_everything": seed}, 4) for seed in ("0", "1")]
        assert float(row["mean"]) == pytest.approx(sum(expected) / 2), "the run used exactly the value of the table"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_two_of_the_first_proposals_are_alike(toy: Any, sampler: str) -> None:
    """Proposals 1 and 4 were the same, where a whole number had some ten values."""
    assert toy("--sampler", sampler, "--trials", 6, "--range", "model.x", 0.0, 1.0, "--range", "model.y", 0.0, 1.0) == 0
    points = np.array([[float(row["model.x"]), float(row["model.y"])] for row in rows_of_table()])
    distances = np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(6, k=1)]
    assert distances.min() > 0.05


@pytest.fixture
def pruned_soon(monkeypatch: Patch) -> None:
    """Trainings are compared with the first two, and x=100 doesn't end before it is stopped."""
    monkeypatch.setattr(sweep_worker, "FEWEST_TO_PRUNE", 2)
    monkeypatch.setattr(sweep_training, "LOOK_EVERY", 0.05)
    monkeypatch.setenv("FAKE_ENDLESS", "x=100")


@pytest.mark.usefixtures("pruned_soon")
def test_bad_runs_are_stopped_early(toy: Any, capsys: Output) -> None:
    assert toy("--vary", "model.x", 3, 2.9, 100, "--prune", 1) == 0
    assert "x=100: stopped early" in capsys.readouterr().out
    assert [row["model.x"] for row in rows_of_table()] == ["3", "2.9"]
    assert not processes.finished(Path("runs/toy/x=100"))


def test_a_run_is_stopped_after_so_many_epochs_by_trials_that_were_reused(
    toy: Any, request: pytest.FixtureRequest, capsys: Output
) -> None:
    assert toy("--vary", "model.x", 3, 2.9) == 0
    request.getfixturevalue("pruned_soon")
    assert toy("--vary", "model.x", 3, 2.9, 100, "--prune", 3) == 0
    assert "x=100: stopped early" in capsys.readouterr().out
    assert started() == {"x=3 new": 1, "x=2.9 new": 1, "x=100 new": 1}
    epochs = Path("runs/toy/x=100/metrics.csv").read_text().splitlines()[1:]
    assert len(epochs) == 4, "three that are over, and the one that was stopped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vary", "model.x"), "--vary model.x has no value"),
        ((), "needs --vary NAME VALUE …"),
        (("--vary", "model.nonsense", 1), "There is no argument --model.nonsense."),
        (("--vary", "model.x", 1, "--vary", "model.x", 2), "model.x is varied twice"),
        (("--range", "model.x", 0, 1), "has no grid"),
        (("--range", "model.x", 0, 1, "log", "--sampler", "tpe"), "is no range"),
        (("--range", "model.x", 2, 1, "--sampler", "tpe"), "is no range"),
        (("--vary", "seed_everything", 1, "--sampler", "tpe"), "has nothing to choose"),
        (("--vary", "model.x", 1, "--trials", 0), "--trials is 0"),
        (("--vary", "model.x", 1, "--sampler_seed", -1), "--sampler_seed is -1"),
    ],
)
def test_bad_input_is_refused_before_the_first_trial(
    toy: Any, capsys: Output, arguments: tuple[Any, ...], message: str
) -> None:
    assert toy(*arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()


def test_a_metric_that_is_not_logged_ends_the_sweep_after_the_first_trial(toy: Any, capsys: Output) -> None:
    assert toy("--vary", "model.x", 1, 2, "--metric", "val/fid") == 1
    assert "No value of val/fid is logged; there are val/score." in capsys.readouterr().err
    assert sum(started().values()) == 1


def test_a_full_disk_ends_the_sweep_and_is_no_failure(toy: Any, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("FAKE_FULL", "1")
    assert toy("--vary", "model.x", 1, 2) == 1
    assert capsys.readouterr().err == "relit: last.ckpt can't be written (No space left on device): make room.\n"
    monkeypatch.delenv("FAKE_FULL")
    assert toy("--vary", "model.x", 1, 2) == 0
    assert "Failed" not in capsys.readouterr().out
    assert [row["n"] for row in rows_of_table()] == ["1", "1"]


def test_a_folder_that_cannot_be_written(toy: Any, capsys: Output) -> None:
    Path("runs").write_text("a file")
    assert toy("--vary", "model.x", 1) == 1
    assert re.fullmatch(r"relit: \S+ can't be read or written \(.*\): mend that, .*\n", capsys.readouterr().err)


def test_another_sweep_under_the_same_name_is_refused(toy: Any, capsys: Output) -> None:
    assert toy("--vary", "model.x", 1, "--name", "mine") == 0
    assert toy("--vary", "model.x", 1, 2, "--name", "mine") == 1
    assert "has other settings: choose another --name" in capsys.readouterr().err


def test_a_file_that_is_no_study(toy: Any, capsys: Output) -> None:
    Path("other.db").write_text("this is text, and no SQLite file" * 100)
    assert toy("--vary", "model.x", 1, "--storage", "other.db") == 1
    assert "The sweep's file other.db can't be used" in capsys.readouterr().err


def test_names_of_runs() -> None:
    made = sweep_settings.Sweep("toy", [], {}, {}, "grid", "m", "minimize", "best", None, 0, Path(), Path("sweeps.db"))
    assert made.run_id({"model.a.lr": "1e-3", "model.b.lr": "2"}) == "a.lr=1e-3+b.lr=2"
    first, second = (made.run_id({"model.widths": widths}) for widths in ("[1, 2]", "[1,-2]"))
    assert first != second
    assert first.startswith("widths=-1--2-@")
    assert len(made.run_id({f"model.argument{n}": "value" for n in range(30)})) <= sweep_settings.LONGEST_ID


def in_a_process(folder: Path, *given: object, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS, "toy.yaml", *SCORE, *map(str, given)],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_a_killed_sweep_takes_its_trial_up_again(toy: Any) -> None:
    search = ("--sampler", "tpe", "--range", "model.x", "0.0", "10.0", "--trials", 6)
    assert toy(*search) == 0
    whole, runs = rows_of_table(), list(Counter(line.split()[0] for line in started()))
    assert len(runs) == 6
    os.rename("runs", "before")
    for killed in (runs[2], runs[4]):
        process = in_a_process(Path.cwd(), *search, FAKE_KILLS=killed)
        process.communicate(timeout=60)
        assert process.returncode == -9
    assert toy(*search) == 0
    assert rows_of_table() == whole, "the same proposals, the same values"
    assert started() == {f"{run} new": 1 for run in runs} | {f"{run} resumed": 1 for run in (runs[2], runs[4])}


@pytest.mark.long
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138)])
def test_a_schedulers_signal_ends_the_training_and_is_no_failure(toy: Any, name: str, code: int) -> None:
    process = in_a_process(Path.cwd(), "--vary", "model.x", 1, 2, FAKE_SECONDS="0.5")
    wait_until(Path("runs/toy/x=1/metrics.csv").is_file, process)
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert said.endswith(f"Ended by {name}; the same command continues.\n")
    assert not Path("runs/toy/x=1/run.json").exists(), "the training has ended, too"
    assert toy("--vary", "model.x", 1, 2) == 0
    assert started() == {"x=1 new": 2, "x=2 new": 1}
    assert [row["n"] for row in rows_of_table()] == ["1", "1"]


@pytest.mark.long
def test_two_processes_share_a_sweep(toy: Any) -> None:
    workers = [in_a_process(Path.cwd(), *GRID, FAKE_SECONDS="0.3") for _ in range(2)]
    told = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert set(started().values()) == {1}, "no run is trained twice"
    assert len(started()) == 6
    assert all("2.1 ± 0.1" in out for out in told), "each shows the whole table"
    assert sorted(sum(line.startswith("[") for line in out.splitlines()) for out in told) != [0, 6], "each does a part"


@pytest.mark.long
def test_two_sweeps_begin_at_once_on_one_file(toy: Any) -> None:
    """Neither finds the tables half made, and each has its own trials."""
    for number in range(3):
        root = ("--root", f"runs{number}")
        workers = [in_a_process(Path.cwd(), *root, "--vary", "model.x", value) for value in (1, 2)]
        told = [worker.communicate(timeout=120) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], told
        assert len(list(Path(f"runs{number}/toy/sweeps").glob("*.db"))) == 1
        assert len(list(Path(f"runs{number}/toy/sweeps").glob("*/table.csv"))) == 2


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_real_sweep_that_is_killed_goes_on(relit: Relit, tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """Its trainings are commands, in the process group of the sweep, which are killed with it."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    pace = '--trainer.callbacks=[{"class_path": "tests.support.tiny.Pace", "init_args": {"seconds": 0.03}}]'
    command = [
        *("sweep", "dcgan_digits", "--vary", "model.latent_dim", "4", "8"),
        *("--metric", "val/discriminator_loss", "--direction", "maximize", "--"),
        *("--model.feature_maps=2", "--trainer.max_epochs=2", "--trainer.accelerator=cpu", pace),
    ]

    def in_a_group() -> None:
        os.setsid()
        os._exit(relit(*command))

    process = multiprocessing.get_context("fork").Process(target=in_a_group)
    process.start()
    wait_until((tmp_path / "runs/dcgan_digits/latent_dim=4/checkpoints/last.ckpt").is_file)
    assert process.is_alive()
    os.killpg(process.pid or 0, 9)
    process.join()
    assert process.exitcode == -9
    capsys.readouterr()
    assert relit(*command) == 0
    assert capsys.readouterr().out.count("val/discriminator_loss") == 3, "two trials and the table"
    logs = [path.read_text() for path in sorted(tmp_path.glob("runs/dcgan_digits/sweeps/*/trial-*.log"))]
    assert [log.count("--ckpt_path=last") for log in logs] == [1, 0]
    for run in ("latent_dim=4", "latent_dim=8"):
        assert processes.finished(tmp_path / "runs" / "dcgan_digits" / run)


def test_a_process_of_a_sweep_says_for_what_it_waits(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.setattr("lit_models.cli.sweep_training.PATIENCE", 0.0)
    path = tmp_path / "study.lock"
    held = sweep_training.waited_for(path)
    assert not capsys.readouterr().out
    threading.Timer(0.4, held.close).start()
    sweep_training.waited_for(path).close()
    assert capsys.readouterr().out == f"Waiting for another process, which holds {path}.\n"
