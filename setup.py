"""Puts the configurations, the published weights and the records of trainings into the package; all else is in
pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"configs": "*.yaml", "weights": "*.*", "results": "*.json"}
"""Top-level folders that a wheel holds in ``lit_models/shipped/``, each with the files that it takes."""


class BuildWithConfigurations(build_py):
    """Copies the top-level folders behind the modules; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in SHIPPED.items():
            shipped = Path(self.build_lib) / "lit_models" / "shipped" / folder
            shutil.rmtree(shipped, ignore_errors=True)
            for path in sorted(Path(folder).rglob(pattern)):
                copy = shipped / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithConfigurations})
