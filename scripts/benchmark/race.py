"""What all benchmarks share: sides that take turns, ratios by round, tables, and the common options.

Each side runs the same work again and again in one process, A B C A B C …, so that a change in the machine's speed
affects all of them. Ratios are medians over the rounds.
"""

# Only the standard library is imported at the top: `benchmark.data` measures the memory of processes that it starts.
import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

WARM_UP = 3
"""Steps that aren't counted at the start of each measurement."""
Measure = Callable[[], float]
T = TypeVar("T")
Side = TypeVar("Side", str, int)


def race(sides: Mapping[Side, Callable[[], T]], rounds: int) -> dict[Side, list[T]]:
    """Lets the sides measure in turns; returns their measurements, one for each round."""
    found: dict[Side, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over the rounds of one side's measurement over another's.

    Example:
        >>> ratio([2.0, 6.0, 9.0], [1.0, 2.0, 3.0])
        3.0
    """
    return statistics.median(x / y for x, y in zip(above, below, strict=True))


def timed(step: Callable[[], None], steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, by a clock, of ``steps`` calls, after ``WARM_UP`` that aren't counted."""
    for _ in range(WARM_UP):
        step()
    start = clock()
    for _ in range(steps):
        step()
    return clock() - start


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """The function's result in a process that starts with nothing but Python, its memory allocation untuned."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- printing ---------------------------------------------------------------------------------------------------------


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, the first column to the left and all others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for name, *values in (header, rule, *rows):
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print(f"| {' | '.join([name.ljust(widths[0]), *cells])} |", flush=True)


def print_sides(seconds: Mapping[str, Sequence[float]], done: int, unit: str) -> None:
    """The speed of each side, and the ratio of the times of relit and that side.

    Args:
        seconds: By side; "relit fit" is relit's, and "…, bf16" is compared with "relit fit, bf16".
        done: Steps, images or episodes of a measurement.
        unit: What they are.
    """
    rows = []
    for name, times in seconds.items():
        ours = seconds["relit fit, bf16" if "bf16" in name else "relit fit"]
        speed = done / statistics.median(times)
        rows.append((name, f"{speed:,.{0 if speed >= 100 else 2}f}", f"{ratio(ours, times):.2f}"))
    print_table(("side", f"{unit}/s", "time: ours / this"), rows)
    for other, words in (("relit fit", "fp32"), ("textbook", "the textbook")):
        if {other, "relit fit, bf16"} <= seconds.keys():
            print(f"\nbf16 against {words}: {ratio(seconds[other], seconds['relit fit, bf16']):.2f} times as fast.")
    if "textbook" in seconds:
        faster = ratio(seconds["textbook"], seconds["relit fit"])
        print(f"\nAgainst the textbook, relit fit is {faster:.2f} times as fast.")


def print_conditions(args: argparse.Namespace, *remarks: str, cuda: bool = False) -> None:
    """How the values above came about."""
    import torch

    place = torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} processors"
    threads = f"{args.threads} thread{'s' if args.threads > 1 else ''} on {place}"
    length = f"{args.rounds} rounds of {args.steps} steps each, in turns"
    print(f"\nMedians of {', '.join([length, *remarks, threads])}, torch {torch.__version__}.")


# --- options ----------------------------------------------------------------------------------------------------------


def add_common_arguments(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], steps: int | None, rounds: int
) -> None:
    """The options of every benchmark.

    Args:
        parser: The benchmark's.
        run: What the command does.
        steps: Default number of steps of a measurement; None if it lasts for a time instead.
        rounds: Default number of measurements of each side.
    """
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("RELIT_DATA"), help="folder of all data sets (default: $RELIT_DATA)"
    )
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help="steps of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to this file, too")
    parser.set_defaults(run=run)


def begin(args: argparse.Namespace) -> Path:
    """Sets the number of threads; returns the folder of all data sets."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    return Path(args.root or "").expanduser().absolute()


def require_data(root: Path, pattern: str) -> None:
    """Stops unless the data root holds such a file."""
    if not any(root.glob(pattern)):
        raise SystemExit(f"Not found: {root}/{pattern}. Set --root or $RELIT_DATA to the folder of all data sets.")


def write_json(args: argparse.Namespace, **content: Any) -> None:
    """Writes measurements with the options that they go by, if a file is wanted."""
    if args.json:
        options = {name: value for name, value in vars(args).items() if isinstance(value, int | float | str | list)}
        args.json.write_text(json.dumps({**options, **content}, indent=1), encoding="utf-8")
