"""The ``fit`` part of ``benchmark.py``: `relit fit` of configurations in separate processes, in fp32 and bf16: speed,
share of this machine's measured peak, time to the first optimizer step and peak of memory; and the same of a bare
program (benchmark/bare_start.py) and of a peer's script, in alternating rounds:

    python scripts/benchmark.py fit dcgan_mnist --against ../dcgan --script 'main.py --dataset mnist --batchSize 64'

Both sides are timed by one hook on every optimizer's step (benchmark/watch.py); nothing of the script is changed. Give
both the same network, batch and data. The floating-point operations are those of convolutions and matrix products,
counted in a real batch of relit's.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark.estimate import CountedStep
from benchmark.race import WARM_UP, add_common_arguments, begin, print_conditions, print_table, race, ratio, write_json
from benchmark.sides import CONFIGS, fit_with
from lit_models.adversarial import AdversarialModule
from lit_models.cli.doctor import peak

REPOSITORY = CONFIGS.parent
WATCH, BARE = Path(__file__).with_name("watch.py"), Path(__file__).with_name("bare_start.py")
PRECISIONS = {"float32": [], "bfloat16": ["--trainer.precision=bf16-mixed"]}
OURS = {"relit fit": "float32", "relit fit, bf16": "bfloat16"}
"""relit's sides and their types."""
PROGRAM = "bare program"
"""The side of :mod:`benchmark.bare_start`."""
TYPES = {**OURS, PROGRAM: "float32"}
"""By side that computes relit's network."""
HELD = 0.9
"""Part of an earlier share of the peak that has to be reached."""


class Measured(NamedTuple):
    """A process.

    Attributes:
        first_step: Seconds from its start to its first optimizer step.
        first_cpu: CPU time until then, which other programs change less.
        seconds: Seconds a batch, after the first ones; 0 if none was timed.
        peak_bytes: Peak of its memory.
    """

    first_step: float
    first_cpu: float
    seconds: float
    peak_bytes: float


def watched(
    command: Sequence[str],
    steps: int,
    optimizer_steps: int,
    threads: int,
    folder: Path,
    python: str = sys.executable,
    warm_up: int = WARM_UP,
) -> Measured:
    """Runs a training script until it has done some batches.

    Args:
        command: The script, or ``-m`` and a module, with arguments.
        steps: Batches to time; 0 to stop at the first optimizer step.
        optimizer_steps: Optimizer steps of a batch.
        threads: Threads.
        folder: Where it runs.
        python: The interpreter.
        warm_up: Batches before those.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as scratch:
        result, printed = Path(scratch, "result.json"), Path(scratch, "printed")
        counts = (str(warm_up * optimizer_steps if steps else 1), str(steps * optimizer_steps))
        with printed.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [python, str(WATCH), str(result), str(time.time()), *counts, *command],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                process.wait()
            finally:
                _end(process)
        if not result.is_file():
            last = "\n".join(printed.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            needed = (warm_up + steps) * optimizer_steps if steps else 1
            raise SystemExit(f"{shlex.join(command)} ended before its {needed} optimizer steps were done:\n{last}")
        found = json.loads(result.read_text(encoding="utf-8"))
    return Measured(
        found["first_step"], found["first_cpu"], found["seconds"] / steps if steps else 0.0, found["peak_bytes"]
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and the workers that it has started."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class CountedBatch(CountedStep):
    """Counts a batch's optimizer steps, too.

    Attributes:
        config: The run's ``config.yaml``, in which every argument stands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizer_steps = 0
        self.config = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, AdversarialModule) and pl_module.n_critic > 1:
            raise SystemExit("With several critic steps, batches differ: add --set '--model.n_critic 1'.")
        super().on_train_start(trainer, pl_module)

    def count(self, *_: Any) -> None:
        """The hook of all optimizers."""
        self.optimizer_steps += self.counts


def counted(arguments: list[str]) -> CountedBatch:
    """What a batch of `relit fit` takes."""

    def count(*_: Any) -> None:
        if isinstance(CountedBatch.last, CountedBatch):  # which it isn't when the command tries its optimizers
            CountedBatch.last.count()

    hook = register_optimizer_step_post_hook(count)
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Without what monitors validation: checkpoints, early stopping.
            alone = ("--trainer.limit_val_batches=0", "--checkpoint.monitor=null", "--trainer.callbacks=[]")
            found: CountedBatch = fit_with(CountedBatch, [*arguments, *alone], folder)
            (config,) = Path(folder).rglob("config.yaml")
            found.config = config.read_text(encoding="utf-8")
            return found
    finally:
        hook.remove()


def shares_of(found: dict[str, list[Measured]], flops: int, gflops: dict[str, float]) -> dict[str, float]:
    """The share of the machine's peak by side of relit's network. (A peer's may be another one.)

    Args:
        found: Measurements by side: "relit fit", "relit fit, bf16", the bare program and the peer.
        flops: Operations of a batch of relit's.
        gflops: This machine's peak by type.
    """
    return {
        side: flops / statistics.median(run.seconds for run in runs) / 1e9 / gflops[dtype]
        for side, runs in found.items()
        if (dtype := TYPES.get(side))
    }


