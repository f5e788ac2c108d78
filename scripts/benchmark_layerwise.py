"""The ``layerwise`` part of ``benchmark.py``: layer-wise pretraining on cached codes, against running the layers below
again for each batch, and against a bare loop.

One round runs every phase of the plan for some steps: by ``relit fit`` with cached codes, by ``relit fit`` without, and
in a bare loop on one batch in memory, A B C A B C …, so that a change in the machine's speed meets all of them; ratios
are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmark_train import CONFIGS, WARM_UP, timed

BATCH_SIZE = 128


def relit_phases(steps: int, clock: Callable[[], float], *arguments: str) -> tuple[list[float], list[float]]:
    """Seconds of ``steps`` batches in each phase of ``relit fit``, once it runs, with all that it does beside them, and
    the seconds that each phase takes to begin (to compute codes, above all)."""
    from lightning.pytorch import Callback, Trainer

    from lit_models.cli import command as cli

    moments: list[list[float]] = []
    begins: list[float] = []

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
            moments.append([])
            begins.append(clock())  # callbacks come before the model, which computes the codes

        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                begins[-1] = clock() - begins[-1]

        def on_train_batch_end(self, *_: Any) -> None:
            moments[-1].append(clock())

    def with_clock(self: cli.RelitCLI, **kwargs: Any) -> Any:
        trainer: Any = instantiate(self, **kwargs)
        trainer.callbacks.append(Clock())
        return trainer

    instantiate = cli.RelitCLI.instantiate_trainer
    cli.RelitCLI.instantiate_trainer = with_clock  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            code = cli.run(
                [
                    *("fit", *arguments, f"--run.root={folder}", "--trainer.limit_val_batches=0"),
                    "--checkpoint.monitor=null",
                    *("--model.pretrain_epochs=1", "--model.finetune_epochs=1"),
                    f"--trainer.limit_train_batches={steps + WARM_UP}",
                ]
            )
    finally:
        cli.RelitCLI.instantiate_trainer = instantiate  # type: ignore[method-assign]
    assert code == 0, f"relit fit {' '.join(arguments)} failed"
    return [epoch[-1] - epoch[WARM_UP - 1] for epoch in moments], begins


def bare_phases(steps: int, clock: Callable[[], float], image_size: int, bf16: bool) -> list[float]:
    """Seconds of ``steps`` steps of each phase in a loop of nothing else, on one batch that is in memory."""
    import torch
    from torch.nn import functional

    from datamodules import Codes, LabeledImages
    from lit_models import LayerwiseMLP

    torch.manual_seed(0)
    model = LayerwiseMLP(image_size)
    optimizers = model.configure_optimizers()
    images = LabeledImages(torch.rand(BATCH_SIZE, *model.image_shape), torch.randint(10, (BATCH_SIZE,)))
    seconds = []
    for phase, optimizer in enumerate(optimizers):
        layer = phase + 1
        batch = images if layer == 1 else Codes(torch.rand(BATCH_SIZE, model.widths[layer - 2]))

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                if layer <= len(model.widths):  # noqa: B023
                    loss = model.reconstruction_loss(batch, layer)  # noqa: B023
                else:
                    loss = functional.cross_entropy(model(images.image).float(), images.label)
            optimizer.zero_grad()  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023

        seconds.append(timed(step, steps, clock))
    return seconds


def run_layerwise(args: argparse.Namespace) -> None:
    """``benchmark.py layerwise``."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    root = Path(args.root or "").expanduser().absolute()
    if not (root / "cifar10").is_dir():
        sys.exit(f"CIFAR-10 is not below {root}: name the folder of all data sets with --root or $RELIT_DATA.")
    config = [
        *("--config", str(CONFIGS / "layerwise_mlp_cifar10.yaml"), f"--data.root={root}", "--trainer.accelerator=cpu"),
        *(f"--{part}.image_size={args.image_size}" for part in ("model", "data")),
        *(["--trainer.precision=bf16-mixed"] if args.bf16 else []),
    ]
    clock = time.process_time if args.cpu_time else time.perf_counter
    seconds: dict[str, list[list[float]]] = {"cached": [], "again": [], "bare": []}
    begins: list[list[float]] = []
    for _ in range(args.rounds):
        cached, begin = relit_phases(args.steps, clock, *config)
        seconds["cached"].append(cached)
        begins.append(begin)
        seconds["again"].append(relit_phases(args.steps, clock, *config, "--model.cache_codes=false")[0])
        seconds["bare"].append(bare_phases(args.steps, clock, args.image_size, args.bf16))

    def milliseconds(side: str, phase: int) -> float:
        return 1000 * statistics.median(round_[phase] for round_ in seconds[side]) / args.steps

    def ratio(above: str, below: str, phase: int) -> float:
        pairs = zip(seconds[above], seconds[below], strict=True)
        return statistics.median(a[phase] / b[phase] for a, b in pairs)

    phases = len(seconds["cached"][0])
    print(
        f"LayerwiseMLP, 3x{args.image_size}x{args.image_size}, batch {BATCH_SIZE}, {'bf16' if args.bf16 else 'fp32'}\n"
    )
    print("| phase       | codes, s | cached, ms/step | run again | again / cached | bare loop | cached / bare |")
    print("| ----------- | -------: | --------------: | --------: | -------------: | --------: | ------------: |")
    for phase in range(phases):
        name = f"layer {phase + 1}" if phase + 1 < phases else "fine-tuning"
        begun = statistics.median(begin[phase] for begin in begins)
        print(
            f"| {name:11} | {begun:8.2f} | {milliseconds('cached', phase):15.2f} | "
            f"{milliseconds('again', phase):9.2f} | {ratio('again', 'cached', phase):14.2f} | "
            f"{milliseconds('bare', phase):9.2f} | {ratio('cached', 'bare', phase):13.2f} |"
        )
    # The sums of a whole plan: codes are for the layers from the second on; fine-tuning takes twice as long as a layer.
    again_gains, bare_costs = [], []
    epochs = [args.epochs] * (phases - 1) + [2 * args.epochs]
    for cached, again, bare, begin in zip(seconds["cached"], seconds["again"], seconds["bare"], begins, strict=True):
        ours, rerun, loop = (
            [number * args.batches / args.steps * one for number, one in zip(epochs, side, strict=True)]
            for side in (cached, again, bare)
        )
        again_gains.append(sum(rerun[1:-1]) / sum([*ours[1:-1], *begin[1:-1]]))
        bare_costs.append(sum([*ours, *begin]) / sum(loop))
    gain, cost = statistics.median(again_gains), statistics.median(bare_costs)
    print(
        f"\nWith {args.epochs} epochs a layer of {args.batches} batches each, codes included: pretraining of all but "
        f"the first layer is {gain:.2f} times as fast with cached codes as without; the whole plan takes {cost:.2f} "
        f"times the bare loop.\nMedians of {args.rounds} rounds of {args.steps} steps each, in turns, {args.threads} "
        f"threads{', CPU time,' if args.cpu_time else ''} on {os.cpu_count()} processors, torch {torch.__version__}."
    )
    if args.json:
        settings = {name: getattr(args, name) for name in ("image_size", "steps", "bf16", "threads", "cpu_time")}
        args.json.write_text(json.dumps({**settings, "seconds": seconds, "begins": begins}, indent=1), encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py layerwise``."""
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    parser.add_argument("--image_size", type=int, default=32, help="CIFAR-10 enlarged to this size (default: 32)")
    parser.add_argument("--steps", type=int, default=30, help="steps of each measurement (default: 30)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a layer in the sum (default: 10)")
    parser.add_argument("--batches", type=int, default=140, help="batches of an epoch in the sum (default: 140)")
    parser.add_argument("--bf16", action="store_true", help="in bfloat16 mixed precision")
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="count the CPU's time in place of the clock's, for a busy machine; with --threads 1",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_layerwise)
