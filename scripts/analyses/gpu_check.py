"""Examines a GPU machine, trains every method briefly on it in every mode, and prints one table.

    python scripts/analyses/gpu_check.py                     # on a machine with a GPU, from the repository's root
    python scripts/analyses/gpu_check.py --accelerator cpu   # a rehearsal without one: all but CUDA itself

Modes: float32, bfloat16, float16, DDP with one process and with two processes that share the GPU (by gloo, because NCCL
refuses that), a run that is killed and goes on, which is compared with one that was not, data held on the device, and
compiled networks. Each run is a `relit fit` of the tests' small networks on small data that need no download. Processes
are forked from one that has imported everything, so a run takes seconds. Exit code 1 if one fails, or if `relit doctor`
finds something wrong.

The speed is that of small networks, after the first batches; `scripts/benchmark.py` measures the published ones. Run
`pytest -m gpu` there, too.
"""

import argparse
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
import time
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

import torch  # noqa: E402
from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

from datamodules import Digits  # noqa: E402
from lit_models.cli.doctor import examine  # noqa: E402
from lit_models.runs.reading import read_points  # noqa: E402
from tests.methods import METHODS  # noqa: E402
from tests.support.small_runs import small_run  # noqa: E402

MODES: dict[str, list[str]] = {
    "fp32": [],
    "bf16": ["--trainer.precision=bf16-mixed"],
    "fp16": ["--trainer.precision=16-mixed"],
    "ddp 1": ["--trainer.strategy=ddp_find_unused_parameters_true"],
    "ddp 2": [],
    "resume": ["--trainer.deterministic=warn", "--checkpoint.every_n_steps=1"],
    "on device": ["--data.on_device=true"],
    "compile": ["--compile=true"],
}
"""By the mode: what it adds to the command."""
REHEARSED = [mode for mode in MODES if mode not in ("fp16", "compile")]
"""Modes of a rehearsal: on a CPU float16 is slow beyond use, and each network's compilation takes half a minute."""
REFUSED = {("DARTSSearch", "fp16"): "α's gradient is made by hand, without loss scaling"}
"""Runs that relit refuses, with the reason."""
COMPILATION = 4
"""How many times as long as others a command that compiles may take: DARTS's supernet takes 11 minutes on one core."""
WARM_UP = 3
"""Batches before the speed is measured."""
NEAR = 1e-3
"""Largest relative difference of the weights after a kill. Not all CUDA kernels are deterministic."""


class Row(NamedTuple):
    """A line of the table; the numbers are None where there is none."""

    run: str
    mode: str
    result: str
    seconds: float
    images_a_second: float | None = None
    peak_mb: float | None = None
    loss: float | None = None


class Speed(Callback):
    """Writes images a second into the run's folder, as ``speed.json``: after ``WARM_UP`` batches, of one process."""

    def __init__(self) -> None:
        self.batches = self.images = 0
        self.start = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        from benchmark.estimate import images_in

        self.batches += 1
        self.images += images_in(batch) if self.batches > WARM_UP else 0
        if self.batches == WARM_UP or trainer.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            if self.batches == WARM_UP:
                self.start = time.perf_counter()
            elif self.images and trainer.is_global_zero:
                speed = {"images_a_second": self.images / (time.perf_counter() - self.start)}
                Path(trainer.default_root_dir, "speed.json").write_text(json.dumps(speed), encoding="utf-8")
                self.images, self.batches = 0, WARM_UP - 1  # the next epoch's first batch starts again


def runs_of(methods: list[str]) -> dict[str, tuple[str, ...]]:
    """The small runs of some methods, by a title."""
    return {
        f"{method} {number}" if number > 1 else method: run
        for method in methods
        for number, run in enumerate(METHODS[method].runs, 1)
    }


