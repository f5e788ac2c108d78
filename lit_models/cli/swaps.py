"""A model or a data module that the command line puts in the place of a configuration's: what is kept, what is lost."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

from lit_models.errors import RunWarning


def typed(args: list[str], option: str) -> bool:
    """Whether an option itself stands on the command line (``--data X`` or ``--data=X``, but not ``--data.path X``)."""
    return any(arg == f"--{option}" or arg.startswith(f"--{option}=") for arg in args)


def note_swaps(args: list[str], config: Namespace, files: list[Path]) -> bool:
    """Says which arguments of the configuration files go over to another class, and which are dropped.

    Args:
        args: The command line.
        config: What came of it.
        files: The configuration files, in order.

    Returns:
        Whether a class of theirs was replaced on the command line.
    """
    swapped = False
    for part in ("model", "data"):
        before = _section(files, part)
        if not typed(args, part) or before is None or config[part] is None:
            continue
        old, new = (name.rpartition(".")[2] for name in (before["class_path"], config[part].class_path))
        if old == new:
            continue
        swapped = True
        given = before.get("init_args") or {}
        now = config[part].get("init_args", Namespace()).as_dict()
        own = {name for name in given if any(arg.startswith(f"--{part}.{name}") for arg in args)}
        kept = [
            f"{name} = {_short(given[name])}"
            for name in given
            if name not in own and name in now and now[name] == given[name]
        ]
        dropped = [f"{name} = {_short(given[name])}" for name in given if name not in now]
        told = [f"{', '.join(names)} {verb}" for names, verb in ((kept, "kept"), (dropped, "dropped")) if names]
        if told:
            rank_zero_warn(
                f"--{part} {new} in place of the configuration's {old}: {'; '.join(told)}.", category=RunWarning
            )
    return swapped


def _section(files: list[Path], part: str) -> dict[str, Any] | None:
    """The class and the arguments of a part that the files give, later ones over earlier ones."""
    found: dict[str, Any] | None = None
    for file in files:
        section = (yaml.safe_load(file.read_text()) or {}).get(part)
        if isinstance(section, dict) and "class_path" in section:
            found = section
    return found


def _short(value: Any) -> str:
    text = str(value.get("class_path", value) if isinstance(value, dict) else value)
    return text if len(text) <= 40 else f"{text[:39]}…"
