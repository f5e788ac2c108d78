"""Turns what the argument parser refuses into a sentence or two for the person who gave the arguments."""

import re
from argparse import ArgumentError

from datamodules import DataError
from lit_models.errors import ModelError, RunError
from lit_models.support import sources
from lit_models.support.parser_messages import explain_refusal_of_value, missing_package
from lit_models.support.spelling import did_you_mean

TOP_LEVEL = [
    *("model", "data", "trainer", "ckpt_path", "config", "print_config", "seed_everything"),
    *("run", "wandb", "checkpoint", "predictions", "channels_last", "compile", "weights", "lr_scaling"),
]


def told_by_us(error: BaseException) -> BaseException | None:
    """The error of this project that ``error`` is, or that a library has wrapped in its own; None if there is none.

    jsonargparse wraps what a class raises when it is made.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (DataError, ModelError, RunError)):
        cause = cause.__cause__
    return cause


def explain_refusal(error: BaseException) -> str:
    """What the parser, a class of this project or a type's own parser says of an argument, without a traceback."""
    if ours := told_by_us(error):
        return str(ours)
    if isinstance(error, ArgumentError):
        return _explain_arguments(error.message or str(error))
    if explained := explain_refusal_of_value(str(error)):
        return explained
    if isinstance(error, ModuleNotFoundError) and (package := missing_package(str(error))):
        return f"A package isn't installed: pip install {package}"
    first_lines = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(first_lines.split())}"


def _explain_arguments(message: str) -> str:
    if found := re.search(r"does not accept option '([\w.]+)'", message):
        return f"There is no setting {found[1]!r}.{did_you_mean(found[1], _settings(found[1]))}"
    if found := re.search(r"unrecognized arguments: (.*)", message):
        option = found[1].split()[0].split("=")[0]
        return f"There is no option {option}.{did_you_mean(option, ['--' + name for name in _settings(option[2:])])}"
    if found := re.search(r"argument --([\w.]+): expected one argument", message):
        return f"--{found[1]} needs a value."
    if found := re.search(r"Problems parsing config: (.*)", message, re.DOTALL):
        return f"The configuration isn't valid YAML: {' '.join(found[1].split())}."
    return explain_refusal_of_value(message) or " ".join(message.split())


def _settings(given: str) -> list[str]:
    """Names that a misspelt setting could have meant: top-level ones, or the Trainer's for ``trainer.…``."""
    if given.startswith("trainer."):
        trainer = sources.describe("lightning.pytorch.trainer.trainer", "Trainer")
        return [f"trainer.{argument.name}" for argument in trainer.arguments]
    return TOP_LEVEL
