"""Checks of a model's arguments against its data, before any training."""

from lightning.pytorch import LightningModule

from datamodules import GatherDataset
from lit_models.errors import ModelError


def require_image_shape(module: LightningModule, image_shape: tuple[int, int, int]) -> None:
    """Refuses a data module whose images don't have the shape that ``module`` was built for.

    Data modules that don't tell their ``image_shape`` are let through.

    Raises:
        ModelError: The shapes differ.
    """
    datamodule = getattr(module.trainer, "datamodule", None)
    given = getattr(datamodule, "image_shape", None)
    if given is None or tuple(given) == tuple(image_shape):
        return
    channels, height, width = given
    size = f"--model.image_size {height}" if height == width else "a data set of square images"
    raise ModelError(
        f"{type(module).__name__} is built for images of {_spelled(image_shape)}, but {type(datamodule).__name__} "
        f"gives {_spelled(given)} (channels x height x width): set {size} and --model.channels {channels}, "
        "or choose other data."
    )


def require_num_classes(module: LightningModule, num_classes: int) -> None:
    """Refuses a data module whose images aren't of as many classes as ``module`` was built for.

    Data modules that don't tell their ``num_classes`` are let through.

    Raises:
        ModelError: The numbers differ.
    """
    datamodule = getattr(module.trainer, "datamodule", None)
    given = getattr(datamodule, "num_classes", None)
    if given is None or given == num_classes:
        return
    classes = f"images of {given} classes: set --model.num_classes {given}" if given else "images without classes: take"
    raise ModelError(
        f"{type(module).__name__} is built for {num_classes} classes, but {type(datamodule).__name__} gives {classes}"
        f"{', or choose' if given else ''} other data."
    )


def require_labels(module: LightningModule) -> None:
    """Refuses a data module that has training images without labels (-1 in place of a class).

    Raises:
        ModelError: There are some.
    """
    datamodule = getattr(module.trainer, "datamodule", None)
    train_set = getattr(datamodule, "train_set", None)
    if isinstance(train_set, GatherDataset) and bool((train_set.column("label") < 0).any()):
        remedy = "set --data.unlabelled false" if getattr(datamodule, "unlabelled", False) else "leave them out"
        raise ModelError(
            f"{type(module).__name__} learns classes, but {type(datamodule).__name__} gives training images without "
            f"labels: {remedy}."
        )


def require_power_of_two(image_size: int, smallest: int, largest: int) -> None:
    """Refuses an ``image_size`` that can't be reached by doubling from 4.

    Raises:
        ModelError: Not a power of two within the limits.
    """
    if not smallest <= image_size <= largest or image_size & (image_size - 1):
        sizes = [str(2**power) for power in range(12) if smallest <= 2**power <= largest]
        raise ModelError(f"image_size is {image_size}; it must be one of {', '.join(sizes)}.")


def require_label_noise(label_noise: float) -> None:
    """Refuses noise that could turn a label into the other one.

    Raises:
        ModelError: Not in [0, 0.5).
    """
    if not 0 <= label_noise < 0.5:
        raise ModelError(f"label_noise is {label_noise}; it must be at least 0 and less than 0.5.")


def _spelled(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
