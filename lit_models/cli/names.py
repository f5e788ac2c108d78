"""The configurations and weights that come with relit, by name: ``dcgan_digits`` for ``configs/dcgan_digits.yaml``.

They are in the package ``lit_models/shipped/`` of an installed relit, and at the top of a checkout.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def configurations() -> dict[str, Path]:
    """The files by name; those in a folder with it, such as ``trainer/gpu``."""
    folder = shipped("configs")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def experiments() -> dict[str, Path]:
    """The configurations that are whole experiments, by name."""
    return {name: path for name, path in configurations().items() if "/" not in name}


def published_weights() -> dict[str, Path]:
    """The files of published weights by name."""
    return {path.stem: path for path in sorted(shipped("weights").glob("*.safetensors"))}


def shipped(folder: str) -> Path:
    """Where the files of a top-level folder are."""
    in_package = _PACKAGE / "shipped" / folder
    return in_package if in_package.is_dir() else _PACKAGE.parent / folder


def configuration(name: str) -> Path | None:
    """The configuration of that name, with or without ``configs/`` and ``.yaml``; None if there is none."""
    return configurations().get(name.removeprefix("./").removeprefix("configs/").removesuffix(".yaml"))


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a person most likely meant, whatever its case; None if none is close."""
    by_lower_case = {other.lower(): other for other in known}
    if name.lower() in by_lower_case:
        return by_lower_case[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    if not close and len(name) > 3:
        close = sorted((other for other in by_lower_case if other.startswith(name.lower())), key=len)
    return by_lower_case[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the closest known name, or nothing."""
    close = closest(name, [other for other in known if other != name])
    return f" Did you mean {close}?" if close else ""
