"""Trains every method briefly on a GPU in every mode, and prints one table.

    python scripts/analyses/gpu_check.py              # on a machine with one GPU, from the repository's root
    python scripts/analyses/gpu_check.py --accelerator cpu --methods vae --modes fp32 resume   # a rehearsal without one

Modes: float32, bfloat16, float16, compiled networks, DDP with one process and with two processes that share the GPU (by
gloo, because NCCL refuses that), going on with a run, and data held on the device. Each run is a `relit fit` of the
tests' small networks on small data that need no download. Exit code 1 if one fails. Run `relit doctor` and
`pytest -m gpu` there, too; `scripts/benchmark.py train` measures the networks at their full size.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from datamodules import Digits  # noqa: E402
from tests.methods import RUNS  # noqa: E402
from tests.support.small_runs import small_run  # noqa: E402

MODES: dict[str, list[str]] = {
    "fp32": [],
    "bf16": ["--trainer.precision=bf16-mixed"],
    "fp16": ["--trainer.precision=16-mixed"],
    "compile": ["--compile=true"],
    "ddp 1": [],
    "ddp 2": [],
    "resume": [],
    "on device": ["--data.on_device=true"],
}
"""By the mode: what it adds to the command."""
REFUSED = {("darts", "fp16"): "refused by DARTSSearch: α's gradient is made by hand, without loss scaling"}
BATCHES = 8
"""Training batches of an epoch."""


class Row(NamedTuple):
    """A line of the table."""

    method: str
    mode: str
    result: str
    seconds: float
    batches_a_second: float | None
    peak_mb: float | None


def main() -> int:
    """Runs all; returns 1 if a run fails that shouldn't."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", help="the Trainer's (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(RUNS), choices=list(RUNS), metavar="METHOD")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), metavar="MODE")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for a command (default: %(default)s)")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        Digits(root=str(data)).prepare_data()
        for method in given.methods:
            for mode in given.modes:
                row = check(method, mode, given.accelerator, data, Path(folder, f"{method}, {mode}"), given.timeout)
                rows.append(row)
                print(f"{row.method}, {row.mode}: {row.result}", file=sys.stderr, flush=True)
    print("| method | mode | result | seconds | batches/s | peak on the device / MB |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        numbers = ("–" if value is None else f"{value:.1f}" for value in row[3:])
        print(f"| {row.method} | {row.mode} | {row.result} | {' | '.join(numbers)} |")
    failed = [row for row in rows if row.result != "ok" and (row.method, row.mode) not in REFUSED]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} as expected.")
    return 1 if failed else 0


def check(method: str, mode: str, accelerator: str, data: Path, runs: Path, timeout: float) -> Row:
    """One method in one mode.

    Args:
        method: A key of the tests' table of small runs, of which the first one is taken.
        mode: A key of :data:`MODES`.
        accelerator: The Trainer's.
        data: Folder of all data.
        runs: Folder of the runs.
        timeout: Seconds for a command.
    """
    arguments = [
        *("fit", *small_run(RUNS[method][0], data), *MODES[mode], f"--data.root={data}", f"--run.root={runs}"),
        *(f"--trainer.accelerator={accelerator}", f"--trainer.limit_train_batches={BATCHES}", "--trainer.devices=1"),
    ]
    start = time.monotonic()
    if mode == "ddp 1":
        result = together([[*arguments, "--trainer.strategy=ddp_find_unused_parameters_true"]], timeout)
    elif mode == "ddp 2":
        result = together([[*arguments, *two_processes(), "--run.id=two"]] * 2, timeout)
    else:
        result = together([arguments], timeout)
        if mode == "resume" and result == "ok":
            longer = small_run(RUNS[method][0], data, epochs=2)
            goes_on = [*arguments, *(one for one in longer if "epochs=" in one), "--ckpt_path=last"]
            result = together([goes_on], timeout)
    seconds = time.monotonic() - start
    records = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/*/run.json")]
    if not records:
        return Row(method, mode, result, seconds, None, None)
    peak = records[0]["peak_memory_bytes"]["accelerator"]
    epochs = 2 if mode == "resume" else 1
    rate = epochs * BATCHES / records[0]["training_seconds"] if records[0]["training_seconds"] else None
    return Row(method, mode, result, seconds, rate, None if peak is None else peak / 1e6)


def two_processes() -> list[str]:
    """Two nodes that are the same machine, each with the first device."""
    strategy = {
        "class_path": "lightning.pytorch.strategies.DDPStrategy",
        "init_args": {"process_group_backend": "gloo", "find_unused_parameters": True},
    }
    return ["--trainer.num_nodes=2", f"--trainer.strategy={json.dumps(strategy)}"]


def together(commands: list[list[str]], timeout: float) -> str:
    """Runs commands at the same time, as nodes of one job; "ok", or the last line of what the first failed one said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if len(commands) > 1 else {}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lit_models", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **job, **({"NODE_RANK": str(rank)} if job else {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate(commands)
    ]
    results = []
    for process in processes:
        try:
            _, said = process.communicate(timeout=timeout)
            results.append("ok" if process.returncode == 0 else (said.strip().splitlines() or ["no message"])[-1])
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            results.append(f"not finished in {timeout:.0f} s")
    return next((result for result in results if result != "ok"), "ok")


if __name__ == "__main__":
    sys.exit(main())
