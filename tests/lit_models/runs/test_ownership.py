"""Two real processes and one run: only one of them trains it, and Ctrl-C leaves it in order."""

import multiprocessing
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.runs.ownership import LOCK
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import wait_until
from tests.support.tiny import TINY, Pace, assert_same_run, the_run

SLOW = (
    "--trainer.callbacks+=tests.support.tiny.Pace",
    "--trainer.callbacks.seconds=0.1",
    "--checkpoint.every_n_steps=1",
)
ONE = "--run.id=one"
PATIENCE = 60


class Interrupt(Callback):
    """Presses Ctrl-C before the first batch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def start(relit: Relit) -> Iterator[Callable[..., BaseProcess]]:
    """Starts a command of relit in a forked process, which ends with the test."""
    started: list[BaseProcess] = []

    def run(*arguments: str) -> BaseProcess:
        def call() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os._exit(relit(*arguments))

        process = multiprocessing.get_context("fork").Process(target=call)
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


def contents(run: Path) -> dict[str, bytes]:
    """All that a training that goes on doesn't change."""
    return {name: (run / name).read_bytes() for name in ("config.yaml", LOCK)}


@pytest.mark.long
def test_a_second_start_and_a_second_resume_are_refused_and_a_dead_owner_is_replaced(
    relit: Relit, start: Callable[..., BaseProcess], uninterrupted: Path, capfd: Output
) -> None:
    first = start("fit", *TINY, *SLOW, ONE)
    wait_until(lambda: list(Path("runs").glob("*/*/checkpoints/last.ckpt")))
    run = the_run()
    before = contents(run)
    for arguments, sentence in (
        ((ONE, "--seed_everything=2"), "There is a run runs/dcgan_digits/one already"),
        ((ONE, "--ckpt_path=last", "--trainer.max_epochs=9"), "is being trained by process "),
        ((f"--ckpt_path={run}",), "is being trained by process "),
    ):
        assert relit("fit", *TINY, *arguments) == 1
        said = capfd.readouterr().err
        assert sentence in said
        if "being trained" in sentence:
            assert f"process {first.pid} on " in said
        assert contents(run) == before
    assert first.is_alive(), "the first one trains on"
    first.kill()
    first.join()
    assert (run / LOCK).is_file(), "the lock of the dead process"
    assert relit("fit", *TINY, "--checkpoint.every_n_steps=1", ONE, "--ckpt_path=last") == 0
    said = capfd.readouterr().err
    assert re.search(rf"process {first.pid} on .* has ended without finishing the run .*/one; it is taken over", said)
    assert not (run / LOCK).exists()
    assert_same_run(run, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("resumed", [False, True], ids=["started", "resumed"])
def test_of_two_processes_at_the_same_moment_one_is_refused(
    relit: Relit, start: Callable[..., BaseProcess], uninterrupted: Path, resumed: bool, capfd: Output
) -> None:
    arguments = [*TINY, ONE]
    if resumed:
        assert relit("fit", *arguments, "--trainer.max_epochs=1") == 0
        arguments.append("--ckpt_path=last")
    pace = ("--trainer.callbacks+=tests.support.tiny.Pace", "--trainer.callbacks.seconds=0.03")
    both = [start("fit", *arguments, *pace) for _ in range(2)]
    for process in both:
        process.join(PATIENCE)
    assert sorted(str(process.exitcode) for process in both) == ["0", "1"]
    assert "is being trained by process" in capfd.readouterr().err
    assert_same_run(the_run(), uninterrupted)


@pytest.mark.long
def test_ctrl_c_names_the_folder_and_leaves_whole_files(
    relit: Relit, start: Callable[..., BaseProcess], uninterrupted: Path, capfd: Output
) -> None:
    process = start("fit", *TINY, *SLOW, ONE)
    wait_until(lambda: Pace.read(0, Path())[1] >= 25)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(PATIENCE)
    assert process.exitcode == 130
    said = capfd.readouterr().err
    assert "relit: interrupted in epoch 2. The run is in runs/dcgan_digits/one. Continue it with:" in said
    assert "\n  relit fit --ckpt_path runs/dcgan_digits/one\n" in said
    assert "Traceback" not in said
    run = the_run()
    assert not [path for path in run.rglob("*") if path.name.startswith(".")], "no lock and nothing unfinished"
    assert relit("fit", "--ckpt_path=runs/dcgan_digits/one", "--checkpoint.every_n_steps=1") == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.long
def test_ctrl_c_before_the_first_batch_leaves_nothing(start: Callable[..., BaseProcess], capfd: Output) -> None:
    process = start("fit", *TINY, "--trainer.callbacks+=tests.lit_models.runs.test_ownership.Interrupt")
    process.join(PATIENCE)
    assert process.exitcode == 130
    assert capfd.readouterr().err.splitlines()[-1] == "relit: interrupted."
    assert not Path("runs").exists()


@pytest.mark.long
def test_nodes_started_by_their_rank_alone_train_one_run(start: Callable[..., BaseProcess], monkeypatch: Patch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    nodes = []
    for rank in (0, 1):
        monkeypatch.setenv("NODE_RANK", str(rank))
        nodes.append(start("fit", *TINY, ONE, "--trainer.num_nodes=2", "--trainer.max_epochs=1"))
    for node in nodes:
        node.join(PATIENCE)
    assert [node.exitcode for node in nodes] == [0, 0]
    assert torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0


def test_nodes_that_cannot_agree_on_a_folder_are_refused(relit: Relit, capsys: Output, monkeypatch: Patch) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("NODE_RANK", rank)
        assert relit("fit", *TINY, "--trainer.num_nodes=2") == 1
        assert "need the same --run.id NAME" in capsys.readouterr().err
    assert not Path("runs").exists()
