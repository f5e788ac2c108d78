"""Grids of generated images while a generative model learns."""

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from lit_models.callbacks.logging import log_image
from lit_models.errors import RunError


class SampleGrid(Callback):
    """Draws the same latent vectors after some epochs, so that the grids show how the images of each one develop.

    If the model knows classes, each row is of one class: ``count: 100, columns: 10`` draws all digits.

    Writes ``samples/epoch_0001.png`` … into the run folder and to W&B: after the first, the middle and the last epoch,
    and after every ``every_n_epochs``.

    Args:
        count: Images in a grid.
        columns: Images in a row.
        every_n_epochs: Draw after every so many epochs, too; not if null.
        seed: Seed of the latent vectors.
    """

    def __init__(self, count: int = 64, columns: int = 8, every_n_epochs: int | None = None, seed: int = 0) -> None:
        if count < 1 or columns < 1 or (every_n_epochs is not None and every_n_epochs < 1):
            raise RunError("SampleGrid: count, columns and every_n_epochs must be at least 1.")
        self.count = count
        self.columns = columns
        self.every_n_epochs = every_n_epochs
        self.seed = seed

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or not self._is_due(epoch, trainer.max_epochs):
            return
        generator = torch.Generator().manual_seed(self.seed)
        images: Tensor = cast(Any, pl_module).sample(self.count, self.labels(pl_module), generator)
        grid = make_grid(images.float().cpu(), nrow=self.columns)
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        save_image(grid, folder / f"epoch_{epoch:04d}.png")
        log_image(trainer, "samples", grid)

    def labels(self, pl_module: LightningModule) -> Tensor | None:
        """The class of each image of the grid, ``(count,)``; None if the model knows none."""
        num_classes = getattr(pl_module, "num_classes", None)
        return None if num_classes is None else torch.arange(self.count) // self.columns % num_classes

    def _is_due(self, epoch: int, last_epoch: int | None) -> bool:
        if self.every_n_epochs is not None and epoch % self.every_n_epochs == 0:
            return True
        if last_epoch is None or last_epoch < 1:
            return epoch == 1
        return epoch in (1, (last_epoch + 1) // 2, last_epoch)
