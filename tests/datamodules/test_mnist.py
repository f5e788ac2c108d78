import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets.mnist import read_image_file, read_label_file

from datamodules import MNIST, DataError, DataWarning
from datamodules.mnist import FILES, read_idx
from tests.support.data_modules import real_root, set_up
from tests.support.smallest_data import idx


@pytest.fixture
def real_mnist() -> Path:
    return real_root(f"mnist/{FILES['train-images'].name}")


def write_official_files(root: Path, draw: Callable[[np.ndarray], None]) -> Path:
    """The official numbers of images, which a function draws, and of labels."""
    (root / "mnist").mkdir()
    for split, count in (("train", 60_000), ("test", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        draw(images)
        for kind, values in (("images", images), ("labels", np.arange(count) % 10)):
            (root / "mnist" / FILES[f"{split}-{kind}"].name).write_bytes(gzip.compress(idx(values), 1))
    return root


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that show their own number in the first two pixels."""

    def draw(images: np.ndarray) -> None:
        numbers = np.arange(len(images))
        images[:, 0, 0], images[:, 0, 1] = numbers // 256, numbers % 256
        images[:, 27, 27] = 255

    return write_official_files(tmp_path_factory.mktemp("official"), draw)


@pytest.mark.filterwarnings("ignore:.*checksum:datamodules.DataWarning")
@pytest.mark.parametrize(("image_size", "padding"), [(28, 0), (32, 2)])
def test_rows_pixels_and_padding(official: Path, image_size: int, padding: int) -> None:
    data = set_up(MNIST(str(official), image_size=image_size))
    splits = [data.train_set, data.val_set, data.test_set]
    assert [len(split) for split in splits] == [55_000, 5_000, 10_000]
    for split in splits:
        batch = split.__getitems__(torch.arange(0, len(split), 97))
        rows = torch.arange(10_000) if split.rows is None else split.rows
        assert batch.image.shape[1:] == data.image_shape == (1, image_size, image_size)
        inner = batch.image[:, 0, padding : padding + 28, padding : padding + 28].long()
        numbers = inner[:, 0, 0] * 256 + inner[:, 0, 1]
        assert torch.equal(numbers, rows[torch.arange(0, len(split), 97)])
        assert torch.equal(batch.label, numbers % 10)
        assert torch.equal(batch.image.long().sum((1, 2, 3)), inner.sum((1, 2)))  # the padding is black
    rows = torch.cat([data.train_set.rows, data.val_set.rows])
    assert torch.equal(rows.sort().values, torch.arange(60_000))


def test_real_mnist_equals_torchvisions(real_mnist: Path, tmp_path: Path) -> None:
    data = set_up(MNIST(str(real_mnist), image_size=28))
    for split, columns in (("train", data.train_set.columns), ("test", data.test_set.columns)):
        for kind in ("images", "labels"):
            packed = real_mnist / "mnist" / FILES[f"{split}-{kind}"].name
            (tmp_path / f"{split}-{kind}").write_bytes(gzip.decompress(packed.read_bytes()))
        assert torch.equal(columns.image[:, 0], read_image_file(str(tmp_path / f"{split}-images")))
        assert torch.equal(columns.label, read_label_file(str(tmp_path / f"{split}-labels")))


def test_torchvisions_place_will_do(real_mnist: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FILES.values():
        (raw / file.name).write_bytes((real_mnist / "mnist" / file.name).read_bytes())
    data = set_up(MNIST(str(tmp_path)), "test")
    assert data.test_set.__getitems__(range(10)).label.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)], ids=str)
def test_read_idx(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "file.gz").write_bytes(gzip.compress(idx(values)))
    assert np.array_equal(read_idx(tmp_path / "file.gz"), values)


GOOD = idx(np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello", "is not a whole gzip file"),
        (b"", "is not a whole gzip file|is not an idx file"),
        (gzip.compress(GOOD)[:-12], "is not a whole gzip file"),
        (gzip.compress(GOOD)[:20] + b"????" + gzip.compress(GOOD)[24:], "is not a whole gzip file"),
        (gzip.compress(GOOD)[:10] + bytes([255] * 10), "is not a whole gzip file"),
        (gzip.compress(b""), "is not an idx file"),
        (gzip.compress(b"hello, world"), "is not an idx file"),
        (gzip.compress(GOOD[:-1]), "is not an idx file"),
        (gzip.compress(GOOD + b"\0"), "is not an idx file"),
        (gzip.compress(b"\0\0\x0d\x01" + struct.pack(">I", 8) + bytes(8)), "is not an idx file"),  # floats
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">I", 8)), "is not an idx file"),  # ends in its header
        (gzip.compress(b"\0\0\x08\x02" + b"\xff" * 8), "is not an idx file"),  # 2**64 values
        (gzip.compress(bytes(2**20)) * 100, "is not an idx file"),  # a bomb
    ],
    ids=lambda value: "",
)
def test_bad_idx_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "file.gz").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_idx(tmp_path / "file.gz")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("train-images", np.zeros((100, 32, 32))),
        ("train-labels", np.zeros(59_999)),
        ("train-labels", np.zeros((60_000, 1))),
    ],
)
def test_another_count_or_shape_is_an_error(official: Path, tmp_path: Path, name: str, values: np.ndarray) -> None:
    (tmp_path / "mnist").mkdir()
    for file in FILES.values():
        (tmp_path / "mnist" / file.name).hardlink_to(official / "mnist" / file.name)
    (tmp_path / "mnist" / FILES[name].name).unlink()
    (tmp_path / "mnist" / FILES[name].name).write_bytes(gzip.compress(idx(values), 1))
    with pytest.warns(DataWarning, match="checksum"), pytest.raises(DataError, match="not 60000 images of 28x28"):
        MNIST(str(tmp_path)).prepare_data()


@pytest.fixture(scope="module")
def gray_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with a white row, a row of a quarter of white, and black ones."""

    def draw(images: np.ndarray) -> None:
        images[:, 1], images[:, 2] = 255, 64

    return write_official_files(tmp_path_factory.mktemp("gray"), draw)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*checksum:datamodules.DataWarning")
def test_static_binarization(gray_root: Path) -> None:
    data = {size: MNIST(str(gray_root), image_size=size, binarization="static", val_images=10_000) for size in (28, 32)}
    for one in data.values():
        one.prepare_data()
        one.setup("fit")
    assert [len(split) for split in (data[28].train_set, data[28].val_set)] == [50_000, 10_000]
    for name in ("train_set", "test_set"):
        small, padded = (getattr(one, name).columns.image for one in data.values())
        assert torch.equal(padded[:, :, 2:-2, 2:-2], small), "one draw for both sizes"
        assert padded.sum() == small.sum(), "the padding is black"
        white = small == 255
        ink = white.sum((0, 1, 3)) / (len(small) * 28)
        assert torch.equal(white, small > 0), "black and white"
        assert ink[1] == 1
        assert ink[3:].max() == ink[0] == 0
        assert ink[2].item() == pytest.approx(64 / 255, abs=4 * (0.19 / (len(small) * 28)) ** 0.5)
    assert not torch.equal(data[28].test_set.columns.image[0], data[28].test_set.columns.image[1])
    again = data[28].train_set.__getitems__(range(5)).image
    assert torch.equal(again, data[28].train_set.__getitems__(range(5)).image)
    # The draw belongs to published values: it must never change.
    assert zlib.crc32(data[28].test_set.columns.image[:100].numpy().tobytes()) == 1428628368


@pytest.mark.filterwarnings("ignore:.*checksum:datamodules.DataWarning")
def test_dynamic_binarization(gray_root: Path) -> None:
    static, dynamic = (MNIST(str(gray_root), image_size=28, binarization=kind) for kind in ("static", "dynamic"))
    for one in (static, dynamic):
        one.prepare_data()
        one.setup("fit")
    for name in ("val_set", "test_set"):
        assert torch.equal(getattr(static, name).columns.image, getattr(dynamic, name).columns.image)
    batch = dynamic.train_set.__getitems__(range(2000))
    torch.manual_seed(0)
    first, second = (dynamic.transform(batch, training=True).image for _ in range(2))
    assert ((first == 0) | (first == 1)).all()
    assert not torch.equal(first, second), "each batch is drawn again"
    assert first[:, 0, 2].mean().item() == pytest.approx(64 / 255, abs=0.01)
    assert (first[:, 0, 1] == 1).all()
    assert (first[:, 0, 3:] == 0).all()
    turned = MNIST(str(gray_root), image_size=28, binarization="dynamic", augmentation="affine")
    image = turned.augment(dynamic.transform(batch, training=False)).image
    assert ((image == 0) | (image == 1)).all(), "binarized after the augmentation"


@pytest.mark.parametrize("place", ["mnist/train-images-idx3-ubyte", "MNIST/raw/train-images.idx3-ubyte"])
def test_unpacked_files(official: Path, tmp_path: Path, place: str) -> None:
    folder = (tmp_path / place).parent
    folder.mkdir(parents=True)
    for file in FILES.values():
        name = file.name.removesuffix(".gz")
        name = name.replace("-idx", ".idx") if ".idx" in place else name
        (folder / name).write_bytes(gzip.decompress((official / "mnist" / file.name).read_bytes()))
    data = set_up(MNIST(str(tmp_path), image_size=28))
    assert data.test_set[999].image[0, 0, :2].tolist() == [999 // 256, 999 % 256]
