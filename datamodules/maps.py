"""Maps (Isola, Zhu, Zhou & Efros 2017): satellite photographs of New York, each with its map from Google Maps."""

import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image

from datamodules.base import split_rows
from datamodules.errors import DataError, note
from datamodules.loading.archives import RemoteFile, extract, fetch
from datamodules.loading.folders import TRAIN, VAL, list_images
from datamodules.loading.pair_files import PairFiles
from datamodules.loading.tensors import ArrayWriter, GatherDataset, TensorStore
from datamodules.paired_folder import RULES, Evaluation, PairedFolder

# No checksum is published.
ARCHIVE = RemoteFile(
    "maps.tar.gz",
    (
        "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/",
        "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets/",
    ),
)
COUNTS = {"train": 1_096, "val": 1_098}
DIRECTIONS: dict[str, Literal["a_to_b", "b_to_a"]] = {"satellite_to_map": "a_to_b", "map_to_satellite": "b_to_a"}


class Maps(PairedFolder):
    """Pairs of a satellite photograph and its map: 1,096 for training, 549 for validation and 549 for testing.

    The last two are the published ``val``, halved at random but always alike. The files ``train/1.jpg``, … and
    ``val/1.jpg``, … (photograph on the left, map on the right; as published, of 600x600 pixels each) are looked for in
    ``<root>/maps/``, then ``maps.tar.gz`` in ``<root>/maps/`` or ``<root>``, which is downloaded if it isn't there.

    Training images are resized to ``load_size`` and a window of ``image_size`` is cut out at random and mirrored at
    random (the paper's "random jitter", section 6.2).

    Args:
        direction: What is the source and what is the target.
        pairing: How training images are paired, "paired" as they belong together (the same window of both, mirrored
            alike); "loose" is the same, but the target's window is off by up to ``max_shift`` pixels; "unpaired" at
            random, each half in an order, with separate windows and mirroring. Evaluation images are always paired.
        max_shift: Largest shift of a "loose" target, in each direction, in pixels.
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Pairs in a training batch of one process.
        eval_batch_size: Pairs in an evaluation batch of one process; if None, ``batch_size``.
        image_size: Side of the images that the model gets.
        split_seed: Seed of the split between validation and test.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
        load_size: Side to which photographs are resized before windows are cut out of them; if None, 286/256 of
            ``image_size``. 286 with an ``image_size`` of 128 keeps streets as wide as the paper's.
        evaluation: What is evaluated: "resized", the whole photograph, resized to ``image_size``; "middle", a window in
            the middle at the scale of training; "tiles", windows that cover the photograph. If None, "resized" for a
            ``load_size`` up to 1.25 times ``image_size``, else "tiles".
        background: What shows through transparent pixels, which the published files haven't: "white" or "black".
        value_range: Values of black and white in files of more than 8 bits, as in ``ImageFolder``.
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
        load_size: int | None = None,
        evaluation: Evaluation | None = None,
        background: Literal["white", "black"] = "white",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        if direction not in DIRECTIONS:
            raise DataError(f"direction is {direction!r}; it must be satellite_to_map or map_to_satellite.")
        super().__init__(
            path=".",
            root=root,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            image_size=image_size,
            load_size=load_size,
            evaluation=evaluation,
            direction=DIRECTIONS[direction],
            pairing=pairing,
            max_shift=max_shift,
            split_seed=split_seed,
            on_device=on_device,
            background=background,
            value_range=value_range,
        )

    def source(self) -> Path:
        """The folder that holds ``train`` and ``val``, or else the archive, which need not be there yet."""
        folders = [self.folder, self.folder / "maps"]
        archives = [self.folder / ARCHIVE.name, self.root / ARCHIVE.name]
        present = [folder for folder in folders if (folder / "train").is_dir() or (folder / "val").is_dir()]
        return next(iter(present + [path for path in archives if path.is_file()]), archives[0])

    @property
    def store(self) -> TensorStore:
        source, size = self.source(), self.image_shape[-1]
        sources = [source / split for split in COUNTS] if source.is_dir() else [source]
        name = f"{size}x{size}"
        if self.load_size != round(size * 286 / 256) or self.evaluation != "resized":
            name += f"-{self.load_size}-{self.evaluation}"
        return self.tensor_store(name, {**self._identity(), "rules": RULES}, sources)

    def _build(self, writer: ArrayWriter) -> None:
        source = self.source()
        if source.is_dir():
            self._write_arrays(source, writer)
            return
        source = fetch(ARCHIVE, source.parent)
        with tempfile.TemporaryDirectory(dir=writer.folder) as temporary:
            folder = extract(source, Path(temporary) / "extracted")
            self._write_arrays(folder / "maps" if (folder / "maps").is_dir() else folder, writer)

    def splits(self, folder: Path) -> tuple[dict[int, PairFiles], bool]:
        """The published files, of which there may be a part."""
        found = {}
        for split, number in (("train", TRAIN), ("val", VAL)):
            files = sorted(list_images(folder / split)[1], key=lambda name: (len(name), name))  # 2.jpg before 10.jpg
            if not files:
                raise DataError(
                    f"{self.source()} holds no images in {split}/: put train/ and val/ of maps.tar.gz there, or delete "
                    "it, and they are downloaded."
                )
            if len(files) != COUNTS[split]:
                note(f"{self.source()} holds {len(files):,} pairs in {split}/; the data set has {COUNTS[split]:,}.")
            found[number] = PairFiles([f"{split}/{name}" for name in files], None)
        return found, True

    def halves(self, image: Image.Image) -> tuple[Image.Image, Image.Image]:
        """The photograph and the map."""
        if image.width != 2 * image.height:
            raise DataError(
                f"it has {image.width}x{image.height} pixels, but a pair lies side by side in an image twice as wide "
                "as high: delete it, or replace it by the published file."
            )
        return super().halves(image)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        # The published val is halved; the tiles of one photograph stay together.
        columns, rows = self.val_set.columns, self.val_set.rows
        assert rows is not None
        tiles = self.tiles_of_an_image
        images = rows.view(-1, tiles)
        half = len(images) // 2
        val, test = split_rows(len(images), half, len(images) - half, seed=self.split_seed)
        self.val_set = GatherDataset(columns, images[val].flatten())
        self.test_set = self.predict_set = GatherDataset(columns, images[test].flatten())
        self._name_files(self.store.load(), "val")
