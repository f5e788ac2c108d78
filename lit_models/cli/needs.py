"""What a command needs; checked before torch is imported where no checkpoint or weights can supply it."""

from collections.abc import Iterable

from lit_models.cli.given_classes import GivenClasses
from lit_models.cli.names import published_weights

USES_WEIGHTS = ("validate", "test", "predict")
"""The commands that need no more of a checkpoint than its weights."""


def missing_from(command: str, classes: GivenClasses, loads: bool, files: Iterable[str]) -> str | None:
    """A sentence on what a command line lacks.

    Args:
        command: The command, one of the Trainer's.
        classes: The method and the data set that are given.
        loads: Whether a checkpoint or weights are given.
        files: The names of the configurations.
    """
    for part in ("model", "data"):
        if told := classes.missing(part):
            return told
    if loads:
        return None
    if command in USES_WEIGHTS and not classes.may_be_pretrained():
        return untrained(command, files)
    if command != "prepare" and not classes.is_given["model"]:
        return classes.without_owner("model") or without_model(command)
    if command != "predict" and not classes.is_given["data"]:
        return classes.without_owner("data") or without_data(command)
    return None


def untrained(command: str, files: Iterable[str]) -> str:
    """The sentence on a network that would be measured or used before any training."""
    named = [name for name in files if name in published_weights()]
    shipped = f" `relit {command} --weights {named[-1]}` uses weights that come with relit." if named else ""
    return (
        f"`relit {command}` needs a trained model: add --ckpt_path last, --ckpt_path FILE or --weights FILE "
        f"(--ckpt_path none takes the untrained network).{shipped}"
    )


def unnamed_experiment(which: str) -> str:
    """The sentence on ``--ckpt_path last`` or ``best`` of no experiment."""
    return f"`--ckpt_path {which}` of which experiment? Add --config or --run.experiment."


def two_to_load() -> str:
    """The sentence on weights with a checkpoint."""
    return "--weights and --ckpt_path name two things to load: leave one of them out."


def without_model(command: str) -> str:
    """The sentence on a command that has no model."""
    return f"`relit {command}` needs a model: --config FILE, --model CLASS, or --ckpt_path FILE."


def without_data(command: str) -> str:
    """The sentence on a command that has no data."""
    return f"`relit {command}` needs data: --config FILE or --data CLASS."
