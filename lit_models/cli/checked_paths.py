"""Checkpoints and weights that a command line names, checked before torch is imported."""

import os
from pathlib import Path
from typing import Any

from lit_models.cli.given_classes import GivenClasses
from lit_models.cli.names import published_weights
from lit_models.cli.needs import two_to_load, unnamed_experiment
from lit_models.errors import UsageError
from lit_models.runs.folder import RunOptions, find_checkpoint, is_restarted
from lit_models.support.spelling import did_you_mean
from lit_models.support.weight_sources import require_weights

RUN = ("run.experiment", "run.id", "run.root")
"""The options that say where a run lies."""


def weights_file(value: str, must_exist: bool = True) -> str:
    """What ``--weights`` names, as the parser takes it: shipped weights become their file.

    Args:
        value: The option's value.
        must_exist: Whether a path is refused that leads nowhere.

    Raises:
        UsageError: There are no shipped weights of that name.
        RunError: There is no such file or folder, or no weights are in it.
    """
    path = _as_in_a_shell(value)
    if Path(path).exists() or "/" in path:  # hf:OWNER/NAME, too
        if must_exist:
            require_weights(path)
        return value
    known = published_weights()
    name = value.removesuffix(".safetensors")
    if name in known:
        return str(known[name])
    meant = did_you_mean(name, known)
    raise UsageError(
        f"There are no weights {value}.{meant} --weights takes a .safetensors file, a run's folder, hf:OWNER/NAME, or "
        f"one of {', '.join(known)}."
    )


def require_checkpoint(value: str) -> None:
    """Refuses a checkpoint that doesn't exist; a restarted job goes on with its run's."""
    restarts = os.environ.keys() & {"SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"}
    if value in ("last", "best", "none", "null") or restarts:
        return
    if Path(path := _as_in_a_shell(value)).exists():
        find_checkpoint(path, RunOptions())
        return
    weights = f" Weights that come with relit are given by --weights {value}." if value in published_weights() else ""
    raise UsageError(
        f"There is no checkpoint {value}: --ckpt_path takes a file, a run's folder, `last` or `best`.{weights}"
    )


def require_one_to_load(
    loaded: dict[str, str], config: list[dict[str, Any]], typed: set[str], classes: GivenClasses
) -> None:
    """Refuses a checkpoint with weights, and one of an experiment that has none.

    Raises:
        UsageError: There are two, or the experiment isn't named.
        RunError: The experiment has no such checkpoint.
    """
    if loaded.get("weights") not in (None, "none", "null"):
        raise UsageError(two_to_load())
    which = loaded["ckpt_path"]
    if which not in ("last", "best") or is_restarted():
        return
    sections = [values["run"] for values in config if isinstance(values.get("run"), dict)]
    sections.append({name.removeprefix("run."): loaded[name] for name in RUN if name in loaded})
    given = {name: str(value) for section in sections for name, value in section.items()}
    options = {name: _as_in_a_shell(value) for name, value in given.items() if value not in ("None", "null")}
    if not options.get("experiment"):
        if not classes.is_given["model"]:
            raise UsageError(unnamed_experiment(which))
    elif loaded.get("run.experiment", "null") != "null" or typed.isdisjoint(("--model", "--data", "--data.images")):
        find_checkpoint(which, RunOptions(**options))


def _as_in_a_shell(path: str) -> str:
    """A path in which ``~`` and ``$NAME`` are replaced, unless something has that very name."""
    return path if Path(path).exists() else os.path.expanduser(os.path.expandvars(path))
