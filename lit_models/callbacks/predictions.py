"""Writes what ``relit predict`` makes: images, numbered or named after the pictures that they were made of, or a table
of classes."""

import csv
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from datamodules import Picture, Pictures, SampleRequest, Samples
from datamodules.loading.paths import expanded
from datamodules.pictures import png_names
from lit_models.callbacks.samples import columns_of_classes
from lit_models.errors import RunError
from lit_models.module import Interpolating
from lit_models.support.abilities import class_names_of, classes_of
from lit_models.support.animation import require_latent_dim, require_movie, tour_frames, walk_frames, write_movie
from lit_models.support.checks import facts_of
from lit_models.support.interpolation import Path as Way
from lit_models.support.lightning_internals import data_of
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.ranks import gather, gather_rows

MOST_STOPS = 8
"""Images through which a walk leads."""


class PredictionWriter(Callback):
    """Writes predicted images as PNG files, one each, or all in one grid; predicted classes as ``classes.csv``.

    A generated file's name has the image's number and the class that was asked for (``00003_class_7.png``); else it is
    the name of the file that the image was made of (``cat/3.png``).

    Args:
        folder: Where to write; if null, ``predictions/`` in the run folder, or ``predictions_2/`` and so on if there
            are earlier predictions.
        grid: Write one ``grid.png`` in place of single files.
        columns: Images in a row of the grid. If null, one column per class of the images, up to 32; 8 without classes.
        top_classes: How many of the likeliest classes of each image to write, with their probabilities.
        gif: Also write ``walk.gif``, images of the model along a closed walk in its latent space: through the codes of
            the first eight images, if it reconstructs those of the data; else between random latent vectors.
        mp4: Also write ``walk.mp4``, the same as a video (needs the extra ``mp4``).
        walk: Way from one image's code to the next: "lerp", a straight line, or "slerp", a great circle, which a walk
            between random latent vectors always takes.
    """

    def __init__(
        self,
        folder: str | None = None,
        grid: bool = False,
        columns: int | None = None,
        top_classes: int = 5,
        gif: bool = False,
        mp4: bool = False,
        walk: Way = "lerp",
    ) -> None:
        if columns is not None and columns < 1:
            raise RunError(f"--predictions.columns is {columns}; it must be at least 1.")
        if top_classes < 1:
            raise RunError(f"--predictions.top_classes is {top_classes}; it must be at least 1.")
        self.folder = folder
        self.grid = grid
        self.columns = columns
        self.top_classes = top_classes
        self.movies = [f"walk.{kind}" for kind, wanted in (("gif", gif), ("mp4", mp4)) if wanted]
        for name in self.movies:
            require_movie(Path(name))
        self.walk = walk
        self._stops: list[Tensor] = []
        self._images: dict[int, Tensor] = {}
        self._seen = 0
        self._written = Path("predictions")
        self._probabilities: list[Tensor] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stops = []
        if self.movies and not self._walks_between_images(trainer, pl_module):
            require_latent_dim(pl_module)
        self._seen = 0
        self._written = trainer.strategy.broadcast(self._chosen_folder(trainer))
        if self.grid and isinstance(data_of(trainer), Pictures):
            raise RunError("Pictures of different sizes don't fit in a grid: leave --predictions.grid out.")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(outputs, ClassProbabilities):
            self._probabilities.append(outputs.probability)
        if not isinstance(outputs, Tensor) or outputs.ndim != 4:
            return
        if self.movies and self._walks_between_images(trainer, pl_module):
            self._stops.extend(batch.image[: MOST_STOPS - len(self._stops)].cpu())
        if isinstance(batch, Picture):
            data = data_of(trainer)
            assert isinstance(data, Pictures)  # no other gives pictures
            name = data.output_names[int(batch.row)]
            path = self._made_folder(trainer) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(outputs.float().cpu(), path)
            return
        numbers = batch.number.tolist() if isinstance(batch, SampleRequest) else self._rows(trainer, len(outputs))
        names = self._names(trainer, pl_module, batch, numbers)
        images = dict(zip(numbers, outputs.float().cpu(), strict=True))
        if self.grid:
            self._images.update(images)
            return
        folder = self._made_folder(trainer)
        for image, name in zip(images.values(), names, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(image, path)

    def _names(self, trainer: Trainer, pl_module: LightningModule, batch: Any, numbers: list[int]) -> list[str]:
        """The files' names: those of the source files if there are any, else numbers with the class asked for."""
        if not isinstance(batch, SampleRequest):
            files = png_names(list(facts_of(data_of(trainer)).file_names))
            return [files[number] if number < len(files) else f"{number:05d}.png" for number in numbers]
        classes = dict(enumerate(class_names_of(pl_module)))
        asked = [f"_class_{classes.get(label, label)}" if label >= 0 else "" for label in batch.label.tolist()]
        proper = [re.sub(r"[^\w.+=@-]+", "-", name)[:80] for name in asked]
        return [f"{number:05d}{name}.png" for number, name in zip(numbers, proper, strict=True)]

    def _rows(self, trainer: Trainer, count: int) -> list[int]:
        """The numbers of the next ``count`` rows of this rank, which takes turns with the others."""
        first, self._seen = self._seen, self._seen + count
        return [trainer.global_rank + trainer.world_size * row for row in range(first, self._seen)]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probabilities:
            probability = gather_rows(trainer, torch.cat(self._probabilities))
            self._probabilities = []
            if trainer.is_global_zero:
                self._write_classes(trainer, pl_module, probability)
        if self.grid:
            self._write_grid(trainer, pl_module)
        if self.movies:
            self._write_movies(trainer, pl_module)
        if trainer.is_global_zero and self._written.is_dir():
            count = len(list(self._written.rglob("*.*")))
            print(f"The predictions are in {self._written}: {count} file{'s' * (count != 1)}")

    def _write_movies(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = gather(trainer, self._stops)  # the ranks have taken the images in turns
        self._stops = []
        stops = [image for row in zip_longest(*shares) for image in row if image is not None][:MOST_STOPS]
        if trainer.is_global_zero:
            images = torch.stack(stops).to(pl_module.device) if stops else None
            frames = walk_frames(pl_module) if images is None else tour_frames(pl_module, images, self.walk)
            for name in self.movies:
                write_movie(frames, self._made_folder(trainer) / name, seconds=0.1)

    def _walks_between_images(self, trainer: Trainer, model: LightningModule) -> bool:
        """Whether the movie shows the way between the data's images."""
        return isinstance(model, Interpolating) and not isinstance(data_of(trainer), Samples)

    def _write_classes(self, trainer: Trainer, pl_module: LightningModule, probability: Tensor) -> None:
        """A row for each image: its file (its number if it has none), then the likeliest classes with their
        probabilities: ``class``, ``probability``, ``class_2``, ``probability_2`` …"""
        count, classes = probability.shape
        files = facts_of(data_of(trainer)).file_names or range(count)
        names = class_names_of(pl_module) or range(classes)
        highest, label = (part.tolist() for part in probability.topk(min(self.top_classes, classes)))
        ranks = ["", *(f"_{rank}" for rank in range(2, len(label[0]) + 1))]
        with (self._made_folder(trainer) / "classes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *(f"{column}{rank}" for rank in ranks for column in ("class", "probability"))])
            # With fewer batches than the data have, only the first files have a prediction.
            for file_name, likeliest, values in zip(files, label, highest, strict=False):
                pairs = zip(likeliest, values, strict=True)
                writer.writerow([file_name, *(cell for one, value in pairs for cell in (names[one], f"{value:.4f}"))])

    def _write_grid(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = gather(trainer, self._images)
        self._images = {}
        images = {index: image for share in shares for index, image in share.items()}
        if images and trainer.is_global_zero:
            grid = make_grid([images[index] for index in sorted(images)], nrow=self._columns(trainer, pl_module))
            save_image(grid, self._made_folder(trainer) / "grid.png")

    def _columns(self, trainer: Trainer, pl_module: LightningModule) -> int:
        if self.columns is not None:
            return self.columns
        data = data_of(trainer)
        classes = len(data.labels) if isinstance(data, Samples) else 0
        return columns_of_classes(classes or classes_of(pl_module))

    def _made_folder(self, trainer: Trainer) -> Path:
        folder = self._written
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"The folder {folder} can't be made ({error.strerror}): choose another --predictions.folder."
            ) from error
        return folder

    def _chosen_folder(self, trainer: Trainer) -> Path:
        if self.folder is not None:
            return expanded(self.folder)
        run = Path(trainer.default_root_dir)
        names = ("predictions", *(f"predictions_{number}" for number in range(2, 10_000)))
        return next(run / name for name in names if not (run / name).exists())
