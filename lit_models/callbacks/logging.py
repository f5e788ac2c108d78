"""Pictures to the loggers that can show them."""

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
