"""What else survives a kill: a resumed run draws the numbers that the uninterrupted one would have drawn, and its means
over an epoch are over the whole epoch."""

import random
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import MeanMetric

from lit_models.support.random_states import random_state, set_random_state
from lit_models.support.ranks import gather


class ExactResume(Callback):
    """Keeps the random states and unfinished means of all ranks in the checkpoint, and evaluation apart from training's
    random stream.

    Lightning's own means over an epoch (``self.log(…, on_epoch=True)`` in ``training_step``) forget, in a run that goes
    on within the epoch, what came before. So a module that logs one has a :class:`torchmetrics.MeanMetric` for it, with
    ``nan_strategy="disable"``, as all others wait for the device in each step.

    All ranks start with the run's seed, so that they make the same networks. From there on each has a stream of its
    own: latent vectors, augmentation and dropout of one rank don't repeat another's.

    The random state is put back when training starts: after everything that start-up drew, and before the first batch,
    which is augmented before ``on_train_batch_start``. Evaluation always draws from the same seed and leaves training's
    stream as it was, so that neither its length nor a resumed run's extra sanity check changes what training draws.
    """

    evaluation_seed = 0

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None
        self._training_state: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Within evaluation, training's stream is the one that was put aside.
        checkpoint["random_states"] = gather(trainer, self._training_state or random_state())
        checkpoint["means"] = gather(trainer, {name: state_of(mean) for name, mean in means_of(pl_module)})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_states", [])
        # With another number of ranks there is nothing to continue: each begins a new stream.
        self._to_restore = states[trainer.global_rank] if len(states) == trainer.world_size else None
        saved = checkpoint.get("means", [])
        if len(saved) == trainer.world_size:
            saved = [saved[trainer.global_rank]]
        elif not trainer.is_global_zero:  # with another number of ranks, the sums of all are the first one's
            saved = []
        for name, mean in means_of(pl_module):
            for sums in saved:
                if name in sums:  # an older checkpoint may know fewer
                    set_state(mean, sums[name])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._to_restore is not None:
            set_random_state(self._to_restore)
        elif trainer.global_rank > 0 or trainer.global_step > 0:
            seed_apart(trainer.global_rank, trainer.global_step)

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


def seed_apart(rank: int, step: int) -> None:
    """Starts random streams that belong to this rank and step of the run, and to no other."""
    seed, numpys = map(int, np.random.SeedSequence((torch.initial_seed(), rank, step)).generate_state(2))
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(numpys)


def means_of(module: LightningModule) -> list[tuple[str, MeanMetric]]:
    """The means that a module takes, by name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, MeanMetric)]


def state_of(mean: MeanMetric) -> dict[str, Tensor]:
    """The sums of a mean so far."""
    return {name: cast(Tensor, value).cpu() for name, value in mean.metric_state.items()}


def set_state(mean: MeanMetric, state: dict[str, Tensor]) -> None:
    """Adds to a mean what :func:`state_of` returned."""
    mean.update(torch.zeros(0))  # from here on it counts as begun
    for name, value in state.items():
        setattr(mean, name, getattr(mean, name) + value.to(mean.device))
