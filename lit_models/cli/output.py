"""What a run shows on the terminal of Lightning's messages and of Python's warnings."""

import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from datamodules import DataWarning
from lit_models.errors import RunWarning
from lit_models.support.checkpoint_paths import last_checkpoint

STOPPED = {
    EarlyStoppingReason.PATIENCE_EXHAUSTED: "hasn't become better than {best} in {wait_count} checks",
    EarlyStoppingReason.STOPPING_THRESHOLD: "has reached its stopping_threshold of {stopping_threshold}",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "is beyond its divergence_threshold of {divergence_threshold}",
    EarlyStoppingReason.NON_FINITE_METRIC: "isn't finite (its best value was {best})",
}
"""How the monitored metric has ended a training."""


def quieten() -> None:
    """Leaves the user what is about the user's run: no hints about products, no advice that relit has already taken."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # their reports, which were asked for
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*srun.* command is available on your system but is not used.*",
        ".*tensorboardX.*",
        ".*smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        ".*You have overridden `on_before_batch_transfer`.*",  # meant: methods take plain batches, too
        ".*could be decompression bomb.*",  # pictures of more than 89 million pixels, which are read
    ):
        warnings.filterwarnings("ignore", message=message)
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    # torch and Lightning deprecate each other's functions by UserWarnings, which no user can do anything about.
    warnings.filterwarnings("ignore", message=".*is deprecated.*")
    warnings.showwarning = _show_warning


def reasons_to_stop(trainer: Trainer) -> list[str]:
    """Why a training has ended before ``max_epochs`` and ``max_steps``, a sentence for each reason."""
    reasons = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and trainer.should_stop and callback.stopping_reason in STOPPED:
            best, metric = f"{float(callback.best_score):.4g}", callback.monitor
            why = STOPPED[callback.stopping_reason].format(best=best, **vars(callback))
            reasons.append(
                f"EarlyStopping has ended the training after epoch {callback.stopped_epoch + 1}: {metric} {why}."
            )
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            reasons.append(f"The training has ended as its time (max_time) is over, in epoch {trainer.current_epoch}.")
    return reasons


def shown_path(path: Path) -> Path:
    """The path as a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def announce_end(command: str, folder: Path | None, is_trial: bool) -> None:
    """Says where the run is, and what to type next.

    Args:
        command: The command that has ended.
        folder: The run's folder, which is gone if nothing of it is kept.
        is_trial: Whether it was only tried, by ``fast_dev_run``.
    """
    if is_trial:
        print("relit: the trial run (fast_dev_run) has gone through; nothing of it is kept.", file=sys.stderr)
    elif command == "fit" and folder is not None and not folder.is_dir():
        print(
            "relit: no batch was trained, so there is no run: raise --trainer.max_epochs, --trainer.max_steps or "
            "--trainer.limit_train_batches.",
            file=sys.stderr,
        )
    if folder is not None and folder.is_dir() and command != "predict":
        if command == "fit":
            print(f"relit: look at it with: relit report {shown_path(folder)}", file=sys.stderr)
        print(f"The run is in {shown_path(folder)}")


def place_of_interruption(run: Path, epoch: int) -> str:
    """The place at which a training was interrupted, and how to continue it."""
    shown = shown_path(run)
    place = f"in epoch {epoch}. The run is in {shown}"
    if last_checkpoint(run) is None:
        return f"{place}; it has no checkpoint yet from which it could continue."
    return f"{place}. Continue it with:\n  relit fit --ckpt_path {shlex.quote(str(shown))}"


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    place = "" if issubclass(category, (DataWarning, RunWarning)) else f" ({Path(filename).name}:{lineno})"
    print(f"relit: note: {message}{place}", file=sys.stderr)
