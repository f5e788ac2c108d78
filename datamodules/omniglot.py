"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015, https://github.com/brendenlake/omniglot): 1,623 handwritten
characters of 50 alphabets, each drawn by the same 20 people."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.episodes import EpisodeDataModule
from datamodules.errors import DataError, note
from datamodules.loading.archives import RemoteFile, fetch
from datamodules.loading.augment import quarter_turn
from datamodules.loading.folders import files_below
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.tensors import ArrayWriter, Episodes, GatherDataset, LabeledImages, TensorStore

AUTHOR = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"

# md5 checksums of the author's files.
FILES = {
    "background": RemoteFile("images_background.zip", (AUTHOR,), "md5:68d2efa1b9178cc56df9314c21c6e718"),
    "evaluation": RemoteFile("images_evaluation.zip", (AUTHOR,), "md5:6b91aef0f799c5bb55b94e3f2daec811"),
}
RUNS_FILE = RemoteFile("all_runs.zip", (AUTHOR + "one-shot-classification/",), "md5:e8996daecdf12afeeb4a53a179f06b19")

Resampling = Literal["antialiased", "nearest"]
FILTERS = {"antialiased": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}

SIDE = 105
DRAWERS = 20
RUNS, RUN_CLASSES = 20, 20
SUFFIXES = (".png", ".txt")
MAX_FILE_BYTES = 1 << 20
"""A drawing has a few hundred bytes; nothing that would grow far beyond is unpacked."""


class Character(NamedTuple):
    """One of the 1,623 characters.

    Attributes:
        alphabet: The alphabet's folder.
        number: The character's number in it, from 1.
        part: The author's division: 30 alphabets to learn from ("background"), 20 for one-shot tasks ("evaluation").
        vinyals: The split of Vinyals et al. that it belongs to: "train", "val" or "test".
    """

    alphabet: str
    number: int
    part: str
    vinyals: str

    def __str__(self) -> str:
        return f"{self.alphabet}/character{self.number:02}"


def _read_characters() -> tuple[Character, ...]:
    lines = Path(__file__).with_name("omniglot_alphabets.txt").read_text("utf-8").splitlines()
    characters = []
    for line in lines:
        if line and not line.startswith("#"):
            alphabet, part, first, last, vinyals = line.split()
            characters += [Character(alphabet, number, part, vinyals) for number in range(int(first), int(last) + 1)]
    return tuple(sorted(characters, key=lambda character: (character.part, character.alphabet, character.number)))


CHARACTERS = _read_characters()
"""All characters by label: first the 964 of the background part, then the 659 of the evaluation part."""


