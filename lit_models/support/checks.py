"""Checks of a model's arguments against its data, before any training."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal, NamedTuple

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules import GatherDataset, ImagePair
from lit_models.errors import ModelError, RunWarning
from lit_models.support.lightning_internals import callbacks_of, data_of

Kind = Literal["single images", "pairs of images", "episodes"]

FLOAT16 = ("16", "16-mixed", "16-true", "transformer-engine-float16")
"""The Trainer's precisions that compute in float16."""


class DataFacts(NamedTuple):
    """Attributes of a data module that methods and callbacks use. A user's own data module may lack any of them, and
    then has the default here. See :class:`datamodules.ImageDataModule`."""

    image_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    class_names: Sequence[str] = ()
    file_names: Sequence[str] = ()
    batch_size: int | None = None
    folds: int = 0
    inverted: bool = False
    unseen: bool = False
    unlabeled: bool = False
    source_scale: float | None = 1.0
    source_side: int | None = None
    source_channels: int | None = None
    target_channels: int | None = None
    train_set: Any = None
    val_set: Any = None
    test_set: Any = None
    predict_set: Any = None
    shares_out_batches: bool = False


def facts_of(data: LightningDataModule | None) -> DataFacts:
    """The facts of any data module; the defaults for None."""
    # The only place where a user's class is asked for attributes that it may lack.
    return DataFacts(**{name: getattr(data, name) for name in DataFacts._fields if hasattr(data, name)})


def require_image_shape(
    module: LightningModule, image_shape: tuple[int, int, int], takes: Kind = "single images"
) -> None:
    """Refuses a data module whose images don't have the shape that ``module`` was built for, or don't come as it takes
    them.

    Data modules without an ``image_shape`` are not checked.

    Args:
        module: The model, attached to its trainer.
        image_shape: ``(channels, height, width)`` that it takes.
        takes: How it takes them.

    Raises:
        ModelError: The shapes differ, or the images come in another way.
    """
    datamodule = data_of(module.trainer)
    name, data_name = type(module).__name__, type(datamodule).__name__
    gives = _kind(datamodule)
    if gives is not None and gives != takes:
        remedy = ""
        if gives == "episodes":
            remedy = f"set --data {_made_of(datamodule)}, or "
        elif takes == "episodes" and gives == "single images":
            remedy = f"set --data EpisodeDataModule --data.images {data_name}, or "
        elif gives == "pairs of images":
            wrapped = "EpisodeDataModule --data.images ImageFolder" if takes == "episodes" else "ImageFolder"
            remedy = f"set --data {wrapped}, or "
        raise ModelError(f"{name} takes {takes}, but {data_name} gives {gives}: {remedy}choose other data.")
    given = facts_of(datamodule).image_shape
    if given is None or not all(given) or tuple(given) == tuple(image_shape):
        return
    if in_training_now(module):
        channels, height, width = given
        size = f"--model.image_size {height}" if height == width else "a data set of square images"
        remedy = f"set {size} and --model.channels {channels}, or choose other data"
    else:
        sizes = {"image_size": image_shape[1], "channels": image_shape[0]}
        settable = signature(type(datamodule)).parameters
        arguments = [f"--data.{argument} {value}" for argument, value in sizes.items() if argument in settable]
        remedy = " and ".join(arguments)
        remedy = f"set {remedy}, or choose other data" if remedy else "choose other data"
    raise ModelError(
        f"{name} is built for images of {shape_text(image_shape)}, but {data_name} gives {shape_text(given)} "
        f"(channels x height x width): {remedy}."
    )


def require_probabilities(image: Tensor, warned: bool = False) -> bool:
    """Refuses images outside [0, 1] for a Bernoulli likelihood, and warns once of gray ones, whose nats are no bound.

    Args:
        image: Of any shape.
        warned: Whether it has warned. (Python forgets its warnings where Lightning changes the filters.)

    Returns:
        Whether it has warned by now.

    Raises:
        ModelError: A value is less than 0, greater than 1, or not a number.
    """
    if not ((image >= 0) & (image <= 1)).all():
        raise ModelError(
            f"A Bernoulli likelihood takes images in [0, 1], but these range from {image.min().item():.3g} to "
            f"{image.max().item():.3g}: scale them, or set --model.likelihood gaussian."
        )
    if warned or not ((image > 0) & (image < 1)).any():
        return warned
    rank_zero_warn(
        "A Bernoulli likelihood of gray images is not normalized: its nats can't be compared with those of binary "
        "images. Set --data.binarization (MNIST), or --model.likelihood gaussian.",
        category=RunWarning,
    )
    return True


