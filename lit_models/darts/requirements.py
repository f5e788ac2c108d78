"""What a search needs of its data and its optimizer."""

from torch.optim import SGD, Optimizer

from datamodules import ImageDataModule, SearchDataModule
from lit_models.errors import ModelError
from lit_models.module import Method


def require_halves(module: Method) -> None:
    """Refuse a data module of relit's that doesn't give both halves of the training images at once.

    Raises:
        ModelError: It doesn't.
    """
    if isinstance(module.data, ImageDataModule) and not isinstance(module.data, SearchDataModule):
        raise ModelError(
            "DARTSSearch learns from two halves of the training images at once: set --data SearchDataModule "
            f"--data.images {type(module.data).__name__}."
        )


def require_plain_sgd(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose next step the second order can't anticipate.

    Raises:
        ModelError: It is one.
    """
    defaults = optimizer.defaults
    if not isinstance(optimizer, SGD) or defaults["nesterov"] or defaults["dampening"]:
        raise ModelError(
            "The second order anticipates the step of SGD, with or without momentum and weight decay: take SGD as "
            "--model.weight_optimizer (without nesterov and dampening), or --model.order 1."
        )
