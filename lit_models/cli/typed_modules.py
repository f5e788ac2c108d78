"""The modules of the user's that a command line names, by itself or by a configuration on it."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_warn

from lit_models.errors import RunWarning
from lit_models.support.arguments import OURS
from lit_models.support.current_folder import hidden_module, import_from_current_folder
from lit_models.support.yaml_loader import LOADER

CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
WITH_CLASSES = ("config", "model", "data", "trainer")
"""Options whose values may name classes."""
NEVER_HERE = (*OURS, "torch", "torchvision", "lightning")


def find_typed_modules(args: list[str]) -> None:
    """Lets the modules that a command line names be imported from the current folder, but nothing else there."""
    names = typed_modules(args)
    import_from_current_folder(names)
    for name in sorted(names.difference(NEVER_HERE)):
        if hidden := hidden_module(name):
            rank_zero_warn(
                f"{hidden} isn't used, as an installed package has the name {name}, too: rename yours.",
                category=RunWarning,
            )


def typed_modules(args: list[str]) -> set[str]:
    """The top-level names of the modules whose classes the options may name.

    Args:
        args: The command line. Checkpoints and weights that it names are never read: a file from elsewhere may not say
            what is imported.
    """
    found: set[str] = set()
    for word, following in zip(args, [*args[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if re.split(r"[.+]", option.removeprefix("--"))[0] in WITH_CLASSES and option.startswith("--"):
            found |= _modules_in(_content(value if equals else following), Path(), set())
    return found


def _modules_in(values: Any, folder: Path, seen: set[Path]) -> set[str]:
    """The modules that values name, or the files that they name, relative to the folder."""
    if isinstance(values, (dict, list)):
        parts = values.values() if isinstance(values, dict) else values
        return set().union(*(_modules_in(part, folder, seen) for part in parts))
    if not isinstance(values, str):
        return set()
    if values.endswith((".yaml", ".yml", ".json")):
        path = (folder / values).resolve()
        if path in seen or not path.is_file():
            return set()
        with suppress(OSError, UnicodeDecodeError):  # which the parser refuses
            return _modules_in(_content(path.read_text(encoding="utf-8")), path.parent, {*seen, path})
    return {values.partition(".")[0]} if CLASS_PATH.fullmatch(values) else set()


def _content(text: str) -> Any:
    try:
        return yaml.load(text, LOADER)
    except yaml.YAMLError:  # which the parser refuses
        return None
