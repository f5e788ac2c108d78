"""The settings of a run, and which of them have changed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_models.runs import reading
from lit_models.runs.reading import flattened
from lit_models.support.renamed import with_new_names
from lit_models.support.yaml_loader import LOADER


def tell_changes(run: Path, now: dict[str, Any], restored: Sequence[str] = ()) -> None:
    """Print which settings differ from those that the run was started with.

    Args:
        run: The run's folder.
        now: The configuration.
        restored: Arguments of the model that a checkpoint overrides (:attr:`lit_models.module.Method`).
    """
    from lightning.pytorch.utilities import (
        rank_zero_only,  # torch with it, which the rest of the module needn't wait for
    )

    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return
    for key, (before, after) in changes(run, now).items():
        name = as_typed(key)
        if key.startswith("model.") and key.rpartition(".")[2] in restored:
            effect = f"resuming with {name} = {before}, as the checkpoint holds what it made; {after} is not used."
        else:
            effect = f"resuming with {name} = {after} (was {before}); it applies from here on."
        print(f"relit: note: {effect}", file=sys.stderr)


def as_typed(name: str) -> str:
    """A setting's name as the command line has it.

    Example:
        >>> as_typed("data.init_args.images.init_args.batch_size")
        'data.images.batch_size'
    """
    return name.replace(".init_args", "")


def changes(run: Path, now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from those that the run was started with: what they were, and what they are."""
    return differences(with_new_names(yaml.load((run / "config.yaml").read_text(encoding="utf-8"), LOADER)), now)


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two configurations, apart from those of the run's name and its loggers."""
    found = reading.differences([flattened(before), flattened(now)], ignored=("ckpt_path", "run.", "wandb."))
    return {name: (earlier, later) for name, (earlier, later) in sorted(found.items())}
