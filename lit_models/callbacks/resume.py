"""Random streams that survive a kill: a resumed run draws the numbers that the uninterrupted one would have drawn."""

import random
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.callbacks.ranks import gather


class ExactResume(Callback):
    """Keeps the random states of all ranks in the checkpoint, and evaluation apart from training's random stream.

    The state is put back when training starts: after everything that start-up drew, and before the first batch, which
    is augmented before ``on_train_batch_start``. Evaluation always draws from the same seed and leaves training's
    stream as it was, so that neither its length nor a resumed run's extra sanity check changes what training draws.
    """

    evaluation_seed = 0

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None
        self._training_state: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Within evaluation, training's stream is the one that was put aside.
        checkpoint["random_states"] = gather(trainer, self._training_state or random_state())

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_states", [])
        # With another number of ranks there is nothing to continue; each rank goes on with the run's seed.
        self._to_restore = states[trainer.global_rank] if len(states) == trainer.world_size else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._to_restore is not None:
            set_random_state(self._to_restore)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Once more, after what other callbacks and the module draw when training starts; a run that is resumed within
        # an epoch doesn't get here before its first batch.
        if self._to_restore is not None:
            set_random_state(self._to_restore)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._to_restore = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training_state = random_state()
        torch.manual_seed(self.evaluation_seed + trainer.global_rank)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._training_state is not None:
            set_random_state(self._training_state)
            self._training_state = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(self.evaluation_seed + trainer.global_rank)


def random_state() -> dict[str, Any]:
    """The state of this process's random generators, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    name, keys, *position = cast(tuple[Any, ...], np.random.get_state())
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), *position],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what :func:`random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
