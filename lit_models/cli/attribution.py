"""Names the configuration file that holds a refused setting."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lit_models.cli.commands import OPTIONS
from lit_models.cli.names import shipped

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
    parts = found.groupdict()
    name, value = (parts.get("name") or "").rpartition(".")[2], parts.get("value")
    files = [Path(path) for option, path in zip(args, args[1:], strict=False) if option == "--config"]
    typed = [word for option, word in zip(["", *args], args, strict=False) if option != "--config"]
    if any(_is_about(word.lstrip("-").partition("=")[0].rpartition(".")[2], word, name, value) for word in typed):
        return sentence
    for path in reversed(files):
        if path.is_file() and shipped("configs") not in path.parents and _holds(path, name, value):
            options = "|".join(option for option in OPTIONS if option != "config")
            return f"{path}: {re.sub(rf'--(?=(?:{options})[.a-z_]*[ ?.:,;])', '', sentence)}"
    return sentence


def _is_about(last: str, word: str, name: str, value: str | None) -> bool:
    """Whether a typed word gives the setting (or, without a name, the value)."""
    return last == name if name else word.rpartition("=")[2].rpartition(".")[2] == value


def _holds(path: Path, name: str, value: str | None) -> bool:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    for key, held in _leaves(content):
        same = value is None or _same(held, value)
        if same and (key.rpartition(".")[2] == name if name else True):
            return True
    return False


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All settings with their values, also those that hold others, each with its key."""
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
