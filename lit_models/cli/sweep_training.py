"""A training of a sweep, in a separate process; and the locks that processes of a sweep hold."""

import itertools
import math
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lit_models.cli.processes import (
    ENDING,
    INTERRUPTED,
    RELIT,
    TERMINATED,
    Terminated,
    environment,
    finished,
    fit_command,
    last_words,
    resolved,
)
from lit_models.cli.sweep_settings import Sweep
from lit_models.errors import RunError
from lit_models.runs.ownership import INHERITED, Ownership, lock_now
from lit_models.runs.reading import read_epochs
from lit_models.runs.settings import changes

PATIENCE = 2.0
"""Seconds after which a process says that it waits for another one."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the metrics of a training that may be stopped early."""


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
            Terminated: SIGTERM or SIGUSR1 ended it.
        """
        # The training inherits the lock: if this process is killed, no other one trains in the folder at the same time.
        self.sweep.experiment.mkdir(parents=True, exist_ok=True)
        with waited_for(self.sweep.folder / f"{self.folder.name}.lock") as lock:
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
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), **passed_on)
            with _leaving_signals_to(process):
                stopped = self._watch(process, should_stop)
        if stopped:
            return False
        if process.returncode in INTERRUPTED:
            raise KeyboardInterrupt
        if process.returncode in TERMINATED:
            raise Terminated(TERMINATED[process.returncode])
        if process.returncode != 0:
            raise RunError(self._last_words(process.returncode))
        return True

    def _watch(self, process: "subprocess.Popen[bytes]", should_stop: Any | None) -> bool:
        """Waits for the training; ends it when it should stop, and says so."""
        seen = 0
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(None if should_stop is None else LOOK_EVERY)
            if should_stop is None or process.poll() is not None:
                continue
            values = self.values()[:-1]  # the last epoch may not be over
            if len(values) > seen:
                seen = len(values)
                if should_stop(values):
                    process.terminate()  # not SIGINT, which programs in the background of a shell ignore
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
    """Leaves Ctrl-C, SIGTERM and Slurm's warning to a training, which is waited for while it saves its state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[signal.Signals, Any] = dict.fromkeys(ENDING, lambda number, _: process.send_signal(number))
    handlers[signal.SIGINT] = lambda *_: None  # the terminal sends it to the training, too
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lock_of(path: Path) -> TextIO | None:
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


def waited_for(path: Path) -> TextIO:
    """The file, locked until it is closed, as soon as no other process holds it; says so if that takes long."""
    deadline, said = time.monotonic() + PATIENCE, False
    while (file := lock_of(path)) is None:
        if not said and time.monotonic() > deadline:
            said = True
            print(f"Waiting for another process, which holds {path}.", flush=True)
        time.sleep(0.1)
    return file
