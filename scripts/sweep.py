"""Trains one configuration with several values of an argument, and draws the runs in one figure.

python scripts/sweep.py configs/wgan_mnist.yaml --vary model.n_critic 1 2 5 20

Several --vary are combined, each with each; what stands after `--` goes to every `relit fit`. Runs that have finished
with the same settings are left alone and killed ones go on, so the command can be repeated. In a Slurm array, each task
takes one run; the same command without --only draws the figure when all have finished:

sbatch --array=0-3 --wrap 'python scripts/sweep.py configs/wgan_mnist.yaml --vary model.n_critic 1 2 5 20 \
    --only $SLURM_ARRAY_TASK_ID'
"""

import argparse
import contextlib
import io
import itertools
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_models.cli.command import run
from lit_models.cli.compare import main as compare
from lit_models.runs.settings import changes
from lit_models.support.checkpoint_files import last_checkpoint

INTERRUPTED = (130, -signal.SIGINT)
"""What a command returns that Ctrl-C has ended."""


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the experiment's YAML file")
    parser.add_argument("--vary", nargs="+", action="append", required=True, metavar=("NAME", "VALUE"))
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder of the figure (default: <root>/<experiment>/comparison)")
    parser.add_argument("--metrics", nargs="+", help="metrics to draw (default: all of val/…)")
    parser.add_argument("--only", type=int, help="do only this run, counted from 0, and draw nothing")
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, passed_on = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    if any(len(vary) < 2 for vary in given.vary):
        parser.error("--vary takes the argument's name and at least one value")

    if not given.config.is_file():
        parser.error(f"there is no configuration file {given.config}")
    experiment = yaml.safe_load(given.config.read_text())["run"]["experiment"]
    names = [vary[0] for vary in given.vary]
    combinations = list(itertools.product(*(vary[1:] for vary in given.vary)))
    if given.only is not None and not 0 <= given.only < len(combinations):
        parser.error(f"--only is {given.only}, but the sweep has the runs 0 to {len(combinations) - 1}")
    folders = []
    for number, values in enumerate(combinations):
        settings = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        run_id = "+".join(setting.rpartition(".")[2] for setting in settings)
        folder = given.root / experiment / run_id
        folders.append(folder)
        if given.only in (None, number):
            arguments = ["--config", str(given.config), *(f"--{setting}" for setting in settings), *passed_on]
            if (code := train(folder, arguments)) != 0:
                print(f"{folder} has failed: mend it and repeat the command; finished runs are kept.", file=sys.stderr)
                return code
    if given.only is not None:
        return 0
    output = given.output or given.root / experiment / "comparison"
    chosen = ["--metrics", *given.metrics] if given.metrics else []
    ids = [folder.name for folder in folders]
    return compare([*map(str, folders), "--names", *ids, "--output", str(output), *chosen])


def train(folder: Path, arguments: Sequence[str]) -> int:
    """Runs `relit fit` in the run folder `<root>/<experiment>/<id>`; goes on with a run that was killed, and leaves one
    alone that has finished.

    Args:
        folder: The run's folder.
        arguments: What `relit fit` is given beside it; a configuration whose experiment is the folder's.

    Returns:
        The exit code.
    """
    if (folder / "config.yaml").is_file() and (changed := changes(folder, resolved(arguments))):
        key, (before, now) = next(iter(changed.items()))
        print(
            f"{folder} was trained with {key} = {before}, not {now}: remove it, or choose another --root.",
            file=sys.stderr,
        )
        return 1
    if finished(folder):
        return 0
    command = ["fit", *arguments, f"--run.root={folder.parent.parent}", f"--run.id={folder.name}"]
    if last_checkpoint(folder) is not None:
        command.append("--ckpt_path=last")
    return relit(command)


def resolved(arguments: Sequence[str]) -> dict[str, Any]:
    """The whole configuration that `relit fit` makes of these arguments.

    Raises:
        SystemExit: They aren't valid; relit has said why.
    """
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run(["fit", *arguments, "--print_config"])
    if code != 0:
        raise SystemExit(code)
    return yaml.safe_load(output.getvalue())


def relit(command: Sequence[str]) -> int:
    """Runs a command of relit in a process of its own; returns its exit code."""
    print(f"== relit {shlex.join(command)}", flush=True)
    return in_a_process([sys.executable, "-m", "lit_models", *command])


def in_a_process(command: Sequence[str]) -> int:
    """Runs a command; returns its exit code. On Ctrl-C, which the command gets as well, it is waited for, so that it
    can leave its run in order.

    Raises:
        KeyboardInterrupt: The command has ended on Ctrl-C.
    """
    # Not SIG_IGN, which the command would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    return code


def finished(run: Path) -> bool:
    """Whether the training in this run folder has come to its end."""
    record = run / "run.json"
    return record.is_file() and bool(json.loads(record.read_text())["finished"])


def interruptible(main: Callable[[], int]) -> int:
    """A script's exit code, which on Ctrl-C comes with a sentence in place of a traceback."""
    try:
        return main()
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(interruptible(main))
