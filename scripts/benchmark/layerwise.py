"""The ``layerwise`` part of ``benchmark.py``: layer-wise pretraining on cached codes, against running the layers below
again for each batch, and against a bare loop.

One round runs every phase of the plan for some steps: by ``relit fit`` with cached codes, by ``relit fit`` without, and
in a bare loop on one batch in memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from benchmark.race import (
    add_common_arguments,
    begin,
    print_conditions,
    print_table,
    race,
    ratio,
    require_data,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, Clock, timed_fit

BATCH_SIZE = 128


def relit_phases(steps: int, *arguments: str) -> tuple[list[float], list[float]]:
    """Seconds of ``steps`` batches in each phase of ``relit fit``, once it runs, and the seconds that each phase takes
    to begin (to compute codes, above all)."""
    clock = timed_fit(steps, *arguments, "--model.pretrain_epochs=1", "--model.finetune_epochs=1")
    return clock.seconds, clock.begins


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
    root = begin(args)
    require_data(root, "cifar10")
    config = [
        *("--config", str(CONFIGS / "layerwise_mlp_cifar10.yaml"), f"--data.root={root}", "--trainer.accelerator=cpu"),
        *(f"--{part}.image_size={args.image_size}" for part in ("model", "data")),
        *(["--trainer.precision=bf16-mixed"] if args.bf16 else []),
    ]
    Clock.now = clock = time.process_time if args.cpu_time else time.perf_counter
    found = race(
        {
            "cached": lambda: relit_phases(args.steps, *config),
            "again": lambda: relit_phases(args.steps, *config, "--model.cache_codes=false"),
            "bare": lambda: (bare_phases(args.steps, clock, args.image_size, args.bf16), []),
        },
        args.rounds,
    )
    seconds = {side: [phases for phases, _ in rounds] for side, rounds in found.items()}
    begins = [begins for _, begins in found["cached"]]
    phases = len(seconds["cached"][0])
    rows = []
    for phase in range(phases):
        cached, again, bare = ([one[phase] for one in seconds[side]] for side in ("cached", "again", "bare"))
        milliseconds = (f"{1000 * statistics.median(times) / args.steps:.2f}" for times in (cached, again, bare))
        in_ms = dict(zip(("cached", "again", "bare"), milliseconds, strict=True))
        rows.append(
            (
                f"layer {phase + 1}" if phase + 1 < phases else "fine-tuning",
                f"{statistics.median(one[phase] for one in begins):.2f}",
                *(in_ms["cached"], in_ms["again"], f"{ratio(again, cached):.2f}"),
                *(in_ms["bare"], f"{ratio(cached, bare):.2f}"),
            )
        )
    print(
        f"LayerwiseMLP, 3x{args.image_size}x{args.image_size}, batch {BATCH_SIZE}, {'bf16' if args.bf16 else 'fp32'}\n"
    )
    header = ("phase", "codes, s", "cached, ms/step", "run again", "again / cached", "bare loop", "cached / bare")
    print_table(header, rows)
    # The sums of a whole plan: codes are for the layers from the second on; fine-tuning takes twice as long as a layer.
    again_gains, bare_costs = [], []
    epochs = [args.epochs] * (phases - 1) + [2 * args.epochs]
    for cached, again, bare, started in zip(seconds["cached"], seconds["again"], seconds["bare"], begins, strict=True):
        ours, rerun, loop = (
            [number * args.batches / args.steps * one for number, one in zip(epochs, side, strict=True)]
            for side in (cached, again, bare)
        )
        again_gains.append(sum(rerun[1:-1]) / sum([*ours[1:-1], *started[1:-1]]))
        bare_costs.append(sum([*ours, *started]) / sum(loop))
    gain, cost = statistics.median(again_gains), statistics.median(bare_costs)
    print(
        f"\nWith {args.epochs} epochs a layer of {args.batches} batches each, codes included: pretraining of all but "
        f"the first layer is {gain:.2f} times as fast with cached codes as without; the whole plan takes {cost:.2f} "
        "times the bare loop."
    )
    print_conditions(args, *(["CPU time"] if args.cpu_time else []))
    write_json(args, seconds=seconds, begins=begins)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py layerwise``."""
    add_common_arguments(parser, run_layerwise, steps=30, rounds=3)
    parser.add_argument("--image_size", type=int, default=32, help="CIFAR-10 enlarged to this size (default: 32)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a layer in the sum (default: 10)")
    parser.add_argument("--batches", type=int, default=140, help="batches of an epoch in the sum (default: 140)")
    parser.add_argument("--bf16", action="store_true", help="in bfloat16 mixed precision")
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="count the CPU's time in place of the clock's, for a busy machine; with --threads 1",
    )
