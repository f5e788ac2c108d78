"""The rooms of the house: imports point one way, downwards, each floor importing only what lies below it."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import datamodules
import lit_models
import lit_models.callbacks

REPOSITORY = Path(__file__).parents[1]
PURE = ("losses", "networks", "metrics")
ROOMS = [
    ("errors", "registry"),
    PURE,
    ("support", "optimizers", "module"),
    ("methods",),
    ("callbacks",),
    ("runs",),
    ("cli",),
]
"""From the ground up; the methods are the modules at top level. A room imports its own floor and those below."""
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def room_of(module: str) -> str:
    return next((part for part in module.split(".")[1:2] if part in FLOOR), "methods")


def imports(path: Path) -> Iterator[str]:
    """The modules of relit that a file imports, but for those that only type checkers read."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_imports_point_downwards() -> None:
    for path in [*REPOSITORY.glob("lit_models/**/*.py"), *REPOSITORY.glob("datamodules/**/*.py")]:
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        if module in ("lit_models", "lit_models.__main__"):
            continue
        for name in imports(path):
            package = name.split(".")[0]
            if package not in ("lit_models", "datamodules") or name == "lit_models":  # names only
                continue
            upwards = f"{module} imports {name}"
            if module.startswith("datamodules"):
                assert package == "datamodules", upwards
                below = name.startswith(("datamodules.loading", "datamodules.errors"))
                assert below or not module.startswith("datamodules.loading"), upwards
            elif package == "datamodules":
                assert FLOOR[room_of(module)] >= FLOOR["support"], upwards
            else:
                assert FLOOR[room_of(name)] <= FLOOR[room_of(module)], upwards


def test_scripts_use_public_functions() -> None:
    """Commands run by ``lit_models.__main__``, not by the insides of ``cli/command.py``; nothing with an underscore."""
    for path in REPOSITORY.glob("scripts/**/*.py"):
        for name in imports(path):
            if name.startswith(("lit_models.", "datamodules.")) and not name.startswith("lit_models.__main__"):
                assert not any(part.startswith("_") for part in name.split(".")), f"{path} imports {name}"
                assert not name.startswith("lit_models.cli.command"), f"{path} imports {name}"


def test_nothing_is_looked_up_that_the_contract_declares() -> None:
    """Models and trainers have types; only the door to Lightning's insides may look behind them."""
    model_or_trainer = r"(pl_module|self\.model|trainer|self\.trainer|module\.trainer)"
    looked_up = rf'(hasattr|cast)\((Any, )?{model_or_trainer}\b|(has|get)attr\((model|module|{model_or_trainer}), "'
    for path in REPOSITORY.glob("lit_models/**/*.py"):
        if path.name != "lightning_internals.py":
            assert not re.search(looked_up, path.read_text()), path


def test_lightnings_private_names_are_behind_the_door() -> None:
    """Of modules, trainers and what belongs to them; a class of relit's may use its own."""
    private = (
        r"\b(module|pl_module|model|trainer|\w+_loop|loop|finder|callback|logger|connector)\._[a-z]|self\._trainer\b"
    )
    for path in [*REPOSITORY.glob("lit_models/**/*.py"), *REPOSITORY.glob("datamodules/**/*.py")]:
        if path.name != "lightning_internals.py":
            assert not re.search(private, path.read_text()), path


def imported_before(module: str, path: Path, modules: Collection[str]) -> set[str]:
    """The modules of relit that must be complete before a module is."""
    needed: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                name = f"{node.module}.{one.name}"
                needed.add(name if name in modules else LAZY.get(node.module, {}).get(one.name, node.module))
        elif isinstance(node, ast.Import):
            needed |= {one.name for one in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef):  # whose imports wait for a call
            todo += ast.iter_child_nodes(node)
    packages = {".".join(name.split(".")[:n]) for name in needed for n in range(1, name.count(".") + 1)}
    return {*modules} & (needed | {one for one in packages if not module.startswith(f"{one}.")})


LAZY = {
    "lit_models": lit_models.METHODS,
    "lit_models.callbacks": lit_models.callbacks._MODULES,
    "datamodules": datamodules._MODULES,
}
"""By package: names that it imports when they are needed, with their modules."""


def test_there_are_no_circles() -> None:
    """So each module can be the first that is imported."""
    paths = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("lit_models", "datamodules")
        for path in REPOSITORY.glob(f"{package}/**/*.py")
    }
    before = {module: imported_before(module, path, paths) - {module} for module, path in paths.items()}
    assert "datamodules.loading.tensors" in before["lit_models.vae"], "by a name of datamodules"
    assert "lit_models.support" in before["lit_models.vae"], "around one that is imported"
    order = [*TopologicalSorter(before).static_order()]  # raises CycleError
    assert len(order) == len(paths) > 200


def test_a_method_loads_little() -> None:
    code = "import sys, lit_models.vae; print(*sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name != "RELIT_MODULES"}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=clean, check=False
    )
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.split()
    assert len([name for name in loaded if name.startswith("lit_models")]) <= 15
    assert len([name for name in loaded if name.startswith("datamodules")]) <= 8
    assert not [
        name for name in loaded if name.startswith(("lit_models.cli", "lit_models.runs", "lit_models.callbacks"))
    ]
