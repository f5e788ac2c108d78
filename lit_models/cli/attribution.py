"""Names the configuration file that holds a refused setting."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lit_models.cli.commands import OPTIONS
from lit_models.cli.names import shipped
from lit_models.support.yaml_loader import LOADER

SETTINGS = (
    r"(?:--)?(?P<name>[a-z][\w.]*) is (?P<value>\S+?)[;:,]? ",  # --data.batch_size is large; it must be a whole number.
    r"The optimizer's (?P<name>\w+) is (?P<value>\S+);",
    r"\w+ has no argument '(?P<name>\w+)'",
    r"There is no [\w ]+ '(?P<value>\w+)'",
    r"(?P<value>\w+) needs --",  # ImageFolder needs --data.path: the folder or archive.
)
"""Beginnings of refusals, each with the setting or the value that is refused."""


def with_its_file(sentence: str, args: list[str]) -> str:
    """A refusal that names the file that the refused setting comes from, and the setting as that file spells it.

    The sentence is returned as it is if the setting was typed, or is in no configuration of the user's.

    Args:
        sentence: The refusal.
        args: The command line, with a path after each ``--config``.
    """
    found = next(filter(None, (re.match(pattern, sentence) for pattern in SETTINGS)), None)
    if found is None:
        return sentence
    setting = (found.groupdict().get("name") or "").rpartition(".")[2]
    value = (found.groupdict().get("value") or "").strip("'") or None
    files: list[Path] = []
    for before, word in pairwise(["", *args]):
        if before == "--config":
            files.append(Path(word))
        elif setting in _names(word) if setting else value in word.replace("=", ".").split("."):
            return sentence
    for path in reversed(files):
        if path.is_file() and shipped("configs") not in path.parents and _holds(path, setting, value):
            options = "|".join(option for option in OPTIONS if option != "config")
            return f"{path}: {re.sub(rf'--(?=(?:{options})[.a-z_]*[ ?.:,;])', '', sentence)}"
    return sentence


def _names(word: str) -> list[str]:
    """The parts of an option's name: model and latent_dim of ``--model.latent_dim=8``."""
    return word.lstrip("-").partition("=")[0].rstrip("+").split(".") if word.startswith("--") else []


def _holds(path: Path, setting: str, value: str | None) -> bool:
    """Whether a configuration has the setting, and the value if there is one."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return any(
        (not setting or name.rpartition(".")[2] == setting) and (value is None or _same(held, value))
        for name, held in _leaves(content)
    )


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All settings with their values, also those that hold others."""
    if key:
        yield key, content
    children = content.items() if isinstance(content, dict) else ()
    for name, child in children:
        yield from _leaves(child, str(name))
    for child in content if isinstance(content, list) else ():
        yield from _leaves(child, key)


def _same(held: Any, value: str) -> bool:
    """Whether a setting holds the value that a sentence prints."""
    texts = {str(held), str(held).rpartition(".")[2]}
    return value in texts or (isinstance(held, int | float) and str(float(held)) == value)
