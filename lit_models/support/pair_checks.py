"""Checks of a translator against its pairs of images, or the pictures that it is to translate, before any training."""

from inspect import signature

from lightning.pytorch import LightningModule

from datamodules import GatherDataset, ImagePair, Pictures
from lit_models.errors import ModelError
from lit_models.module import Method
from lit_models.support.checks import facts_of, in_training_now
from lit_models.support.lightning_internals import data_of


def require_pairs(module: Method, stage: str) -> None:
    """Refuses a data module of labeled images and the like, whose batches aren't pairs of images.

    Raises:
        ModelError: They aren't.
    """
    images = module.facts.predict_set if stage == "predict" else module.facts.train_set
    if isinstance(images, GatherDataset) and not isinstance(images.columns, ImagePair):
        takes = "translates pictures in their own size" if stage == "predict" else "learns from pairs of images"
        remedy = "Pictures --data.path FOLDER" if stage == "predict" else "PairedFolder --data.path FOLDER"
        raise ModelError(
            f"{type(module).__name__} {takes}, which {type(module.data).__name__} doesn't give: set --data {remedy}."
        )


def require_pair_channels(module: LightningModule, source: int, target: int) -> None:
    """Refuses pairs of a data module whose halves have other channels than ``module`` was built for. A gray half among
    color ones is given in as many equal channels as the model takes, so that it passes.

    Args:
        module: The model, attached to its trainer.
        source: Channels of the sources that it takes.
        target: Channels of the targets.

    Raises:
        ModelError: A half has other channels.
    """
    datamodule = data_of(module.trainer)
    facts = facts_of(datamodule)
    if facts.source_channels is None or facts.target_channels is None:
        return
    takes = {"source": source, "target": target}
    gives = {"source": facts.source_channels, "target": facts.target_channels}
    if source == target and facts.source_channels == facts.target_channels:
        return  # as many on both sides: a matter of the images' shape
    for half, count in takes.items():
        given = gives[half]
        if given == count or (given == 1 and max(takes.values()) == max(gives.values())):
            continue
        remedies = []
        if in_training_now(module):
            remedies.append(f"--model.{'source_channels' if half == 'source' else 'channels'} {given}")
        if f"{half}_channels" in signature(type(datamodule)).parameters:
            remedies.append(f"--data.{half}_channels {count}")
        remedy = f"set {' or '.join(remedies)}, or " if remedies else ""
        raise ModelError(
            f"{type(module).__name__} takes {half}s of {count} channel{'s' * (count > 1)}, but "
            f"{type(datamodule).__name__} gives {given}: {remedy}choose other data."
        )


def require_tile(module: Method, multiple: int, least: int) -> None:
    """Refuses pictures in tiles of a size that ``module`` doesn't translate.

    Args:
        module: The model, attached to its trainer.
        multiple: What the sides of its images must be multiples of.
        least: What they must at least be.

    Raises:
        ModelError: The tiles are of another size.
    """
    data = module.data
    if isinstance(data, Pictures) and (data.tile % multiple or data.tile < least):
        raise ModelError(
            f"tile is {data.tile}, but this {type(module).__name__} translates images whose sides are multiples of "
            f"{multiple} and at least {least}: set --data.tile to such a number."
        )
