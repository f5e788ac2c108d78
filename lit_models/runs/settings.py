"""The settings of a run, and which of them have changed."""

import sys
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch.utilities import rank_zero_only

from lit_models.runs import reading
from lit_models.runs.reading import flat


def tell_changes(run: Path, now: dict[str, Any]) -> None:
    """Says which settings differ from those that the run was started with."""
    if cast(Any, rank_zero_only).rank != 0:
        return
    for key, (before, after) in changes(run, now).items():
        print(f"relit: note: resuming with {key} = {after} (was {before}); it applies from here on.", file=sys.stderr)


def changes(run: Path, now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from those that the run was started with: what they were, and what they are."""
    return differences(yaml.safe_load((run / "config.yaml").read_text()), now)


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two configurations, apart from those of the run's name and its loggers."""
    found = reading.differences([flat(before), flat(now)], ignored=("ckpt_path", "run.", "wandb."))
    return {name: (earlier, later) for name, (earlier, later) in sorted(found.items())}