def fallen(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    """A sentence for each share of the peak that is below ``HELD`` of an earlier one.

    Args:
        now: Shares by configuration and side.
        before: Those of an earlier run.
    """
    return [
        f"{name}, {side}: {100 * share:.0f} % of the peak, before {100 * before[name][side]:.0f} %."
        for name, shares in now.items()
        for side, share in shares.items()
        if share < HELD * before.get(name, {}).get(side, 0.0)
    ]


def rows_of(
    found: dict[str, list[Measured]], shares: dict[str, float], images: dict[str, int]
) -> list[tuple[str, ...]]:
    """A row of the table for each side.

    Args:
        found: Measurements by side.
        shares: See :func:`shares_of`.
        images: Images of a batch, by side.
    """
    rows: list[tuple[str, ...]] = []
    relit = found["relit fit"]
    for side, runs in found.items():
        each = [one.seconds / images[side] for one in runs]
        ours = [one.seconds / images["relit fit"] for one in relit]
        speeds = (f"{1 / statistics.median(each):,.4g}", f"{ratio(ours, each):.2f}")
        share = f"{100 * shares[side]:.0f} %" if side in shares else ""
        first, cpu, _, memory = (statistics.median(values) for values in zip(*runs, strict=True))
        starts = ratio([one.first_step for one in relit], [one.first_step for one in runs])
        cpus = ratio([one.first_cpu for one in relit], [one.first_cpu for one in runs])
        start = (f"{first:.1f}", f"{starts:.2f}", f"{cpu:.1f}", f"{cpus:.2f}")
        rows.append((side, *speeds, share, *start, f"{memory / 1e6:,.0f}"))
    return rows


def run_fit(args: argparse.Namespace) -> None:
    """``benchmark.py fit``."""
    begin(args)
    if args.root:  # not --data.root: a data module that wraps another one has no such argument
        os.environ["RELIT_DATA"] = str(Path(args.root).expanduser().absolute())
    gflops = peak("cpu", tuple(PRECISIONS), seconds=3.0).values["gflops"]
    print(", ".join(f"peak in {dtype}: {value:,.0f} GFLOP/s" for dtype, value in gflops.items()))
    results: dict[str, Any] = {}
    shares: dict[str, dict[str, float]] = {}
    for name in args.config:
        path = Path(name) if name.endswith(".yaml") else CONFIGS / f"{name}.yaml"
        arguments = ["--config", str(path), "--trainer.accelerator=cpu", *shlex.split(args.set)]
        batch = counted(arguments)
        flops, images = batch.flops, batch.images
        with tempfile.TemporaryDirectory() as runs:
            command = ["-m", "lit_models", "fit", *arguments, f"--run.root={runs}"]
            steps = batch.optimizer_steps
            measure = partial(watched, steps=args.steps, threads=args.threads, warm_up=args.warm_up)
            sides = {
                side: partial(measure, [*command, *PRECISIONS[dtype]], optimizer_steps=steps, folder=REPOSITORY)
                for side, dtype in OURS.items()
                if dtype == "float32" or args.bf16
            }
            if args.against:
                sides[args.against.name] = partial(
                    measure,
                    shlex.split(args.script),
                    optimizer_steps=args.their_optimizer_steps or steps,
                    folder=args.against,
                    python=args.python,
                )
            if args.bare:
                config = Path(runs, "config.yaml")
                config.write_text(batch.config, encoding="utf-8")
                sides[PROGRAM] = partial(measure, [str(BARE), str(config)], optimizer_steps=steps, folder=REPOSITORY)
            found = race(sides, args.rounds)
        counts = {
            side: args.their_images or images if args.against and side == args.against.name else images
            for side in found
        }
        print(f"\n{name}: batches of {images}, {flops / 1e9:,.4g} GFLOP and {steps} optimizer steps each\n")
        header = ("side", "images/s", "time: ours / this", "share of the peak")
        start = ("first step after / s", "ours / this", "CPU until then / s", "ours / this")
        shares[name] = shares_of(found, flops, gflops)
        print_table((*header, *start, "peak / MB"), rows_of(found, shares[name], counts))
        sides_found = {side: [one._asdict() for one in runs] for side, runs in found.items()}
        results[name] = {"flops": flops, "images": images, "sides": sides_found}
    print_conditions(args)
    write_json(args, gflops=gflops, configurations=results, shares=shares)
    if args.held:
        lost = fallen(shares, json.loads(args.held.read_text(encoding="utf-8"))["shares"])
        if lost:
            raise SystemExit("\n".join(lost))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py fit``."""
    add_common_arguments(parser, run_fit, steps=20, rounds=3)
    parser.add_argument("config", nargs="+", help="names of configurations in configs/, or files")
    parser.add_argument("--set", default="", metavar="ARGUMENTS", help="further arguments of `relit fit`, in quotes")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="measure bf16, too")
    parser.add_argument(
        "--bare", action=argparse.BooleanOptionalAction, default=True, help="measure a bare program, too"
    )
    parser.add_argument("--warm_up", type=int, default=WARM_UP, help="batches before the timed (default: %(default)s)")
    parser.add_argument(
        "--held",
        type=Path,
        metavar="FILE",
        help=f"what --json wrote on this machine: exit code 1 if a share of the peak is below {HELD} of that one",
    )
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a peer's folder, in which its script runs")
    parser.add_argument("--script", default="main.py", help="the peer's script with arguments (default: %(default)s)")
    parser.add_argument("--python", default=sys.executable, help="the peer's interpreter (default: this one)")
    parser.add_argument("--their_images", type=int, help="images of the peer's batch (default: as relit's)")
    parser.add_argument("--their_optimizer_steps", type=int, help="optimizer steps of its batch (default: as relit's)")
