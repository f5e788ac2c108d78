"""Learning rates for large batches."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

Rule = Literal["none", "linear", "sqrt"]


class LearningRateScaling(Callback):
    """Raises the learning rates with the number of batches that make one step: one of each process, times
    ``accumulate_grad_batches``.

    For n batches they are multiplied by n (``linear``: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section
    2.1, for SGD; they also warm up for five epochs) or by √n (``sqrt``: Krizhevsky 2014,
    https://arxiv.org/abs/1404.5997, page 5; the usual one for Adam). Schedules start from the new rates. A run that
    is resumed goes on with the rates of its checkpoint.

    Args:
        rule: "linear" or "sqrt"; "none" leaves all as it is.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Optimizers and schedules are made, and a checkpoint's states not yet put into them.
        batches = trainer.world_size * trainer.accumulate_grad_batches
        factor = {"none": 1.0, "linear": float(batches), "sqrt": math.sqrt(batches)}[self.rule]
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for rate in ("lr", "initial_lr", "max_lr", "min_lr"):
                    if rate in group:
                        group[rate] *= factor
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            for rates in ("base_lrs", "_last_lr"):
                if hasattr(schedule, rates):
                    setattr(schedule, rates, [rate * factor for rate in getattr(schedule, rates)])