def require_num_classes(module: LightningModule, num_classes: int) -> None:
    """Refuses a data module whose images aren't of as many classes as ``module`` was built for.

    Data modules without ``num_classes`` are not checked.

    Raises:
        ModelError: The numbers differ.
    """
    datamodule = data_of(module.trainer)
    given = facts_of(datamodule).num_classes
    if given is None or given == num_classes:
        return
    classes = f"of {given} class{'es' * (given > 1)}" if given else "without classes"
    remedy = f"set --model.num_classes {given}, or " if given and in_training_now(module) else ""
    built_for = f"{num_classes} class{'es' * (num_classes > 1)}"
    raise ModelError(
        f"{type(module).__name__} is built for {built_for}, but {type(datamodule).__name__} gives images {classes}: "
        f"{remedy}choose other data."
    )


def require_labels(module: LightningModule, in_training: bool = True) -> None:
    """Refuses a data module whose images have no labels (-1 in place of a class) in a split that is about to be used.

    Args:
        module: The model, attached to its trainer.
        in_training: Whether training images need labels, too.

    Raises:
        ModelError: There are some.
    """
    datamodule = data_of(module.trainer)
    facts = facts_of(datamodule)
    splits = {
        TrainerFn.FITTING: {"training": facts.train_set if in_training else None, "validation": facts.val_set},
        TrainerFn.VALIDATING: {"validation": facts.val_set},
        TrainerFn.TESTING: {"test": facts.test_set},
    }
    stage = module.trainer.state.fn
    for split, images in (splits.get(stage, {}) if stage is not None else {}).items():
        if not isinstance(images, GatherDataset) or "label" not in images.columns._fields:
            continue
        if bool((images.column("label") < 0).any()):
            added = split == "training" and facts.unlabeled
            remedy = "set --data.unlabeled false" if added else "sort them into their classes' folders"
            raise ModelError(
                f"{type(module).__name__} learns classes, but {type(datamodule).__name__} gives {split} images "
                f"without labels: {remedy}."
            )


def require_several_images(module: LightningModule) -> None:
    """Refuses training batches of one image, of which batch normalization of one value a channel can make nothing.

    Raises:
        ModelError: ``batch_size`` is 1.
    """
    if facts_of(data_of(module.trainer)).batch_size == 1:
        raise ModelError(
            f"{type(module).__name__} normalizes over the images of a batch, so it can't learn from batches of one: "
            "set --data.batch_size to 2 or more."
        )


def require_at_least(least: int, **numbers: int | None) -> None:
    """Refuses arguments, given by name, that are less than ``least``; None passes.

    Raises:
        ModelError: One is less.
    """
    for name, number in numbers.items():
        if number is not None and number < least:
            raise ModelError(f"{name} is {number}; it must be at least {least}.")


def require_fraction(**numbers: float) -> None:
    """Refuse arguments, given by name, that aren't in [0, 1).

    Raises:
        ModelError: One is less than 0, or 1 or more.
    """
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise ModelError(f"{name} is {number}; it must be at least 0 and less than 1.")


def require_one_of(choices: Sequence[object], **values: object) -> None:
    """Refuse arguments, given by name, that are none of the choices.

    Raises:
        ModelError: One is another.
    """
    for name, value in values.items():
        if value not in choices:
            known = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
            raise ModelError(f"{name} is {value!r}; it must be {known}.")


