"""Processes that tests start, and what they wait for."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def environment(**others: object) -> dict[str, str]:
    """The environment of a process that finds the repository's packages."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **{name: str(value) for name, value in others.items()}}


def run_relit(*arguments: object, cwd: Path | None = None, **others: object) -> "subprocess.CompletedProcess[str]":
    """Runs the command in a separate process, with further variables of its environment."""
    command = [sys.executable, "-m", "lit_models", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**others), capture_output=True, text=True, timeout=200, check=False
    )


def started_here(relit: Callable[..., int], *more: str) -> "Callable[..., subprocess.CompletedProcess[str]]":
    """Takes the place of `subprocess.run`: commands of relit run in this process, with further arguments."""
    start = subprocess.run

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        if command[:3] != [sys.executable, "-m", "lit_models"]:
            return start(command, **options)
        return subprocess.CompletedProcess(command, relit(*command[3:], *more))

    return run


def exit_code_in_a_fork(target: Callable[..., object], *arguments: object) -> int | None:
    """The exit code of a forked process that calls a function and ends."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def wait_until(event: Callable[[], Any], process: "subprocess.Popen[str] | None" = None, seconds: float = 120) -> Any:
    """The first true value of an event, which must come in time and before the process ends."""
    deadline = time.monotonic() + seconds
    while not (value := event()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)
    return value
