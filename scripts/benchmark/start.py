"""The ``start`` part of ``benchmark.py``: how long `relit fit` of configurations takes to its first optimizer step, and
the most memory that it has held until the last of ``--steps`` optimizer steps:

    python scripts/benchmark.py start
    python scripts/benchmark.py start dcgan_mnist vae_mnist --bare

Each runs in its own process, as a user starts it: with the sanity check, callbacks and loggers. CPU time is what other
programs on the machine change least. With ``--bare``, a program that makes only the first step follows
(benchmark/bare_start.py). Data are prepared by one start that isn't measured, if ``--prepare`` is given.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmark.fit import BARE, REPOSITORY, Measured, watched
from benchmark.race import add_common_arguments, begin, print_conditions, print_table, race, ratio, write_json
from benchmark.sides import CONFIGS

Sides = dict[str, list[Measured]]


def shipped() -> list[str]:
    """Names of all shipped configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def measured(name: str, args: argparse.Namespace) -> Sides:
    """The starts of a configuration, and of the bare program if it is wanted.

    Args:
        name: The configuration's name, or its file.
        args: The options.
    """
    config = name if name.endswith(".yaml") else str(CONFIGS / f"{name}.yaml")
    with tempfile.TemporaryDirectory() as runs:
        command = ["-m", "lit_models", "fit", "--config", config, "--trainer.accelerator=cpu", *shlex.split(args.set)]
        command.append(f"--run.root={runs}")
        # The speed of so few steps says nothing, and isn't shown.
        steps = partial(watched, steps=args.steps - 1, optimizer_steps=1, threads=args.threads, warm_up=1)
        if args.prepare:
            watched(command, 0, 1, args.threads, REPOSITORY)
        found: Sides = race({"relit": partial(steps, command, folder=REPOSITORY)}, args.rounds)
        if args.bare:
            written = str(sorted(Path(runs).rglob("config.yaml"))[-1])
            bare = partial(watched, [str(BARE), written], 0, 1, args.threads, REPOSITORY)
            found |= race({"bare": bare}, args.rounds)
    return found


def row_of(name: str, found: Sides) -> tuple[str, ...]:
    """A configuration's row of the table."""
    values = {side: [statistics.median(column) for column in zip(*runs, strict=True)] for side, runs in found.items()}
    first, cpu, _, memory = values["relit"]
    row = (f"`{name}`", f"{first:.1f}", f"{cpu:.1f}", f"{memory / 1e6:,.0f}")
    if "bare" not in found:
        return row
    ours, theirs = ([run.first_cpu for run in found[side]] for side in ("relit", "bare"))
    return (*row, f"{values['bare'][1]:.1f}", f"{ratio(ours, theirs):.2f}")


def run_start(args: argparse.Namespace) -> None:
    """``benchmark.py start``."""
    begin(args)
    if args.root:  # not --data.root: a data module that wraps another one has no such argument
        os.environ["RELIT_DATA"] = str(Path(args.root).expanduser().absolute())
    results: dict[str, Sides] = {}
    failed = []
    for name in args.config or shipped():
        try:
            results[name] = measured(name, args)
        except SystemExit as error:  # its data set is missing, for example
            failed.append(name)
            print(f"{name}: {str(error).splitlines()[-1]}", file=sys.stderr, flush=True)
    header = ("configuration", "first optimizer step after / s", "CPU time until then / s", "peak / MB")
    if results:
        print_table(
            (*header, "bare CPU time / s", "ratio") if args.bare else header,
            [row_of(name, found) for name, found in results.items()],
        )
    print_conditions(args)
    content = {name: {side: [run._asdict() for run in runs] for side, runs in f.items()} for name, f in results.items()}
    write_json(args, configurations=content)
    if failed:
        raise SystemExit(f"Not measured: {', '.join(failed)}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``benchmark.py start``."""
    add_common_arguments(parser, run_start, steps=2, rounds=1)
    parser.add_argument("config", nargs="*", help="names of configurations in configs/, or files (default: all)")
    parser.add_argument("--set", default="", metavar="ARGUMENTS", help="further arguments of `relit fit`, in quotes")
    parser.add_argument("--bare", action="store_true", help="measure a program that makes only the first step, too")
    parser.add_argument("--prepare", action="store_true", help="start each once before, so that its data are prepared")
