"""A folder of pictures of any size, one by one: the "data" of ``relit predict`` for a model that translates images, or
reconstructs them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor

from datamodules.base import HasImageShape, TakesPairs, in_precision
from datamodules.errors import DataError, note
from datamodules.loading.decoding import Reading, as_array, as_looked_at, central_square, fault_of
from datamodules.loading.folders import list_images, printable
from datamodules.loading.paths import expanded


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


@runtime_checkable
class Translates(Protocol):
    """A model that translates pictures of any size."""

    def translate(self, source: Tensor) -> Tensor: ...


@runtime_checkable
class Reconstructs(HasImageShape, Protocol):
    """A model that reconstructs images of one size."""

    def reconstruct(self, image: Tensor) -> Tensor: ...


@runtime_checkable
class Resizes(Protocol):
    """A model that holds the scale and the channels of the pictures that it was trained on."""

    source_scale: float | None
    source_side: int | None
    read_channels: int | None


class Pictures(LightningDataModule):
    """Gives a model the pictures of a folder, each in its own size: ``relit predict --ckpt_path FILE --data Pictures
    --data.path FOLDER``.

    A model that translates gets them in their own size; one that reconstructs gets their central squares, resized to
    the size of its images.

    All images below the folder are taken, and turned into color, or into gray, if the model needs it. Each result is
    named after its picture: ``a/b.jpg`` becomes ``a/b.png``, or, if two pictures of the folder would share a name so,
    ``a/b.jpg.png``. Pictures that can't be read are left out, and counted at the end.

    Args:
        path: The folder.
        scale: Factor by which pictures are resized first. If None, the one of the images that the model learned from (a
            photograph of ``Maps`` has 600 pixels and is resized to ``image_size``), so that a road is as wide as there;
            if those were of several sizes, each picture's shorter side is resized to what theirs were resized to.
        tile: Largest side of a picture that is translated in one piece; larger ones are, in overlapping tiles of this
            size. Large tiles need much memory.
        background: What shows through transparent pixels: "white" or "black".
        value_range: Values of black and white in files of more than 8 bits, as in ``ImageFolder``.
    """

    shares_out_batches = True

    def __init__(
        self,
        path: str,
        scale: float | None = None,
        tile: int = 1024,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.reading = Reading.of(3, background, value_range)
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
        if model is not None and not isinstance(model, (Translates, Reconstructs)):
            raise DataError(
                f"Pictures are for models that translate or reconstruct images, which {type(model).__name__} doesn't: "
                "take other data."
            )
        folder = expanded(self.path)
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}: set --data.path to one that holds pictures.")
        self.files = list_images(folder)[1]
        if not self.files:
            raise DataError(f"{folder} holds no images: set --data.path to a folder that does.")
        self.output_names = png_names(self.files)

    def predict_dataloader(self) -> "PictureLoader":
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        model = trainer.lightning_module if trainer is not None else None
        if isinstance(model, Reconstructs):
            channels, size, _ = model.image_shape
            reading = self.reading._replace(channels=channels)
            rows = range(rank, len(self.files), world_size)
            sizing = Sizing(square=size)
            return PictureLoader(expanded(self.path), self.files, rows, reading, channels, sizing, self.tile)
        sizing = Sizing.of(model) if self.scale is None else Sizing(self.scale)
        if sizing != Sizing() and self.scale is None and rank == 0:
            to = f"to {100 * sizing.scale:.1f} %"
            if sizing.side is not None:
                to = f"to a shorter side of {sizing.side} pixels"
            note(
                f"The pictures are resized {to} first, as those were that the model learned from; --data.scale 1 "
                "leaves them as they are."
            )
        channels = model.image_shape[0] if isinstance(model, HasImageShape) else 3
        channels = model.pair_channels[0] if isinstance(model, TakesPairs) else channels
        seen = model.read_channels if isinstance(model, Resizes) else None
        reading = self.reading._replace(channels=seen or channels)
        rows = range(rank, len(self.files), world_size)
        return PictureLoader(expanded(self.path), self.files, rows, reading, channels, sizing, self.tile)

    def on_after_batch_transfer(self, batch: Picture, dataloader_idx: int) -> Picture:
        return batch._replace(image=in_precision(self.trainer, batch.image.float().div_(255)))


class Sizing(NamedTuple):
    """How a picture is resized.

    Attributes:
        scale: Factor of its sides.
        side: In place of ``scale``, the length that its shorter side gets.
        square: In place of both, the side of the central square that is cut out and resized.
    """

    scale: float = 1.0
    side: int | None = None
    square: int | None = None

    @classmethod
    def of(cls, model: object) -> "Sizing":
        """As the photographs were resized that a translator learned from."""
        if not isinstance(model, Resizes):
            return cls()
        return cls(1.0, model.source_side) if model.source_scale is None else cls(model.source_scale)

    def applied(self, image: Image.Image, reading: Reading) -> np.ndarray:
        """A picture, just opened, as uint8 ``(channels, height, width)``."""
        if self.square is not None:
            return central_square(image, self.square, reading)
        return as_array(self.resized(as_looked_at(image, reading)))

    def resized(self, image: Image.Image) -> Image.Image:
        """A picture by :attr:`side`, if there is one, or else by :attr:`scale`."""
        return resized(image, self.scale if self.side is None else self.side / min(image.size))


class PictureLoader:
    """Reads pictures one by one.

    Args:
        folder: Where they lie.
        files: Their names.
        rows: Which of them to read.
        reading: How to read them.
        channels: Channels to give; a gray picture is repeated.
        sizing: How they are resized.
        tile: To be handed on.
    """

    def __init__(
        self,
        folder: Path,
        files: list[str],
        rows: range,
        reading: Reading,
        channels: int,
        sizing: Sizing,
        tile: int,
    ) -> None:
        self.folder, self.files, self.rows = folder, files, rows
        self.reading, self.channels, self.sizing, self.tile = reading, channels, sizing, tile

    def __iter__(self) -> Iterator[Picture]:
        faults = []
        for row in self.rows:
            try:
                with Image.open(self.folder / self.files[row]) as image:
                    pixels = self.sizing.applied(image, self.reading)
            except Exception as error:  # Pillow meets damaged files with errors of a dozen kinds
                faults.append(f"{printable(self.files[row])} ({fault_of(error)})")
                continue
            pixels = np.repeat(pixels, self.channels // len(pixels), axis=0)
            yield Picture(torch.from_numpy(pixels)[None], torch.tensor([row]), self.tile)
        some = ", ".join(faults[:3]) + (", …" if len(faults) > 3 else "")
        if faults and len(faults) == len(self.rows):
            raise DataError(
                f"None of the {len(faults)} pictures in {self.folder} can be read: {some}. Save them as PNG or JPEG "
                "files, or name another folder."
            )
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
