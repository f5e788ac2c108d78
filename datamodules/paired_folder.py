"""Pairs of pictures from a folder or archive, for methods that translate one kind of picture into another."""

import hashlib
import json
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import (
    DRAWN,
    ImageDataModule,
    TakesPairs,
    note_unused_fractions,
    run_seed,
    split_rows,
    to_unit_interval,
)
from datamodules.errors import DataError, note
from datamodules.loading import augment
from datamodules.loading.archives import extract
from datamodules.loading.decoding import Reading, as_array, as_looked_at, decode
from datamodules.loading.folders import TEST, TRAIN, VAL, printable
from datamodules.loading.pair_files import PairFiles, list_pairs
from datamodules.loading.pairs import UnpairedBatches, UnpairedDataset, shift_target, tile_starts
from datamodules.loading.paths import expanded
from datamodules.loading.samplers import BatchSampler, ShuffledBatches
from datamodules.loading.tensors import ArrayWriter, GatherDataset, ImagePair, TensorStore

Evaluation = Literal["resized", "middle", "tiles"]
NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}
RULES = 3
"""Raised when files are read in another way, so that arrays of an older relit are written again."""


class _Arguments(NamedTuple):
    """Arguments of which some may be left to the model."""

    image_size: int | None
    load_size: int | None
    evaluation: Evaluation | None
    source_channels: int | None
    target_channels: int | None


