import shutil
import tarfile
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from datamodules import LFW, DataError, DataWarning, lfw
from datamodules.loading import archives
from tests.support.data_modules import real_root, set_up, sizes
from tests.support.fixtures import Patch

PEOPLE = {"Ann_Able": 1, "Bob_Brown": 3, "Cid": 12}
only_a_subset = pytest.mark.filterwarnings("ignore:.* holds .* images of .* people:datamodules.DataWarning")


def write_people(folder: Path, people: dict[str, int] | None = None) -> Path:
    """250x250 JPEGs in the official layout, each of one gray: 10 times its person's place, plus its number."""
    for i, (name, count) in enumerate((people or PEOPLE).items()):
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            image = Image.new("RGB", (250, 250), (20 * i + number,) * 3)
            image.save(folder / name / f"{name}_{number:04}.jpg", quality=95)
    (folder / "pairs_01.txt").write_text("a list, as in lfw-funneled.tgz")
    return folder


def prepared(root: Path, **arguments) -> LFW:
    return set_up(LFW(root=str(root), **{"batch_size": 4, "image_size": 16, **arguments}))


def grays(data: LFW) -> list[int]:
    return (
        data.predict_set.__getitems__(range(len(data.predict_set))).image.float().mean((1, 2, 3)).round().int().tolist()
    )


@only_a_subset
@pytest.mark.parametrize("parent", ["lfw", "lfw-py", "."])
@pytest.mark.parametrize(
    ("alignment", "folder"), [("deepfunneled", "lfw-deepfunneled"), ("funneled", "lfw_funneled"), ("original", "lfw")]
)
def test_finds_extracted_folders(tmp_path: Path, parent: str, alignment: str, folder: str) -> None:
    write_people(tmp_path / parent / folder)
    for _ in range(2):  # the second time, the prepared arrays lie next to the folder or in it
        data = prepared(tmp_path, alignment=alignment)
        assert data.class_names == ("Ann_Able", "Bob_Brown", "Cid")
        assert data.num_classes == 3
        assert grays(data) == [1, 21, 22, 23, *range(41, 53)]
        assert data.predict_set.__getitems__(range(16)).label.tolist() == [0] + [1] * 3 + [2] * 12


@only_a_subset
def test_people(tmp_path: Path) -> None:
    write_people(tmp_path / "lfw" / "lfw-deepfunneled")
    one = prepared(tmp_path, people=["Bob Brown"])
    assert (one.class_names, grays(one)) == (("Bob_Brown",), [21, 22, 23])
    two = prepared(tmp_path, people=["Cid", "Ann_Able"])
    assert (two.class_names, grays(two)) == (("Ann_Able", "Cid"), [1, *range(41, 53)])
    many = prepared(tmp_path, min_images=3)
    assert (many.class_names, len(many.predict_set)) == (("Bob_Brown", "Cid"), 15)
    both = prepared(tmp_path, people=["Ann_Able", "Cid"], min_images=2)
    assert both.class_names == ("Cid",)
    assert sizes(both) == [10, 1, 1]


