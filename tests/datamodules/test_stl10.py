import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from datamodules import DataError, DataWarning, stl10
from datamodules.loading.tensors import ArrayWriter
from datamodules.stl10 import STL10, count_images, read_folds, read_images, read_labels
from tests.support.data_modules import real_root, set_up
from tests.support.fixtures import Patch

COUNTS = {"train": 40, "test": 30, "unlabeled": 50}


def pictures(split: str) -> np.ndarray:
    """Random images as one sees them, (N, height, width, 3)."""
    rng = np.random.default_rng(list(COUNTS).index(split))
    return rng.integers(0, 256, (COUNTS[split], 96, 96, 3), dtype=np.uint8)


def classes(split: str) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 11, COUNTS[split]).astype(np.uint8)


def write_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split in COUNTS:
        # One channel after the other, and in it one column after the other.
        columns = [picture[:, x, channel] for picture in pictures(split) for channel in range(3) for x in range(96)]
        (folder / f"{split}_X.bin").write_bytes(b"".join(column.tobytes() for column in columns))
    for split in ("train", "test"):
        (folder / f"{split}_y.bin").write_bytes(classes(split).tobytes())
    (folder / "class_names.txt").write_text("\n".join(STL10.class_names) + "\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_files(tmp_path / "stl10" / "stl10_binary")
    return tmp_path


def prepared(root: Path, **arguments) -> STL10:
    data = STL10(str(root), **arguments)
    data.prepare_data()
    with pytest.warns(DataWarning, match="STL10 is a subset: 40 of 5,000 training, 30 of 8,000 test"):
        data.setup("fit")
    return data


# --- reading ----------------------------------------------------------------------------------------------------------


def test_pixels_and_labels_are_where_the_format_says(root: Path) -> None:
    data = prepared(root)
    content = (root / "stl10" / "stl10_binary" / "train_X.bin").read_bytes()
    image = data.train_set.columns.image
    for row, channel, y, x in np.random.default_rng(0).integers(0, (40, 3, 96, 96), (500, 4)).tolist():
        assert image[row, channel, y, x] == content[row * 3 * 96 * 96 + channel * 96 * 96 + x * 96 + y]
    assert np.array_equal(data.test_set.columns.image.permute(0, 2, 3, 1), pictures("test"))
    assert data.train_set.columns.label.tolist() == [label - 1 for label in classes("train")]
    assert data.test_set.columns.label.tolist() == [label - 1 for label in classes("test")]
    assert data.image_shape == (3, 96, 96)


def test_equals_torchvisions_reader(root: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    data = prepared(root, unlabeled=True)
    theirs = datasets.STL10(root / "stl10", split="train+unlabeled")
    assert np.array_equal(data.train_set.columns.image, theirs.data)
    assert data.train_set.columns.label.tolist() == theirs.labels.tolist()


def test_torchvisions_place_and_the_archive_do_as_well(tmp_path: Path) -> None:
    write_files(tmp_path / "a" / "stl10_binary")
    archive_path = tmp_path / "b" / "stl10" / "stl10_binary.tar.gz"
    archive_path.parent.mkdir(parents=True)
    with tarfile.open(archive_path, "w:gz") as archive:
        archive.add(tmp_path / "a" / "stl10_binary", "stl10_binary")
    in_folder = prepared(tmp_path / "a")
    with pytest.warns(DataWarning, match="checksum"):
        in_archive = prepared(tmp_path / "b")
    assert torch.equal(in_folder.train_set.columns.image, in_archive.train_set.columns.image)
    assert {path.suffix for path in in_archive.store.folder.iterdir()} == {".npy", ".json"}


def test_smaller_images_are_resized_with_antialiasing(root: Path) -> None:
    image = prepared(root, image_size=32).test_set.columns.image
    for ours, picture in zip(image, pictures("test"), strict=True):
        pillows = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - pillows).max() <= 1  # Pillow rounds twice


def test_unlabeled_images_follow_the_labeled_ones_in_training_only(root: Path) -> None:
    data = prepared(root, unlabeled=True)
    batch = data.train_set.__getitems__(range(len(data.train_set)))
    assert len(batch.label) == 36 + 50
    assert (batch.label >= 0).tolist() == [True] * 36 + [False] * 50
    assert (batch.label[36:] == -1).all()
    assert np.array_equal(batch.image[36:].permute(0, 2, 3, 1), pictures("unlabeled"))
    assert len(data.val_set) == 4
    assert data.val_set.__getitems__(range(4)).label.min() >= 0
    assert len(prepared(root).train_set) == 36


def test_preparing_holds_one_chunk_in_memory(root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(stl10, "CHUNK", 10)
    source = root / "stl10" / "stl10_binary"
    (tmp_path / "out").mkdir()
    data = STL10(str(root), unlabeled=True)
    data._write_arrays(source, ArrayWriter(tmp_path / "out"))  # once before, so that caches are filled
    tracemalloc.start()
    data._write_arrays(source, ArrayWriter(tmp_path / "out"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 10 * 27_648 <= peak < 2.5 * 10 * 27_648


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("val_fraction", "sizes"), [(0.1, (36, 4)), (0.25, (30, 10)), (0.0, (40, 0))])
def test_validation_is_taken_from_training(root: Path, val_fraction: float, sizes: tuple[int, int]) -> None:
    data, again = (prepared(root, val_fraction=val_fraction) for _ in range(2))
    other = prepared(root, val_fraction=val_fraction, split_seed=1)
    assert (len(data.train_set), len(data.val_set)) == sizes
    assert sorted([*data.train_set.rows.tolist(), *data.val_set.rows.tolist()]) == list(range(40))
    assert torch.equal(data.train_set.rows, again.train_set.rows)
    assert not torch.equal(data.train_set.rows, other.train_set.rows)
    assert len(data.test_set) == 30


def test_real_labels_and_folds(tmp_path: Path) -> None:
    real_folder = real_root("stl10/stl10_binary/train_y.bin") / "stl10" / "stl10_binary"
    folder = tmp_path / "stl10" / "stl10_binary"
    folder.mkdir(parents=True)
    for name in ("train_y.bin", "test_y.bin", "fold_indices.txt", "class_names.txt"):
        (folder / name).write_bytes((real_folder / name).read_bytes())
    for split, count in (("train", 5_000), ("test", 8_000)):
        (folder / f"{split}_X.bin").touch()
        os.truncate(folder / f"{split}_X.bin", count * 3 * 96 * 96)  # black images, of the official number
    data = set_up(STL10(str(tmp_path), image_size=4, fold=7))  # the whole data set: nothing to note
    assert data.test_set.columns.label.bincount().tolist() == [800] * 10
    assert data.train_set.columns.label.tolist() == [label - 1 for label in (real_folder / "train_y.bin").read_bytes()]
    fold = [int(number) for number in (real_folder / "fold_indices.txt").read_text().splitlines()[7].split()]
    assert (len(data.train_set), len(data.val_set)) == (900, 100)
    assert sorted([*data.train_set.rows.tolist(), *data.val_set.rows.tolist()]) == sorted(fold)
    assert data.train_set.columns.label[torch.tensor(fold)].bincount().tolist() == [100] * 10
    assert list(data.class_names) == (real_folder / "class_names.txt").read_text().split()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("train_X.bin", None, "has no train_X.bin"),
        ("test_X.bin", bytes(27_648 * 29), "doesn't hold 29 labels"),
        ("test_X.bin", b"", "has 0 bytes"),
        ("test_y.bin", bytes([11] * 30), "doesn't hold 30 labels from 1 to 10"),
        ("test_y.bin", bytes([0] * 30), "doesn't hold 30 labels from 1 to 10"),
        ("test_y.bin", b"hello", "doesn't hold 30 labels"),
        ("fold_indices.txt", b"hello", "isn't a table of numbers"),
        ("fold_indices.txt", b"1 2 3\n4 5 6\n", "isn't 10 lines of 1,000 numbers"),
        ("fold_indices.txt", b"5000 " * 1000 + (b"\n" + b"0 " * 1000) * 9, "isn't 10 lines of 1,000 numbers"),
    ],
)
def test_bad_files(root: Path, name: str, content: bytes | None, sentence: str) -> None:
    path = root / "stl10" / "stl10_binary" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        STL10(str(root)).prepare_data()
    assert [path.name for path in (root / "stl10" / "prepared").iterdir()] == [".96x96.lock"]


def test_a_fold_of_a_subset_is_refused(root: Path) -> None:
    data = STL10(str(root), fold=0)
    data.prepare_data()
    with pytest.warns(DataWarning), pytest.raises(DataError, match="needs all 5,000 training images"):
        data.setup("fit")


def test_flip_mirrors_half_of_the_images_for_training_only(root: Path) -> None:
    torch.manual_seed(0)
    data = prepared(root, augmentation="flip")
    batch = data.train_set.__getitems__(torch.zeros(200).long())
    image = batch.image.float() / 255
    flipped = data.transform(batch, training=True).image
    mirrored = (flipped == image.flip(-1)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) ^ mirrored).all()
    assert 70 < mirrored.sum() < 130
    assert torch.equal(data.transform(batch, training=False).image, image)
    assert torch.equal(prepared(root).transform(batch, training=True).image, image)


def test_readers_alone(root: Path) -> None:
    folder = root / "stl10" / "stl10_binary"
    assert count_images(folder, "unlabeled") == 50
    assert np.array_equal(read_images(folder, "test", 7, 2).transpose(0, 2, 3, 1), pictures("test")[7:9])
    assert read_labels(folder, "test").dtype == np.int64
    assert read_folds(folder).shape == (0, 0)
