"""Runs command lines of relit one after the other in a process that has no torch: ``python -m`` this module.

From standard input comes a JSON list of the commands, each a list of words, and the folder of which each finds the
files in its own folder. To standard output goes a JSON list of their exit codes and of what each wrote to stderr.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


class _Refusing(Loader):
    """Fails where a module would be run; that its file can be found does no harm."""

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError(f"{module.__name__} is imported")


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in ("torch", "lightning") else None
        if spec is not None:
            spec.loader = _Refusing()
        return spec


def run(args: list[str], files: Path) -> tuple[int, str]:
    """The exit code of a command and what it wrote to stderr."""
    from lit_models.__main__ import main

    errors = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
    ):
        for file in files.iterdir():
            os.symlink(file, file.name)
        try:
            code = main(args)
        except SystemExit as exit_:  # as argparse ends
            code = int(exit_.code or 0)
        except AssertionError as error:
            return -1, str(error)
    return code, errors.getvalue()


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder())
    commands, folder = json.load(sys.stdin)
    json.dump([run(args, Path(folder)) for args in commands], sys.stdout)
