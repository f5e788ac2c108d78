"""Imports a user's modules from the current folder, and nothing else that lies there.

The current folder isn't on the path of the installed ``relit``. On it, folders such as ``wandb/`` or ``datamodules/``
would be taken for packages, and a file that came with a stranger's checkpoint could be imported. So only the modules
that the command line names are found there, and those that they import; an installed package of the same name comes
first.
"""

import os
import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType
from typing import Any

FOR_CHILDREN = "RELIT_MODULES"
"""Environment variable by which the processes that are started, such as loaders' workers, find the same modules."""
IMPORT_SYSTEM = ("importlib", "_frozen_importlib", "_frozen_importlib_external")


class CurrentFolder(MetaPathFinder):
    """The last finder of modules, which is asked for what no other one has found.

    Attributes:
        folder: Where it looks.
        names: The top-level modules that may be found there.
    """

    folder = ""
    names: frozenset[str] = frozenset()

    def allow(self, folder: str, names: Iterable[str]) -> None:
        """Lets modules be found in the folder, here and in the processes that are started from now on."""
        self.names = frozenset(names) | (self.names if folder == self.folder else frozenset())
        self.folder = folder
        os.environ[FOR_CHILDREN] = f"{','.join(sorted(self.names))}:{folder}"
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None:  # of a package, which finds its modules itself
            return None
        is_allowed = fullname in self.names
        if not is_allowed and _importing_package() not in self.names:
            return None
        spec = _spec_in(self.folder, fullname)
        if spec is not None:
            self.allow(self.folder, [fullname])
        elif is_allowed:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}, neither installed nor in {self.folder} as {fullname}.py or as a folder "
                f"{fullname} of Python files",
                name=fullname,
            )
        return spec


FINDER = CurrentFolder()


def import_from_current_folder(names: Iterable[str]) -> None:
    """Lets the modules that the user has typed be imported from the current folder.

    Args:
        names: Their names, of which the first parts count.
    """
    if typed := {name.partition(".")[0] for name in names}:
        FINDER.allow(str(Path.cwd()), typed)


def take_over_from_parent() -> None:
    """Finds the modules that the process finds which has started this one."""
    names, _, folder = os.environ.get(FOR_CHILDREN, "").partition(":")
    if names and folder:
        FINDER.allow(folder, names.split(","))


def hidden_module(name: str) -> Path | None:
    """The module of that name in the current folder, if another one is imported in its place; None otherwise."""
    here = _spec_in(str(Path.cwd()), name)
    imported = sys.modules.get(name)
    found = PathFinder.find_spec(name) if imported is None else imported.__spec__
    if here is None or found is None or _place(here) == _place(found):
        return None
    return _place(here)


def _spec_in(folder: str, name: str) -> ModuleSpec | None:
    """The module of that name in a folder. A folder without Python files is none: W&B writes a ``wandb/``."""
    spec = PathFinder.find_spec(name, [folder])
    is_empty = spec is not None and spec.loader is None and not any(Path(folder, name).glob("*.py"))
    return None if is_empty else spec


def _place(spec: ModuleSpec) -> Path:
    return Path(spec.origin or next(iter(spec.submodule_search_locations or ()), "")).resolve()


def _importing_package() -> str:
    """The top-level package of the code that imports something."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _package_of(frame) in IMPORT_SYSTEM:
        frame = frame.f_back
    return "" if frame is None else _package_of(frame)


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
