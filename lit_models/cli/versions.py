"""Installed packages whose versions relit isn't made for."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def refusal() -> str | None:
    """A sentence about the first needed package that is missing or of another version; None if all fit."""
    for line in requires("relit") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        installed: str | None = None
        with suppress(PackageNotFoundError):
            installed = version(needed.name)
        if not installed:  # an interrupted installation leaves a package without a version
            return f"relit needs the package {needed.name}: pip install '{needed.name}{needed.specifier}'."
        if not needed.specifier.contains(installed, prereleases=True):
            return (
                f"relit needs {needed.name} {needed.specifier}, and {installed} is installed: pip install "
                f"'{needed.name}{needed.specifier}'."
            )
    return None
