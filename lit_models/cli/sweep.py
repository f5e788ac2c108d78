"""``relit sweep EXPERIMENT --vary NAME VALUE …``: one experiment with many values of its arguments.

The state is an Optuna study in a SQLite file. Any number of processes may run the same command at once, and a command
that was killed goes on when it is repeated: a trial whose process died is taken up from its run's checkpoint.

- A trial of ``--sampler grid`` is one combination of all values, seeds included.
- A trial of ``random`` and ``tpe`` is one setting, trained once for each value of ``seed_everything``; the mean counts.
- Each run is an ordinary run folder, trained by ``relit fit`` in a separate process.
"""

import argparse
import csv
import errno
import hashlib
import itertools
import json
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lit_models.cli.command_parser import CommandParser
from lit_models.cli.processes import (
    INTERRUPTED,
    RELIT,
    TERMINATED,
    Terminated,
    finished,
    fit_command,
    interruptible,
    last_words,
    resolved,
)
from lit_models.errors import RunError
from lit_models.runs.ownership import INHERITED, Ownership, lock_now
from lit_models.runs.reading import flat, read_epochs
from lit_models.runs.settings import changes

SEED = "seed_everything"
SWEEPS = "sweeps"
"""Folder within the experiment's that holds the studies."""
DIGITS = 6
"""Significant digits of sampled numbers, so that a run's name holds the exact value."""
LONGEST_ID = 120
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk without room."""
FEWEST_TO_PRUNE = 5
"""Finished trials before one is pruned."""


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
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


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="relit sweep",
        usage="relit sweep EXPERIMENT --vary NAME VALUE ... [options] [-- ARGUMENT OF relit fit ...]",
        description="Trains an experiment with many values of its arguments. Repeat the command to go on after an "
        "interruption; run it several times at once to share the work.",
    )
    parser.add_argument("experiment", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "--vary", nargs="+", action="append", default=[], metavar=("NAME", "VALUE"), help="an argument and its values"
    )
    parser.add_argument(
        "--range",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "LOW"),
        help="NAME LOW HIGH [log]: an argument and its range, for random and tpe; whole numbers if both ends are",
    )
    parser.add_argument("--sampler", choices=["grid", "random", "tpe"], default="grid")
    parser.add_argument("--metric", help="logged metric to sort by (default: the configuration's checkpoint.monitor)")
    parser.add_argument("--direction", choices=["minimize", "maximize"], help="which values of the metric are better")
    parser.add_argument(
        "--value", choices=["best", "last"], default="best", help="the run's best epoch or its last (default: best)"
    )
    parser.add_argument("--trials", type=int, help="trials in all (default: the full grid; 20 for random and tpe)")
    parser.add_argument(
        "--prune",
        type=int,
        metavar="EPOCHS",
        help="stop a run that is worse, after at least so many epochs, than the median of the others at that epoch",
    )
    parser.add_argument("--sampler_seed", type=int, default=0, help="seed of random and tpe (default: 0)")
    parser.add_argument("--retry_failed", action="store_true", help="try failed trials again")
    parser.add_argument("--name", help="the study's name (default: made of the settings, so that others get another)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--storage", type=Path, help="SQLite file (default: <root>/<experiment>/sweeps/sweeps.db)")
    return parser


@dataclass
class Sweep:
    """The settings of a sweep.

    Attributes:
        config: The experiment's name or YAML file.
        passed_on: Further arguments of `relit fit`.
        choices: Values by argument.
        ranges: Lower end, upper end and whether the scale is logarithmic, by argument.
        experiment: The experiment's folder.
        storage: The SQLite file.
        name: The study's name.
    """

    config: str
    passed_on: list[str]
    choices: dict[str, list[str]]
    ranges: dict[str, tuple[float, float, bool]]
    sampler: str
    metric: str
    direction: str
    value: str
    prune: int | None
    sampler_seed: int
    experiment: Path
    storage: Path
    name: str = ""
    digest: str = ""

    @property
    def folder(self) -> Path:
        """Where logs, locks and tables lie."""
        return self.storage.parent / self.name

    @property
    def seeds(self) -> list[str]:
        """The seeds that each trial of random and tpe is trained with."""
        return [] if self.sampler == "grid" else self.choices.get(SEED, [])

    @property
    def grid(self) -> list[dict[str, str]]:
        """All combinations of the choices."""
        return [dict(zip(self.choices, values, strict=True)) for values in itertools.product(*self.choices.values())]

    def arguments(self, settings: dict[str, str]) -> list[str]:
        """The arguments of `relit fit` with these settings."""
        return [
            *("--config", self.config),
            *(f"--{name}={value}" for name, value in settings.items()),
            *self.passed_on,
        ]

    def run_id(self, settings: dict[str, str]) -> str:
        """A name for the run with these settings: ``latent_dim=8+seed_everything=0``."""
        parts = [f"{name}={value}" for name, value in zip(_short_names(settings), settings.values(), strict=True)]
        given = "+".join(parts)
        safe = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "._+=@-") else "-" for letter in given
        )
        if safe == given and len(given) <= LONGEST_ID:
            return given
        return f"{safe[: LONGEST_ID - 9]}@{hashlib.sha256(given.encode()).hexdigest()[:8]}"


def sweep_of(given: argparse.Namespace, passed_on: list[str]) -> Sweep:
    """The sweep that the command line describes, checked before anything is trained.

    Raises:
        RunError: An argument doesn't exist, has a wrong value, or is missing.
    """
    config = given.experiment
    choices = {vary[0].removeprefix("--"): list(dict.fromkeys(vary[1:])) for vary in given.vary}
    ranges = dict(_range_of(parts) for parts in given.range)
    _check_given(given, choices, ranges)
    first = {**{name: values[0] for name, values in choices.items()}, **{n: _text(r[0]) for n, r in ranges.items()}}
    arguments = ["--config", config, *(f"--{name}={value}" for name, value in first.items()), *passed_on]
    settings = resolved(arguments)
    for name, values in choices.items():
        for value in values[1:]:
            resolved([*arguments, f"--{name}={value}"])
    for name, (_, high, _) in ranges.items():
        resolved([*arguments, f"--{name}={_text(high)}"])
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
        name: value for name, value in flat(settings).items() if not name.startswith(("run.", "wandb.", "ckpt_path"))
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


def _check_given(given: argparse.Namespace, choices: dict[str, list[str]], ranges: dict[str, Any]) -> None:
    names = [vary[0].removeprefix("--") for vary in given.vary] + list(ranges)
    if not names:
        raise RunError("--vary NAME VALUE … is missing: there is nothing to vary.")
    if short := [name for name, values in choices.items() if not values]:
        raise RunError(f"--vary {short[0]} has no value: add at least one.")
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
    optuna = _optuna()
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


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise RunError("A sweep needs Optuna: pip install 'relit[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Worker:
    """A process that takes trials from the study until none is left.

    Args:
        sweep: The settings.
        trials: Trials in all; None for the default.
        retry_failed: Whether trials that failed before this process began are tried again.
    """

    def __init__(self, sweep: Sweep, trials: int | None, retry_failed: bool) -> None:
        optuna = _optuna()
        self.sweep = sweep
        self.states = optuna.trial.TrialState
        self.total = trials or (len(sweep.grid) if sweep.sampler == "grid" else 20)
        # The file's tables are made once, whichever sweeps begin at the same time.
        with _waited_for(sweep.storage.with_suffix(".lock")):
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{sweep.storage.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = optuna.create_study(
                storage=storage, study_name=sweep.name, direction=sweep.direction, load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(0),
            )  # fmt: skip
            known = self.study.user_attrs.setdefault("settings", sweep.digest)
            if known != sweep.digest:
                raise RunError(
                    f"The study {sweep.name} in {sweep.storage} has other settings: choose another --name, or leave it "
                    "out."
                )
            self.study.set_user_attr("settings", sweep.digest)
        self.pruner = optuna.pruners.MedianPruner(FEWEST_TO_PRUNE, n_warmup_steps=sweep.prune or 0)
        self.to_retry = [t for t in self._trials() if t.state == self.states.FAIL] if retry_failed else []

    def work(self) -> None:
        """Trains trial after trial; waits for those of other processes, in case one of them dies."""
        said = False
        while True:
            with self._next() as trial:
                if trial is not None:
                    self._train_trial(trial)
                    continue
            running = [t.number for t in self._trials() if t.state == self.states.RUNNING]
            if not running:
                return
            if not said:
                said = True
                print(f"Waiting for trial{'s' * (len(running) > 1)} {_listed(running)} of other processes.", flush=True)
            time.sleep(1)

    @contextmanager
    def _next(self) -> Iterator[Any]:
        """A trial that this process alone works on: one whose process died, or a new one; None if there is neither."""
        lock: TextIO | None = None
        trial = None
        with _waited_for(self.sweep.folder / "study.lock"):
            for frozen in self._trials():
                if frozen.state == self.states.RUNNING and (lock := _lock(self._lock_of(frozen.number))) is not None:
                    trial = self._trial(frozen._trial_id)
                    break
            else:
                if (trial := self._ask()) is not None:
                    lock = _lock(self._lock_of(trial.number))
        try:
            yield trial
        finally:
            if lock is not None:
                lock.close()

    def _ask(self) -> Any | None:
        """A new trial with its settings; None if there are enough."""
        optuna = _optuna()
        trials = self._trials()
        retried = bool(self.to_retry)
        if retried:
            self.study.enqueue_trial(self.to_retry.pop(0).params)
        elif self.sweep.sampler == "grid":
            tried = [trial.params for trial in trials]
            left = next((settings for settings in self.sweep.grid[: self.total] if settings not in tried), None)
            if left is None:
                return None
            self.study.enqueue_trial(left)
        elif sum("retried" not in trial.user_attrs for trial in trials) >= self.total:
            return None
        # One seed and the number of trials so far: a sweep that was killed goes on with the same proposals.
        seed = self.sweep.sampler_seed * 100_003 + len(trials)
        samplers = optuna.samplers
        self.study.sampler = (
            samplers.TPESampler(seed=seed, constant_liar=True)
            if self.sweep.sampler == "tpe"
            else samplers.RandomSampler(seed)
        )
        trial = self.study.ask(self._distributions())
        if retried:
            trial.set_user_attr("retried", True)
        return trial

    def _distributions(self) -> dict[str, Any]:
        """The values that Optuna chooses among, by argument."""
        optuna = _optuna()
        found: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(values)
            for name, values in self.sweep.choices.items()
            if name != SEED or self.sweep.sampler == "grid"
        }
        for name, (low, high, log) in self.sweep.ranges.items():
            whole = isinstance(low, int) and isinstance(high, int)
            kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
            found[name] = kind(low, high, log=log)
        return found

    def _train_trial(self, trial: Any) -> None:
        """Trains a trial's runs and tells the study their mean; a failure is noted, and the sweep goes on."""
        optuna = _optuna()
        settings = {name: _text(value) for name, value in trial.params.items()}
        seeds = [{SEED: seed} for seed in self.sweep.seeds] or [{}]
        start = time.monotonic()
        values: list[float] = []
        folders: list[str] = []
        state, remark = self.states.COMPLETE, ""
        for number, seed in enumerate(seeds):
            run = Run(self.sweep, {**settings, **seed}, self.sweep.folder / f"trial-{trial.number}.log")
            try:
                value = run.train(self._judge(trial) if number == 0 else None)
                if number == 0 and value is not None and self.sweep.prune is not None:
                    self._report(trial, run.values())  # later trials are compared with all epochs, also of a reused run
                folders.append(str(run.folder))
                trial.set_user_attr("runs", folders)
            except RunError as error:
                if any(os.strerror(number) in str(error) for number in FULL):
                    raise  # the trial is no failure: it is taken up again when there is room
                state, remark = self.states.FAIL, str(error)
                break
            if value is None:
                state = self.states.PRUNED
                break
            values.append(value)
        trial.set_user_attr("values", values)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        if remark:
            trial.set_user_attr("failure", remark)
        try:
            self.study.tell(trial, statistics.fmean(values) if state == self.states.COMPLETE else None, state)
        except optuna.exceptions.UpdateFinishedTrialError:  # somebody deleted the lock files
            return
        self._tell_progress(trial.number, settings, values, state, remark, folders)
        if remark and not run.metrics_match and not any(t.state == self.states.COMPLETE for t in self._trials()):
            raise RunError(remark)

    def _judge(self, trial: Any) -> Any | None:
        """Whether a run should stop, from its values by epoch so far; None if runs are never stopped."""
        if self.sweep.prune is None:
            return None

        def should_stop(values: list[tuple[float, float]]) -> bool:
            return self.pruner.prune(self.study, self._report(trial, values))

        return should_stop

    def _report(self, trial: Any, values: list[tuple[float, float]]) -> Any:
        """Gives the study the values by epoch that it doesn't have yet; returns the trial with all of them."""
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        for epoch, value in values:
            if int(epoch) not in known:
                trial.report(value, int(epoch))
        return self.study._storage.get_trial(trial._trial_id)

    def _tell_progress(
        self, number: int, settings: dict[str, str], values: list[float], state: Any, remark: str, folders: list[str]
    ) -> None:
        trials = self._trials()
        done = sum(trial.state.is_finished() for trial in trials)
        what = {
            self.states.COMPLETE: f"{self.sweep.metric} {_mean(values)}" if values else "",
            self.states.PRUNED: "stopped early",
            self.states.FAIL: f"failed: {remark}",
        }[state]
        shown = " ".join(
            f"{name}={value}" for name, value in zip(_short_names(settings), settings.values(), strict=True)
        )
        seconds = trials[number].user_attrs["seconds"]
        print(f"[{done}/{max(self.total, done)}] {shown}: {what} ({seconds:.0f} s) {' '.join(folders[:1])}", flush=True)

    def conclude(self) -> int:
        """Writes and prints the table, sorted by the metric; returns 1 if no trial has come to its end."""
        rows = self.rows()
        if rows:
            (self.sweep.folder / "table.md").write_text(_table(self.sweep, rows), encoding="utf-8")
            with (self.sweep.folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([*rows[0].settings, "mean", "sd", "n", "runs"])
                for row in rows:
                    sd = statistics.stdev(row.values) if len(row.values) > 1 else ""
                    mean = statistics.fmean(row.values)
                    writer.writerow([*row.settings.values(), mean, sd, len(row.values), " ".join(row.runs)])
            print("\n" + _table(self.sweep, rows), end="")
        by_params = {_key(trial.params): trial for trial in self._trials()}  # the newest trial of each setting
        failed = [trial for trial in by_params.values() if trial.state == self.states.FAIL]
        pruned = sum(trial.state == self.states.PRUNED for trial in by_params.values())
        if pruned:
            print(f"{pruned} stopped early.")
        for trial in failed:
            shown = " ".join(f"{name}={_text(value)}" for name, value in trial.params.items())
            print(f"Failed: {shown}: {trial.user_attrs.get('failure', 'no reason is known')}")
        if failed:
            print(f"Logs are in {self.sweep.folder}; add --retry_failed to try them again.")
        if rows:
            folders = [run for row in rows for run in row.runs]
            print(f"Compare them: relit report {shlex.join(folders[:3])}{' …' if len(folders) > 3 else ''}")
        return 0 if rows else 1

    def rows(self) -> list["Row"]:
        """The settings without the seed, each with the values of all seeds, the best first."""
        groups: dict[str, Row] = {}
        for trial in self._trials():
            if trial.state == self.states.COMPLETE:
                settings = {name: _text(value) for name, value in trial.params.items() if name != SEED}
                row = groups.setdefault(_key(settings), Row(settings, [], []))
                for run, value in zip(trial.user_attrs["runs"], trial.user_attrs["values"], strict=True):
                    if run not in row.runs:
                        row.runs.append(run)
                        row.values.append(value)
        sign = 1 if self.sweep.direction == "minimize" else -1
        return sorted(groups.values(), key=lambda row: sign * statistics.fmean(row.values))

    def _trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def _trial(self, identifier: int) -> Any:
        return _optuna().trial.Trial(self.study, identifier)

    def _lock_of(self, number: int) -> Path:
        return self.sweep.folder / f"trial-{number}.lock"


@dataclass
class Row:
    """A row of the table: settings without the seed, and the value and the folder of each seed's run."""

    settings: dict[str, str]
    values: list[float]
    runs: list[str]


class Run:
    """A training with given settings, in a folder that no run with other settings has.

    Args:
        sweep: The sweep.
        settings: The varied arguments.
        log: File for what the training prints.
    """

    def __init__(self, sweep: Sweep, settings: dict[str, str], log: Path) -> None:
        self.sweep = sweep
        self.log = log
        self.metrics_match = True
        self.arguments = sweep.arguments(settings)
        config = resolved(self.arguments)
        name = sweep.run_id(settings)
        for number in itertools.count(1):
            self.folder = sweep.experiment / (name if number == 1 else f"{name}@{number}")
            if not (self.folder / "config.yaml").is_file() or not changes(self.folder, config):
                return

    def train(self, should_stop: Any | None) -> float | None:
        """Trains, or goes on, unless the run is finished; returns the metric's value, None if it was stopped early.

        Args:
            should_stop: Called with the metric's values by epoch when there are new ones.

        Raises:
            RunError: The training fails, or doesn't log the metric.
            KeyboardInterrupt: Ctrl-C ended it.
        Terminated: SIGTERM ended it.
        """
        # The training inherits the lock: if this process is killed, no other one trains in the folder at the same time.
        self.sweep.experiment.mkdir(parents=True, exist_ok=True)
        with _waited_for(self.sweep.folder / f"{self.folder.name}.lock") as lock:
            if not INHERITED and self.folder.is_dir():  # Windows: the training of a killed sweep has only its own lock
                Ownership(self.folder, patience=math.inf).release()
            if not finished(self.folder) and not self._train_in_a_process(lock, should_stop):
                return None
        return self._value()

    def _train_in_a_process(self, lock: TextIO, should_stop: Any | None) -> bool:
        """Returns whether the training came to its end, rather than being stopped early."""
        with self.log.open("a", encoding="utf-8") as log:
            command = [*RELIT, *fit_command(self.folder, self.arguments)]
            log.write(f"== {shlex.join(command)}\n")
            log.flush()
            passed_on: dict[str, Any] = {"pass_fds": (lock.fileno(),)} if INHERITED else {}
            process = subprocess.Popen(command, stdout=log, stderr=log, **passed_on)
            with _leaving_signals_to(process):
                stopped = self._watch(process, should_stop)
        if stopped:
            return False
        if process.returncode in INTERRUPTED:
            raise KeyboardInterrupt
        if process.returncode in TERMINATED:
            raise Terminated
        if process.returncode != 0:
            raise RunError(self._last_words(process.returncode))
        return True

    def _watch(self, process: "subprocess.Popen[bytes]", should_stop: Any | None) -> bool:
        """Waits for the training; ends it when it should stop, and says so."""
        seen = 0
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(None if should_stop is None else 0.5)
            if should_stop is None or process.poll() is not None:
                continue
            values = self.values()[:-1]  # the last epoch may not be over
            if len(values) > seen:
                seen = len(values)
                if should_stop(values):
                    process.send_signal(signal.SIGINT if INHERITED else signal.SIGTERM)  # Windows has no other signal
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(60)
                    process.kill()
                    process.wait()
                    return True
        return False

    def values(self) -> list[tuple[float, float]]:
        """The metric by epoch, as far as it is logged."""
        return read_epochs(self.folder / "metrics.csv").get(self.sweep.metric, [])

    def _value(self) -> float:
        values = [value for _, value in self.values()]
        if not values:
            logged = sorted(read_epochs(self.folder / "metrics.csv"))
            self.metrics_match = self.sweep.metric in logged
            raise RunError(
                f"No value of {self.sweep.metric} is logged; there are {', '.join(logged) or 'none at all'}."
            )
        if self.sweep.value == "last":
            return values[-1]
        return min(values) if self.sweep.direction == "minimize" else max(values)

    def _last_words(self, code: int) -> str:
        told = last_words(self.log.read_text(errors="replace", encoding="utf-8"))
        return told or f"it ended with exit code {code}; see {self.log}"


@contextmanager
def _leaving_signals_to(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Leaves Ctrl-C and SIGTERM to a training, which is waited for while it saves its state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[signal.Signals, Any] = {
        signal.SIGINT: lambda *_: None,  # the terminal sends it to the training, too
        signal.SIGTERM: lambda *_: process.terminate(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _table(sweep: Sweep, rows: list[Row]) -> str:
    names = _short_names(rows[0].settings)
    table = [[*names, f"{sweep.metric} ({sweep.value})", "n"]]
    table += [[*row.settings.values(), _mean(row.values), str(len(row.values))] for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    table.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in table]
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> str:
    """The mean, with the standard deviation of several values."""
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2g}"


def _lock(path: Path) -> TextIO | None:
    """The file, locked until it is closed; None if another process holds it.

    Raises:
        RunError: Files can't be locked there.
    """
    file = path.open("w", encoding="utf-8")
    try:
        lock_now(file.fileno())
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise RunError(
            f"{path} can't be locked ({error.strerror}): set --storage to a file on a local disk."
        ) from error
    return file


def _waited_for(path: Path) -> TextIO:
    """The file, locked until it is closed, as soon as no other process holds it."""
    while (file := _lock(path)) is None:
        time.sleep(0.1)
    return file


def _short_names(settings: dict[str, Any]) -> list[str]:
    """The shortest ends of dotted names that tell them apart.

    Example:
        >>> _short_names({"model.a.lr": 1, "model.b.lr": 2, "model.width": 3})
        ['a.lr', 'b.lr', 'width']
    """

    def end(name: str, length: int) -> str:
        return ".".join(name.split(".")[-length:])

    found = []
    for name in settings:
        others = [other for other in settings if other != name]
        length = 1
        while any(end(other, length) == end(name, length) for other in others):
            length += 1
        found.append(end(name, length))
    return found


def _text(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
