"""What goes to the loggers."""

from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from torchvision.transforms.functional import to_pil_image


def log_image(trainer: Trainer, key: str, image: Tensor) -> None:
    """Sends a float image ``(C, H, W)`` in [0, 1] to W&B if the run has it.

    W&B takes float tensors as they are, and shows [0, 1] as black; so it gets 8-bit pixels.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [to_pil_image(image.clamp(0, 1).cpu())], step=trainer.global_step)


def logs_this_batch(trainer: Trainer) -> bool:
    """Whether the loggers will take this training batch's values: handing over values that nobody takes costs half a
    millisecond on a CPU, which matters beside a small step."""
    return (trainer.fit_loop.total_batch_idx + 1) % cast(Any, trainer).log_every_n_steps == 0
