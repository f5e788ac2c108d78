"""A folder of pictures of any size, one by one: the "data" of ``relit predict`` for a model that translates images."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor

from datamodules.base import in_precision
from datamodules.errors import DataError, note
from datamodules.image_folder import as_looked_at, list_images


class Picture(NamedTuple):
    """One picture.

    Attributes:
        image: ``(1, C, H, W)``; uint8 in 0..255 as read, float32 in [0, 1] once it reaches ``predict_step``.
        row: ``(1,)``, int64: its place in :attr:`Pictures.output_names`.
        tile: Side of the largest square to be looked at in one piece.
    """

    image: Tensor
    row: Tensor
    tile: int


class Pictures(LightningDataModule):
    """Gives a model the pictures of a folder, each in its own size: ``relit predict --ckpt_path FILE --data Pictures
    --data.path FOLDER``.

    All images below the folder are taken, and turned into colour, or into grey, if the model needs it. Each result is
    named after its picture: ``a/b.jpg`` becomes ``a/b.png``, or, if two pictures of the folder would share a name so,
    ``a/b.jpg.png``. Pictures that can't be read are left out, and counted at the end.

    Args:
        path: The folder.
        scale: Factor by which pictures are resized first. If None, the one of the images that the model learnt from (a
            photograph of ``Maps`` has 600 pixels and is resized to ``image_size``), so that a road is as wide as there.
        tile: Largest side of a picture that is translated in one piece; larger ones are, in overlapping tiles of this
            size. Large tiles need much memory.
    """

    def __init__(self, path: str, scale: float | None = None, tile: int = 1024) -> None:
        super().__init__()
        if scale is not None and scale <= 0:
            raise DataError(f"scale is {scale}; it must be greater than 0.")
        if tile < 1:
            raise DataError(f"tile is {tile}; it must be at least 1.")
        self.path = path
        self.scale = scale
        self.tile = tile
        self.files: list[str] = []
        self.output_names: list[str] = []

    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise DataError("Pictures can only be predicted from: for anything else choose other --data.")
        model = self.trainer.lightning_module if self.trainer is not None else None
        if model is not None and not hasattr(model, "translate"):
            raise DataError(
                f"Pictures are for models that translate images, which {type(model).__name__} doesn't: take other data."
            )
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}: set --data.path to one that holds pictures.")
        self.files = list_images(folder)[1]
        if not self.files:
            raise DataError(f"{folder} holds no images: set --data.path to a folder that does.")
        self.output_names = png_names(self.files)

    def predict_dataloader(self) -> "PictureLoader":
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        scale = self.scale
        if scale is None:
            scale = getattr(trainer.lightning_module, "source_scale", 1.0) if trainer is not None else 1.0
            if scale != 1 and rank == 0:
                note(
                    f"The pictures are resized to {100 * scale:.1f} % first, as those were that the model learnt from; "
                    "--data.scale 1 leaves them as they are."
                )
        channels = getattr(trainer.lightning_module, "image_shape", (3,))[0] if trainer is not None else 3
        rows = range(rank, len(self.files), world_size)
        return PictureLoader(Path(self.path).expanduser(), self.files, rows, channels, scale, self.tile)

    def on_after_batch_transfer(self, batch: Picture, dataloader_idx: int) -> Picture:
        return batch._replace(image=in_precision(self.trainer, batch.image.float().div_(255)))


class PictureLoader:
    """Reads pictures one by one.

    Args:
        folder: Where they lie.
        files: Their names.
        rows: Which of them to read.
        channels: 3 for colour, 1 for grey.
        scale: Factor by which they are resized.
        tile: To be handed on.
    """

    def __init__(self, folder: Path, files: list[str], rows: range, channels: int, scale: float, tile: int) -> None:
        self.folder, self.files, self.rows = folder, files, rows
        self.channels, self.scale, self.tile = channels, scale, tile

    def __iter__(self) -> Iterator[Picture]:
        faults = []
        for row in self.rows:
            try:
                with Image.open(self.folder / self.files[row]) as image:
                    pixels = np.array(resized(as_looked_at(image, self.channels), self.scale))
            except Exception as error:  # Pillow meets damaged files with errors of a dozen kinds
                reason = (
                    "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error) or repr(error)
                )
                faults.append(f"{self.files[row]} ({reason})")
                continue
            picture = torch.from_numpy(pixels).view(*pixels.shape[:2], self.channels).permute(2, 0, 1)
            yield Picture(picture[None].contiguous(), torch.tensor([row]), self.tile)
        some = ", ".join(faults[:3]) + (", …" if len(faults) > 3 else "")
        if faults and len(faults) == len(self.rows):
            raise DataError(f"None of the {len(faults)} pictures in {self.folder} can be read: {some}.")
        if faults:
            note(f"{len(faults)} of the {len(self.rows)} pictures in {self.folder} can't be read, left out: {some}.")


def resized(image: Image.Image, scale: float) -> Image.Image:
    """A picture with sides that are ``scale`` times as long, by antialiased bicubic interpolation."""
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def png_names(files: list[str]) -> list[str]:
    """Names of PNG files after those of pictures, all different.

    Example:
        >>> png_names(["a/b.jpg", "c.jpg"])
        ['a/b.png', 'c.png']
        >>> png_names(["b.jpg", "b.jpg.png", "b.tif"])
        ['b.jpg.png', 'b.jpg.png.png', 'b.tif.png']
    """
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in files]
    all_differ = len({name.lower() for name in short}) == len(files)
    return short if all_differ else [f"{name}.png" for name in files]