class Omniglot(ImageDataModule):
    """Omniglot's 32,460 drawings as labeled images, ink as 1 and paper as 0; the splits differ in their characters.

    Both splits validate on the same five alphabets, Armenian, Bengali, Early Aramaic, Hebrew and Mkhedruli:

    =========== ======================================== ========== ================================
    split       training                                 validation test
    =========== ======================================== ========== ================================
    background  792: the other 25 background alphabets   172        659: all evaluation alphabets
    vinyals     1,028 of 33 alphabets of both parts      172        423 of 13 evaluation alphabets
    =========== ======================================== ========== ================================

    "vinyals" is the split of Vinyals et al. (2016, https://arxiv.org/abs/1606.04080) that Snell et al. (2017,
    https://arxiv.org/abs/1703.05175) use: 1,200 characters for training and validation, 423 for testing.

    The drawings are resized by Pillow: with antialiasing, which keeps thin strokes connected, or by the nearest pixel,
    which breaks them up. Networks see other images by each, so their accuracies don't compare directly.
    ``images_background.zip`` and ``images_evaluation.zip`` (or the folders that come out of them) are looked for in
    ``<root>/omniglot/`` and where torchvision puts them, ``<root>/omniglot-py/``, and downloaded if they aren't there.
    Labels count the background characters first, then the evaluation characters, by alphabet.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        batch_size: Images in a training batch of one process.
        eval_batch_size: Images in an evaluation batch of one process; if None, ``batch_size``.
        split: Which characters are for training, validation and testing; see above.
        train_on_val: Train on the validation characters, too (validation then measures nothing about new characters).
        rotations: Have every drawing in four positions, turned by 0, 90, 180 and 270 degrees counterclockwise, each a
            separate class: the label is four times the character's plus the number of quarter turns.
        image_size: Side of the images that the model gets, at most the drawings' 105.
        resample: "antialiased" (bilinear), or "nearest" for the nearest pixel, as in the code of Snell et al.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    name = "omniglot"
    inverted = True

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        split: Literal["background", "vinyals"] = "background",
        train_on_val: bool = False,
        rotations: bool = False,
        image_size: int = 28,
        resample: Resampling = "antialiased",
        on_device: bool | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, on_device)
        if not 1 <= image_size <= SIDE:
            raise DataError(
                f"Omniglot's drawings have {SIDE}x{SIDE} pixels: set --data.image_size to 1..{SIDE}, not {image_size}."
            )
        if resample not in FILTERS:
            raise DataError(f"--data.resample is {resample!r}; it must be antialiased or nearest.")
        self.image_shape = (1, image_size, image_size)
        self.resample = resample
        self.split = split
        self.train_on_val = train_on_val
        self.rotations = rotations
        names = [str(character) for character in CHARACTERS]
        self.class_names = (
            tuple(f"{name}/rot{90 * t:03}" for name in names for t in range(4)) if rotations else tuple(names)
        )
        self.num_classes = len(self.class_names)

    @property
    def store(self) -> TensorStore:
        return self.tensor_store(self._resized, {}, self._local(*FILES.values()))

    @property
    def runs_store(self) -> TensorStore:
        return self.tensor_store(f"one-shot-runs-{self._resized}", {}, self._local(RUNS_FILE))

    @property
    def _resized(self) -> str:
        """Names the prepared folders of one size and filter."""
        size = self.image_shape[-1]
        return f"{size}x{size}" if self.resample == "antialiased" else f"{size}x{size}-{self.resample}"

    def prepare_data(self) -> None:
        self.store.prepare(self._build)

    def _build(self, writer: ArrayWriter) -> None:
        drawings: dict[tuple[int, int], np.ndarray] = {}
        for part, file in FILES.items():
            drawings |= read_drawings(self._source(file), part, self.image_shape[-1], self.resample)
        order = sorted(drawings)  # by character, then by drawer
        writer.write("image", np.stack([drawings[key] for key in order])[:, None])
        writer.write("label", np.array([label for label, _ in order], np.int64))

    def setup(self, stage: str) -> None:
        arrays = self.store.load()
        columns = LabeledImages(arrays["image"], arrays["label"])
        self.train_set, self.val_set, self.test_set = (
            (QuarterTurns if self.rotations else GatherDataset)(columns, self._rows(columns.label, split))
            for split in ("train", "val", "test")
        )
        self.predict_set = self.test_set

    def _rows(self, labels: Tensor, split: str) -> Tensor:
        splits = {split, "val"} if split == "train" and self.train_on_val else {split}
        belongs = torch.tensor([split_of(character, self.split) in splits for character in CHARACTERS])
        return belongs[labels].nonzero().flatten()

    def _source(self, file: RemoteFile) -> Path:
        """The folder that came out of an archive, if that is all there is, or else the archive, perhaps downloaded."""
        local = self._local(file)
        return local[0] if local and local[0].is_dir() else fetch(file, *self._folders)

    def _local(self, *files: RemoteFile) -> list[Path]:
        """For each file the archive that is there, or else the folder that came out of it."""
        found = []
        for file in files:
            archives = [folder / file.name for folder in self._folders if (folder / file.name).is_file()]
            unpacked = [folder / Path(file.name).stem for folder in self._folders]
            found += (archives + [folder for folder in unpacked if folder.is_dir()])[:1]
        return found

    @property
    def _folders(self) -> tuple[Path, Path]:
        return self.folder, self.root / "omniglot-py"

    def prepare_one_shot_runs(self) -> None:
        """Prepares what :meth:`one_shot_runs` reads, as ``prepare_data`` does for the drawings."""
        self.runs_store.prepare(self._build_runs)

    def one_shot_runs(self) -> Episodes:
        """Lake's 20 official one-shot tasks, as uint8: of each of the 20 characters one support and one query image.

        Returns:
            ``support`` and ``query``, ``(20, 20, 1, 1, H, W)`` each. The classes are in the order of the author's
            ``training/class01.png`` to ``class20.png``, and the query images in that same order. They are drawings of
            ten evaluation alphabets.
        """
        arrays = self.runs_store.load()
        return Episodes(arrays["support"], arrays["query"])

    def _build_runs(self, writer: ArrayWriter) -> None:
        support, query = read_one_shot_runs(self._source(RUNS_FILE), self.image_shape[-1], self.resample)
        writer.write("support", np.stack(support).reshape(RUNS, RUN_CLASSES, 1, *self.image_shape))
        writer.write("query", np.stack(query).reshape(RUNS, RUN_CLASSES, 1, *self.image_shape))


class OmniglotEpisodes(EpisodeDataModule):
    """N-way K-shot episodes of Omniglot, where every character turned by 0, 90, 180 and 270 degrees is four classes.

    With ``split="vinyals"`` these are the 4,112 training, 688 validation and 1,692 test classes of Snell et al. (2017,
    https://arxiv.org/abs/1703.05175), and the defaults are their settings for 5-way 5-shot.
    See :class:`Omniglot` for the splits and for the files that are used.

    Args:
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
        split: "vinyals", or "background" to test on characters of the evaluation part only.
        train_on_val: Train on the validation classes, too, as the paper's final models did.
        image_size: Side of the images that the model gets, at most the drawings' 105.
        resample: "antialiased", or "nearest" for the nearest pixel, as in the authors' code.
        n_way: Classes in a training episode.
        k_shot: Support images of each class in a training episode.
        n_query: Query images of each class in a training episode.
        test_way: Classes in a test episode.
        test_shot: Support images of each class in a validation or test episode; if None, ``k_shot``.
        test_query: Query images of each class in a validation or test episode.
        val_way: Classes in a validation episode; if None, ``test_way``.
        episodes_per_batch: Episodes in a training batch of one process.
        eval_episodes_per_batch: Episodes in a validation or test batch of one process; if None, ``episodes_per_batch``.
        train_episodes: Episodes in a training epoch, of all processes together.
        val_episodes: Validation episodes, of all processes together.
        test_episodes: Test episodes, of all processes together.
        test_on: "random_episodes", or "one_shot_runs" for Lake's 20 official tasks of 20 classes within an alphabet
            instead (with ``split="background"`` only, as the other trains on some of their characters).
        eval_seed: Seed of the validation and test episodes.
        on_device: Hold the data set in the accelerator's memory; if None, when it fits easily.
    """

    images: Omniglot

    def __init__(
        self,
        root: str | None = None,
        split: Literal["vinyals", "background"] = "vinyals",
        train_on_val: bool = False,
        image_size: int = 28,
        resample: Resampling = "antialiased",
        n_way: int = 60,
        k_shot: int = 5,
        n_query: int = 5,
        test_way: int = 5,
        test_shot: int | None = None,
        test_query: int = 15,
        val_way: int | None = None,
        episodes_per_batch: int = 1,
        eval_episodes_per_batch: int | None = None,
        train_episodes: int = 100,
        val_episodes: int = 100,
        test_episodes: int = 1000,
        test_on: Literal["random_episodes", "one_shot_runs"] = "random_episodes",
        eval_seed: int = 0,
        on_device: bool | None = None,
    ) -> None:
        if test_on == "one_shot_runs" and split != "background":
            raise DataError(
                f"The one-shot runs use characters that --data.split {split} trains on: set --data.split background."
            )
        images = Omniglot(
            root, split=split, train_on_val=train_on_val, rotations=True, image_size=image_size, resample=resample
        )
        super().__init__(
            images,
            n_way,
            k_shot,
            n_query,
            test_way,
            test_shot,
            test_query,
            val_way,
            episodes_per_batch,
            eval_episodes_per_batch,
            train_episodes,
            val_episodes,
            test_episodes,
            eval_seed,
            on_device,
        )
        self.num_classes, self.class_names = images.num_classes, images.class_names
        self.test_on = test_on

    def prepare_data(self) -> None:
        super().prepare_data()
        if self.test_on == "one_shot_runs":
            self.images.prepare_one_shot_runs()

    def test_dataloader(self) -> BatchLoader[Any]:
        if self.test_on == "one_shot_runs":
            return self.eval_dataloader(GatherDataset(self.images.one_shot_runs()))
        return super().test_dataloader()


class QuarterTurns(GatherDataset[LabeledImages]):
    """Every image in four positions: row ``4 * i + t`` is row ``i`` after ``t`` quarter turns counterclockwise.

    Its class is ``4 * label + t``. The turned images are made when they are gathered, and nowhere stored.
    """

    def __len__(self) -> int:
        return 4 * super().__len__()

    def __getitems__(self, indices: Sequence[int] | Tensor) -> LabeledImages:
        indices = torch.as_tensor(indices)
        image, label = super().__getitems__(indices // 4)
        turns = (indices % 4).to(image.device, non_blocking=True)
        return LabeledImages(quarter_turn(image, turns), 4 * label + turns)

    def column(self, name: str) -> Tensor:
        """One whole column, in the order of the rows."""
        values = super().column(name).repeat_interleave(4, dim=0)
        turns = torch.arange(4).repeat(super().__len__())
        return quarter_turn(values, turns) if name == "image" else 4 * values + turns


def split_of(character: Character, split: Literal["background", "vinyals"]) -> str:
    """Whether a character is for "train", "val" or "test"."""
    if split == "vinyals":
        return character.vinyals
    if character.part == "evaluation":
        return "test"
    return "val" if character.vinyals == "val" else "train"


def read_drawings(
    source: Path, part: str, size: int, resample: Resampling = "antialiased"
) -> dict[tuple[int, int], np.ndarray]:
    """All drawings of one part by the character's label and the drawer's number (1 to 20).

    Args:
        source: The author's zip archive, or the folder that came out of it, or a part of either.
        part: "background" or "evaluation".
        size: Side of the resized drawings.
        resample: How they are resized; see :class:`Omniglot`.
    """
    label_of = {str(character): label for label, character in enumerate(CHARACTERS) if character.part == part}
    drawings = {}
    for name, content in _files(source):
        match = re.search(r"(?:^|/)([^/]+/character\d\d)/\d{4}_(\d\d)\.png$", name)
        if match is None:
            continue
        character, drawer = match[1], int(match[2])
        if character not in label_of:
            raise DataError(
                f"{source} holds {character}, which isn't a character of Omniglot's {part} set: take it away."
            )
        drawings[label_of[character], drawer] = _ink(content, size, resample, f"{name} in {source}")
    if not drawings:
        raise DataError(
            f"{source} holds no drawing of Omniglot (Greek/character01/0394_01.png, say): delete it, and it is "
            "downloaded again."
        )
    if len(drawings) != DRAWERS * len(label_of):
        characters = len({label for label, _ in drawings})
        note(
            f"{source} holds {len(drawings)} drawings of {characters} characters, not the {DRAWERS * len(label_of)} of "
            f"{len(label_of)} that Omniglot's {part} set has; it is used as it is."
        )
    return drawings


def read_one_shot_runs(
    source: Path, size: int, resample: Resampling = "antialiased"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The support and query images of the 20 official runs, run after run and class after class.

    Args:
        source: The author's ``all_runs.zip``, or the folder that came out of it.
        size: Side of the resized drawings.
        resample: How they are resized; see :class:`Omniglot`.
    """
    found = ((re.search(r"run\d\d/.+", name), content) for name, content in _files(source))
    files = {match[0]: content for match, content in found if match}
    support, query = [], []
    for run in (f"run{number:02}" for number in range(1, RUNS + 1)):
        classes = [f"{run}/training/class{number:02}.png" for number in range(1, RUN_CLASSES + 1)]
        lines = files.get(f"{run}/class_labels.txt", b"").decode(errors="replace").split("\n")
        item_of = {line.split()[1]: line.split()[0] for line in lines if len(line.split()) == 2}
        if item_of.keys() != set(classes) or not {*item_of, *item_of.values()} <= files.keys():
            raise DataError(
                f"{source} doesn't hold the whole of {run}, as the author's file does: delete it, and it is downloaded "
                "again."
            )
        support += [_ink(files[name], size, resample, f"{name} in {source}") for name in classes]
        query += [_ink(files[item_of[name]], size, resample, f"{item_of[name]} in {source}") for name in classes]
    return support, query


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a folder or a zip archive, of which nothing is written to the disk."""
    try:
        if source.is_dir():
            for name in files_below(source):
                if Path(name).suffix in SUFFIXES:
                    yield name, (source / name).read_bytes()
            return
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if info.file_size > MAX_FILE_BYTES:
                    raise DataError(
                        f"{source} holds {info.filename} of {info.file_size} bytes, so it isn't Omniglot: delete it, "
                        "and it is downloaded again."
                    )
                if Path(info.filename).suffix in SUFFIXES:
                    yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError) as error:
        raise DataError(
            f"{source} can't be read ({error}): if it is damaged, delete it, and it is downloaded again."
        ) from error


def _ink(content: bytes, size: int, resample: Resampling, name: str) -> np.ndarray:
    """A drawing as uint8 ``(size, size)``: 255 where there is ink."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != (SIDE, SIDE):
                raise DataError(
                    f"{name} has {image.width}x{image.height} pixels, not {SIDE}x{SIDE}: it isn't Omniglot's."
                )
            return 255 - np.asarray(image.convert("L").resize((size, size), FILTERS[resample]))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"{name} is not a whole PNG image ({error}): delete the file, and it is downloaded again."
        ) from error
