"""Classes: their names, kept in checkpoints and compared with the data's; classifiers; labels to draw images of."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules import ImageDataModule, LabeledImages
from datamodules.errors import note
from lit_models.errors import ModelError
from lit_models.losses.precision import at_least_float32
from lit_models.module import Export, Method
from lit_models.support.checks import require_image_shape, require_labels, require_num_classes
from lit_models.support.lightning_internals import is_attached
from lit_models.support.outputs import ClassProbabilities

CLASSIFIER = (
    Export("classifier", "forward", ("image",), "logits"),
    Export("encoder", "embed", ("image",), "embedding"),
)
"""The exports of a classifier with embeddings."""


class NamedClasses(Method):
    """Base of all that learns classes: data whose classes have other names are refused, before any batch.

    Data with the same names in another order get the model's order, with a note. Data modules without names, and
    checkpoints from before there were any, aren't checked.
    """

    def take_class_names(self) -> None:
        """To be called in ``setup``: learns the names from the training data, or compares the data's with the known."""
        given = _normal(self.facts.class_names)
        if self.class_names:  # loaded before there was a trainer
            self._match_classes()
        elif self.trainer.state.fn == TrainerFn.FITTING:
            self.class_names = given

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["class_names"] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        known = _normal(checkpoint.get("class_names", ()))
        if not known:
            return
        self.class_names = known
        if is_attached(self) and self.trainer.state.fn != TrainerFn.PREDICTING:
            self._match_classes()

    def _match_classes(self) -> None:
        given, known = _normal(self.facts.class_names), _normal(self.class_names)
        if not given or given == known:
            return
        data = self.data
        if sorted(given) != sorted(known):
            missing, new = sorted(set(known) - set(given)), sorted(set(given) - set(known))
            raise ModelError(
                f"{type(self).__name__} learned the classes {_some(known)}, but the classes of {type(data).__name__} "
                f"are {_some(given)}: {_some(new or missing)} {'is new' if new else 'is missing'}. Rename the classes, "
                "or choose other data."
            )
        if not isinstance(data, ImageDataModule):
            raise ModelError(
                f"{type(self).__name__} learned the classes in the order {_some(known)}, but {type(data).__name__} "
                f"gives them in the order {_some(given)}: give it the model's order."
            )
        data.reorder_classes(known)
        note(f"The classes of {type(data).__name__} are given the order that the model learned: {_some(known)}.")


class Classifier(NamedClasses):
    """Base of classifiers, whose ``forward`` gives logits ``(N, num_classes)`` of images ``(N, C, H, W)`` in [0, 1].

    Checks the data against the model, and evaluates: ``loss``, the cross-entropy, and ``accuracy`` are logged below
    ``val/`` and ``test/``, as means over all images.
    """

    learns_unlabeled: ClassVar[bool] = False
    """Whether training images without a label are of use, too."""

    def setup(self, stage: str) -> None:
        require_image_shape(self, self.image_shape)
        if stage != "predict":
            require_num_classes(self, self.num_classes)
            require_labels(self, in_training=not self.learns_unlabeled)
            self.take_class_names()

    def validation_step(self, batch: LabeledImages, batch_idx: int) -> None:
        self.log_classification(at_least_float32(self(batch.image)), batch.label, "val")

    def test_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        """Return the logits, for callbacks."""
        return self.log_classification(at_least_float32(self(batch.image)), batch.label, "test")

    def predict_step(self, batch: LabeledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(at_least_float32(self(batch.image)).softmax(1))


def labels_of_samples(n: int, labels: Tensor | Sequence[int] | int | None, num_classes: int) -> Tensor:
    """The classes ``(n,)`` of images that are to be drawn.

    Args:
        n: How many.
        labels: One class for all, or n classes; if None, 0, 1, …, num_classes − 1, 0, 1, …
        num_classes: Number of classes.

    Raises:
        ModelError: The labels are no integers, not n, or hold a number that is no class.
    """
    if labels is None:
        return torch.arange(n) % num_classes
    try:
        label = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"labels are {labels!r}; they must be one class, or a flat list of {n}.") from error
    if label.numel() and (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool):
        raise ModelError(f"labels are of the type {label.dtype}; classes are integers.")
    label = label.long().expand(n) if label.ndim == 0 else label.long()
    if label.shape != (n,):
        raise ModelError(f"{n} images need one label or {n} labels, not {' x '.join(map(str, label.shape))}.")
    wrong = label[(label < 0) | (label >= num_classes)]
    if len(wrong):
        raise ModelError(f"There is no class {int(wrong[0])}: the labels go from 0 to {num_classes - 1}.")
    return label


def _normal(names: Iterable[str]) -> tuple[str, ...]:
    """Names whose accented letters are written alike, whatever system they come from."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
