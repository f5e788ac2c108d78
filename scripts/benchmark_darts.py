"""The ``darts`` part of ``benchmark.py``: a step of DARTS's search by ``relit fit``, against a textbook port of the
public code, of the same network and batch, in first and in second order.

The textbook computes each operation on each edge on its own, in the default memory order, and steps as the authors'
code does: for first order a whole backward pass for α, for second order a copy of the network that takes the step, and
two passes for the finite difference. Ours has the loader, the Trainer and all callbacks in its time; the textbook has
one batch in memory. In turns, A B C A B C …; ratios are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from benchmark_train import CONFIGS, relit_fit, timed

Measure = Callable[[], float]


def textbook(args: argparse.Namespace, order: int, steps: int) -> Measure:
    """Seconds of ``steps`` search steps of the textbook's."""

    def measure() -> float:
        import torch
        from darts_edgewise import EdgewiseSupernet
        from torch import nn
        from torch.nn import functional

        device = torch.device("cuda" if args.cuda else "cpu")
        torch.manual_seed(0)
        network = EdgewiseSupernet(3, 10, args.init_channels, args.layers).to(device)
        alphas = [(1e-3 * torch.randn(14, 8, device=device)).requires_grad_() for _ in range(2)]
        weight_optimizer = torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
        arch_optimizer = torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        train, val = (
            (torch.rand(args.batch_size, 3, 32, 32, device=device), torch.arange(args.batch_size, device=device) % 10)
            for _ in range(2)
        )

        def loss(net: Any, half: tuple[Any, Any]) -> Any:
            return functional.cross_entropy(net(half[0], *alphas), half[1])

        def architecture_gradient() -> None:
            if order == 1:
                loss(network, val).backward()
                return
            rate = weight_optimizer.param_groups[0]["lr"]
            gradients = torch.autograd.grad(loss(network, train), list(network.parameters()))
            moved = deepcopy(network)
            with torch.no_grad():
                for p, old, gradient in zip(moved.parameters(), network.parameters(), gradients, strict=True):
                    momentum = weight_optimizer.state[old].get("momentum_buffer", torch.zeros_like(old))
                    p.sub_(rate * (gradient + 3e-4 * old + 0.9 * momentum))
            loss(moved, val).backward()
            vector = [cast(torch.Tensor, p.grad) for p in moved.parameters()]
            epsilon = 0.01 / torch.cat([v.flatten() for v in vector]).norm()
            sides = []
            for shift in (1, -2):
                with torch.no_grad():
                    for p, v in zip(network.parameters(), vector, strict=True):
                        p.add_(shift * epsilon * v)
                sides.append(torch.autograd.grad(loss(network, train), alphas))
            with torch.no_grad():
                for p, v in zip(network.parameters(), vector, strict=True):
                    p.add_(epsilon * v)
                for alpha, plus, minus in zip(alphas, *sides, strict=True):
                    alpha.grad -= rate * (plus - minus) / (2 * epsilon)

        def step() -> None:
            arch_optimizer.zero_grad()
            architecture_gradient()
            arch_optimizer.step()
            weight_optimizer.zero_grad()
            value = loss(network, train)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            weight_optimizer.step()
            _ = f"{value.item():.4f}"  # as printed in the loop

        return timed(step, steps, clock_of(args))

    return measure


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """The time when the device has done what it was given."""

    def clock() -> float:
        if args.cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def peak_of(measure: Measure, args: argparse.Namespace) -> tuple[float, float | None]:
    """Seconds, and the most memory of the GPU in MiB."""
    import torch

    if not args.cuda:
        return measure(), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seconds = measure()
    return seconds, torch.cuda.max_memory_allocated() / 2**20


def run_darts(args: argparse.Namespace) -> None:
    """``benchmark.py darts``."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    root = Path(args.root or "").expanduser().absolute()
    config = [
        *("--config", str(CONFIGS / "darts_search_cifar10.yaml"), f"--data.images.root={root}"),
        *(f"--data.batch_size={args.batch_size}", f"--trainer.accelerator={'cuda' if args.cuda else 'cpu'}"),
        *("--trainer.devices=1", f"--model.init_channels={args.init_channels}", f"--model.layers={args.layers}"),
    ]
    second = ["--model.order=2"]
    sides = {
        "order 1, textbook": textbook(args, 1, args.steps),
        "order 1, relit fit": relit_fit(args.steps, *config),
        "order 2, textbook": textbook(args, 2, args.steps),
        "order 2, relit fit": relit_fit(args.steps, *config, *second),
        "order 2, relit fit, finite difference": relit_fit(
            args.steps, *config, *second, "--model.mixed_product=finite_difference"
        ),
    }
    for flag, extra in (("bf16", "--trainer.precision=bf16-mixed"), ("compile", "--compile=true")):
        if getattr(args, flag):
            sides[f"order 1, relit fit, {flag}"] = relit_fit(args.steps, *config, extra)
            sides[f"order 2, relit fit, {flag}"] = relit_fit(args.steps, *config, *second, extra)
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, measure in sides.items():
            found[name].append(peak_of(measure, args))
    seconds = {name: [value for value, _ in values] for name, values in found.items()}
    print(f"DARTS, {args.init_channels} channels, {args.layers} cells, 2 x {args.batch_size} images a step\n")
    print("| side | ms/step | times as fast as the textbook | 50 epochs of 25,000, hours | GPU memory, MiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, times in seconds.items():
        pairs = zip(seconds[f"{name[:7]}, textbook"], times, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        step = statistics.median(times) / args.steps
        memory = found[name][-1][1]
        hours = step * 50 * (25_000 // args.batch_size) / 3600
        used = "" if memory is None else f"{memory:,.0f}"
        print(f"| {name} | {1000 * step:,.0f} | {ratio:.2f} | {hours:.1f} | {used} |")
    place = torch.cuda.get_device_name() if args.cuda else f"{args.threads} threads on {os.cpu_count()} processors"
    print(f"\nMedians of {args.rounds} rounds of {args.steps} steps, in turns; {place}, torch {torch.__version__}.")
    if args.json:
        args.json.write_text(json.dumps({"steps": args.steps, "seconds": seconds}, indent=1), encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py darts``."""
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    parser.add_argument("--init_channels", type=int, default=16, help="channels of the first cells (default: 16)")
    parser.add_argument("--layers", type=int, default=8, help="cells (default: 8)")
    parser.add_argument("--batch_size", type=int, default=64, help="images of each half in a step (default: 64)")
    parser.add_argument("--steps", type=int, default=5, help="steps of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--cuda", action="store_true", help="measure on the GPU")
    parser.add_argument("--bf16", action="store_true", help="measure bf16, too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.set_defaults(run=run_darts)
