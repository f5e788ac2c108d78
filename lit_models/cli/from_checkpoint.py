"""Completes a command's configuration from the one in a checkpoint: as data, from which nothing is run."""

from argparse import ArgumentError
from collections.abc import Collection
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lit_models.cli.messages import sentence_of
from lit_models.cli.training_settings import settings_of_training
from lit_models.errors import RunError, RunWarning
from lit_models.support.arguments import foreign_class, parse_as_data


def with_model_and_data(
    parser: LightningArgumentParser, config: Namespace, known: dict[str, Any], named: Collection[str]
) -> Namespace:
    """The configuration with the checkpoint's model, data and experiment where they weren't given.

    Args:
        parser: The parser of all commands.
        config: Its configuration, with the command as ``subcommand``.
        known: The configuration in the checkpoint.
        named: Modules that the user has named, whose classes are trusted.

    Raises:
        RunError: A class of the checkpoint isn't part of relit, or can't be made.
    """
    command = config.subcommand
    path = _source(config)
    for key in ("model", "data"):
        if config[command][key] is not None or known.get(key) is None:
            continue
        say_it = f"if you trust that, say it yourself by --config or --{key}."
        if foreign := foreign_class(known[key], named):
            raise RunError(
                f"The checkpoint {path} takes its {key} from {foreign}, which isn't part of relit and would run "
                f"code: {say_it}"
            )
        if not isinstance(known[key], dict) or "class_path" not in known[key]:
            raise RunError(f"The checkpoint {path} takes its {key} from a text, which could run code: {say_it}")
        try:
            config = parse_as_data(parser, {command: {key: known[key]}}, config)
        except (Exception, ArgumentError) as error:  # jsonargparse raises whatever a type's own parser raises
            raise RunError(
                f"The {key} in the checkpoint {path} can't be made ({sentence_of(error).rstrip('.')}): {say_it}"
            ) from error
    run = known.get("run")
    experiment = run.get("experiment") if isinstance(run, dict) else None
    if config[command].run.experiment is None and isinstance(experiment, str):
        config[command].run.experiment = experiment
    return config


def with_training_settings(
    parser: LightningArgumentParser, config: Namespace, known: dict[str, Any], args: list[str], defaults: Namespace
) -> Namespace:
    """The configuration with the checkpoint's settings of the training where they weren't given.

    Args:
        parser: The parser of all commands.
        config: Its configuration, with the command as ``subcommand``.
        known: The configuration in the checkpoint.
        args: The command line.
        defaults: What would have come of an empty command line.

    Raises:
        RunError: The settings can't be used.
    """
    command = config.subcommand
    path = _source(config)
    more = [arg for arg in args if arg.startswith("--trainer.callbacks+=")]
    added, given = config[command].trainer.callbacks, config[command].clone()
    if more:  # to the run's own
        given.trainer.callbacks = None
    values, foreign = settings_of_training(known, args, given, defaults)
    if foreign:
        rank_zero_warn(
            f"The run goes on without {', '.join(foreign)}, as only relit's own callbacks are taken from a "
            "checkpoint: add them by --config or --trainer.callbacks+=.",
            category=RunWarning,
        )
    try:
        config = parse_as_data(parser, {command: values}, config)
    except (Exception, ArgumentError) as error:  # jsonargparse raises whatever a type's own parser raises
        raise RunError(
            f"The settings of the training in the checkpoint {path} can't be used "
            f"({sentence_of(error).rstrip('.')}): go on by --config."
        ) from error
    if more and values.get("trainer", {}).get("callbacks"):
        config[command].trainer.callbacks = [*config[command].trainer.callbacks, *added]
    return config


def _source(config: Namespace) -> str:
    return config[config.subcommand].ckpt_path or config[config.subcommand].get("weights")
