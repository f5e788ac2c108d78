"""Checkpoint files: written atomically, read without executing anything in them."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_models.errors import RunError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a killed process leaves the old one whole; reads
    tensors and plain values only, so that a file from elsewhere can't run code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.unfinished")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            raise RunError(f"The checkpoint {target} can't be written ({error}); the one before it is kept.") from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return load_safely(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a model's checkpoint to the CPU without executing anything in it.

    Raises:
        RunError: It is no checkpoint, is cut off, or holds more than tensors and plain values.
    """
    checkpoint = load_safely(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(f"{path} is not a checkpoint of a model (it has no `state_dict`).")
    return checkpoint


def load_safely(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``, if it is made of tensors and plain values only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler raise
        raise RunError(
            f"{path} can't be read as a checkpoint: it is cut off, or holds more than tensors and plain values "
            "(which could run code, so it is not opened)."
        ) from error
