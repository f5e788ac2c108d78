"""The configurations and weights that come with relit, by name: ``dcgan_digits`` for ``configs/dcgan_digits.yaml``.

They are in the package ``lit_models/shipped/`` of an installed relit, and at the top of a checkout.
"""

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
