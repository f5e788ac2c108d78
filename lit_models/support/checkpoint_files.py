"""Checkpoint files: written atomically, read without executing anything in them."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from lit_models.errors import RunError, RunWarning
from lit_models.networks.weight_files import is_undamaged, load_tensors
from lit_models.support.checkpoint_paths import LAST, PREVIOUS, WEIGHTS
from lit_models.support.renamed import checkpoint_with_new_names
from lit_models.support.weight_sources import find_weights
from lit_models.support.weights import read_weights


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name and renames it into place: a killed process leaves the old one intact.

    Reads tensors and plain values only: a file from elsewhere can't run code.
    """

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
        except KeyboardInterrupt:
            unfinished.unlink(missing_ok=True)
            raise
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            # torch's zip writer hides the error of the file system.
            hidden = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = hidden.strerror if isinstance(hidden, OSError) else hidden
            raise RunError(
                f"A checkpoint can't be written into {target.parent} ({reason}); the one "
                "before it is kept: make room, or make the folder writable, and go on with --ckpt_path last."
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return load_safely(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a model's checkpoint to the CPU without executing anything in it.

    Raises:
        RunError: It is no checkpoint, is cut off, or holds more than tensors and plain values.
    """
    checkpoint = load_safely(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(
            f"{path} is not a checkpoint of relit (it has no `state_dict`): weights of other code, such as pix2pix's "
            "latest_net_G.pth, are given by --model.pretrained, next to the --config of the method."
        )
    return checkpoint


def read_source(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Finds weights by name and reads them as a checkpoint.

    Args:
        source: See :func:`lit_models.support.weight_sources.find_weights`.

    Returns:
        The file, and the checkpoint in it.

    Raises:
        RunError: There are none, or they can't be read.
    """
    return read_or_fall_back(find_weights(str(source)))


def read_or_fall_back(path: Path) -> tuple[Path, dict[str, Any]]:
    """Reads a model's checkpoint; where a run's ``last.ckpt`` can't be read, the one before it, with a warning.

    Returns:
        The file that was read, and what it holds.

    Raises:
        RunError: As :func:`read_checkpoint`; of ``last.ckpt`` only if there is none before it that can be read.
    """
    previous = path.with_name(PREVIOUS)
    try:
        return path, read_checkpoint(path)
    except RunError as error:
        if path.name != LAST or not previous.is_file():
            raise
        checkpoint = read_checkpoint(previous)
        step = checkpoint.get("global_step")
        rank_zero_warn(f"{error} The one before it, {previous} of step {step}, is taken.", category=RunWarning)
        return previous, checkpoint


def put_in_place(written: Path, target: Path) -> None:
    """Renames a checkpoint that is completely written to ``target``; a ``last.ckpt`` there becomes ``previous.ckpt``.

    Whenever the process is killed, there is a complete checkpoint under one of the two names. A damaged ``last.ckpt``
    doesn't replace the ``previous.ckpt`` that stood in for it.
    """
    if target.name == LAST and is_undamaged(target):
        os.replace(target, target.with_name(PREVIOUS))
    os.replace(written, target)


def with_rows(path: Path, rows: int) -> None:
    """Corrects how many rows of ``metrics.csv`` belong to a checkpoint."""
    AtomicCheckpointIO().save_checkpoint({**load_tensors(path), "rows_logged": rows}, path)


def with_weights(path: Path, weights: dict[str, Any]) -> None:
    """Replaces the weights of a checkpoint."""
    AtomicCheckpointIO().save_checkpoint({**load_tensors(path), "state_dict": weights}, path)


def load_safely(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``, if it is made of tensors and plain values only; or exported weights as the
    checkpoint that they were exported from, without what only training needs."""
    if path.suffix == WEIGHTS:
        return read_weights(path)
    content = load_tensors(path)
    return checkpoint_with_new_names(content) if isinstance(content, dict) else content
