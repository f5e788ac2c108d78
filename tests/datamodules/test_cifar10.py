import codecs
import hashlib
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from datamodules import DataError, DataWarning, cifar10
from datamodules.cifar10 import CIFAR10, MEAN, read_batch
from datamodules.loading.archives import RemoteFile
from tests.support.data_modules import real_root, set_up
from tests.support.fixtures import Patch
from tests.support.malicious import Malicious
from tests.support.trainers import Recorder, quiet_trainer

Serve = Callable[[Path], tuple[str, list[str]]]
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
SUBSET = "CIFAR10 is a subset: 100 of 50,000 training images and 20 of 10,000 test images"


def rows_of(name: str, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(NAMES.index(name))
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count)


def binary_file(images: np.ndarray, labels: np.ndarray) -> bytes:
    return b"".join(bytes([label]) + bytes(image) for image, label in zip(images, labels, strict=True))


def pickle_file(images: np.ndarray, labels: np.ndarray, dtype: bytes = b"u1") -> bytes:
    """What Python 2 and an old numpy wrote, opcode by opcode."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    int32 = partial(struct.pack, "<cI")
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    array += (
        b"(K\x01" + int32(b"J", len(images)) + int32(b"J", images.shape[1]) + b"\x86cnumpy\ndtype\n" + string(dtype)
    )
    array += b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array += b"\x89" + int32(b"T", images.nbytes) + images.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + numbers + b"u."


def write_version(folder: Path, version: str) -> Path:
    folder = folder / f"cifar-10-batches-{version}"
    folder.mkdir(parents=True)
    for name in NAMES:
        if version == "bin":
            (folder / f"{name}.bin").write_bytes(binary_file(*rows_of(name)))
        else:
            (folder / name).write_bytes(pickle_file(*rows_of(name)))
    return folder


def write_archive(path: Path, version: str, scratch: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_version(scratch, version), f"cifar-10-batches-{version}")
    return path


def prepared(root: Path, **arguments) -> CIFAR10:
    data = CIFAR10(str(root), **arguments)
    data.prepare_data()
    with pytest.warns(DataWarning, match="CIFAR10 is a subset"):
        data.setup("fit")
    return data


def assert_whole(data: CIFAR10) -> None:
    """The data set holds just what `rows_of` gives."""
    train, test = data.train_set.columns, data.test_set.columns
    images, labels = zip(*map(rows_of, NAMES), strict=True)
    assert train.image.numpy().tobytes() == b"".join(image.tobytes() for image in images[:5])
    assert train.label.tolist() == np.concatenate(labels[:5]).tolist()
    assert test.image.numpy().tobytes() == images[5].tobytes()
    assert test.label.tolist() == labels[5].tolist()
    assert train.image.shape == (100, 3, 32, 32)
    assert train.image.dtype == torch.uint8
    assert test.label.dtype == torch.int64


# --- reading ----------------------------------------------------------------------------------------------------------


def test_other_test_images_in_full_number_are_not_the_published_ones(monkeypatch: Patch) -> None:
    """Such as 10,000 of the training images, kept for the test where the official ones are missing."""
    labels = np.random.default_rng(0).integers(0, 10, 10_000)
    image = torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8)
    columns = {"train_image": image, "train_label": torch.from_numpy(labels)}
    store = SimpleNamespace(load=lambda: {**columns, "test_image": image, "test_label": torch.from_numpy(labels)})
    monkeypatch.setattr(CIFAR10, "store", store)
    with pytest.warns(DataWarning) as caught:
        CIFAR10().setup("fit")
    assert [str(one.message).partition(":")[0] for one in caught] == [
        "CIFAR10 is a subset",
        "CIFAR10's 10,000 test images are not the published ones",
    ]
    monkeypatch.setattr("datamodules.cifar10.TEST_LABELS", hashlib.sha256(bytes(labels.tolist())).hexdigest())
    with pytest.warns(DataWarning) as caught:
        CIFAR10().setup("fit")
    assert len(caught) == 1


@pytest.mark.parametrize("version", ["bin", "py"])
@pytest.mark.parametrize("place", ["cifar10", "."])
def test_reads_both_versions_in_both_places(tmp_path: Path, version: str, place: str) -> None:
    write_version(tmp_path / place, version)
    assert_whole(prepared(tmp_path))


@pytest.mark.parametrize(("version", "name"), [("bin", "cifar-10-binary.tar.gz"), ("py", "cifar-10-python.tar.gz")])
def test_reads_archives_and_leaves_nothing_unpacked(tmp_path: Path, version: str, name: str) -> None:
    write_archive(tmp_path / "cifar10" / name, version, tmp_path / "scratch")
    with pytest.warns(DataWarning, match="checksum"):
        data = prepared(tmp_path)
    assert_whole(data)
    assert {path.suffix for path in data.store.folder.iterdir()} == {".npy", ".json"}


def test_downloads_the_binary_version(tmp_path: Path, serve: Serve, monkeypatch: Patch) -> None:
    write_archive(tmp_path / "site" / "cifar-10-binary.tar.gz", "bin", tmp_path / "scratch")
    url, _ = serve(tmp_path / "site")
    monkeypatch.setattr(cifar10, "BINARY", RemoteFile("cifar-10-binary.tar.gz", (url,)))
    assert_whole(prepared(tmp_path / "root"))


def test_reads_what_a_new_numpy_pickles(tmp_path: Path) -> None:
    images, labels = rows_of("test_batch")
    content = pickle.dumps({"data": images, "labels": labels.tolist()}, protocol=4)
    (tmp_path / "test_batch").write_bytes(content)
    found_images, found_labels = read_batch(tmp_path, "test_batch")
    assert np.array_equal(found_images.reshape(-1, 3072), images)
    assert np.array_equal(found_labels, labels)


def test_new_source_files_are_read_again(tmp_path: Path) -> None:
    folder = write_version(tmp_path / "cifar10", "bin")
    assert len(prepared(tmp_path).test_set) == 20
    (folder / "test_batch.bin").write_bytes(binary_file(*rows_of("test_batch", 30)))
    with pytest.warns(DataWarning, match="source files have changed"):
        assert len(prepared(tmp_path).test_set) == 30


@pytest.mark.filterwarnings("ignore::datamodules.DataWarning")
def test_real_files_equal_pythons_own_unpickling() -> None:
    root = real_root("cifar10/cifar-10-batches-py")
    data = set_up(CIFAR10(str(root)))
    folder = root / "cifar10" / "cifar-10-batches-py"
    batches = [pickle.loads((folder / name).read_bytes(), encoding="bytes") for name in NAMES]
    for columns, parts in ((data.train_set.columns, batches[:5]), (data.test_set.columns, batches[5:])):
        assert np.array_equal(columns.image.flatten(1).numpy(), np.concatenate([part[b"data"] for part in parts]))
        assert columns.label.tolist() == [label for part in parts for label in part[b"labels"]]
    meta = pickle.loads((folder / "batches.meta").read_bytes(), encoding="latin1")
    assert list(data.class_names) == meta["label_names"]
    mean = data.train_set.columns.image[::4].float().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx(MEAN, abs=0.004)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("function", [os.mkdir, exec, np.save, np.dtype])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, function: object, protocol: int) -> None:
    marker = tmp_path / "marker"
    arguments = {
        os.mkdir: [str(marker)],
        exec: [f"import os; os.mkdir({str(marker)!r})"],
        np.save: [str(marker), [1]],
        np.dtype: ["u1"],  # allowed, but no array
    }[function]
    content = pickle.dumps({"data": Malicious(function, *arguments), "labels": [1]}, protocol=protocol)
    pickle.loads(content)  # the file does what it is made for …
    assert function is np.dtype or any(tmp_path.glob("marker*"))
    for path in tmp_path.glob("marker*"):
        path.rmdir() if path.is_dir() else path.unlink()

    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch can't be read \("):
        read_batch(tmp_path, "test_batch")
    assert not list(tmp_path.glob("marker*"))  # … but not here


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_batch_that_python_3_wrote_for_python_2(tmp_path: Path, protocol: int) -> None:
    image, label = rows_of("test_batch")
    content = pickle.dumps({"data": image, "labels": label.tolist()}, protocol=protocol)
    assert b"_codecs" in content
    (tmp_path / "test_batch").write_bytes(content)
    images, labels = read_batch(tmp_path, "test_batch")
    assert np.array_equal(images.reshape(len(label), -1), image)
    assert np.array_equal(labels, label)


def test_bytes_of_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": Malicious(codecs.encode, "x", "rot13"), "labels": [1]}))
    with pytest.raises(DataError, match="its bytes are encoded as rot13"):
        read_batch(tmp_path, "test_batch")


def test_a_pickle_reaches_no_attribute_of_what_is_allowed(tmp_path: Path) -> None:
    name = b"dtype.__class__.__base__"
    (tmp_path / "test_batch").write_bytes(b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name + b"\x93.")
    with pytest.raises(DataError, match="which no data set needs"):
        read_batch(tmp_path, "test_batch")


GOOD = rows_of("test_batch")
BAD_FILES = {
    "text": ("test_batch", b"hello", "can't be read"),
    "empty": ("test_batch", b"", "can't be read"),
    "truncated": ("test_batch", pickle_file(*GOOD)[:-30_000], "can't be read"),
    "absurd length": ("test_batch", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "can't be read"),
    "floats": ("test_batch", pickle_file(GOOD[0].astype(np.float32), GOOD[1], b"f4"), "aren't bytes"),
    "fewer labels": ("test_batch", pickle_file(GOOD[0], GOOD[1][1:]), "damaged or not of CIFAR-10"),
    "other pixels": ("test_batch", pickle_file(GOOD[0][:, :-1], GOOD[1]), "damaged or not of CIFAR-10"),
    "label 10": ("test_batch", pickle_file(GOOD[0], GOOD[1] + 10), "damaged or not of CIFAR-10"),
    "no images": ("test_batch", pickle_file(GOOD[0][:0], GOOD[1][:0]), "damaged or not of CIFAR-10|has 0 images"),
    "binary label 10": ("test_batch.bin", binary_file(GOOD[0], GOOD[1] + 10), "damaged or not of CIFAR-10"),
    "binary empty": ("test_batch.bin", b"", "has 0 images"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    name, content, sentence = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_batch(tmp_path, "test_batch")


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("val_fraction", "sizes"), [(0.1, (90, 10)), (0.5, (50, 50)), (0.0, (100, 0))])
def test_splits_are_disjoint_complete_and_fixed(tmp_path: Path, val_fraction: float, sizes: tuple[int, int]) -> None:
    write_version(tmp_path / "cifar10", "bin")
    data, again = (prepared(tmp_path, val_fraction=val_fraction) for _ in range(2))
    other = prepared(tmp_path, val_fraction=val_fraction, split_seed=1)
    assert (len(data.train_set), len(data.val_set)) == sizes
    assert sorted([*data.train_set.rows.tolist(), *data.val_set.rows.tolist()]) == list(range(100))
    assert torch.equal(data.train_set.rows, again.train_set.rows)
    assert not torch.equal(data.train_set.rows, other.train_set.rows)
    assert data.test_set.rows is None


def test_a_subset_is_noted_with_its_counts(tmp_path: Path) -> None:
    write_version(tmp_path / "cifar10", "bin")
    data = CIFAR10(str(tmp_path))
    data.prepare_data()
    with pytest.warns(DataWarning, match=SUBSET):
        data.setup("fit")


@pytest.mark.filterwarnings("ignore")
def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    write_version(tmp_path / "cifar10", "bin")
    data = CIFAR10(str(tmp_path), batch_size=25, val_fraction=0.5, augmentation="standard", cutout=8)
    model = Recorder()
    quiet_trainer(max_epochs=1, num_sanity_val_steps=0).fit(model, data)
    train, val = (torch.cat([batch.image for batch in seen]) for seen in (model.train_batches, model.val_batches))
    assert torch.equal(val, data.val_set.columns.image[data.val_set.rows] / 255)
    originals = data.train_set.columns.image / 255
    assert train.shape == (50, 3, 32, 32)
    assert not any((image == originals).flatten(1).all(1).any() for image in train)


# --- what training images become --------------------------------------------------------------------------------------


def random_batch(count: int = 200) -> cifar10.LabeledImages:
    generator = torch.Generator().manual_seed(1)
    image = 0.1 + 0.9 * torch.rand(count, 3, 32, 32, generator=generator)  # no black but the padding
    return cifar10.LabeledImages(image, torch.arange(count) % 10)


def test_none_leaves_images_alone() -> None:
    batch = random_batch(5)
    assert torch.equal(CIFAR10().augment(batch).image, batch.image)


def test_flip_mirrors_half_of_the_images() -> None:
    torch.manual_seed(0)
    batch = random_batch()
    image = CIFAR10(augmentation="flip").augment(batch).image
    mirrored = (image == batch.image.flip(-1)).flatten(1).all(1)
    assert ((image == batch.image).flatten(1).all(1) ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_standard_cuts_a_window_of_the_padded_image() -> None:
    torch.manual_seed(0)
    batch = random_batch(60)
    images = CIFAR10(augmentation="standard").augment(batch).image
    found = set()
    for image, original in zip(images, batch.image, strict=True):
        padded = torch.zeros(3, 40, 40)
        padded[:, 4:36, 4:36] = original
        windows = {
            (y, x, flip): torch.equal(window.flip(-1) if flip else window, image)
            for y in range(9)
            for x in range(9)
            for flip in (False, True)
            for window in [padded[:, y : y + 32, x : x + 32]]
        }
        assert sum(windows.values()) == 1
        found.add(next(place for place, equal in windows.items() if equal))
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(9))


def test_cutout_covers_a_square_with_the_mean_color() -> None:
    torch.manual_seed(0)
    batch = random_batch()
    image = CIFAR10(cutout=16).augment(batch).image
    covered = (image != batch.image).all(1)
    assert (image.permute(0, 2, 3, 1)[covered] == torch.tensor(MEAN)).all()
    areas = covered.sum((1, 2))
    assert areas.max() == 256  # whole
    assert areas.min() >= 64  # cut off at a corner
    for mask in covered:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns


@pytest.mark.parametrize("size", [16, 48, 96])
def test_image_size_is_reached_by_bilinear_resizing(size: int) -> None:
    raw = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    data = CIFAR10(image_size=size)
    image = data.on_after_batch_transfer(cifar10.LabeledImages(raw, torch.zeros(4).long()), 0).image
    assert data.image_shape == (3, size, size)
    torch.testing.assert_close(image, tv.resize(raw / 255, [size, size], antialias=True))
    if size == 96:  # the middle of each three pixels is the original one
        torch.testing.assert_close(image[..., 1::3, 1::3], raw / 255)
