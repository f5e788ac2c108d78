"""The data of each phase of layer-wise training: images, cached codes of the layer below, or images with labels."""

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional

from datamodules import Codes, GatherDataset, ImageDataModule
from datamodules.base import run_seed
from datamodules.loading.loaders import BatchLoader
from lit_models.errors import ModelError, RunError
from lit_models.support.lightning_internals import data_of

if TYPE_CHECKING:
    from lit_models.layerwise_mlp import LayerwiseMLP

ENCODED_AT_ONCE = 1024
"""Images whose codes are computed together when they are cached."""
LARGEST_IN_MEMORY = 2 << 30
"""Bytes of cached codes that are kept in main memory; more are kept in a file."""


def require_labeled_fraction(module: LightningModule, fraction: float) -> None:
    """Refuses a fraction of the training labels that can't be dealt out.

    Raises:
        ModelError: A class would have no label, or there is no label at all, or no data module to draw them from.
    """
    data = data_of(module.trainer)
    if isinstance(data, ImageDataModule):
        labeled_rows(data.train_set.column("label"), fraction, run_seed(), data.class_names)
    elif fraction < 1:
        raise ModelError("labeled_fraction draws images by class, which takes a data module of relit's: leave it out.")


def require_epochs_of_phases(module: "LayerwiseMLP") -> None:
    """Refuses more epochs than the phases take together.

    Raises:
        ModelError: The trainer has more, or no end.
    """
    epochs = module.trainer.max_epochs
    if epochs is None or not 0 <= epochs <= module.planned_epochs:
        raise ModelError(
            f"The phases take {module.planned_epochs} epochs ({len(module.widths)} layers x {module.pretrain_epochs} + "
            f"{module.finetune_epochs}), but --trainer.max_epochs is {epochs}: leave it out, or change "
            "--model.pretrain_epochs or --model.finetune_epochs."
        )


def require_same_pretraining(module: "LayerwiseMLP", begun_with: int) -> None:
    """Refuses to go on with a run that was begun with other epochs of pretraining for each layer.

    Raises:
        ModelError: They are others.
    """
    if begun_with != module.pretrain_epochs:
        raise ModelError(
            f"This run was begun with {begun_with} epochs of pretraining for each layer, not {module.pretrain_epochs}: "
            "leave --model.pretrain_epochs as it was, or start a new run."
        )


def labeled_rows(label: Tensor, fraction: float, seed: int, names: tuple[str, ...] = ()) -> Tensor | None:
    """The rows whose labels are learned from, sorted: a random share of each class; None if they are all rows.

    Args:
        label: ``(N,)``, int64; -1 for an image without a label.
        fraction: The share, in (0, 1].
        seed: Seed of the draw.
        names: The classes' names, for the message.

    Raises:
        ModelError: A class would have no label, or there is none at all.
    """
    label = label.cpu()
    classes, sizes = label[label >= 0].unique(return_counts=True)
    if not len(classes):
        raise ModelError("No training image has a label, so the classifier can't be fine-tuned: choose other data.")
    if fraction == 1 and len(label) == int(sizes.sum()):
        return None
    fewest, one = min(zip(sizes.tolist(), classes.tolist(), strict=True))
    if round(fraction * fewest) == 0:
        enough = math.floor(500 / fewest + 1) / 1000  # the first thousandth that doesn't round to 0 images
        raise ModelError(
            f"labeled_fraction is {fraction}, which leaves class {names[one] if names else one}, of {fewest} labeled "
            f"images, without a label: set --model.labeled_fraction to at least {enough:g}."
        )
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    rows = []
    for one, size in zip(classes.tolist(), sizes.tolist(), strict=True):
        rows.append(shuffled[label[shuffled] == one][: round(fraction * size)])
    return torch.cat(rows).sort().values


class RepeatedRows:
    """Some rows of a data set, repeated until they are as many as it has."""

    def __init__(self, images: GatherDataset[Any], rows: Tensor) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor) -> Any:
        return self.images.__getitems__(self.rows[indices % len(self.rows)])


