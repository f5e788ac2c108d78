"""Every data module on every kind of bad input, and the sentence that the user gets."""

import gzip
import io
import os
import re
import socket
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import datamodules
from datamodules import DataError, DataWarning, ImageDataModule
from datamodules.loading import archives
from tests.support.data_modules import set_up
from tests.support.fixtures import Patch
from tests.support.smallest_data import (
    SMALL,
    WRITE,
    module,
    with_parent,
    write,
    write_cifar10,
    write_maps,
    write_mnist,
    write_omniglot,
    write_stl10,
    write_tiny_imagenet,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: Patch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(archives, "RETRY_DELAYS", ())


# --- ways to spoil them -----------------------------------------------------------------------------------------------

FOLDERS = {
    "Digits": ["digits"],
    "MNIST": ["mnist"],
    "Omniglot": ["omniglot", "omniglot/images_background", "omniglot/images_evaluation"],
    "CIFAR10": ["cifar10", "cifar10/cifar-10-batches-bin"],
    "TinyImageNet": ["tiny-imagenet-200", "tiny-imagenet-200/train"],
    "STL10": ["stl10", "stl10/stl10_binary"],
    "LFW": ["lfw", "lfw/lfw-deepfunneled", "lfw/lfw-deepfunneled/George_W_Bush"],
    "CelebA": ["celeba", "celeba/img_align_celeba"],
    "Maps": ["maps", "maps/train", "maps/val"],
    "ImageFolder": ["pictures", "pictures/a"],
}
FOLDERS["OmniglotEpisodes"] = FOLDERS["Omniglot"]
"""The folders where each data module looks."""


def empty_folder(name: str, root: Path) -> None:
    (root / FOLDERS[name][0]).mkdir(parents=True)


def text_files(name: str, root: Path) -> None:
    for folder in FOLDERS[name]:
        for i in range(3):
            write(root / folder / f"{i}.txt", b"hello")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def in_zip(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Changes one member of a zip."""
    with zipfile.ZipFile(path) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    contents[name] = change(contents.get(name, b""))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in contents.items():
            archive.writestr(member, content)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


TRUNCATED = {
    "MNIST": lambda root: cut_in_half(root / "mnist" / "train-images-idx3-ubyte.gz"),
    "Omniglot": lambda root: in_zip(
        root / "omniglot" / "images_background.zip", "images_background/Greek/character02/0002_01.png", half
    ),
    "CIFAR10": lambda root: cut_in_half(root / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin"),
    "TinyImageNet": lambda root: in_zip(
        root / "tiny-imagenet-200" / "tiny-imagenet-200.zip",
        "tiny-imagenet-200/train/n00000100/images/n00000100_0.JPEG",
        half,
    ),
    "STL10": lambda root: os.truncate(root / "stl10" / "stl10_binary" / "train_X.bin", 100_000),
    "LFW": lambda root: cut_in_half(root / "lfw" / "lfw-deepfunneled" / "George_W_Bush" / "George_W_Bush_0011.jpg"),
    "CelebA": lambda root: cut_in_half(root / "celeba" / "img_align_celeba" / "000005.jpg"),
    "Maps": lambda root: cut_in_half(root / "maps" / "train" / "3.jpg"),
    "ImageFolder": lambda root: cut_in_half(root / "pictures" / "b" / "11.jpg"),
}


BOMB = 50 * 2**20


def bomb_zip(path: Path, member: str) -> None:
    with zipfile.ZipFile(with_parent(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(BOMB))


def bomb_tar(path: Path, member: str) -> None:
    with tarfile.open(with_parent(path), "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = BOMB
        archive.addfile(info, io.BytesIO(bytes(BOMB)))


def bomb_mnist(root: Path) -> None:
    write_mnist(root)
    write(root / "mnist" / "t10k-images-idx3-ubyte.gz", gzip.compress(bytes(2 * BOMB)))


def bomb_omniglot(root: Path) -> None:
    write_omniglot(root)
    path = root / "omniglot" / "images_background.zip"
    in_zip(path, "images_background/Greek/character01/0001_03.png", lambda content: bytes(2 << 20))


def bomb_tiny_imagenet(root: Path) -> None:
    write_tiny_imagenet(root)
    path = root / "tiny-imagenet-200" / "tiny-imagenet-200.zip"
    in_zip(path, "tiny-imagenet-200/val/images/val_3.JPEG", lambda content: bytes(2**24 + 1))  # a byte too many


def bomb_pictures(root: Path) -> None:
    bomb_zip(root / "bomb.zip", "a/1.jpg")
    (root / "bomb.zip").rename(root / "pictures")


BOMBS = {
    "MNIST": bomb_mnist,
    "Omniglot": bomb_omniglot,
    "CIFAR10": lambda root: bomb_tar(
        root / "cifar10" / "cifar-10-binary.tar.gz", "cifar-10-batches-bin/test_batch.bin"
    ),
    "TinyImageNet": bomb_tiny_imagenet,
    "STL10": lambda root: bomb_tar(root / "stl10" / "stl10_binary.tar.gz", "stl10_binary/train_X.bin"),
    "LFW": lambda root: bomb_tar(root / "lfw" / "lfw-deepfunneled.tgz", "lfw-deepfunneled/A_B/A_B_0001.jpg"),
    "CelebA": lambda root: bomb_zip(root / "celeba" / "img_align_celeba.zip", "img_align_celeba/000001.jpg"),
    "Maps": lambda root: bomb_tar(root / "maps" / "maps.tar.gz", "maps/train/1.jpg"),
    "ImageFolder": bomb_pictures,
}

ARCHIVES = {
    "CIFAR10": "cifar10/cifar-10-binary.tar.gz",
    "STL10": "stl10/stl10_binary.tar.gz",
    "LFW": "lfw/lfw-deepfunneled.tgz",
}

WRONG = {
    "MNIST": lambda root: write_mnist(root, 59_999),
    "Omniglot": lambda root: write_omniglot(root, 28),
    "CIFAR10": lambda root: write_cifar10(root, 10_001),
    "TinyImageNet": lambda root: write_tiny_imagenet(root, 32),
    "STL10": lambda root: write_stl10(root, 5_001),
    "Maps": lambda root: write_maps(root, 50),
}


def whole(name: str, root: Path) -> None:
    WRITE[name](root)


def truncated(name: str, root: Path) -> None:
    WRITE[name](root)
    TRUNCATED[name](root)


def bomb(name: str, root: Path) -> None:
    BOMBS[name](root)


def archive_of_something_else(name: str, root: Path) -> None:
    with tarfile.open(with_parent(root / ARCHIVES[name]), "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO())


def wrong_count_or_shape(name: str, root: Path) -> None:
    WRONG[name](root)


def no_root(name: str, root: Path) -> None:
    root.rmdir()


def root_is_a_file(name: str, root: Path) -> None:
    root.rmdir()
    root.write_bytes(b"hello")


# --- the table --------------------------------------------------------------------------------------------------------

NO_DOWNLOAD = (
    r"can't be downloaded \(.*no network in tests\)\. Try again later, or put the file into ROOT/\S+ by hand\."
)
NO_CELEBA = r"CelebA can't be downloaded \(.*\): install gdown, or get .* and put it into ROOT/celeba\."
NOT_A_FOLDER = r"The prepared data can't be written to ROOT/\S+: Not a directory\. .*folder with --data\.root"
FILLS_THE_DISK = r" is refused: it would unpack to more than 10,\d+,\d+ bytes"

ERRORS = {
    no_root: {
        "MNIST": "train-images-idx3-ubyte.gz " + NO_DOWNLOAD,
        "Omniglot": "images_background.zip " + NO_DOWNLOAD,
        "CIFAR10": "cifar-10-binary.tar.gz " + NO_DOWNLOAD,
        "TinyImageNet": "tiny-imagenet-200.zip " + NO_DOWNLOAD,
        "STL10": "stl10_binary.tar.gz " + NO_DOWNLOAD,
        "LFW": "lfw-deepfunneled.tgz " + NO_DOWNLOAD,
        "CelebA": NO_CELEBA,
        "Maps": "maps.tar.gz " + NO_DOWNLOAD,
        "ImageFolder": "There is no folder or archive ROOT/pictures: set --data.path to one that holds images",
    },
    root_is_a_file: dict.fromkeys(SMALL, NOT_A_FOLDER),
    text_files: {
        "MNIST": "train-images-idx3-ubyte.gz " + NO_DOWNLOAD,
        "Omniglot": "ROOT/omniglot/images_background holds no drawing of Omniglot .*: delete it",
        "CIFAR10": "ROOT/cifar10/cifar-10-batches-bin has no data_batch_1 or data_batch_1.bin: put .*files there",
        "TinyImageNet": "tiny-imagenet-200.zip " + NO_DOWNLOAD,
        "STL10": "ROOT/stl10/stl10_binary has no train_y.bin: put STL-10's files there",
        "LFW": "lfw-deepfunneled.tgz " + NO_DOWNLOAD,
        "CelebA": "ROOT/celeba/img_align_celeba holds no images of CelebA .*: put them there",
        "Maps": "ROOT/maps holds no images in train/: put train/ and val/ of maps.tar.gz there",
        "ImageFolder": "ROOT/pictures holds no images but 6 other files, such as 0.txt: set --data.path to",
    },
    truncated: {
        "MNIST": "ROOT/mnist/train-images-idx3-ubyte.gz is not a whole gzip file: delete it",
        "Omniglot": "Greek/character02/0002_01.png in ROOT/omniglot/images_background.zip is not a whole PNG image",
        "CIFAR10": "ROOT/cifar10/cifar-10-batches-bin/data_batch_3.bin is damaged or not of CIFAR-10: get it again",
        "STL10": "ROOT/stl10/stl10_binary/train_X.bin has 100,000 bytes, not 5,000 images of 27,648 bytes: get it",
    },
    bomb: {
        "MNIST": "ROOT/mnist/t10k-images-idx3-ubyte.gz is not an idx file of unsigned bytes: delete it",
        "Omniglot": "ROOT/omniglot/images_background.zip holds .*Greek/character01/0001_03.png of 2,?097,?152 bytes",
        "CIFAR10": "ROOT/cifar10/cifar-10-binary.tar.gz" + FILLS_THE_DISK,
        "TinyImageNet": r"ROOT/\S+/tiny-imagenet-200.zip is refused: .*val_3.JPEG' would take 16,777,217 bytes",
        "STL10": "ROOT/stl10/stl10_binary.tar.gz" + FILLS_THE_DISK,
        "LFW": "ROOT/lfw/lfw-deepfunneled.tgz" + FILLS_THE_DISK,
        "CelebA": "ROOT/celeba/img_align_celeba.zip" + FILLS_THE_DISK,
        "Maps": "ROOT/maps/maps.tar.gz" + FILLS_THE_DISK,
        "ImageFolder": "ROOT/pictures" + FILLS_THE_DISK,
    },
    archive_of_something_else: {
        "CIFAR10": "ROOT/cifar10/cifar-10-binary.tar.gz isn't CIFAR-10's archive",
        "STL10": "ROOT/stl10/stl10_binary.tar.gz isn't STL-10's archive",
        "LFW": r"lfw-deepfunneled.tgz holds no images of LFW \(named as George_W_Bush/",
    },
    wrong_count_or_shape: {
        "MNIST": r"hold \(59999, 28, 28\) images and \(60000,\) labels, not 60000 images of 28x28",
        "Omniglot": "0001_01.png in ROOT/omniglot/images_background.zip has 28x28 pixels, not 105x105",
        "CIFAR10": "data_batch_1.bin has 10,001 images, but the official file has 10,000: get it again",
        "TinyImageNet": r"n00000000_0.JPEG of ROOT/\S+ has 32x32 pixels, not 64x64: get it again",
        "STL10": "train_X.bin has 138,267,648 bytes, not 5,000 images of 27,648 bytes: get it",
        "Maps": "train/1.jpg in ROOT/maps: it has 50x32 pixels, but a pair lies side by side",
    },
}
ERRORS[empty_folder] = ERRORS[no_root] | {"ImageFolder": "ROOT/pictures holds no images: set --data.path to"}
for sentences in ERRORS.values():
    if "Omniglot" in sentences:
        sentences["OmniglotEpisodes"] = sentences["Omniglot"]
for spoiled in (TRUNCATED, BOMBS, WRONG):
    spoiled["OmniglotEpisodes"] = spoiled["Omniglot"]

NOTES = {
    "TinyImageNet": r"Left out, as they aren't whole JPEG files: train/\S+/n00000100_0.JPEG, of ROOT/\S+\.zip\.",
    "LFW": r"1 of the 20 images in ROOT/lfw/lfw-deepfunneled .*: George_W_Bush/George_W_Bush_0011.jpg \(",
    "CelebA": r"1 of the 12 images in ROOT/celeba/img_align_celeba .*: 000005.jpg \(",
    "Maps": r"1 of the 6 images in ROOT/maps .*: train/3.jpg \(",
    "ImageFolder": r"1 of the 20 images in ROOT/pictures .*: b/11.jpg \(",
}
"""What is said of one truncated JPEG; the rest of the data set is used."""


def test_the_table_is_complete() -> None:
    public = [getattr(datamodules, name) for name in datamodules.__all__]
    concrete = {cls.__name__ for cls in public if isinstance(cls, type) and issubclass(cls, ImageDataModule)}
    # SupportQuery reads two ImageFolders, in the shape that a model asks for; three read another module's files.
    others = {"ImageDataModule", "EpisodeDataModule", "FewLabels", "SearchDataModule", "SupportQuery", "UnseenClasses"}
    others |= {"PairedFolder", "TorchDataset"}  # whose own tests have such tables
    assert concrete - others == SMALL.keys()
    from_files = SMALL.keys() - {"Digits"}  # which come with scikit-learn
    for case in (no_root, empty_folder, text_files, bomb):
        assert ERRORS[case].keys() == from_files
    assert ERRORS[root_is_a_file].keys() == SMALL.keys()
    assert ERRORS[truncated].keys() | NOTES.keys() == from_files
    assert ERRORS[archive_of_something_else].keys() == ARCHIVES.keys()
    assert ERRORS[wrong_count_or_shape].keys() == from_files - {"LFW", "CelebA", "ImageFolder"}  # any will do


@pytest.mark.filterwarnings("ignore::datamodules.DataWarning")
@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{case.__name__}-{name}") for case, names in ERRORS.items() for name in names],
)
def test_errors(tmp_path: Path, name: str, case: Callable[[str, Path], None]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    case(name, root)
    with pytest.raises(DataError) as caught:
        module(name, root).prepare_data()
    sentence = str(caught.value).replace(str(root), "ROOT")
    assert re.search(ERRORS[case][name], sentence), sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    left = [path for path in tmp_path.rglob("*") if path.suffix in (".npy", ".part") or ".unfinished" in path.name]
    assert left == []


def batch_of(data: ImageDataModule) -> tuple[torch.Tensor, ...]:
    """A training batch as a model gets it."""
    return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)


@pytest.mark.parametrize("name", NOTES)
def test_a_truncated_jpeg_is_left_out_with_a_note(tmp_path: Path, name: str) -> None:
    images = {}
    for case in (whole, truncated):
        root = tmp_path / case.__name__
        root.mkdir()
        case(name, root)
        data = module(name, root)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.prepare_data()
            data.setup("fit")
        images[case] = len(data.train_set) + len(data.val_set) + len(data.test_set)
        notes = [str(note.message).replace(str(root), "ROOT") for note in caught if note.category is DataWarning]
        assert len([note for note in notes if re.search(NOTES[name], note)]) == (case is truncated)
    assert images[truncated] == images[whole] - 1
    assert all(column.min() >= 0 and column.max() <= 1 for column in batch_of(data) if column.is_floating_point())


@pytest.fixture
def read_only_root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    root.mkdir()
    yield root
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)


def make_read_only(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.mark.filterwarnings("ignore::datamodules.DataWarning")
@pytest.mark.parametrize("name", SMALL)
def test_without_write_permission_the_users_cache_is_used(tmp_path: Path, read_only_root: Path, name: str) -> None:
    WRITE[name](read_only_root)
    make_read_only(read_only_root)
    before = sorted(read_only_root.rglob("*"))
    data = set_up(module(name, read_only_root))
    batch = batch_of(data)
    assert len(batch[0]) == data.batch_size
    assert batch[0].dtype == torch.float32
    assert sorted(read_only_root.rglob("*")) == before
    assert list((tmp_path / "cache").rglob("meta.json"))


@pytest.mark.filterwarnings("ignore::datamodules.DataWarning")
@pytest.mark.parametrize("name", SMALL)
def test_without_write_permission_anywhere(tmp_path: Path, read_only_root: Path, name: str) -> None:
    WRITE[name](read_only_root)
    make_read_only(read_only_root)
    (tmp_path / "cache").write_bytes(b"hello")  # in the place of the folder
    with pytest.raises(
        DataError, match=r"The prepared data can't be written to .*/cache/relit/prepared/\S+: Not a dir"
    ):
        module(name, read_only_root).prepare_data()
