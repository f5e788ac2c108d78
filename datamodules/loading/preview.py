"""A picture of a batch, to see with one's own eyes what a model gets."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from datamodules.errors import DataError
from datamodules.loading.folders import figure_text
from datamodules.loading.tensors import Episodes, ImagePair, LabeledImages, SearchBatch

if TYPE_CHECKING:
    from datamodules.base import ImageDataModule

COLUMNS = 8
MOST = 32
"""Images in a picture."""


def draw_training_batch(datamodule: "ImageDataModule", path: Path) -> None:
    """Draws the first images of a training batch, augmented as in training, each with the name of its class.

    Args:
        datamodule: A data module whose data are prepared.
        path: The PNG file to write.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"--picture is {path}, but the picture is a PNG file: end its name in .png.")
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))
    batch = datamodule.transform(batch, training=True)
    draw(titled_images(batch, datamodule.class_names), path)


def titled_images(batch: object, class_names: tuple[str, ...]) -> list[tuple[str, Tensor]]:
    """Titles and images ``(C, H, W)`` of a batch: of pairs the source and the target in turns, of episodes the support
    and the queries of the first classes, of an architecture search rows of both halves in turns."""
    if isinstance(batch, LabeledImages):
        names = [class_names[label] if 0 <= label < len(class_names) else str(label) for label in batch.label.tolist()]
        return list(zip(names, batch.image, strict=True))
    if isinstance(batch, SearchBatch):
        halves = [titled_images(half, class_names) for half in batch]
        rows = range(0, len(halves[0]), COLUMNS)
        return [image for row in rows for half in halves for image in half[row : row + COLUMNS]]
    if isinstance(batch, ImagePair):
        pairs = zip(batch.source, batch.target, strict=True)
        return [(title, image) for pair in pairs for title, image in zip(("source", "target"), pair, strict=True)]
    if isinstance(batch, Episodes):
        support, query = batch.support[0], batch.query[0]
        return [
            (f"{kind} of class {place}", image)
            for place in range(len(support))
            for kind, images in (("support", support[place]), ("query", query[place]))
            for image in images
        ]
    raise TypeError(f"{type(batch).__name__} is no batch of images")


def draw(images: list[tuple[str, Tensor]], path: Path) -> None:
    """Writes titled images in [0, 1] as a PNG file, in rows of eight."""
    from matplotlib.figure import Figure

    images = images[:MOST]
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in plots:
        axes.axis("off")
    for axes, (title, image) in zip(plots, images, strict=False):
        axes.imshow(image.permute(1, 2, 0).squeeze(-1).cpu(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(figure_text(title if len(title) <= 22 else f"{title[:20]}…"), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
