"""Online runs, ``wandb sync``, sweeps with agents and saved workspaces, against a stand-in for W&B's server."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lit_models.runs.test_preemption import FIT, USR1, sending
from tests.support.fixtures import Patch, Relit
from tests.support.tiny import CONFIGS, TINY, the_run
from tests.support.wandb_server import ENTITY, WandbServer

pytest.importorskip("wandb")

REPOSITORY = CONFIGS.parent
SWEEPS = sorted((REPOSITORY / "scripts" / "sweeps").glob("*.yaml"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: Patch) -> Iterator[WandbServer]:
    """The stand-in, to which W&B's client in child processes talks."""
    with WandbServer() as server:
        for name, value in {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "k" * 40,
            "WANDB_MODE": "online",
            "WANDB_DIR": str(tmp_path),
            **{f"WANDB_{place}_DIR": str(tmp_path / f"wandb_{place}") for place in ("CACHE", "CONFIG", "DATA")},
        }.items():
            monkeypatch.setenv(name, value)
        yield server


def in_a_process(relit: Relit, *args: str) -> int | None:
    """The exit code of ``relit`` in a forked process: W&B's client reads its settings once a process."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(relit(*args)))
    process.start()
    process.join(120)
    return process.exitcode


def steps_of(run: object, key: str) -> list[int]:
    return [row["trainer/global_step"] for row in run.history if key in row]  # type: ignore[attr-defined]


@pytest.mark.long
def test_an_interrupted_run_goes_on_as_the_same_online_run(relit: Relit, server: WandbServer) -> None:
    told = ["--wandb.project=gans", "--wandb.tags=[digits,small]", "--wandb.notes=A note.", "--wandb.group=first"]
    online = [
        "fit",
        *TINY,
        "--wandb.enabled=true",
        *told,
        "--wandb.checkpoints=true",
        "--checkpoint.monitor=val/generator_loss",
    ]
    interrupt = ["--trainer.callbacks+=tests.support.tiny.InterruptAt", "--trainer.callbacks.batch=40"]
    assert in_a_process(relit, *online, *interrupt) == 130
    (run,) = server.runs.values()
    assert run.exit_code == 1
    assert run.name == (the_run() / "wandb_id").read_text()
    assert not server.artifacts, "training has not ended"
    assert in_a_process(relit, *online, "--ckpt_path=last") == 0
    assert list(server.runs) == [run.name], "still one run"
    assert run.exit_code == 0
    assert server.unknown == []

    asked = run.settings
    assert (asked["entity"], run.project, asked["groupName"], asked["notes"]) == (ENTITY, "gans", "first", "A note.")
    assert asked["tags"] == ["digits", "small"]
    assert run.config["model"]["init_args"]["latent_dim"] == 4
    assert run.config["environment"]["processes"] == 1

    assert [row["_step"] for row in run.history] == list(range(len(run.history))), "each row follows the one before"
    # The interrupted epoch, of steps 20 to 39, is trained again.
    assert steps_of(run, "train/generator_loss") == [9, 19, 29, 29, 39, 49, 59]
    assert steps_of(run, "samples") == [20, 40, 60]
    pictures = [name for name in run.files if name.startswith("media/images/samples")]
    assert len(pictures) == 3
    assert all(run.files[name].startswith(b"\x89PNG") for name in pictures)

    checkpoints = [artifact for artifact in server.artifacts if artifact["type"] == "model"]
    assert [set(artifact["aliases"]) for artifact in checkpoints] == [{"best", "latest"}, {"last", "latest"}]
    for artifact, name in zip(checkpoints, ("best", "last"), strict=True):
        assert artifact["name"] == f"checkpoint-{run.name}"
        assert artifact["files"][f"{name}.ckpt"] == (the_run() / f"checkpoints/{name}.ckpt").read_bytes()


@pytest.mark.long
def test_a_requeued_job_goes_on_as_the_same_online_run(
    relit: Relit, server: WandbServer, slurm: Path, monkeypatch: Patch
) -> None:
    """Slurm starts the same command again; no batch comes twice in the history, and none is missing."""
    online = ["fit", *FIT, "--wandb.enabled=true", *sending(signal.SIGUSR1, batch=7)]
    assert in_a_process(relit, *online) == USR1
    assert slurm.read_text() == "requeue 17\n"
    (run,) = server.runs.values()
    assert run.exit_code == USR1
    assert steps_of(run, "train/generator_loss") == list(range(7))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert in_a_process(relit, *online) == 0
    assert list(server.runs) == [run.name], "still one run"
    assert run.exit_code == 0
    assert [row["_step"] for row in run.history] == list(range(len(run.history))), "each row follows the one before"
    assert steps_of(run, "train/generator_loss") == list(range(40))
    assert steps_of(run, "val/generator_loss") == [19, 39]
    assert server.unknown == []


@pytest.mark.slow
def test_pieces_of_an_offline_run_are_sent_as_one_run(relit: Relit, server: WandbServer) -> None:
    offline = ["fit", *TINY, "--wandb.enabled=true", "--wandb.mode=offline", "--wandb.checkpoints=true"]
    interrupt = ["--trainer.callbacks+=tests.support.tiny.InterruptAt", "--trainer.callbacks.batch=35"]
    assert in_a_process(relit, *offline, *interrupt) == 130
    assert in_a_process(relit, *offline, "--ckpt_path=last") == 0
    assert not server.runs
    pieces = sorted(map(str, the_run().glob("wandb/offline-run-*")))
    assert len(pieces) == 2
    subprocess.run([sys.executable, "-m", "wandb", "sync", *pieces], check=True, timeout=120)
    (run,) = server.runs.values()
    assert run.name == (the_run() / "wandb_id").read_text()
    assert steps_of(run, "train/generator_loss") == [9, 19, 29, 29, 39, 49, 59]
    checkpoints = [artifact for artifact in server.artifacts if artifact["type"] == "model"]
    assert [set(artifact["aliases"]) for artifact in checkpoints] == [{"last", "latest"}]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_are_of_arguments_that_there_are(relit: Relit, path: Path, monkeypatch: Patch) -> None:
    sweep = yaml.safe_load(path.read_text())
    monkeypatch.chdir(REPOSITORY)
    program, *command, rest = sweep["command"]
    assert (program, rest) == ("relit", "${args}")
    values = {name: parameter.get("values", [parameter.get("min")]) for name, parameter in sweep["parameters"].items()}
    for number in (0, max(map(len, values.values())) - 1):
        arguments = [f"--{name}={choices[number % len(choices)]}" for name, choices in values.items()]
        assert relit(*command, *arguments, "--print_config") == 0
    assert f"wandb sweep {path.relative_to(REPOSITORY)}" in path.read_text()


@pytest.mark.slow
def test_an_agent_runs_a_sweep(server: WandbServer, tmp_path: Path, digits_root: Path, monkeypatch: Patch) -> None:
    """The sweep over n_critic, with quick runs on another data set in place of its own."""
    sweep = yaml.safe_load((REPOSITORY / "scripts" / "sweeps" / "wgan_n_critic.yaml").read_text())
    quick = [
        "--data=Digits",
        "--model.feature_maps=2",
        "--trainer.max_epochs=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.callbacks=null",
    ]
    quick += ["--checkpoint.monitor=null", "--trainer.enable_progress_bar=false", f"--run.root={tmp_path / 'runs'}"]
    sweep["command"] = [*sweep["command"][:-1], *quick, "${args}"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    monkeypatch.setenv("RELIT_DATA", str(digits_root))
    wandb = [sys.executable, "-m", "wandb"]
    subprocess.run([*wandb, "sweep", tmp_path / "sweep.yaml"], check=True, timeout=60)
    (name,) = server.sweeps
    subprocess.run([*wandb, "agent", f"{ENTITY}/relit/{name}"], check=True, timeout=200, cwd=REPOSITORY)
    assert [run.config["model"]["init_args"]["n_critic"] for run in server.runs.values()] == [1, 2]
    assert [run.config["seed_everything"] for run in server.runs.values()] == [0, 1]
    assert list(server.runs) == [f"{name}run0", f"{name}run1"], "the agent's ids"
    assert {run.settings["sweep"] for run in server.runs.values()} == {name}
    assert all(run.exit_code == 0 and steps_of(run, "train/generator_loss") for run in server.runs.values())
    ids = {path.read_text() for path in tmp_path.glob("runs/*/*/wandb_id")}
    assert ids == set(server.runs), "kept, for a resume outside the sweep"


@pytest.mark.slow
def test_a_workspace_is_saved(server: WandbServer, tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,9,1.5\n")
    script = [sys.executable, REPOSITORY / "scripts" / "analyses" / "wandb_workspace.py", tmp_path, "--name", "losses"]
    told = subprocess.run(script, check=True, timeout=60, capture_output=True, text=True).stdout
    assert f"{ENTITY}/relit" in told
    sections = server.views["losses"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Samples", "Losses", "Metrics", "System"]
