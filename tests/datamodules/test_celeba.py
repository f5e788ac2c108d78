import zipfile
from pathlib import Path

import pytest
import torchvision
from PIL import Image

from datamodules import CelebA, DataError, DataWarning
from tests.support.data_modules import set_up
from tests.support.fixtures import Patch

# Two images at each border between the official splits.
NUMBERS = [1, 2, 162_769, 162_770, 162_771, 182_637, 182_638, 202_599]
only_a_subset = pytest.mark.filterwarnings("ignore:.*holds 8 images; CelebA has 202,599:datamodules.DataWarning")


def write_celeba(folder: Path) -> None:
    """178x218 JPEGs, each of one gray, its place in NUMBERS; every second one smiles."""
    (folder / "img_align_celeba").mkdir(parents=True)
    for i, number in enumerate(NUMBERS):
        Image.new("RGB", (178, 218), (i * 10,) * 3).save(folder / "img_align_celeba" / f"{number:06}.jpg", quality=95)
    rows = [f"{number:06}.jpg  {(-1) ** i:2d} {(-1) ** (i + 1):2d}" for i, number in enumerate(NUMBERS)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), "Bald Smiling ", *rows, ""]))


def prepared(root: Path, **arguments) -> CelebA:
    return set_up(CelebA(root=str(root), **{"batch_size": 1, "image_size": 16, **arguments}))


def grays(split) -> list[int]:
    images = split.__getitems__(range(len(split))).image
    return (images.float().mean((1, 2, 3)) / 10).round().int().tolist()


def test_official_splits(tmp_path: Path) -> None:
    write_celeba(tmp_path / "celeba")
    with pytest.warns(DataWarning, match=r"img_align_celeba holds 8 images; CelebA has 202,599"):
        data = prepared(tmp_path)
    assert (data.num_classes, data.class_names, data.image_shape) == (0, (), (3, 16, 16))
    assert grays(data.train_set) == [0, 1, 2, 3]
    assert grays(data.val_set) == [4, 5]
    assert grays(data.test_set) == [6, 7]
    assert data.file_names[-1] == "202599.jpg"
    assert 202_599 - 182_637 == 19_962


@only_a_subset
def test_an_attribute_makes_classes(tmp_path: Path) -> None:
    write_celeba(tmp_path / "celeba")
    data = CelebA(attribute="Smiling", root=str(tmp_path))
    assert (data.num_classes, data.class_names) == (2, ("not Smiling", "Smiling"))
    assert prepared(tmp_path, attribute="Smiling").predict_set.columns.label.tolist() == [0, 1] * 4
    assert prepared(tmp_path, attribute="Bald").predict_set.columns.label.tolist() == [1, 0] * 4


@only_a_subset
def test_a_placed_archive(tmp_path: Path) -> None:
    write_celeba(tmp_path / "made")
    (tmp_path / "celeba").mkdir()
    with zipfile.ZipFile(tmp_path / "celeba" / "img_align_celeba.zip", "w") as file:
        for path in (tmp_path / "made" / "img_align_celeba").iterdir():
            file.write(path, f"img_align_celeba/{path.name}")
    data = prepared(tmp_path)
    assert [grays(split) for split in (data.train_set, data.val_set, data.test_set)] == [[0, 1, 2, 3], [4, 5], [6, 7]]


@only_a_subset
def test_torchvision_downloads(tmp_path: Path, monkeypatch: Patch) -> None:
    calls = []

    def download(root: str, split: str, download: bool) -> None:
        calls.append((root, download))
        write_celeba(Path(root) / "celeba")

    monkeypatch.setattr(torchvision.datasets, "CelebA", download)
    for _ in range(2):
        assert grays(prepared(tmp_path).train_set) == [0, 1, 2, 3]
    assert calls == [(str(tmp_path), True)]


def without_attributes(root: Path) -> None:
    write_celeba(root / "celeba")
    (root / "celeba" / "list_attr_celeba.txt").unlink()


def damaged_attributes(root: Path) -> None:
    write_celeba(root / "celeba")
    (root / "celeba" / "list_attr_celeba.txt").write_text("8\nBald Smiling\n000001.jpg 1\n")


def cut_off_attributes(root: Path) -> None:
    write_celeba(root / "celeba")
    path = root / "celeba" / "list_attr_celeba.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n1")


BAD_ROOTS = {
    "no attributes": (
        without_attributes,
        {"attribute": "Bald"},
        r"list_attr_celeba\.txt can't be read \(.*No such file",
    ),
    "damaged attributes": (damaged_attributes, {"attribute": "Smiling"}, r"has no row for 8 of the images"),
    "cut-off attributes": (
        cut_off_attributes,
        {"attribute": "Smiling"},
        r"list_attr_celeba\.txt has no row for 5 of the images, such as \d+\.jpg: get the whole file",
    ),
    "unknown attribute": (
        lambda root: write_celeba(root / "celeba"),
        {"attribute": "Angry"},
        r"CelebA has no attribute Angry: set --data\.attribute to one of Bald, Smiling\.",
    ),
}


@only_a_subset
@pytest.mark.parametrize(("make", "arguments", "sentence"), BAD_ROOTS.values(), ids=BAD_ROOTS)
def test_bad_roots(tmp_path: Path, make, arguments: dict, sentence: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        prepared(tmp_path, **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("image.npy"))
