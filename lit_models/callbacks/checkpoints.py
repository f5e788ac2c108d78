"""Checkpoints of a run: ``last.ckpt`` to go on from, ``best.ckpt`` by a metric; written atomically."""

import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_models.errors import RunError
from lit_models.runs import CHECKPOINTS


class Checkpoints(Checkpoint):
    """Saves ``checkpoints/last.ckpt`` after each epoch, and ``best.ckpt`` when a metric is better than ever.

    Args:
        monitor: Logged metric that tells which checkpoint is the best, such as ``val/loss``; no ``best.ckpt`` if null,
            nor before the metric is logged, for a model that names it in its ``later_metrics``.
        mode: Whether the best is the smallest (``min``) or the largest (``max``) value.
        every_n_steps: Save ``last.ckpt`` after every so many steps, too, so that a run that is killed in a long epoch
            loses less; only after epochs if null.
    """

    def __init__(
        self, monitor: str | None = None, mode: Literal["min", "max"] = "min", every_n_steps: int | None = None
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise RunError(f"--checkpoint.every_n_steps is {every_n_steps}; it must be at least 1, or null.")
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.best_score: float | None = None
        self._saved_step = 0
        self._metrics_unsaved = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # What belongs to a checkpoint's batch or epoch is logged after it is saved; a resumed run won't log it again.
        if self._metrics_unsaved:
            self._metrics_unsaved = False
            for logger in trainer.loggers:
                logger.save()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The epoch's last batch is left to on_train_epoch_end, which comes after its validation.
        if self.every_n_steps is None or trainer.is_last_batch:
            return
        step = trainer.global_step
        if step > self._saved_step and step % self.every_n_steps == 0:
            self._saved_step = step
            self._save(trainer, "last.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = self.monitor is None or self.monitor in trainer.callback_metrics
        awaited = self.monitor in getattr(pl_module, "later_metrics", ())
        better = known and self._is_better(trainer)
        self._save(trainer, "last.ckpt")
        if better:
            self._save(trainer, "best.ckpt")
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

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / name)
        self._metrics_unsaved = True
