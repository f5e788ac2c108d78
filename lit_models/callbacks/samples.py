"""Grids of generated and of reconstructed images while a model learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torchvision.utils import make_grid, save_image

from lit_models.errors import RunError
from lit_models.module import Generative, Reconstructing
from lit_models.support.abilities import classes_of, require_ability
from lit_models.support.lightning_internals import callbacks_of
from lit_models.support.logging import log_image
from lit_models.support.random_states import separate_random_numbers


@runtime_checkable
class Corrupting(Protocol):
    """Corrupts the images ``(N, C, H, W)`` that it learns to reconstruct."""

    def corrupt(self, image: Tensor) -> Tensor: ...


class SampleGrid(Callback):
    """Draws the same latent vectors after some epochs, so that the grids show how the images of each one develop.

    Images of a model with classes cycle through them, so the default has one column per class: ``count: 100`` draws
    ten images of each digit.

    Writes ``samples/epoch_0001.png`` … into the run folder and to W&B: after 1, 2, 5, 10, 20, 50, 100 … epochs, after
    the last one, and after every ``every_n_epochs``; or after the given ``epochs`` only.

    Args:
        count: Images in a grid.
        columns: Images in a row. If null, one column per class, up to 32; 8 without classes.
        every_n_epochs: Draw after every so many epochs, too; not if null.
        epochs: Draw after these epochs (from 1) and no others.
        seed: Seed of the latent vectors.
    """

    ability: type = Generative
    """What the model must be able to do."""

    def __init__(
        self,
        count: int = 64,
        columns: int | None = None,
        every_n_epochs: int | None = None,
        epochs: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        if (
            min(
                count,
                1 if columns is None else columns,
                *([] if every_n_epochs is None else [every_n_epochs]),
                *(epochs or []),
            )
            < 1
        ):
            raise RunError(f"{type(self).__name__}: count, columns, every_n_epochs and epochs must be at least 1.")
        self.count = count
        self.columns = columns
        self.every_n_epochs = every_n_epochs
        self.epochs = epochs
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_ability(self, pl_module, self.ability)  # before any training

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or not self._is_due(epoch, trainer.max_epochs):
            return
        generator = torch.Generator().manual_seed(self.seed)
        model = require_ability(self, pl_module, Generative)
        with validated_weights(trainer, pl_module):
            images = model.sample(self.count, self.labels(pl_module), generator)
        columns = self.columns or columns_of_classes(classes_of(pl_module))
        self._write(trainer, images, columns, f"epoch_{epoch:04d}", "samples")

    def _write(self, trainer: Trainer, images: Tensor, columns: int, name: str, key: str) -> None:
        """Writes ``samples/<name>.png``, and sends it to W&B as ``key``."""
        grid = make_grid(images.float().cpu(), nrow=columns)
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        save_image(grid, folder / f"{name}.png")
        log_image(trainer, key, grid)

    def labels(self, pl_module: LightningModule) -> Tensor | None:
        """The class of each image of the grid, ``(count,)``; None if the model has none."""
        num_classes = classes_of(pl_module)
        return torch.arange(self.count) % num_classes if num_classes else None

    def _is_due(self, epoch: int, last_epoch: int | None) -> bool:
        if self.epochs is not None:
            return epoch in self.epochs
        if self.every_n_epochs is not None and epoch % self.every_n_epochs == 0:
            return True
        return epoch == last_epoch or is_in_125_series(epoch)


def is_in_125_series(number: int) -> bool:
    """Whether a number is one of 1, 2, 5, 10, 20, 50, 100 …

    Example:
        >>> [number for number in range(1, 60) if is_in_125_series(number)]
        [1, 2, 5, 10, 20, 50]
    """
    digits = str(number)
    return digits[0] in "125" and not digits[1:].strip("0")


class ReconstructionGrid(SampleGrid):
    """Draws validation images and what an autoencoder makes of them, after some epochs.

    Writes ``samples/reconstructions_0001.png`` … into the run folder and to W&B, at the same times as
    :class:`SampleGrid`: rows of originals, with their reconstructions below. A denoising autoencoder (a model with
    ``corrupt``) gets two rows more: the corrupted images, and what it makes of those. For any model with
    ``reconstruct(image)``.

    Args:
        count: Images: the first ones of the first validation batch.
        columns: Images in a row.
        every_n_epochs: Draw after every so many epochs, too; not if null.
        epochs: Draw after these epochs (from 1) and no others.
        seed: Seed of the corruption.
    """

    ability = Reconstructing

    def __init__(
        self,
        count: int = 16,
        columns: int = 16,
        every_n_epochs: int | None = None,
        epochs: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(count, columns, every_n_epochs, epochs, seed)
        self.originals_in_a_row = columns
        self._images: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        # A run that goes on within an epoch has no sanity check, from which the images may be.
        return {} if self._images is None else {"images": self._images.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images = state_dict.get("images")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._images = batch.image[: self.count].clone()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._images is None or not trainer.is_global_zero or not self._is_due(epoch, trainer.max_epochs):
            return
        model = require_ability(self, pl_module, Reconstructing)
        self._images = self._images.to(pl_module.device)
        with validated_weights(trainer, pl_module):
            rows = [self._images, model.reconstruct(self._images)]
            if isinstance(model, Corrupting):
                with separate_random_numbers(self.seed):  # those of the run stay what they are without the picture
                    corrupted = model.corrupt(self._images)
                rows += [corrupted.clamp(0, 1), model.reconstruct(corrupted)]
        columns = min(self.originals_in_a_row, len(self._images))
        self._write(
            trainer, interleaved_rows(rows, columns), columns, f"reconstructions_{epoch:04d}", "reconstructions"
        )


@contextmanager
def validated_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Within the block, the model has the weights that are validated and saved: an average's, if a callback of
    Lightning's takes one."""
    averages = [one for one in callbacks_of(trainer) if isinstance(one, WeightAveraging)]
    for average in averages:
        average.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for average in averages:
            average.on_validation_epoch_end(trainer, pl_module)


def columns_of_classes(num_classes: int) -> int:
    """Columns of a grid whose images cycle through the classes: one per class if a row stays legible, else 8."""
    return num_classes if 1 < num_classes <= 32 else 8


def interleaved_rows(rows: list[Tensor], columns: int) -> Tensor:
    """Images in the order of a grid in which each line of ``columns`` images of the first of ``rows`` has those of the
    others below it; a last line that isn't full is filled up with black.

    Args:
        rows: Each ``(N, C, H, W)``.
        columns: Images in a line.
    """
    images = torch.stack([row.float().cpu() for row in rows])
    missing = -images.shape[1] % columns
    images = torch.cat((images, images.new_zeros(len(rows), missing, *images.shape[2:])), 1)
    return images.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2)
