"""The extra that brings a missing package."""

import ast
import re
import sys
import tomllib

import pytest

from lit_models.support.arguments import sentence_of_refusal
from lit_models.support.extras import install_command, packages_by_extra
from lit_models.support.parser_messages import missing_package
from tests.support.tiny import CONFIGS


def test_extras_are_those_of_pyproject() -> None:
    declared = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, packages in packages_by_extra().items():
        names = [re.match(r"[\w.-]+", package)[0] for package in declared[extra]]  # type: ignore[index]
        assert list(packages) == [name for name in names if name != "relit"]
    assert {"dev", "docs"}.isdisjoint(packages_by_extra())


MODULES = {
    "PIL": "pillow",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "sqlalchemy": "optuna",  # which brings it
    "yaml": "pyyaml",
}
"""The packages of modules that have another name."""


def test_every_package_that_is_imported_is_declared() -> None:
    """Not only brought by another package, whose next version may do without."""
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.match(r"[\w.-]+", package)[0].replace("_", "-") for packages in lists for package in packages}  # type: ignore[index]
    imported = set()
    for folder in ("lit_models", "datamodules"):
        for path in (CONFIGS.parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(str(node.module).partition(".")[0])
    imported -= {*sys.stdlib_module_names, "lit_models", "datamodules"}
    assert len(imported) > 20
    assert {MODULES.get(name, name).replace("_", "-") for name in imported} <= declared


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("tensorboard", "pip install 'relit[tensorboard]'"),
        ("tensorboardX", "pip install 'relit[tensorboard]'"),
        ("mlflow", "pip install 'relit[mlflow]'"),
        ("huggingface-hub", "pip install 'relit[hub]'"),
        ("gradio", "pip install 'relit[demo]'"),
        ("rich", "pip install rich"),
        ("comet-ml[x]", "pip install 'comet-ml[x]'"),
    ],
)
def test_install_commands(package: str, command: str) -> None:
    assert install_command(package) == command


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either.", "'relit[tensorboard]'"),
        (
            "You want to use `wandb` logger which is not installed yet, install it with `pip install wandb`.",
            "'relit[wandb]'",
        ),
        ("`RichProgressBar` requires `rich` to be installed. Install it by running `pip install -U rich`.", "rich"),
    ],
)
def test_what_libraries_say_of_missing_packages(message: str, command: str) -> None:
    assert missing_package(message) is not None
    assert sentence_of_refusal(ModuleNotFoundError(message)) == f"A package isn't installed: pip install {command}."
