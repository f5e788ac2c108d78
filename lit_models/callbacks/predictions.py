"""Writes the images that ``relit predict`` makes."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image


class ImageWriter(Callback):
    """Writes predicted images as PNG files, one each, or all in one grid.

    Args:
        folder: Where to write; if null, ``predictions/`` in the run folder.
        grid: Write one ``grid.png`` in place of single files.
        columns: Images in a row of the grid.
    """

    def __init__(self, folder: str | None = None, grid: bool = False, columns: int = 8) -> None:
        self.folder = folder
        self.grid = grid
        self.columns = columns
        self._images: dict[int, Tensor] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, Tensor) or outputs.ndim != 4:
            return
        images = dict(zip(batch.number.tolist(), outputs.float().cpu(), strict=True))
        if self.grid:
            self._images.update(images)
            return
        folder = self._made_folder(trainer)
        for index, image in images.items():
            save_image(image, folder / f"{index:05d}.png")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.grid:
            return
        shares = [self._images]
        if trainer.world_size > 1:
            shares = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, self._images)
        self._images = {}
        images = {index: image for share in shares for index, image in share.items()}
        if images and trainer.is_global_zero:
            grid = make_grid([images[index] for index in sorted(images)], nrow=self.columns)
            save_image(grid, self._made_folder(trainer) / "grid.png")

    def _made_folder(self, trainer: Trainer) -> Path:
        folder = Path(self.folder) if self.folder is not None else Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