@pytest.mark.parametrize("parent", ["lfw", "lfw-py", "."])
def test_a_placed_archive_is_unpacked_and_another_checksum_noted(tmp_path: Path, parent: str) -> None:
    write_people(tmp_path / "made" / "lfw-deepfunneled")
    (tmp_path / "root" / parent).mkdir(parents=True)
    with tarfile.open(tmp_path / "root" / parent / "lfw-deepfunneled.tgz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "lfw-deepfunneled", "lfw-deepfunneled")
    with pytest.warns(DataWarning) as notes:
        data = prepared(tmp_path / "root")
    texts = [str(warning.message) for warning in notes]
    assert any("not the published md5:68331da3eb755a505a502b5aacb3c201" in text for text in texts)
    assert any("lfw-deepfunneled.tgz holds 16 images of 3 people; LFW has 13,233 of 5,749." in text for text in texts)
    assert data.class_names == ("Ann_Able", "Bob_Brown", "Cid")
    assert not list((tmp_path / "root").rglob("*.jpg"))


@only_a_subset
@pytest.mark.filterwarnings("ignore:.*source files have changed:datamodules.DataWarning")
def test_a_folder_that_grows_is_decoded_again(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "lfw" / "lfw-deepfunneled")
    prepared(tmp_path)
    shutil.copytree(folder / "Cid", folder / "Dan")
    for path in (folder / "Dan").iterdir():
        path.rename(path.with_name(path.name.replace("Cid", "Dan")))
    assert prepared(tmp_path).class_names == ("Ann_Able", "Bob_Brown", "Cid", "Dan")


@only_a_subset
def test_files_of_other_names_are_no_images_of_lfw(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "lfw" / "lfw-deepfunneled", {"Bob_Brown": 2})
    shutil.copy(folder / "Bob_Brown" / "Bob_Brown_0001.jpg", folder / "Bob_Brown" / "copy.jpg")
    shutil.copy(folder / "Bob_Brown" / "Bob_Brown_0001.jpg", folder / "Bob_Brown" / "Ann_Able_0001.jpg")
    assert len(prepared(tmp_path).predict_set) == 2


@only_a_subset
def test_crop_and_gray(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "lfw" / "lfw-deepfunneled", {"Bob_Brown": 1})
    image = Image.new("RGB", (250, 250), (255, 255, 255))
    image.paste((0, 0, 0), (75, 75, 175, 175))
    image.save(folder / "Bob_Brown" / "Bob_Brown_0001.jpg", quality=95)
    data = prepared(tmp_path, crop=80, channels=1)
    assert data.image_shape == (1, 16, 16)
    assert data.predict_set[0].image.max() <= 5
    assert prepared(tmp_path).predict_set[0].image.max() == 255


NO_NETWORK = r"lfw-deepfunneled\.tgz can't be downloaded \(http://127\.0\.0\.1:9/.*put the file into .*lfw by hand"
BAD_ROOTS = {
    "other alignment": (lambda root: write_people(root / "lfw" / "lfw_funneled"), {}, NO_NETWORK),
    "unknown person": (
        lambda root: write_people(root / "lfw" / "lfw-deepfunneled"),
        {"people": ["Bob_Braun"]},
        r"holds no images of Bob_Braun \(the nearest name is Bob_Brown\): change --data\.people",
    ),
    "too many images": (
        lambda root: write_people(root / "lfw" / "lfw-deepfunneled"),
        {"min_images": 13},
        r"No person that was asked for has 13 images in .*lfw-deepfunneled \(the most are 12\): lower --data\.min",
    ),
}


@only_a_subset
@pytest.mark.filterwarnings("ignore:.*checksum:datamodules.DataWarning")
@pytest.mark.parametrize(("make", "arguments", "sentence"), BAD_ROOTS.values(), ids=BAD_ROOTS)
def test_bad_roots(tmp_path: Path, monkeypatch: Patch, make, arguments: dict, sentence: str) -> None:
    nowhere = {
        alignment: archives.RemoteFile(file.name, ("http://127.0.0.1:9/",), file.checksum)
        for alignment, file in lfw.ARCHIVES.items()
    }
    monkeypatch.setattr(lfw, "ARCHIVES", nowhere)
    monkeypatch.setattr(archives, "RETRY_DELAYS", ())
    make(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        prepared(tmp_path, **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("image.npy"))


def test_checksums_are_those_of_torchvision() -> None:
    for alignment, (folder, archive, md5) in torchvision.datasets.lfw._LFW.file_dict.items():
        assert lfw.FOLDERS[alignment] == folder
        assert (lfw.ARCHIVES[alignment].name, lfw.ARCHIVES[alignment].checksum) == (archive, f"md5:{md5}")


def test_all_530_images_of_george_w_bush() -> None:
    root = real_root("lfw/lfw-deepfunneled")
    with pytest.warns(DataWarning, match="lfw-deepfunneled holds 1,030 images of 141 people; LFW has 13,233 of 5,749"):
        data = prepared(root, people=["George_W_Bush"], image_size=64)
    assert data.class_names == ("George_W_Bush",)
    assert sizes(data) == [424, 53, 53]
    assert data.file_names == tuple(f"George_W_Bush/George_W_Bush_{i:04}.jpg" for i in range(1, 531))
    resize = transforms.Resize(64, transforms.InterpolationMode.BICUBIC)
    for row in (0, 99, 529):
        path = root / "lfw" / "lfw-deepfunneled" / data.file_names[row]
        expected = transforms.functional.pil_to_tensor(resize(Image.open(path)))
        assert torch.equal(data.predict_set[row].image, expected)


@only_a_subset
def test_counts_are_those_of_lfw_names() -> None:
    """People of whom all images are there: George W. Bush, and those who have but one."""
    root = real_root("lfw/lfw-deepfunneled")
    data = prepared(root)
    official = dict(line.split() for line in (root / "lfw" / "lfw-names.txt").read_text().splitlines())
    assert len(data.class_names) == 141
    counts = data.predict_set.columns.label.bincount().tolist()
    complete = [count == int(official[name]) for name, count in zip(data.class_names, counts, strict=True)]
    assert sum(complete) >= 101
    assert all(count <= int(official[name]) for name, count in zip(data.class_names, counts, strict=True))


@only_a_subset
def test_training_faces_may_be_mirrored(tmp_path: Path) -> None:
    write_people(tmp_path / "lfw" / "lfw-deepfunneled")
    data = prepared(tmp_path, augmentation="flip")
    image = torch.arange(16 * 3 * 16 * 16).reshape(16, 3, 16, 16).remainder(251).byte()
    flipped = data.augment(data.train_set.columns._replace(image=image)).image
    assert all(torch.equal(new, old) or torch.equal(new, old.flip(-1)) for new, old in zip(flipped, image, strict=True))
    assert not torch.equal(flipped, image)
