"""What callbacks and commands need to know of any model and any data module, with a refusal if they lack it."""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from lightning.pytorch import Trainer

from datamodules import ImageDataModule
from lit_models.errors import RunError
from lit_models.support.lightning_internals import data_of

Ability = TypeVar("Ability")


@runtime_checkable
class HasClasses(Protocol):
    """A model that classifies, or draws images of classes; any LightningModule may be one."""

    num_classes: int


@runtime_checkable
class HasClassNames(Protocol):
    """A model that has learned the classes' names."""

    class_names: Sequence[str]


@runtime_checkable
class HasLatents(Protocol):
    """A model with latent vectors."""

    latent_dim: int


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
    """The number of classes of a model; 0 if it has none."""
    return model.num_classes if isinstance(model, HasClasses) else 0


def class_names_of(model: object) -> Sequence[str]:
    """The names of the classes that a model has learned; none if it has none."""
    return model.class_names if isinstance(model, HasClassNames) else ()


def latent_dim_of(model: object) -> int:
    """The components of a model's latent vectors; 0 if it has none."""
    return model.latent_dim if isinstance(model, HasLatents) else 0
