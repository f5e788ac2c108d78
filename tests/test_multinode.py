"""Two hosts by ``torchrun``: network namespaces on this one, joined by a cable.

pytest -m multinode tests/test_multinode.py       (needs iproute2, and root)
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lit_models.runs.test_resume import assert_same_run
from tests.support.fixtures import Relit
from tests.support.tiny import CONFIGS, TINY, Pace

FIT = (*TINY, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--checkpoint.every_n_steps=1")
PATIENCE = 300
"""Seconds to wait for anything; it takes about 30 on a quiet machine."""

pytestmark = [pytest.mark.multinode, pytest.mark.timeout(900)]


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces, 10.77.0.1 and 10.77.0.2, in which the network's device has the same name."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with: apt-get install iproute2")
    names = (f"relit{os.getpid()}a", f"relit{os.getpid()}b")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces can't be made here: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


def test_a_killed_worker_is_started_again_and_both_go_on(
    hosts: tuple[str, str], relit: Relit, tmp_path: Path, digits_root: Path
) -> None:
    """With the command unchanged; and the run equals that of two processes of which none was killed."""
    fit = [
        *FIT,
        "--trainer.callbacks+=tests.support.tiny.Pace",
        "--trainer.callbacks.seconds=0.3",
        "--trainer.num_nodes=2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent), "GLOO_SOCKET_IFNAME": "cable"}
    agents, logs = [], [tmp_path / f"host{rank}.log" for rank in (0, 1)]
    try:
        for rank, (host, log) in enumerate(zip(hosts, logs, strict=True)):
            torchrun = [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
                *(f"--node-rank={rank}", "--rdzv-backend=static", "--rdzv-endpoint=10.77.0.1:29500"),
                *("--max-restarts=10", "-m", "lit_models"),
            ]
            with log.open("w") as file:
                command = ["ip", "netns", "exec", host, *torchrun, "fit", *fit]
                agents.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
        deadline = time.monotonic() + PATIENCE
        while (worker := Pace.read(1, tmp_path))[1] < 5:
            assert time.monotonic() < deadline, _told(logs)
            assert all(agent.poll() is None for agent in agents), _told(logs)
            time.sleep(0.1)
        os.kill(worker[0], signal.SIGKILL)
        codes = [agent.wait(PATIENCE) for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.terminate()  # which ends its worker, too
                agent.wait(60)
    assert codes == [0, 0], _told(logs)
    told = _told(logs)
    assert told.count("relit: going on with epoch 1, batch") == 1, told
    assert told.count("The run is in") == 1

    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *FIT, *two, "--run.root=whole") == 0
    (run,), (whole,) = tmp_path.glob("runs/*/*"), tmp_path.glob("whole/*/*")
    assert_same_run(run, whole)


def _told(logs: list[Path]) -> str:
    return "\n".join(log.read_text() for log in logs)
