"""``relit sweep EXPERIMENT --vary NAME VALUE …``: one experiment with many values of its arguments.

The state is an Optuna study in a SQLite file. Any number of processes may run the same command at once, and a command
that was killed goes on when it is repeated: a trial whose process died is taken up from its run's checkpoint.

- A trial of ``--sampler grid`` is one combination of all values, seeds included.
- A trial of ``random`` and ``tpe`` is one setting, trained once for each value of ``seed_everything``; the mean counts.
- Each run is an ordinary run folder, trained by ``relit fit`` in a separate process.
"""

import argparse
import hashlib
import json
import math
import sys
from typing import Any

from lit_models.cli.parsers import sweep_parser
from lit_models.cli.processes import interruptible, resolved
from lit_models.cli.sweep_settings import SEED, Sweep, text_of
from lit_models.cli.sweep_worker import Worker, import_optuna
from lit_models.errors import RunError
from lit_models.runs.reading import flattened

SWEEPS = "sweeps"
"""Folder within the experiment's that holds the studies."""


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = sweep_parser()
    end = args.index("--") if "--" in args else len(args)
    given, passed_on = parser.parse_args(args[:end]), args[end + 1 :]
    try:
        return interruptible(lambda: run_sweep(sweep_of(given, passed_on), given.trials, given.retry_failed))
    except (RunError, OSError) as error:
        print(f"relit: {_of_the_disk(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1


def _of_the_disk(error: OSError) -> str:
    what = error.filename or "A file of the sweep"
    return f"{what} can't be read or written ({error.strerror}): mend that, and repeat the command."


def sweep_of(given: argparse.Namespace, passed_on: list[str]) -> Sweep:
    """The sweep that the command line describes, checked before anything is trained.

    Raises:
        RunError: An argument doesn't exist, has a wrong value, or is missing.
    """
    config = given.experiment
    choices = {vary[0].removeprefix("--"): list(dict.fromkeys(vary[1:])) for vary in given.vary}
    ranges = dict(_range_of(parts) for parts in given.range)
    _check_arguments(given, choices, ranges)
    first = {**{name: values[0] for name, values in choices.items()}, **{n: text_of(r[0]) for n, r in ranges.items()}}
    arguments = ["--config", config, *(f"--{name}={value}" for name, value in first.items()), *passed_on]
    settings = resolved(arguments)
    for name, values in choices.items():
        for value in values[1:]:
            resolved([*arguments, f"--{name}={value}"])
    for name, (_, high, _) in ranges.items():
        resolved([*arguments, f"--{name}={text_of(high)}"])
    monitor = settings.get("checkpoint") or {}
    metric, direction = given.metric or monitor.get("monitor"), given.direction
    if metric is None:
        raise RunError("Name the --metric to sort by, such as val/loss: the configuration has no checkpoint.monitor.")
    if direction is None and metric == monitor.get("monitor"):
        direction = {"min": "minimize", "max": "maximize"}[monitor.get("mode", "min")]
    if direction is None:
        raise RunError(f"Is a small or a large {metric} better? Add --direction minimize or --direction maximize.")
    experiment = given.root / settings["run"]["experiment"]
    storage = given.storage or experiment / SWEEPS / "sweeps.db"
    sweep = Sweep(
        config, passed_on, choices, ranges, given.sampler, metric, direction, given.value, given.prune,
        given.sampler_seed, experiment, storage,
    )  # fmt: skip
    held = {
        name: value
        for name, value in flattened(settings).items()
        if not name.startswith(("run.", "wandb.", "ckpt_path"))
    }
    described = [
        held,
        choices,
        ranges,
        *(getattr(sweep, n) for n in ("sampler", "metric", "direction", "value", "prune")),
    ]
    sweep.digest = hashlib.sha256(json.dumps([*described, given.sampler_seed], sort_keys=True).encode()).hexdigest()[:8]
    sweep.name = given.name or f"{given.sampler}-{sweep.digest}"
    return sweep


def _check_arguments(given: argparse.Namespace, choices: dict[str, list[str]], ranges: dict[str, Any]) -> None:
    names = [vary[0].removeprefix("--") for vary in given.vary] + list(ranges)
    if not names:
        raise RunError("`relit sweep` needs --vary NAME VALUE …: an argument and the values to train with.")
    if short := [name for name, values in choices.items() if not values]:
        name, _, joined = short[0].partition("=")
        example = f", such as --vary {name} {' '.join(joined.split(','))}" if joined else ""
        raise RunError(f"--vary {short[0]} has no value: add at least one{example}.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise RunError(f"{twice[0]} is varied twice: give all of its values in one --vary.")
    if ranges and given.sampler == "grid":
        raise RunError(
            f"--range {next(iter(ranges))} has no grid: take --sampler random or tpe, or --vary with values."
        )
    if given.sampler != "grid" and not ranges and set(choices) == {SEED}:
        raise RunError(
            f"--sampler {given.sampler} has nothing to choose: vary more than {SEED}, or take --sampler grid."
        )
    if given.trials is not None and given.trials < 1:
        raise RunError(f"--trials is {given.trials}; it must be at least 1.")
    if given.sampler_seed < 0:
        raise RunError(f"--sampler_seed is {given.sampler_seed}; it must not be negative.")
    if given.prune is not None and given.prune < 1:
        raise RunError(f"--prune is {given.prune}; it must be at least 1 epoch.")


def _range_of(parts: list[str]) -> tuple[str, tuple[float, float, bool]]:
    name, *ends = parts
    scale = ends[2:]
    try:
        low, high = (int(end) if end.lstrip("-").isdecimal() else float(end) for end in ends[:2])
    except ValueError:
        low, high = math.nan, math.nan
    if not low < high or scale not in ([], ["log"]) or (scale and low <= 0):
        raise RunError(
            f"--range {' '.join(parts)} is no range: give NAME LOW HIGH, with `log` behind them for a logarithmic "
            "scale of positive numbers."
        )
    return name.removeprefix("--"), (low, high, bool(scale))


def run_sweep(sweep: Sweep, trials: int | None = None, retry_failed: bool = False) -> int:
    """Trains until all trials are done, and writes the table; returns the exit code.

    Raises:
        RunError: The study can't be opened or written, or no run logs the metric.
    """
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        worker = Worker(sweep, trials, retry_failed)
        worker.work()
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise RunError(
            f"The sweep's file {sweep.storage} can't be used ({cause}): make room, or repair it, and repeat the "
            "command."
        ) from error
    return worker.conclude()