def main() -> int:
    """Runs all; returns 1 if a run fails that shouldn't."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", help="the Trainer's (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument(
        "--modes", nargs="+", choices=list(MODES), metavar="MODE", help="default: all; in a rehearsal, what a CPU can"
    )
    parser.add_argument("--batches", type=int, default=8, help="training batches of an epoch (default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        help="seconds for a command, four times as many if it compiles (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to this file, too")
    given = parser.parse_args()
    start_fork_server()
    wrong: list[str] = []
    if given.accelerator != "cpu":  # in a rehearsal, `relit doctor` shows the same
        for line in examine():
            print(line, flush=True)
            wrong += [line.name] * (line.status == "wrong")
    rows = []
    modes = given.modes or (REHEARSED if given.accelerator == "cpu" else list(MODES))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        Digits(root=str(data)).prepare_data()
        os.environ["RELIT_DATA"] = str(data)  # data modules that wrap others have no argument for it
        for title, run in runs_of(given.methods).items():
            for mode in modes:
                place = Path(folder, f"{title}, {mode}")
                patience = given.timeout * (COMPILATION if mode == "compile" else 1)
                rows.append(check(title, run, mode, given.accelerator, data, place, given.batches, patience))
                print(f"{title}, {mode}: {rows[-1].result}", file=sys.stderr, flush=True)
    print("| run | mode | result | seconds | images/s | peak on the device / MB | loss |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        numbers = ("–" if value is None else f"{value:,.4g}" for value in row[3:])
        print(f"| {row.run} | {row.mode} | {row.result} | {' | '.join(numbers)} |")
    failed = [row for row in rows if not as_expected(row)]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} as expected.")
    if wrong:
        print(f"`relit doctor` finds something wrong: {', '.join(wrong)}.")
    if given.json:
        given.json.write_text(json.dumps([row._asdict() for row in rows], indent=1), encoding="utf-8")
    return 1 if failed or wrong else 0


def start_fork_server() -> None:
    """Starts the process that the others are forked from, with all imports. There is only one, so it has to come before
    the one of `relit doctor`, which imports less."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "scripts")])
    modules = ["lit_models.cli.command", "lit_models.cli.kernels", "benchmark.scale", "tests.support.small_runs"]
    multiprocessing.set_forkserver_preload(modules)
    forkserver.ensure_running()


def as_expected(row: Row) -> bool:
    """Whether the run has ended as it should, or was refused as it should be."""
    if (row.run.split()[0], row.mode) in REFUSED:
        return row.result.startswith("relit: ")
    return row.result == "ok"


def check(
    title: str, run: tuple[str, ...], mode: str, accelerator: str, data: Path, runs: Path, batches: int, timeout: float
) -> Row:
    """One run in one mode.

    Args:
        title: The run's.
        run: Its configuration, with what makes it small.
        mode: A key of :data:`MODES`.
        accelerator: The Trainer's.
        data: Folder of all data.
        runs: Folder of the runs.
        batches: Training batches of an epoch.
        timeout: Seconds for a command.
    """
    arguments = [
        *("fit", *small_run(run, data, epochs=2 if mode == "resume" else 1), *MODES[mode]),
        *(f"--trainer.accelerator={accelerator}", f"--trainer.limit_train_batches={batches}", "--trainer.devices=1"),
        "--trainer.callbacks+=analyses.gpu_check.Speed",
    ]
    start = time.monotonic()
    if mode == "ddp 2":
        node = [*arguments, *two_processes(), f"--run.root={runs}", "--run.id=two"]
        result = together([node, node], timeout)
    else:
        result = together([[*arguments, f"--run.root={runs}"]], timeout)
    if mode == "resume" and result == "ok":
        result = resumed(arguments, runs, timeout)
    seconds = time.monotonic() - start
    folders = [path.parent for path in runs.glob("*/*/run.json")]
    if not folders:
        return Row(title, mode, result, seconds)
    record = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
    peak = record["peak_memory_bytes"]["accelerator"]
    speed = folders[0] / "speed.json"
    rate = json.loads(speed.read_text(encoding="utf-8"))["images_a_second"] if speed.is_file() else None
    loss = last_loss(folders[0])
    if result == "ok" and loss is None:
        result = "no finite loss"
    return Row(title, mode, result, seconds, rate, None if peak is None else peak / 1e6, loss)


def last_loss(run: Path) -> float | None:
    """The last finite value of the first training loss that a run has logged."""
    points = read_points(run / "metrics.csv")
    return next((found[-1].value for name, found in points.items() if re.match("train/.*loss", name)), None)


