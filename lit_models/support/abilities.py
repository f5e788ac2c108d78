"""What callbacks and commands need to know of any model and any data module, with a refusal if they lack it."""

from collections.abc import Sequence
from typing import TypeVar

from lightning.pytorch import Trainer

from datamodules import ImageDataModule
from lit_models.errors import RunError
from lit_models.module import Method
from lit_models.support.lightning_internals import data_of

Ability = TypeVar("Ability")


def require_ability(user: object, model: object, ability: type[Ability]) -> Ability:
    """The model as one that has an ability, a protocol of :mod:`lit_models.module`.

    Args:
        user: The callback that needs the ability.
        model: The model.
        ability: The protocol.

    Raises:
        RunError: The model lacks the ability.
    """
    if not isinstance(model, ability):
        needed = " and ".join(f"`{name}`" for name in sorted(vars(ability)) if not name.startswith("_"))
        raise RunError(
            f"{type(user).__name__} needs a model with {needed}, which {type(model).__name__} doesn't have: leave the "
            "callback out."
        )
    return model


def require_image_data(user: object, trainer: Trainer) -> ImageDataModule:
    """The trainer's data module, which must be one of relit's.

    Raises:
        RunError: It is another one, or there is none.
    """
    data = data_of(trainer)
    if not isinstance(data, ImageDataModule):
        raise RunError(f"{type(user).__name__} needs a data module of datamodules/: choose other data.")
    return data


def classes_of(model: object) -> int:
    """The number of classes of a method; 0 for any other model."""
    return model.num_classes if isinstance(model, Method) else 0


def class_names_of(model: object) -> Sequence[str]:
    """The names of the classes that a method has learned; none for any other model."""
    return model.class_names if isinstance(model, Method) else ()
