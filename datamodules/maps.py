"""Maps (Isola, Zhu, Zhou & Efros 2017): satellite photographs of New York, each with its map from Google Maps."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import ImageDataModule, run_seed, split_rows, to_unit_interval
from datamodules.errors import DataError, note
from datamodules.image_folder import decode, list_images
from datamodules.loading import augment
from datamodules.loading.archives import RemoteFile, extract, fetch
from datamodules.loading.samplers import BatchSampler, ShuffledBatches
from datamodules.loading.tensors import ArrayWriter, GatherDataset, ImagePair, TensorStore

# No checksum is published.
ARCHIVE = RemoteFile(
    "maps.tar.gz",
    (
        "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/",
        "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets/",
    ),
)
PHOTOGRAPH_SIZE = 600
"""Height and width of a photograph, and of a map, as published."""
COUNTS = {"train": 1_096, "val": 1_098}


class Maps(ImageDataModule):
    """Pairs of a satellite photograph and its map: 1,096 for training, 549 for validation and 549 for testing.

    The last two are the published ``val``, halved at random but always alike. The files ``train/1.jpg``, … and
    ``val/1.jpg``, … (photograph on the left, map on the right; as published, of 600x600 pixels each) are looked for in
    ``<root>/maps/``, then ``maps.tar.gz`` in ``<root>/maps/`` or ``<root>``, which is downloaded if it isn't there.

    Training images are enlarged by 286/256 and a window of ``image_size`` is cut out at random and mirrored at random
    (the paper's "random jitter", section 6.2); evaluation images are resized to ``image_size``.

    Args:
        direction: What is the source and what is the target.
        pairing: How training images are paired, "paired" as they belong together (the same window of both, mirrored
            alike); "loose" likewise, but the target's window is off by up to ``max_shift`` pixels; "unpaired" at
            random, each half in an order, with windows and mirroring of its own. Evaluation images are always paired.
        max_shift: Largest shift of a "loose" target, in each direction, in pixels.
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Pairs in a training batch of one process.
        eval_batch_size: Pairs in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets.
        split_seed: Seed of the split between validation and test.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    name = "maps"

    def __init__(
        self,
        direction: Literal["satellite_to_map", "map_to_satellite"] = "satellite_to_map",
        pairing: Literal["paired", "loose", "unpaired"] = "paired",
        max_shift: int = 8,
        root: str | None = None,
        batch_size: int = 1,
        eval_batch_size: int | None = None,
        image_size: int = 256,
        split_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device)
        if direction not in ("satellite_to_map", "map_to_satellite"):
            raise DataError(f"direction is {direction!r}; it must be satellite_to_map or map_to_satellite.")
        if pairing not in ("paired", "loose", "unpaired"):
            raise DataError(f"pairing is {pairing!r}; it must be paired, loose or unpaired.")
        if image_size < 1:
            raise DataError(f"image_size is {image_size}; it must be at least 1.")
        self.image_shape = (3, image_size, image_size)
        self.source_scale = image_size / PHOTOGRAPH_SIZE
        self.load_size = round(image_size * 286 / 256)
        margin = self.load_size - image_size
        if pairing == "loose" and not 0 <= max_shift <= margin:
            raise DataError(
                f"max_shift is {max_shift}; at image_size {image_size} it must be from 0 to {margin}, the margin that "
                "the random windows have."
            )
        self.direction, self.pairing, self.max_shift = direction, pairing, max_shift
        self.split_seed = split_seed

    @property
    def store(self) -> TensorStore:
        size = self.image_shape[-1]
        source = self._source()
        sources = [source / split for split in COUNTS] if source.is_dir() else [source]
        return TensorStore(self.prepared_folder / f"{size}x{size}", {"load_size": self.load_size}, sources)

    def _source(self) -> Path:
        """The folder that holds ``train`` and ``val``, or else the archive, which need not be there yet."""
        folders = [self.folder, self.folder / "maps"]
        archives = [self.folder / ARCHIVE.name, self.root / ARCHIVE.name]
        present = [folder for folder in folders if (folder / "train").is_dir() or (folder / "val").is_dir()]
        return next(iter(present + [path for path in archives if path.is_file()]), archives[0])

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        source = self._source()
        if source.is_dir():
            self._write_arrays(source, source, writer)
        else:
            source = fetch(ARCHIVE, source.parent)
            with tempfile.TemporaryDirectory(dir=writer.folder) as temporary:
                folder = extract(source, Path(temporary) / "extracted")
                self._write_arrays(folder / "maps" if (folder / "maps").is_dir() else folder, source, writer)

    def _write_arrays(self, folder: Path, source: Path, writer: ArrayWriter) -> None:
        self._write_split(folder, "train", self.load_size, source, writer)
        self._write_split(folder, "val", self.image_shape[-1], source, writer)

    def _write_split(self, folder: Path, split: str, size: int, source: Path, writer: ArrayWriter) -> None:
        files = sorted(list_images(folder / split)[1], key=lambda name: (len(name), name))  # 2.jpg before 10.jpg
        if not files:
            raise DataError(
                f"{source} holds no images in {split}/: put train/ and val/ of maps.tar.gz there, or delete it, and "
                "they are downloaded."
            )
        if len(files) != COUNTS[split]:
            note(f"{source} holds {len(files):,} pairs in {split}/; the data set has {COUNTS[split]:,}.")
        satellite = writer.create(f"{split}_satellite", (len(files), 3, size, size))
        street_map = writer.create(f"{split}_map", (len(files), 3, size, size))

        def keep(row: int, image: Image.Image) -> None:
            if image.width != 2 * image.height:
                raise DataError(
                    f"{files[row]} in {source}, {split}/, is of {image.width}x{image.height} pixels, but a pair lies "
                    "side by side in an image twice as wide as high: delete it, or replace it by the published file."
                )
            satellite[row], street_map[row] = halves(image, size)

        writer.write(f"{split}_readable", decode(folder / split, files, keep, source / split))

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        names = ("satellite", "map") if self.direction == "satellite_to_map" else ("map", "satellite")
        train, evaluation = (ImagePair(*(arrays[f"{split}_{name}"] for name in names)) for split in COUNTS)
        readable = arrays["val_readable"]
        half = len(readable) // 2
        val, test = split_rows(len(readable), half, len(readable) - half, seed=self.split_seed)
        dataset = UnpairedDataset if self.pairing == "unpaired" else GatherDataset
        self.train_set = dataset(train, arrays["train_readable"])
        self.val_set = GatherDataset(evaluation, readable[val])
        self.test_set = self.predict_set = GatherDataset(evaluation, readable[test])

    def train_batches(self) -> BatchSampler:
        """The sampler of paired rows, or two of them that know nothing of each other."""
        if self.pairing != "unpaired":
            return super().train_batches()
        place = self._rank_and_world_size()
        seeds = (2 * run_seed(), 2 * run_seed() + 1)
        return UnpairedBatches(*(ShuffledBatches(len(self.train_set), self.batch_size, seed, *place) for seed in seeds))

    def transform(self, batch: ImagePair, training: bool) -> ImagePair:
        """Augments the bytes, before they become floats of four times their size."""
        if training:
            batch = self.augment(batch)
        return to_unit_interval(batch)

    def augment(self, batch: ImagePair) -> ImagePair:
        """Cuts windows out of the enlarged images (bytes or floats) and mirrors them, at random for each pair."""
        size = self.image_shape[-1]
        if self.pairing == "unpaired":
            return ImagePair(*(augment.random_horizontal_flip(augment.random_crop(image, size)) for image in batch))
        if self.pairing == "loose":
            batch = shift_target(batch, self.max_shift)
        return ImagePair(*augment.paired_crop_flip(batch.source, batch.target, size))


class UnpairedBatches:
    """Draws the sources' rows by one sampler and the targets' by another.

    A batch's indices are ``(B, 2)``: the row of each source, and the row of each target.
    """

    def __init__(self, source: BatchSampler, target: BatchSampler) -> None:
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """The batches of one epoch."""
        for rows in zip(self.source.epoch(epoch), self.target.epoch(epoch), strict=True):
            yield torch.stack(rows, dim=1)


class UnpairedDataset(GatherDataset[ImagePair]):
    """Pairs whose halves are of different rows: takes indices ``(B, 2)`` as :class:`UnpairedBatches` draws them."""

    def __getitems__(self, indices: Sequence[int] | Tensor) -> ImagePair:
        rows = torch.as_tensor(indices)
        if rows.ndim == 1:  # pairs that belong together
            rows = rows[:, None].expand(-1, 2)
        if self.rows is not None:
            rows = self.rows[rows]
        sources, targets = rows.to(self.columns.source.device, non_blocking=True).unbind(1)
        return ImagePair(self.columns.source.index_select(0, sources), self.columns.target.index_select(0, targets))


def halves(image: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half of a side-by-side image, each resized to ``(3, size, size)``, uint8."""
    image = image.convert("RGB")
    middle = image.width // 2
    left, right = (
        image.crop((start, 0, start + middle, image.height)).resize((size, size), Image.Resampling.BICUBIC)
        for start in (0, middle)
    )
    return np.asarray(left).transpose(2, 0, 1), np.asarray(right).transpose(2, 0, 1)


def shift_target(pair: ImagePair, max_shift: int) -> ImagePair:
    """Shifts each target against its source by whole numbers of pixels, uniform from ``-max_shift`` to ``max_shift`` in
    each direction; both lose ``max_shift`` rows and columns at the borders."""
    height, width = pair.source.shape[-2:]
    size = (height - max_shift, width - max_shift)
    down, right = torch.randint(-max_shift, max_shift + 1, (2, len(pair.source)), device=pair.source.device)
    source = augment.crop(pair.source, (-down).clamp(min=0), (-right).clamp(min=0), size)
    target = augment.crop(pair.target, down.clamp(min=0), right.clamp(min=0), size)
    return ImagePair(source, target)
