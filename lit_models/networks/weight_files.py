"""Files of weights, read without executing anything in them."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from lit_models.errors import RunError


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``, if it is made of tensors and plain values only.

    Raises:
        RunError: There is no such file, it is damaged, or it holds more.
    """
    require_undamaged(path)
    try:
        with warnings.catch_warnings():
            # Of files by other programs, which are read or refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler raise
        raise RunError(
            f"{path} can't be read as a checkpoint: it is cut off, or holds more than tensors and plain values "
            "(which could run code, so it is not opened)."
        ) from error


def require_undamaged(path: Path) -> None:
    """Refuses a file whose parts don't have the checksums that it states. (Files of older versions of torch are no
    archives, and have none.)

    Raises:
        RunError: It is damaged.
    """
    if zipfile.is_zipfile(path) and not is_undamaged(path):
        raise RunError(
            f"{path} can't be read as a checkpoint: it is damaged, as its contents don't have its own checksums."
        )


def is_undamaged(path: Path) -> bool:
    """Whether a file is an archive, as ``torch.save`` writes it, whose parts all have the checksums that it states."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        return False
