"""Constructor arguments that had another name in an earlier version. The old name still works in configurations, on the
command line, in checkpoints and on weight cards; in Python, use the new one.

To rename an argument, add a line to :data:`RENAMED`.
"""

import os
import sys
from typing import Any, NamedTuple


class Renamed(NamedTuple):
    """The new name of an argument.

    Attributes:
        name: The new name.
        classes: The classes that have the argument.
    """

    name: str
    classes: tuple[str, ...]


RENAMED = {
    "knn_neighbours": Renamed("knn_neighbors", ("MetricResNet",)),
    "map_colours": Renamed("map_colors", ("TranslationScores",)),
    "unlabelled": Renamed("unlabeled", ("ImageFolder", "STL10")),
}
"""New names of arguments by their old ones, of methods, data sets and callbacks."""

_noted: set[str] = set()


def with_new_names(values: Any, owner: str | None = None) -> Any:
    """Settings in which every old name is replaced by its new one; other values are left as they are.

    Args:
        values: A configuration, a part of one, or the arguments of one class.
        owner: The class whose arguments ``values`` are, if it is known; an argument of another class keeps its name.

    Example:
        >>> with_new_names({"class_path": "STL10", "init_args": {"unlabelled": True}})
        {'class_path': 'STL10', 'init_args': {'unlabeled': True}}
    """
    if isinstance(values, list):
        return [with_new_names(value) for value in values]
    if not isinstance(values, dict):
        return values
    own = str(values["class_path"]) if "class_path" in values else None
    return {
        new_name(key, owner): with_new_names(value, own if key == "init_args" else None)
        for key, value in values.items()
    }


def checkpoint_with_new_names(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the new names in its configuration and in its hyperparameters."""
    config, arguments = checkpoint.get("config"), checkpoint.get("hyper_parameters")
    model = config.get("model") if isinstance(config, dict) else None
    owner = model.get("class_path") if isinstance(model, dict) else None
    changed = {"config": with_new_names(config), "hyper_parameters": with_new_names(arguments, owner)}
    return {**checkpoint, **{key: value for key, value in changed.items() if key in checkpoint}}


def new_name(name: str, owner: str | None = None) -> str:
    """The name of an argument today; the last part of a dotted name counts. Notes a replacement once.

    Args:
        name: The argument.
        owner: Its class, if it is known.
    """
    before, dot, last = str(name).rpartition(".")
    renamed = RENAMED.get(last)
    if renamed is None or (owner is not None and owner.rpartition(".")[2] not in renamed.classes):
        return name
    if last not in _noted and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"relit: note: {last} is now called {renamed.name}; the old name still works.", file=sys.stderr)
    _noted.add(last)
    return f"{before}{dot}{renamed.name}"