def resumed(arguments: list[str], whole: Path, timeout: float) -> str:
    """Kills the same run in its last epoch, lets it go on, and compares its weights with the uninterrupted one's.

    Args:
        arguments: Of the run, but for its folder.
        whole: Folder of the uninterrupted run.
        timeout: Seconds for a command.
    """
    (finished,) = whole.glob("*/*/checkpoints/last.ckpt")
    expected = torch.load(finished, weights_only=True, map_location="cpu")
    epochs = expected["epoch"] + 1
    batches = expected["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    at = batches - batches // epochs + 2
    here = whole / "killed"
    kill = ["--trainer.callbacks+=tests.support.tiny.KillAt", f"--trainer.callbacks.batch={at}"]
    result = together([[*arguments, *kill, f"--run.root={here}"]], timeout)
    if result != f"ended by signal {signal.SIGKILL}":
        return f"not killed: {result}"
    result = together([[*arguments, f"--run.root={here}", "--ckpt_path=last"]], timeout)
    if result != "ok":
        return result
    (killed,) = here.glob("*/*/checkpoints/last.ckpt")
    state = torch.load(killed, weights_only=True, map_location="cpu")["state_dict"]
    off = max(
        float((state[name].double() - value.double()).norm() / value.double().norm().clamp_min(1e-6))
        for name, value in expected["state_dict"].items()
    )
    return "ok" if off <= NEAR else f"the weights are {off:.2g} off an uninterrupted run's"


def two_processes() -> list[str]:
    """Two nodes that are the same machine, each with the first device."""
    strategy = {
        "class_path": "lightning.pytorch.strategies.DDPStrategy",
        "init_args": {"process_group_backend": "gloo", "find_unused_parameters": True},
    }
    return ["--trainer.num_nodes=2", f"--trainer.strategy={json.dumps(strategy)}"]


def together(commands: list[list[str]], timeout: float) -> str:
    """Runs commands at the same time, as nodes of one job; "ok", or the last line of what the first failed one said."""
    context: Any = multiprocessing.get_context("forkserver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        started: list[tuple[BaseProcess, Path]] = []
        for rank, arguments in enumerate(commands):
            said = Path(folder, str(rank))
            environment = {**os.environ, **(as_of_torchrun(rank, len(commands), port) if len(commands) > 1 else {})}
            process = context.Process(target=run_command, args=(arguments, environment, said))
            process.start()
            started.append((process, said))
        end = time.monotonic() + timeout
        while running := [process for process, _ in started if process.exitcode is None]:
            if time.monotonic() > end or any(process.exitcode for process, _ in started):
                break  # a rank that has failed leaves the other waiting
            connection.wait([process.sentinel for process in running], max(0.0, end - time.monotonic()))
        started.sort(key=lambda one: one[0].exitcode is None)  # those that are still running are killed
        results = [ending(process, said, timeout) for process, said in started]
    return next((result for result in results if result != "ok"), "ok")


def as_of_torchrun(rank: int, world_size: int, port: int) -> dict[str, str]:
    """The environment of a node's only process, as torchrun makes it."""
    values: dict[str, object] = {"RANK": rank, "LOCAL_RANK": 0, "GROUP_RANK": rank, "WORLD_SIZE": world_size}
    values |= {"LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    values |= {"TORCHELASTIC_RUN_ID": f"gpu-check-{port}", "TORCHELASTIC_RESTART_COUNT": 0}
    return {name: str(value) for name, value in values.items()}


def ending(process: BaseProcess, said: Path, timeout: float) -> str:
    """How a process has ended; it is killed if it has not."""
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"not finished in {timeout:.0f} s"
    if process.exitcode < 0:
        return f"ended by signal {-process.exitcode}"
    lines = [line for line in said.read_text(encoding="utf-8").splitlines() if line.strip()]
    refusals = [line for line in lines if line.startswith("relit: ")]
    return "ok" if process.exitcode == 0 else (refusals or lines or ["no message"])[-1]


def run_command(arguments: list[str], environment: dict[str, str], said: Path) -> None:
    """Work of a process: a command of relit, of which what it prints goes into a file."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from lit_models.__main__ import main as relit

    rank_zero_only.rank = int(os.environ.get("RANK", "0"))  # type: ignore[attr-defined]  # read before the fork
    sys.argv = ["relit"]
    code = relit(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of loggers and of process groups don't hold it up


if __name__ == "__main__":
    sys.exit(main())
