"""Batches of a plain DataLoader, ``(image, label)``, as the batches that the methods take."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from datamodules import ImagePair, LabeledImages
from datamodules.base import in_precision, to_unit_interval
from lit_models.errors import ModelError
from lit_models.support.checks import shape_text
from lit_models.support.lightning_internals import data_of, is_attached, plain_training_loader

if TYPE_CHECKING:
    from lit_models.module import Method


def as_transformed(module: "Method", batch: Any) -> Any:
    """A batch of relit's in [0, 1], where its loader was given without the data module that would see to that."""
    return in_precision(module.trainer, to_unit_interval(batch)) if _holds_bytes(batch) else batch


def _holds_bytes(batch: Any) -> bool:
    """Whether a batch, or one of the batches that it is made of, has uint8 images."""
    if isinstance(batch, Tensor):
        return batch.dtype == torch.uint8
    return isinstance(batch, tuple) and any(map(_holds_bytes, batch))


def with_named_parts(module: "Method", batch: Any) -> Any:
    """A batch of any loader with named parts; one of relit's data modules as it is."""
    if not hasattr(batch, "_fields"):
        return named_parts(module, batch)
    given_by_data_module = not is_attached(module) or module.data is not None
    return batch if given_by_data_module else as_transformed(module, batch)


def named_parts(module: "Method", batch: Any) -> ImagePair | LabeledImages:
    """Names the parts of a plain batch.

    Raises:
        ModelError: They aren't images in [0, 1], of the size that the model was built for, and their classes.
    """
    image, other = _parts_of(module, batch)
    image = _in_unit_interval(module, image)
    if other is not None and other.ndim == 4:
        return ImagePair(image, _in_unit_interval(module, other))
    expected = module.image_shape
    if tuple(image.shape[1:]) != expected:
        raise ModelError(
            f"{type(module).__name__} is built for images of {shape_text(expected)}, but the batches hold images of "
            f"{shape_text(image.shape[1:])} (channels x height x width): build it, or the data, with the other sizes."
        )
    if other is None:
        return LabeledImages(image, torch.full((len(image),), -1))
    return LabeledImages(image, _labels(module, other))


def _parts_of(module: "Method", batch: Any) -> tuple[Tensor, Tensor | None]:
    """The image of a batch, and what comes with it."""
    if isinstance(batch, dict):
        batch = [batch.get("image"), batch.get("label")]
    parts = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    image, other = parts[0] if parts else None, parts[1] if len(parts) > 1 else None
    if not isinstance(image, Tensor) or image.ndim != 4 or not (other is None or isinstance(other, Tensor)):
        kinds = ", ".join(f"{tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__ for part in parts)
        raise ModelError(
            f"{type(module).__name__} takes batches of (image, label), images of (B, C, H, W), but got ({kinds}): "
            "change the data set or its collate_fn."
        )
    return image, other


def _in_unit_interval(module: "Method", image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image.to(module.dtype).div_(255)
    low, high = (float(value) for value in image.aminmax())
    if low < 0 or high > 1:
        raise ModelError(
            f"{type(module).__name__} takes images in [0, 1], but a batch holds values from {low:g} to {high:g}: leave "
            "Normalize out of the transforms."
        )
    return image


def _labels(module: "Method", label: Tensor) -> Tensor:
    label = label.flatten() if label.shape[1:] == (1,) else label
    if label.ndim != 1 or label.is_floating_point():
        raise ModelError(
            f"The labels are {label.dtype} of shape {tuple(label.shape)}; they must be one class an image."
        )
    num_classes = module.num_classes
    if num_classes and len(label) and int(label.max()) >= num_classes:
        raise ModelError(
            f"{type(module).__name__} is built for {num_classes} classes, but a batch has the label "
            f"{int(label.max())}: set --model.num_classes to {int(label.max()) + 1} or more."
        )
    return label.long()


def reference_batches(module: "Method", num_classes: int, per_class: int | None) -> Iterator[LabeledImages]:
    """This rank's share of a user's own training images, or of the first ``per_class`` of each class."""
    trainer = module.trainer
    taken = torch.zeros(num_classes, dtype=torch.int64)
    seen = 0  # by all ranks, so that they take turns also in batches of one image
    for plain in _train_loader_of(trainer) or ():
        batch = module.on_before_batch_transfer(trainer.precision_plugin.convert_input(plain), 0)
        if per_class is not None:
            first = _room_for(batch.label, taken, per_class)
            batch = LabeledImages(*(part[first] for part in batch))
            taken += batch.label.bincount(minlength=num_classes)
        share = slice((trainer.global_rank - seen) % trainer.world_size, None, trainer.world_size)
        seen += len(batch.label)
        batch = LabeledImages(*(part[share] for part in batch))
        if len(batch.label):
            yield batch
        if per_class is not None and bool((taken >= per_class).all()):
            return


def _train_loader_of(trainer: Trainer) -> Any:
    """A fresh loader of the training data, or None where there are none (in a test with its own loader)."""
    datamodule = data_of(trainer)
    if datamodule is not None:
        return datamodule.train_dataloader()
    return plain_training_loader(trainer)


def _room_for(label: Tensor, taken: Tensor, per_class: int) -> Tensor:
    """Rows of a batch that are among the first ``per_class`` of their classes, of which so many were ``taken``."""
    earlier = (label[:, None] == label[None, :]).tril(-1).sum(1)  # of the same class in this batch
    return (taken[label] + earlier < per_class).nonzero().flatten()