def require_normalization(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuses a mean and a standard deviation that aren't one number for each channel.

    Raises:
        ModelError: They aren't, or the standard deviation isn't positive.
    """
    for name, value in (("mean", mean), ("std", std)):
        if len(value) != channels or (name == "std" and min(value) <= 0):
            raise ModelError(
                f"{name} is {list(value)}; it must have {channels} {'positive ' * (name == 'std')}numbers, one for "
                "each of --model.channels."
            )


def require_planned_epochs(module: LightningModule, epochs: int) -> None:
    """Refuses a training that is longer than its schedule.

    Raises:
        ModelError: ``trainer.max_epochs`` is more than ``epochs``.
    """
    longest = module.trainer.max_epochs
    if longest is not None and longest > epochs:
        raise ModelError(
            f"epochs is {epochs}, but --trainer.max_epochs is {longest}: leave it out, or change --model.epochs."
        )


def require_precision(module: LightningModule, why_not_float16: str, precision: str | int | None) -> None:
    """Refuse float16 for a method that can't be trained in it.

    Args:
        module: The method.
        why_not_float16: The method's reason; empty if it has none.
        precision: As it was asked for: on a CPU, Lightning takes bfloat16 for ``16-mixed``.

    Raises:
        ModelError: The precision is float16.
    """
    if why_not_float16 and str(precision) in FLOAT16:
        raise ModelError(
            f"{type(module).__name__} can't be trained in float16: {why_not_float16}. Use --trainer.precision "
            "bf16-mixed or 32-true."
        )


def require_positives(module: LightningModule) -> None:
    """Refuses batches without, or hardly ever with, two images of a class, which a triplet loss needs.

    Raises:
        ModelError: A batch has less than two images a class.
    """
    from datamodules import ImageDataModule  # only here, as few methods need it to be imported

    data = data_of(module.trainer)
    if not isinstance(data, ImageDataModule):
        return
    if data.samples_per_class == 1:
        raise ModelError(
            "The triplet loss needs several images of a class in a batch: set --data.samples_per_class to 2 or more."
        )
    images, classes = data.batch_size * module.trainer.world_size, data.num_classes
    if data.classes_per_batch is not None or images >= 2 * classes:
        return
    remedy = f"set --data.classes_per_batch {min(32, classes)} --data.samples_per_class 4"
    if "classes_per_batch" not in signature(type(data)).parameters:
        remedy = f"set --data.batch_size to {2 * classes} or more"
    raise ModelError(
        f"The triplet loss needs several images of a class in a batch, and {images} images drawn from {classes} "
        f"classes hardly have them: {remedy}."
    )


def require_label_noise(label_noise: float) -> None:
    """Refuses noise that could turn a label into the other one.

    Raises:
        ModelError: Not in [0, 0.5).
    """
    if not 0 <= label_noise < 0.5:
        raise ModelError(f"label_noise is {label_noise}; it must be at least 0 and less than 0.5.")


def require_r1_weight(r1_weight: float) -> None:
    """Refuses a reward for steep slopes.

    Raises:
        ModelError: Negative.
    """
    if r1_weight < 0:
        raise ModelError(f"r1_weight is {r1_weight}; it must not be negative.")


def averages_weights(trainer: Trainer) -> bool:
    """Whether a callback of Lightning's keeps an average of the weights, by which the model is validated and saved."""
    return any(isinstance(one, WeightAveraging) for one in callbacks_of(trainer))


def lack_of_validation(trainer: Trainer) -> str:
    """Why a training has no validation, with a remedy; empty if it has one, or its loaders aren't known yet."""
    if trainer.val_dataloaders is not None and not sum(trainer.num_val_batches):
        return "the validation split is empty: give it images"
    return "" if trainer.enable_validation else "validation is off: switch it on"


AVERAGES = (WeightAveraging, StochasticWeightAveraging)


def require_one_training(module: LightningModule) -> None:
    """Refuse Lightning's averages of weights for a method that takes its optimizers' steps itself.

    Raises:
        ModelError: There are such averages.
    """
    averages = [one for one in callbacks_of(module.trainer) if isinstance(one, AVERAGES)]
    if averages and not module.automatic_optimization:
        name = type(module).__name__
        remedy = "use --model.ema_decay" if "ema_decay" in module.hparams else "leave it out"
        raise ModelError(
            f"{type(averages[0]).__name__} would average all networks of {name}, which have several optimizers or "
            f"phases: {remedy}."
        )


def _made_of(datamodule: LightningDataModule | None) -> str:
    """The data set that episodes are drawn from."""
    from datamodules import EpisodeDataModule

    assert isinstance(datamodule, EpisodeDataModule)
    return type(datamodule.images).__name__


def _kind(datamodule: LightningDataModule | None) -> Kind | None:
    """How images come from a data module; None if it isn't known."""
    from datamodules import EpisodeDataModule, ImageDataModule  # only here, as no method needs them to be imported

    if isinstance(datamodule, EpisodeDataModule):
        return "episodes"
    if not isinstance(datamodule, ImageDataModule):
        return None
    facts = facts_of(datamodule)
    sets = (facts.train_set, facts.predict_set)
    pairs = any(isinstance(images, GatherDataset) and isinstance(images.columns, ImagePair) for images in sets)
    return "pairs of images" if pairs else "single images"


def in_training_now(module: LightningModule) -> bool:
    """Whether the model may still be changed; a trained one is what it is."""
    return module.trainer.state.fn == TrainerFn.FITTING


def shape_text(shape: Sequence[int]) -> str:
    """A shape as messages show it, such as 3x64x64."""
    return "x".join(map(str, shape))
