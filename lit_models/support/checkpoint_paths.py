"""Where the checkpoints of runs lie; without torch, so that a path that doesn't exist is refused at once."""

from pathlib import Path

from lit_models.errors import RunError

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
WEIGHTS = ".safetensors"
"""Suffix of weights that ``relit export`` has written."""


def checkpoint_in(folder: Path) -> Path | None:
    """Of a run's folder its ``best.ckpt``, or ``last.ckpt`` if it has no best; of an experiment's folder that of its
    newest run; None if there is none."""

    def newest(run: Path) -> float:
        return max((file.stat().st_mtime for file in (run / CHECKPOINTS).glob("*.ckpt")), default=0.0)

    run = max((folder, *folder.glob("*")), key=newest)
    return checkpoint_of(run, "best") or last_checkpoint(run)


def require_checkpoint(path: Path) -> Path:
    """The checkpoint that a path names: the file itself, or :func:`checkpoint_in` of a folder.

    Raises:
        RunError: There is none.
    """
    found = checkpoint_in(path) if path.is_dir() else path
    if found is None or not found.is_file():
        raise RunError(f"There is no checkpoint in {path}: name a run's folder, or a checkpoint (.ckpt).")
    return found


def require_card(weights: Path) -> Path:
    """The card of a ``.safetensors`` file: the ``.json`` file of the same name.

    Raises:
        RunError: One of the two files isn't there.
    """
    card = weights.with_suffix(".json")
    if not weights.is_file():
        raise RunError(f"There are no weights {weights}: name a {WEIGHTS} file that `relit export` wrote.")
    if not card.is_file():
        raise RunError(f"{weights} has no card: put {card.name}, which was exported with it, into the same folder.")
    return card


def last_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a run goes on from, None if it has none yet."""
    return checkpoint_of(run, "last")


def checkpoint_of(run: Path, which: str) -> Path | None:
    """A run's ``last`` or ``best`` checkpoint, None if it has none yet."""
    # A process that is killed just between two renames leaves `previous.ckpt` alone.
    names = (LAST, PREVIOUS) if which == "last" else (BEST,)
    return next(filter(Path.is_file, (run / CHECKPOINTS / name for name in names)), None)
