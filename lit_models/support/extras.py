"""Optional packages, and the extra of relit that installs each."""

import re
from functools import cache
from importlib.metadata import requires

NOT_FOR_USERS = ("dev", "docs")


@cache
def packages_by_extra() -> dict[str, tuple[str, ...]]:
    """The packages of each extra, as the installed relit declares them."""
    found: dict[str, list[str]] = {}
    for line in requires("relit") or ():
        needed, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)[\"']", marker)
        name = re.match(r"[\w.-]+", needed.strip())
        if extra and name and extra[1] not in NOT_FOR_USERS and name[0] != "relit":
            found.setdefault(extra[1], []).append(name[0])
    return {extra: tuple(packages) for extra, packages in found.items()}


def install_command(package: str) -> str:
    """How to install a missing package: by relit's extra that brings it, if there is one.

    Example:
        >>> install_command("tensorboard"), install_command("rich")
        ("pip install 'relit[tensorboard]'", 'pip install rich')
    """
    for extra, packages in packages_by_extra().items():
        if _plain(package) in map(_plain, packages):
            return f"pip install 'relit[{extra}]'"
    quoted = package if re.fullmatch(r"[\w.-]+", package) else f"'{package}'"
    return f"pip install {quoted}"


def _plain(package: str) -> str:
    """A package's name without the parts that its variants differ in: ``mlflow-skinny``, ``tensorboardX``."""
    return re.sub(r"\[.*|-skinny$|(?<=board)x$", "", package.lower().replace("_", "-"))
