"""Commands of relit as processes, for the programs that start many: ``relit sweep`` and the scripts."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_models.errors import RunError
from lit_models.support.yaml_loader import LOADER

RELIT = [sys.executable, "-m", "lit_models"]
"""The command, in this Python."""
INTERRUPTED = (130, -signal.SIGINT, 0xC000013A)  # the last one on Windows
"""Exit codes of a command that Ctrl-C ended."""
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals with which a scheduler ends a training before it takes the machine away; SIGUSR1 is Slurm's warning."""
TERMINATED = {code: number for number in ENDING for code in (128 + number, -number)}
"""Exit codes of a command that such a signal ended, each with the signal."""


class Terminated(BaseException):
    """A signal of :data:`ENDING`, the argument, has ended the command that was waited for."""


def train(folder: Path, arguments: Sequence[str]) -> int:
    """Runs `relit fit` in the run folder `<root>/<experiment>/<id>`; resumes a killed run and skips a finished one.

    Args:
        folder: The run's folder.
        arguments: The other arguments of `relit fit`; the configuration's experiment must be the folder's.

    Returns:
        The exit code.
    """
    from lit_models.runs.settings import changes

    if (folder / "config.yaml").is_file() and (changed := changes(folder, resolved(arguments))):
        key, (before, now) = next(iter(changed.items()))
        print(
            f"{folder} was trained with {key} = {before}, not {now}: remove it, or choose another --root.",
            file=sys.stderr,
        )
        return 1
    return 0 if finished(folder) else relit(fit_command(folder, arguments))


def resolved(arguments: Sequence[str], command: str = "fit") -> dict[str, Any]:
    """The full configuration with which a command of relit would run.

    Raises:
        RunError: It would refuse the arguments.
    """
    from lit_models.__main__ import main

    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([command, *arguments, "--print_config"])
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    if code != 0:
        raise RunError(last_words(errors.getvalue()) or f"relit {command} refuses {shlex.join(arguments)}.")
    return yaml.load(output.getvalue(), LOADER)


def last_words(output: str) -> str | None:
    """The error in what a command of relit has printed."""
    told = [line.removeprefix("relit: ") for line in output.splitlines() if line.startswith("relit: ")]
    told = [line for line in told if not line.startswith(("note:", "add --debug"))]
    return told[-1] if told else None


def fit_command(folder: Path, arguments: Iterable[str]) -> list[str]:
    """The arguments of relit that train in this run folder, from its last checkpoint if it has one."""
    from lit_models.support.checkpoint_paths import last_checkpoint

    place = {"root": folder.parent.parent, "experiment": folder.parent.name, "id": folder.name}
    command = ["fit", *arguments, *(f"--run.{name}={value}" for name, value in place.items())]
    if last_checkpoint(folder) is not None:
        command.append("--ckpt_path=last")
    return command


def relit(command: Sequence[str]) -> int:
    """Runs a command of relit in a separate process; returns its exit code."""
    print(f"== relit {shlex.join(command)}", flush=True)
    return in_a_process([*RELIT, *command], environment())


def environment() -> dict[str, str]:
    """The environment of :data:`RELIT`: the current folder, with a ``wandb/`` or ``datamodules/`` in it, is on its path
    only if it is on this process's, as it isn't for the installed ``relit``."""
    on_path = not {"", os.getcwd()}.isdisjoint(sys.path)
    return {**os.environ, **({} if on_path else {"PYTHONSAFEPATH": "1"})}


def in_a_process(command: Sequence[str], env: dict[str, str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Ctrl-C also reaches the command, which is waited for while it leaves its run in order.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the command.
    """
    # Not SIG_IGN, which the command would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(command, check=False, env=env).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    return code


def finished(run: Path) -> bool:
    """Whether the training in this run folder reached its end."""
    record = run / "run.json"
    return record.is_file() and bool(json.loads(record.read_text(encoding="utf-8"))["finished"])


def interruptible(main: Callable[[], int]) -> int:
    """The exit code of a program, which prints one sentence on Ctrl-C or a signal of :data:`ENDING` in place of a
    traceback."""
    try:
        return main()
    except KeyboardInterrupt:
        print("Interrupted; the same command continues.", file=sys.stderr)
        return 130
    except Terminated as ending:
        number = signal.Signals(ending.args[0])
        print(f"Ended by {number.name}; the same command continues.", file=sys.stderr)
        return 128 + number