class PhaseData:
    """Puts into a run's loaders what the current phase learns from.

    Args:
        module: The model, whose ``cache_codes`` and ``labeled_fraction`` say what.
    """

    def __init__(self, module: "LayerwiseMLP") -> None:
        self.module = module
        self._in_loaders: dict[str, tuple[int | str, Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "PhaseData":
        return PhaseData(memo.get(id(self.module), self.module))

    def give(self, stage: str, loader: Any, layer: int | None) -> None:
        """Lets a loader give codes of the layer below the one that is pretrained; or images, for fine-tuning those with
        labels.

        Args:
            stage: "train" or "val".
            loader: The stage's loader. One that isn't relit's is left alone.
            layer: The layer (from 1) that is pretrained; None in fine-tuning.
        """
        datamodule = self.module.data
        if not (isinstance(loader, BatchLoader) and isinstance(datamodule, ImageDataModule)):
            return
        before, images = self._in_loaders.get(stage, ("images", loader.dataset))
        wanted: int | str = "images"
        if layer is None and stage == "train":
            wanted = "labeled images"
        elif layer is not None and layer > 1 and self.module.cache_codes:
            wanted = layer
        if wanted == before:
            return
        if isinstance(wanted, int):
            source = loader.dataset if before == wanted - 1 else images
            loader.dataset = GatherDataset(Codes(self._codes(source, wanted - 1, datamodule)))
        else:
            rows = None
            if wanted == "labeled images":
                rows = labeled_rows(images.column("label"), self.module.labeled_fraction, run_seed())
            loader.dataset = images if rows is None else RepeatedRows(images, rows)
        self._in_loaders[stage] = wanted, images

    @torch.no_grad()
    def _codes(self, source: Any, layers: int, datamodule: ImageDataModule) -> Tensor:
        """The codes of all images after some layers, in order.

        Args:
            source: The images, which aren't augmented here, or their codes after one layer less.
            layers: Layers to go through.
            datamodule: Where the images come from.
        """
        module, codes = self.module, None
        for start in range(0, len(source), ENCODED_AT_ONCE):
            rows = torch.arange(start, min(start + ENCODED_AT_ONCE, len(source)))
            batch = module.transfer_batch_to_device(source.__getitems__(rows), module.device, 0)
            plugin = module.trainer.precision_plugin
            with plugin.forward_context():
                if isinstance(batch, Codes):
                    code = functional.relu(module.mlp.layers[layers - 1](batch.code))
                else:
                    image = plugin.convert_input(datamodule.transform(batch, training=False)).image
                    code = module.mlp.encode(image, layers)
            if codes is None:
                folder = Path(module.trainer.default_root_dir)
                codes = allocate_codes((len(source), code.shape[1]), code.dtype, code.device, folder)
            codes[start : start + len(code)] = code
        assert codes is not None, "an empty split has no batches, and isn't asked for codes"
        return codes


def allocate_codes(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, folder: Path) -> Tensor:
    """An uninitialized tensor in the best place that has room for it.

    Args:
        shape: Its shape.
        dtype: Its type.
        device: The accelerator, whose memory is the best place.
        folder: Where a file of no name, which is gone when the tensor is, takes what is too large for memory.

    Raises:
        RunError: The file can't be written.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 4:
        return torch.empty(shape, dtype=dtype, device=device)
    if size <= LARGEST_IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # Reserve the blocks now: writing to a mapped hole on a full disk would kill the process.
                os.posix_fallocate(file.fileno(), 0, size)
            content = np.memmap(file, np.uint8, "w+", shape=(size,))
    except OSError as error:
        raise RunError(
            f"{size / 2**30:.1f} GiB of codes can't be written to {folder} ({error.strerror}): free some space there, "
            "choose another place with --run.root, or set --model.cache_codes false."
        ) from error
    return torch.from_numpy(content).view(dtype).view(shape)
