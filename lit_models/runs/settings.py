"""The settings of a run, and which of them have changed."""

import sys
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch.utilities import rank_zero_only


def tell_changes(run: Path, now: dict[str, Any]) -> None:
    """Says which settings differ from those that the run was started with."""
    if cast(Any, rank_zero_only).rank != 0:
        return
    for key, (before, after) in changes(run, now).items():
        kept = (
            "_optimizer." in key or "_scheduler." in key or key.startswith(("model.init_args.optimizer.", "lr_scaling"))
        )
        effect = "has no effect: optimisers and schedules go on from the checkpoint" if kept else "applies from here on"
        print(f"relit: note: resuming with {key} = {after} (was {before}); it {effect}.", file=sys.stderr)


def changes(run: Path, now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from those that the run was started with: what they were, and what they are."""
    before, after = flat(yaml.safe_load((run / "config.yaml").read_text())), flat(now)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before | after)
        if before.get(key) != after.get(key) and not key.startswith(("ckpt_path", "run.", "wandb."))
    }


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a nested configuration by their dotted names.

    Example:
        >>> flat({"model": {"class_path": "DCGAN", "init_args": {"latent_dim": 8}}})
        {'model.class_path': 'DCGAN', 'model.init_args.latent_dim': 8}
    """
    if isinstance(config, dict):
        return {key: value for name, part in config.items() for key, value in flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): config}