class PairedFolder(ImageDataModule):
    """Pairs of pictures: the source, and what it is to become.

    Three layouts are read, each with or without folders ``train``, ``val`` and ``test`` above or below:

    - pictures that hold both halves side by side, A on the left and B on the right;
    - two folders ``A`` and ``B`` (or ``source`` and ``target``) whose pictures have equal names;
    - ``trainA`` and ``trainB`` (and ``valA``, ``testA``, …): two sets of pictures that don't belong together. Their
      batches are always drawn apart.

    Of each half the central square is resized to ``load_size``; training cuts a random window of ``image_size`` out of
    it and mirrors it at random (Isola et al. 2017, section 6.2). A split that isn't there is drawn at random, but
    always alike, from the training pairs.

    A half of one channel is given as gray to a model that takes one channel there (``--model.source_channels 1``), and
    as gray in equal channels to a model that takes as many as of the other half.

    ``file_names`` is known after ``setup``: the source's file of each image of ``predict_set``, the test pairs; a tile
    also has its number (``a/3.png``, ``a/3_tile_2.png``).

    Args:
        path: The folder or archive.
        root: Folder of all data sets, where prepared arrays are kept; if None, ``$RELIT_DATA``, else the user's cache.
        batch_size: Pairs in a training batch of one process.
        eval_batch_size: Pairs in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets; if None, the model's, or else 256.
        load_size: Side to which pictures are resized before windows are cut out of them; if None, 286/256 of
            ``image_size``, the paper's. A large one shows the model details of large pictures: 286 with windows of 128.
        evaluation: What of a picture is evaluated: "resized", the whole picture, resized to ``image_size``; "middle",
            a window in the middle at the scale of training; "tiles", as many such windows as cover the picture. If
            None, "resized" for a ``load_size`` up to 1.25 times ``image_size``, else "tiles".
        direction: "a_to_b" makes A the source, "b_to_a" makes it the target.
        source_channels: 3 for color, 1 for gray; if None, the model's, or else 3.
        target_channels: 3 for color, 1 for gray; if None, the model's, or else 3.
        pairing: How training pairs are drawn: "paired", as they belong together (the same window of both, mirrored
            alike); "loose", the target's window is off by up to ``max_shift`` pixels; "unpaired", each half in an order
            and with separate windows. If None, "paired", and "unpaired" for ``trainA`` and ``trainB``.
        max_shift: Largest shift of a "loose" target, in each direction, in pixels.
        flip: Mirror training pictures at random. Not for text, or where left and right differ.
        val_fraction: Share of the training pairs that is drawn for validation if there are none.
        test_fraction: Share of the training pairs that is drawn for testing if there are none.
        split_seed: Seed of these draws.
        background: What shows through transparent pixels: "white" or "black".
        value_range: Values of black and white in files of more than 8 bits, as in ``ImageFolder``.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.

    Attributes:
        source_scale: Factor by which the sources were resized in evaluation; None if their sizes differ.
        source_side: Side to which the sources were resized in evaluation.
    """

    name = "paired_folder"

    def __init__(
        self,
        path: str,
        root: str | None = None,
        batch_size: int = 1,
        eval_batch_size: int | None = None,
        image_size: int | None = None,
        load_size: int | None = None,
        evaluation: Evaluation | None = None,
        direction: Literal["a_to_b", "b_to_a"] = "a_to_b",
        source_channels: Literal[1, 3] | None = None,
        target_channels: Literal[1, 3] | None = None,
        pairing: Literal["paired", "loose", "unpaired"] | None = None,
        max_shift: int = 8,
        flip: bool = True,
        val_fraction: float = DRAWN,
        test_fraction: float = DRAWN,
        split_seed: int = 0,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device)
        if direction not in ("a_to_b", "b_to_a"):
            raise DataError(f"--data.direction is {direction!r}; it must be a_to_b or b_to_a.")
        if pairing not in (None, "paired", "loose", "unpaired"):
            raise DataError(f"--data.pairing is {pairing!r}; it must be paired, loose or unpaired.")
        if evaluation not in (None, "resized", "middle", "tiles"):
            raise DataError(f"--data.evaluation is {evaluation!r}; it must be resized, middle or tiles.")
        if image_size is not None and image_size < 1:
            raise DataError(f"--data.image_size is {image_size}; it must be at least 1.")
        for half, channels in (("source", source_channels), ("target", target_channels)):
            if channels not in (None, 1, 3):
                raise DataError(f"--data.{half}_channels is {channels}; it must be 1 (gray) or 3 (color).")
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction and test_fraction must not be negative and leave something for training; they are "
                f"{val_fraction} and {test_fraction}."
            )
        self.path = path
        self._arguments = _Arguments(image_size, load_size, evaluation, source_channels, target_channels)
        self.direction, self.pairing, self.max_shift, self.flip = direction, pairing, max_shift, flip
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.reading = Reading.of(3, background, value_range)
        self.source_scale: float | None = None
        self.file_names: tuple[str, ...] = ()
        self._take_sizes(is_final=image_size is not None)

    def _take_sizes(self, is_final: bool = True) -> None:
        """Sets sizes and channels: those that are given, else those of the model, if there is one by now. If they may
        still change, as the model isn't known yet, they aren't checked."""
        given = self._arguments
        size = self.channels_and_size(None, given.image_size)[1] or 256
        model = self.model_in_training
        of_model = model.pair_channels if isinstance(model, TakesPairs) else (3, 3)
        self.source_channels = given.source_channels or of_model[0]
        self.target_channels = given.target_channels or of_model[1]
        self.image_shape = (max(self.source_channels, self.target_channels), size, size)
        self.load_size = round(size * 286 / 256) if given.load_size is None else given.load_size
        if is_final and self.load_size < size:
            raise DataError(
                f"--data.load_size is {self.load_size}; windows of {size} pixels need at least as much, or a smaller "
                "--data.image_size."
            )
        margin = self.load_size - size
        if is_final and self.pairing == "loose" and not 0 <= self.max_shift <= margin:
            raise DataError(
                f"max_shift is {self.max_shift}; at image_size {size} it must be from 0 to {margin}, the margin that "
                "the random windows have."
            )
        self.evaluation: Evaluation = given.evaluation or ("resized" if 4 * self.load_size <= 5 * size else "tiles")
        self.source_side = size if self.evaluation == "resized" else self.load_size
        channels = self.source_channels, self.target_channels
        self.channels_of = dict(zip("ab" if self.direction == "a_to_b" else "ba", channels, strict=True))

    # --- files --------------------------------------------------------------------------------------------------------

    def source(self) -> Path:
        """The folder or archive of the pairs."""
        return expanded(self.path)

    def splits(self, folder: Path) -> tuple[dict[int, PairFiles], bool]:
        """The files of each split below ``folder``, which is the source or what was extracted from it, and whether the
        halves belong together."""
        splits, belong_together = list_pairs(folder, self.source())
        fractions = {VAL: self.val_fraction, TEST: self.test_fraction}
        note_unused_fractions(
            self.source(), {f"{NAMES[split]}_fraction": share for split, share in fractions.items() if split in splits}
        )
        missing = {split: fraction for split, fraction in fractions.items() if split not in splits and fraction}
        if TRAIN not in splits or not missing:
            return splits, belong_together
        a, b = splits[TRAIN]
        apart = b is not None and not belong_together
        counts = (len(a), len(b)) if b is not None and apart else (len(a), len(a))
        sizes = [[round(fraction * count) for fraction in missing.values()] for count in counts]
        # A split of one half only is none.
        whole = [min(both) > 0 for both in zip(*sizes, strict=True)]
        sizes = [[size * is_whole for size, is_whole in zip(own, whole, strict=True)] for own in sizes]
        parts_of_a, parts_of_b = (self._parts(count, own) for count, own in zip(counts, sizes, strict=True))
        for split, rows_of_a, rows_of_b in zip((TRAIN, *missing), parts_of_a, parts_of_b, strict=True):
            targets = None if b is None else [b[row] for row in rows_of_b]
            splits[split] = PairFiles([a[row] for row in rows_of_a], targets)
        return splits, belong_together

    def _parts(self, count: int, sizes: list[int]) -> list[list[int]]:
        """Rows for training, and so many that are drawn for each other split, in order."""
        parts = split_rows(count, count - sum(sizes), *sizes, seed=self.split_seed)
        return [rows.sort().values.tolist() for rows in parts]

    # --- arrays -------------------------------------------------------------------------------------------------------

    @property
    def store(self) -> TensorStore:
        source = self.source()
        identity = {**self._identity(), "path": str(source)}
        identity |= {"val": self.val_fraction, "test": self.test_fraction, "seed": self.split_seed}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        sources = [] if source in self.prepared_folder.parents else [source]
        return self.tensor_store(f"{source.stem}-{self.load_size}-{digest}", {**identity, "rules": RULES}, sources)

    def _identity(self) -> dict[str, object]:
        return {
            "load_size": self.load_size,
            "image_size": self.image_shape[-1],
            "evaluation": self.evaluation,
            "channels": [self.channels_of["a"], self.channels_of["b"]],
            "background": self.reading.background,
            "value_range": self.reading.value_range,
        }

    def prepare_data(self) -> None:
        self._take_sizes()
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        source = self.source()
        if not source.exists():
            raise DataError(f"There is no folder or archive {source}: set --data.path to one that holds pairs.")
        if source.is_dir():
            self._write_arrays(source, writer)
            return
        with tempfile.TemporaryDirectory(dir=writer.folder) as temporary:
            self._write_arrays(extract(source, Path(temporary) / source.stem), writer)

    def _write_arrays(self, folder: Path, writer: ArrayWriter) -> None:
        splits, belong_together = self.splits(folder)
        writer.write("belong_together", np.array([belong_together]))
        if not splits.get(TRAIN, PairFiles([], None)).a:
            note(f"{self.source()} has no training pairs.")
        for split, files in splits.items():
            if files.a:
                self._write_split(folder, NAMES[split], files, belong_together, writer)

    def _write_split(
        self, folder: Path, split: str, files: PairFiles, belong_together: bool, writer: ArrayWriter
    ) -> None:
        """Writes the images of both halves, the rows of those that can be read, and the sides of the files."""
        size = self.load_size if split == "train" else self.image_shape[-1]
        tiles = 1 if split == "train" else self.tiles_of_an_image
        names = {"a": files.a, "b": files.a if files.b is None else files.b}
        images, sides = {}, {}
        shapes: dict[str, dict[int, tuple[int, int]]] = {"a": {}, "b": {}}
        for half in "ab":
            count = len(names[half])
            images[half] = writer.create(f"{split}_{half}", (count * tiles, self.channels_of[half], size, size))
            sides[half] = writer.create(f"{split}_{half}_side", (count,), "int64")

        def keep(half: str, row: int, image: Image.Image) -> None:
            image = as_looked_at(image, self.reading._replace(channels=self.channels_of[half]))
            shapes[half][row] = image.size
            sides[half][row] = min(image.size)
            images[half][row * tiles : (row + 1) * tiles] = self._stored(image, split)

        def keep_both(row: int, image: Image.Image) -> None:
            for half, picture in zip("ab", self.halves(image), strict=True):
                keep(half, row, picture)

        if files.b is None:
            readable = dict.fromkeys("ab", decode(folder, files.a, keep_both, self.source()))
        else:
            readable = {half: decode(folder, names[half], partial(keep, half), self.source()) for half in "ab"}
            if belong_together:
                readable = dict.fromkeys("ab", np.intersect1d(readable["a"], readable["b"]))
        if belong_together:
            self._note_shapes([(shapes["a"][row], shapes["b"][row]) for row in readable["a"]], files.b is None, split)
        for half, rows in readable.items():
            writer.write(f"{split}_{half}_readable", (rows[:, None] * tiles + np.arange(tiles)).flatten())
            text = json.dumps(names[half]).encode()
            writer.write(f"{split}_{half}_names", np.frombuffer(text, np.uint8))

    def _note_shapes(
        self, pairs: list[tuple[tuple[int, int], tuple[int, int]]], side_by_side: bool, split: str
    ) -> None:
        """Says if pictures don't look as if they held a pair, or if the halves of a pair aren't of one shape."""
        if side_by_side:
            odd = Counter(a for a, _ in pairs if abs(a[0] - a[1]) > 1)
            what = "whose halves aren't squares"
        else:
            odd = Counter(a for a, b in pairs if abs(a[0] * b[1] - a[1] * b[0]) > 0.02 * a[0] * b[1])
            what = "whose halves are of different shapes"
        if odd:
            (width, height), _ = odd.most_common(1)[0]
            note(
                f"{self.source()} has {odd.total():,} {split} pairs (of {len(pairs):,}) {what}: the first half is most "
                f"often of {width}x{height} pixels. Of each half the central square is taken."
            )

    def halves(self, image: Image.Image) -> tuple[Image.Image, Image.Image]:
        """The left and the right half of a picture that holds a pair."""
        if image.width <= image.height:
            raise DataError(
                f"it has {image.width}x{image.height} pixels, but a pair lies side by side in a picture that is wider "
                "than high: take it out, or put the halves into folders A and B."
            )
        image = as_looked_at(image, self.reading)
        middle = image.width // 2
        return (
            image.crop((0, 0, middle, image.height)),
            image.crop((image.width - middle, 0, image.width, image.height)),
        )

    def _stored(self, image: Image.Image, split: str) -> np.ndarray:
        """What is kept of a picture: uint8, ``(tiles, channels, size, size)``."""
        size = self.image_shape[-1]
        resized_to = size if split != "train" and self.evaluation == "resized" else self.load_size
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        array = as_array(image.crop(box).resize((resized_to, resized_to), Image.Resampling.BICUBIC))
        if split == "train" or self.evaluation == "resized":
            return array[None]
        if self.evaluation == "middle":
            start = (self.load_size - size) // 2
            return array[None, :, start : start + size, start : start + size]
        starts = tile_starts(self.load_size, size)
        return np.stack([array[:, top : top + size, left : left + size] for top in starts for left in starts])

    @property
    def tiles_of_an_image(self) -> int:
        return len(tile_starts(self.load_size, self.image_shape[-1])) ** 2 if self.evaluation == "tiles" else 1

    # --- batches ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        self._take_sizes()
        arrays = self.store.load()
        self.belong_together = bool(arrays["belong_together"][0])
        if not self.belong_together and self.pairing not in (None, "unpaired"):
            raise DataError(
                f"The halves of {self.source()} (trainA, trainB) don't belong together: set --data.pairing unpaired."
            )
        self.train_set = self._split(arrays, "train", apart=self.pairing == "unpaired" or not self.belong_together)
        self.val_set, self.test_set = (
            self._split(arrays, split, apart=not self.belong_together) for split in ("val", "test")
        )
        self.predict_set = self.test_set
        self._find_scale(arrays)
        self._name_files(arrays, "test")

    def _split(self, arrays: dict[str, Tensor], split: str, apart: bool) -> GatherDataset[ImagePair]:
        halves = "ab" if self.direction == "a_to_b" else "ba"
        if f"{split}_a" not in arrays:
            size = self.image_shape[-1]
            empty = ImagePair(
                *(torch.empty(0, self.channels_of[half], size, size, dtype=torch.uint8) for half in halves)
            )
            return GatherDataset(empty)
        columns = ImagePair(*(arrays[f"{split}_{half}"] for half in halves))
        source_rows, target_rows = (arrays[f"{split}_{half}_readable"] for half in halves)
        return UnpairedDataset(columns, source_rows, target_rows) if apart else GatherDataset(columns, source_rows)

    def _name_files(self, arrays: dict[str, Tensor], split: str) -> None:
        """Names the images of ``predict_set``, which are of this split's files."""
        half = "a" if self.direction == "a_to_b" else "b"
        if f"{split}_{half}_names" not in arrays:
            return
        names = json.loads(arrays[f"{split}_{half}_names"].numpy().tobytes())
        rows, tiles = self.predict_set.rows, self.tiles_of_an_image
        assert rows is not None
        paths = [(PurePosixPath(printable(names[row // tiles])), row % tiles) for row in rows.tolist()]
        self.file_names = tuple(
            str(path if tile == 0 else path.with_name(f"{path.stem}_tile_{tile + 1}{path.suffix}"))
            for path, tile in paths
        )

    def _find_scale(self, arrays: dict[str, Tensor]) -> None:
        """The scale at which sources are evaluated, if they are of one size."""
        half = "a" if self.direction == "a_to_b" else "b"
        split = next((name for name in NAMES.values() if f"{name}_{half}_side" in arrays), None)
        if split is None:
            raise DataError(f"{self.source()} holds no pairs that can be read.")
        sides = arrays[f"{split}_{half}_side"]
        known = sides[sides > 0].unique()
        self.source_scale = self.source_side / int(known[0]) if len(known) == 1 else None

    def train_batches(self) -> BatchSampler:
        """The sampler of paired rows, or two that don't depend on each other."""
        if not isinstance(self.train_set, UnpairedDataset):
            return super().train_batches()
        place = self._rank_and_world_size()
        sizes = len(self.train_set.source_rows), len(self.train_set.target_rows)
        seeds = (2 * run_seed(), 2 * run_seed() + 1)
        return UnpairedBatches(
            *(ShuffledBatches(size, self.batch_size, seed, *place) for size, seed in zip(sizes, seeds, strict=True))
        )

    def transform(self, batch: ImagePair, training: bool) -> ImagePair:
        """Augments the bytes, before they become floats of four times their size."""
        if training:
            batch = self.augment(batch)
        batch = to_unit_interval(batch)
        model = self.model_in_training
        takes = model.pair_channels if isinstance(model, TakesPairs) else (self.image_shape[0],) * 2
        return ImagePair(*(image.expand(-1, count, -1, -1) for image, count in zip(batch, takes, strict=True)))

    def augment(self, batch: ImagePair) -> ImagePair:
        """Cuts windows out of the larger images (bytes or floats) and mirrors them, at random for each pair."""
        size = self.image_shape[-1]
        if isinstance(self.train_set, UnpairedDataset):
            windows = (augment.random_crop(image, size) for image in batch)
            return ImagePair(*(augment.random_horizontal_flip(image) if self.flip else image for image in windows))
        if self.pairing == "loose":
            batch = shift_target(batch, self.max_shift)
        return ImagePair(*augment.paired_crop_flip(batch.source, batch.target, size, self.flip))
