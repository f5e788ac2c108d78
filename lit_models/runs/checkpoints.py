"""Checkpoints of a run: ``last.ckpt`` to go on from, ``best.ckpt`` by a metric; written atomically, and never of a
training that has diverged."""

import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn

from lit_models.errors import RunError, RunWarning
from lit_models.module import Method
from lit_models.runs.finite import losses_are_finite, training_losses, weights_are_finite
from lit_models.runs.loggers import rows_of
from lit_models.support.checkpoint_files import put_in_place, with_rows, with_weights
from lit_models.support.checkpoint_paths import BEST, CHECKPOINTS, LAST
from lit_models.support.checks import lack_of_validation
from lit_models.support.lightning_internals import (
    accumulates,
    callbacks_of,
    ends_epoch,
    logs_this_batch,
    validation_follows,
)


class Checkpoints(Checkpoint):
    """Saves ``checkpoints/last.ckpt`` after each epoch, and ``best.ckpt`` when a metric is better than ever.

    The ``last.ckpt`` before is kept as ``previous.ckpt``, in case the new one gets damaged. A checkpoint gets its name
    when what was logged up to it is on the disk, too, so that a run that is killed and goes on misses no row of
    ``metrics.csv``.

    A training has diverged when a training loss or a weight is NaN or infinite. Losses are looked at in the batches in
    which they are logged (every ``--trainer.log_every_n_steps``), weights before each checkpoint. So no step waits for
    the device on that account, divergence is noticed at most that many steps late, and no checkpoint of a diverged
    training takes the place of one from before.

    Args:
        monitor: Logged metric by which the best checkpoint is chosen, such as ``val/loss``; no ``best.ckpt`` if null.
            A metric that the model names in its ``later_metrics`` may be missing in earlier epochs.
        mode: Whether the best is the smallest (``min``) or the largest (``max``) value.
        every_n_steps: Also save ``last.ckpt`` every so many steps, so a run that is killed in a long epoch loses less;
            only after epochs if null.
        diverged: ``stop`` ends a training that has diverged with an error; ``go_on`` warns once and saves nothing while
            weights aren't finite.
    """

    saved_step: int
    """The step of the last checkpoint that was written, or that training began with."""

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        diverged: Literal["stop", "go_on"] = "stop",
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise RunError(f"--checkpoint.every_n_steps is {every_n_steps}; it must be at least 1, or null.")
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.diverged = diverged
        self.best_score: float | None = None
        self.saved_step = 0
        self._has_saved = False
        self._has_validated = False
        self._waiting: list[str] = []
        self._rows = 0
        self._promised_rows: int | None = None
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = (self.monitor, self.mode)
        # Another metric's best value says nothing about this one's.
        is_same = (state_dict.get("monitor", self.monitor), state_dict.get("mode", self.mode)) == own
        self.best_score = state_dict["best_score"] if is_same else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step = trainer.global_step
        self._has_saved = trainer.ckpt_path is not None
        if not self._awaits_validation():
            return
        if fault := lack_of_validation(trainer):
            raise RunError(f"--checkpoint.monitor is {self.monitor!r}, but {fault}, or set --checkpoint.monitor null.")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.put_in_place(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.put_in_place(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._has_validated = self._has_validated or not trainer.sanity_checking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averages = any(isinstance(one, StochasticWeightAveraging) for one in callbacks_of(trainer))
        if averages and LAST in self._waiting and trainer.is_global_zero:
            # Without batch normalization the average becomes the model's only now, after the last checkpoint.
            with_weights(_waiting(trainer, LAST), trainer.strategy.lightning_module_state_dict())
        self.put_in_place(trainer)
        if self._awaits_validation() and self.best_score is None and not self._has_validated:
            rank_zero_warn(
                f"There is no {CHECKPOINTS}/{BEST}: the training has ended before its first validation, from which "
                f"{self.monitor} comes.",
                category=RunWarning,
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._promised_rows = checkpoint.get("rows_logged")  # by RunRecord, which comes before
        if (metrics := rows_of(trainer)) is not None:
            self._rows = metrics.rows

    def _awaits_validation(self) -> bool:
        return self.monitor is not None and self.monitor.startswith("val/")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.put_in_place(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if logs_this_batch(trainer) and not losses_are_finite(trainer):
            self._handle_divergence(trainer, ", ".join(f"{k} {float(v)}" for k, v in training_losses(trainer).items()))
        # The epoch's last batch is left to on_train_epoch_end, which comes after its validation.
        if self.every_n_steps is None or ends_epoch(trainer):
            return
        due = trainer.global_step // self.every_n_steps > self.saved_step // self.every_n_steps
        # A run that goes on from before a validation would leave it out, and from between two batches of one step the
        # gradients of the first: a later batch's checkpoint comes after them.
        if due and not validation_follows(trainer) and not accumulates(trainer):
            self.save(trainer, pl_module, LAST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = self.monitor is None or self.monitor in trainer.callback_metrics
        # The first validation may come after some epochs.
        comes_later = trainer.enable_validation and not self._has_validated
        awaited = comes_later or (isinstance(pl_module, Method) and self.monitor in pl_module.later_metrics)
        better = known and self._is_better(trainer)
        # In this order, as `last.ckpt` holds the best score: what it was goes with a `best.ckpt` that is in place.
        self.save(trainer, pl_module, *([BEST] if better else []), LAST)
        if not known and not awaited:
            raise RunError(
                f"--checkpoint.monitor is {self.monitor!r}, which this model doesn't log; it logs "
                f"{', '.join(sorted(trainer.callback_metrics)) or 'nothing'}. The epoch is kept: change the name and "
                "go on with --ckpt_path last."
            )

    def _is_better(self, trainer: Trainer) -> bool:
        if self.monitor is None:
            return False
        score = float(trainer.callback_metrics[self.monitor])
        sign = 1 if self.mode == "min" else -1
        if math.isnan(score) or (self.best_score is not None and sign * score >= sign * self.best_score):
            return False
        self.best_score = score
        return True

    def save(self, trainer: Trainer, pl_module: LightningModule, *names: str) -> None:
        """Writes checkpoints, which :meth:`put_in_place` will give their names, in this order."""
        if not weights_are_finite(trainer, pl_module):
            self._handle_divergence(trainer, "weights that aren't finite, which are not saved")
            return
        for name in names:
            trainer.save_checkpoint(_waiting(trainer, name))
            if name not in self._waiting:
                self._waiting.append(name)
        self.saved_step = trainer.global_step
        self._has_saved = True

    def put_in_place(self, trainer: Trainer) -> None:
        """Gives the checkpoints that wait their names, when the loggers' files hold all that belongs to them.

        A batch's and an epoch's figures come after the hooks in which checkpoints are written, and a run that goes on
        from a checkpoint doesn't log them again. Their row is counted in the checkpoint already. The count is corrected
        if the row hasn't come, or has come unforeseen from a module's own hook.
        """
        if not self._waiting:
            return
        metrics = rows_of(trainer)
        # Without what callbacks have logged since then, which isn't written yet.
        rows = max(self._rows, metrics.rows_written) if metrics is not None else self._promised_rows
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            for name in self._waiting:
                waiting = _waiting(trainer, name)
                if rows is not None and self._promised_rows is not None and rows != self._promised_rows:
                    with_rows(waiting, rows)
                put_in_place(waiting, waiting.with_name(name))
        self._waiting = []

    def _handle_divergence(self, trainer: Trainer, what: str) -> None:
        """Stops a training that has diverged, or says that it goes on."""
        found = f"The training has diverged: at step {trainer.global_step} it has {what}."
        if self.diverged == "stop":
            kept = (
                f"{CHECKPOINTS}/{LAST} is from before, of step {self.saved_step}: go on from it with --ckpt_path last "
                "and clipped gradients or another --trainer.precision"
                if self._has_saved
                else "Nothing was saved before"
            )
            raise RunError(
                f"{found} {kept}; or start again with a smaller learning rate. (--checkpoint.diverged go_on trains on.)"
            )
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"{found} It goes on, and saves nothing while weights aren't finite.", category=RunWarning)


def checkpoints_of(trainer: Trainer) -> Checkpoints:
    """The callback that writes a run's checkpoints."""
    return next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints))


def _waiting(trainer: Trainer, name: str) -> Path:
    """Where a checkpoint is written, and waits until it gets its name."""
    return Path(trainer.default_root_dir) / CHECKPOINTS / f".{name}.written"
