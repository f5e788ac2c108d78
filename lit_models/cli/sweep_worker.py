"""A process of a sweep, which takes trials from the study, trains them and writes the table."""

import csv
import errno
import json
import os
import shlex
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lit_models.cli.sweep_settings import SEED, Sweep, short_names, text_of
from lit_models.cli.sweep_training import Run, lock_of, waited_for
from lit_models.errors import RunError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk without room."""
FEWEST_TO_PRUNE = 5
"""Finished trials before one is pruned."""


def import_optuna() -> Any:
    """The package, without its messages.

    Raises:
        RunError: It is missing.
    """
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
        optuna = import_optuna()
        self.sweep = sweep
        self.states = optuna.trial.TrialState
        self.total = trials or (len(sweep.grid) if sweep.sampler == "grid" else 20)
        # The file's tables are made once, whichever sweeps begin at the same time.
        with waited_for(sweep.storage.with_suffix(".lock")):
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
        with waited_for(self.sweep.folder / "study.lock"):
            for frozen in self._trials():
                if frozen.state == self.states.RUNNING and (lock := lock_of(self._lock_of(frozen.number))) is not None:
                    trial = self._trial(frozen._trial_id)
                    break
            else:
                if (trial := self._ask()) is not None:
                    lock = lock_of(self._lock_of(trial.number))
        try:
            yield trial
        finally:
            if lock is not None:
                lock.close()

    def _ask(self) -> Any | None:
        """A new trial with its settings; None if there are enough."""
        optuna = import_optuna()
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
        # One seed and the number of trials so far: a sweep that was killed goes on with the same proposals. They are
        # mixed, as neighboring seeds of NumPy's RandomState may begin alike (0 and 3: 0.549, 0.715 and 0.551, 0.708).
        seed = int(np.random.SeedSequence([self.sweep.sampler_seed, len(trials)]).generate_state(1)[0])
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
        optuna = import_optuna()
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
        """Trains a trial's runs and reports their mean to the study; a failure is noted, and the sweep goes on."""
        optuna = import_optuna()
        settings = {name: text_of(value) for name, value in trial.params.items()}
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
            f"{name}={value}" for name, value in zip(short_names(settings), settings.values(), strict=True)
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
            shown = " ".join(f"{name}={text_of(value)}" for name, value in trial.params.items())
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
                settings = {name: text_of(value) for name, value in trial.params.items() if name != SEED}
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
        return import_optuna().trial.Trial(self.study, identifier)

    def _lock_of(self, number: int) -> Path:
        return self.sweep.folder / f"trial-{number}.lock"


@dataclass
class Row:
    """A row of the table: settings without the seed, and the value and the folder of each seed's run."""

    settings: dict[str, str]
    values: list[float]
    runs: list[str]


def _table(sweep: Sweep, rows: list[Row]) -> str:
    names = short_names(rows[0].settings)
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


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
