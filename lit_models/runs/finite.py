"""Whether a training still computes with finite numbers. All ranks must call these functions, and get the same answer.

Each costs one reduction on the device, one number fetched from it and, with several ranks, one all-reduced; so they are
asked where a run waits for the device anyway: in batches whose losses go to the loggers, and before a checkpoint.
"""

from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm


def losses_are_finite(trainer: Trainer) -> bool:
    """Whether all training losses, as last logged, are finite on all ranks."""
    return _are_finite(trainer, training_losses(trainer).values())


def weights_are_finite(trainer: Trainer, module: LightningModule) -> bool:
    """Whether everything that a checkpoint keeps of the module is finite on all ranks."""
    return _are_finite(trainer, module.state_dict().values())


def training_losses(trainer: Trainer) -> dict[str, Tensor]:
    """The training losses that the module has logged, as last logged, by name."""
    metrics = trainer.callback_metrics
    return {name: value for name, value in metrics.items() if name.startswith("train/") and "loss" in name}


def _are_finite(trainer: Trainer, values: Iterable[Tensor]) -> bool:
    numbers = [value.detach() for value in values if value.is_floating_point() and value.numel()]
    finite = bool(get_total_norm(numbers, torch.inf).isfinite())
    return trainer.strategy.reduce_boolean_decision(finite, all=True)
