"""The pictures of a page: figures, walks, and samples by epoch, as many as there is room for."""

import base64
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lit_models.cli.report.reading import Record
from lit_models.cli.report.words import quantity_title

MOST_PICTURE_BYTES = 9_000_000
"""Base64 of all pictures together; what doesn't fit is left out, and the page says so."""
LARGEST_SIDE = 1600
"""Pixels of a picture's longer side; larger pictures are scaled down."""
LARGEST_PICTURE_BYTES = 300_000
"""Larger files are encoded again, as WebP."""
VIDEO_WIDTH = 280
"""Pixels on the screen of a walk as a video, whose size isn't read."""
DRAWN_ELSEWHERE = ("losses", "accuracies")
"""Figures whose curves the page draws itself."""
WALK = "walk in the latent space"
FIRST_FIGURES = ("confusion_matrix", "class_accuracy", "label_accuracy", "embedding", "cells", "search")
"""Figures that hold no photographs, so that a dark page may turn their lightness around; they come first."""


@dataclass
class Picture:
    """A picture as it stands in the page."""

    source: str
    width: int
    height: int

    @property
    def is_video(self) -> bool:
        """Whether it needs a player."""
        return self.source.startswith("data:video/")

    @property
    def enlarged_width(self) -> int:
        """Pixels on the screen of a grid of small images: enlarged by a whole number."""
        return self.width * max(1, 560 // max(self.width, self.height, 1))

    @property
    def figure_width(self) -> int:
        """Pixels on the screen of a figure, which is drawn finely."""
        return min(self.width, round(480 + self.width / 3))


@dataclass
class EpochPictures:
    """Pictures of the same thing after several epochs, by run and epoch, and how many had to be left out."""

    title: str
    frames: dict[str, dict[int, Picture]]
    left_out: int = 0

    @property
    def epochs(self) -> list[int]:
        return sorted({epoch for frames in self.frames.values() for epoch in frames})


class PictureBudget:
    """Takes pictures into the page while there is room, and keeps notes of what it leaves out."""

    def __init__(self) -> None:
        self.room = MOST_PICTURE_BYTES
        self.notes: list[str] = []

    def place(self, path: Path) -> Picture | None:
        """The picture if it can be read and there is room for it."""
        picture = self.read(path)
        if picture is None:
            return None
        if len(picture.source) > self.room:
            self.notes.append(f"{path} is left out, to keep the page small.")
            return None
        self.room -= len(picture.source)
        return picture

    def read(self, path: Path) -> Picture | None:
        try:
            return embedded(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            self.notes.append(f"{path} is left out, as it can't be read as a picture ({type(error).__name__}).")
            return None


def embedded(path: Path) -> Picture:
    """A PNG, GIF or MP4 file as a data URI: as it is if it is small or moves, else scaled down and encoded again."""
    content, kind = path.read_bytes(), path.suffix.lower().removeprefix(".")
    if kind == "mp4":
        if content[4:8] != b"ftyp":
            raise ValueError("no MP4 file")
        return Picture(f"data:video/mp4;base64,{base64.b64encode(content).decode()}", VIDEO_WIDTH, VIDEO_WIDTH)
    with Image.open(io.BytesIO(content), formats=[kind.upper()]) as image:
        image.load()
        size = image.size
        if kind == "png" and (max(size) > LARGEST_SIDE or len(content) > LARGEST_PICTURE_BYTES):
            smaller = image.convert("RGBA" if image.mode in ("RGBA", "LA", "P") else "RGB")
            smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            smaller.save(buffer, "WEBP", quality=88)
            if buffer.tell() < len(content):
                content, kind, size = buffer.getvalue(), "webp", smaller.size
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *size)


def read_figures(records: Sequence[Record], budget: PictureBudget) -> dict[str, dict[str, Picture]]:
    """The pictures in ``figures/``, by name and run; the best known names first."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for record in records:
        for path in sorted((record.run.folder / "figures").glob("*.png")):
            if path.stem not in DRAWN_ELSEWHERE and path.stem not in record.confusions:
                found[path.stem][record.run.name] = path
        walks = [path for kind in ("gif", "mp4") for path in record.run.folder.glob(f"predictions*/walk.{kind}")]
        if walks:  # of several, the newest: predictions_10 is newer than predictions_2
            found[WALK][record.run.name] = max(walks, key=lambda path: (len(path.parent.name), path.parent.name))
    figures: dict[str, dict[str, Picture]] = {}
    for name in sorted(found, key=_figure_rank):
        placed = {run: picture for run, path in found[name].items() if (picture := budget.place(path)) is not None}
        if placed:
            figures[name] = placed
    return figures


def _figure_rank(name: str) -> tuple[int, str]:
    ranks = [rank for rank, known in enumerate(FIRST_FIGURES) if name.startswith(known)]
    return (min(ranks, default=len(FIRST_FIGURES)), name)


def read_epoch_pictures(records: Sequence[Record], budget: PictureBudget) -> list[EpochPictures]:
    """The series ``samples/**/<name>_<epoch>.png``, of all runs together by folder and name.

    Each takes its share of the room that is left; of a series that is too large, epochs at equal distances stay, with
    the first and the last.
    """
    series: dict[str, dict[str, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        samples = record.run.folder / "samples"
        for path in sorted(samples.rglob("*.png")):
            if match := re.fullmatch(r"(.+?)_(\d{1,9})", path.stem):
                folder = path.relative_to(samples).parent.as_posix()
                title = match[1] if folder == "." else folder if match[1] == "epoch" else f"{folder}/{match[1]}"
                series[title][record.run.name][int(match[2])] = path
    albums = []
    titles = sorted(series, key=lambda title: (title != "epoch", title))
    for number, title in enumerate(titles):
        album = _epoch_pictures(title, series[title], budget.room // (len(titles) - number), budget)
        if album.left_out:
            budget.notes.append(
                f"{album.left_out} pictures of {quantity_title(title)} are left out, to keep the page small."
            )
        if album.frames:
            albums.append(album)
    return albums


def _epoch_pictures(title: str, paths: dict[str, dict[int, Path]], room: int, budget: PictureBudget) -> EpochPictures:
    frames: dict[str, dict[int, Picture]] = {}
    left_out = 0
    for number, (run, files) in enumerate(paths.items()):
        share = room // (len(paths) - number)
        # Pictures of one series are alike: the size of the last one gives the number that fits.
        epochs = sorted(files)
        last = budget.read(files[epochs[-1]])
        count = 1 if last is None else min(len(epochs), max(1, share // len(last.source)))
        kept: dict[int, Picture] = {}
        for epoch in spread(epochs, count):
            picture = budget.read(files[epoch])
            if picture is not None and len(picture.source) <= share:
                kept[epoch] = picture
                share -= len(picture.source)
                room -= len(picture.source)
                budget.room -= len(picture.source)
        left_out += len(epochs) - len(kept)
        if kept:
            frames[run] = kept
    return EpochPictures(title, frames, left_out)


def spread(values: Sequence[int], count: int) -> list[int]:
    """``count`` of the values at about equal distances, with the first and the last (of one, the last).

    Example:
        >>> spread([1, 2, 3, 4, 5, 6, 7], 3)
        [1, 4, 7]
    """
    if count >= len(values):
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
