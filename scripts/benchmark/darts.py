"""The ``darts`` part of ``benchmark.py``: a step of DARTS's search by ``relit fit``, against a textbook port of the
public code, of the same network and batch, in first and in second order.

The textbook computes each operation on each edge on its own, in the default memory order, and steps as the authors'
code does: for first order a whole backward pass for α, for second order a copy of the network that takes the step, and
two passes for the finite difference. Ours has the loader, the Trainer and all callbacks in its time; the textbook has
one batch in memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, cast

from benchmark.race import (
    Measure,
    add_common_arguments,
    begin,
    print_conditions,
    print_table,
    race,
    ratio,
    timed,
    write_json,
)
from benchmark.sides import CONFIGS, relit_fit


def textbook(args: argparse.Namespace, order: int, steps: int) -> Measure:
    """Seconds of ``steps`` search steps of the textbook's."""

    def measure() -> float:
        import torch
        from torch import nn
        from torch.nn import functional

        from tests.support.darts_edgewise import EdgewiseSupernet

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
    root = begin(args)
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
    found = race({name: partial(peak_of, measure, args) for name, measure in sides.items()}, args.rounds)
    seconds = {name: [value for value, _ in values] for name, values in found.items()}
    print(f"DARTS, {args.init_channels} channels, {args.layers} cells, 2 x {args.batch_size} images a step\n")
    rows = []
    for name, times in seconds.items():
        step = statistics.median(times) / args.steps
        memory = found[name][-1][1]
        hours = step * 50 * (25_000 // args.batch_size) / 3600
        faster = ratio(seconds[f"{name[:7]}, textbook"], times)
        used = "" if memory is None else f"{memory:,.0f}"
        rows.append((name, f"{1000 * step:,.0f}", f"{faster:.2f}", f"{hours:.1f}", used))
    header = ("side", "ms/step", "times as fast as the textbook", "50 epochs of 25,000, hours", "GPU memory, MiB")
    print_table(header, rows)
    print_conditions(args, cuda=args.cuda)
    write_json(args, seconds=seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py darts``."""
    add_common_arguments(parser, run_darts, steps=5, rounds=3)
    parser.add_argument("--init_channels", type=int, default=16, help="channels of the first cells (default: 16)")
    parser.add_argument("--layers", type=int, default=8, help="cells (default: 8)")
    parser.add_argument("--batch_size", type=int, default=64, help="images of each half in a step (default: 64)")
    parser.add_argument("--cuda", action="store_true", help="measure on the GPU")
    parser.add_argument("--bf16", action="store_true", help="measure bf16, too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
