"""Folders as people have them: what is read, what is left out, and that it is said."""

import errno
import os
import re
import shutil
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from datamodules import DataError, DataWarning, EpisodeDataModule, FewLabels, ImageFolder
from datamodules.loading import decoding
from datamodules.loading.folders import VAL, split_of_name, walk
from datamodules.loading.paths import locked, user_cache
from lit_models import VAE, DigitClassifier, TransferClassifier
from tests.support.data_modules import set_up, sizes
from tests.support.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("default_root")


def make(folder: Path, **counts: int) -> Path:
    """Writes noisy pictures of 16x16 pixels into folders (``a__b`` is ``a/b``)."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        below = folder / name.replace("__", "/")
        below.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(below / f"{number:03}.png")
    return folder


def prepared(path: Path, **arguments) -> ImageFolder:
    return set_up(ImageFolder(str(path), **{"image_size": 8, "channels": 3, "batch_size": 2, **arguments}))


def notes_of(path: Path, **arguments) -> tuple[ImageFolder, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = prepared(path, **arguments)
    return data, "\n".join(str(one.message) for one in caught)


# --- splits -----------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "upper case": {"Training__a": 4, "Training__b": 4, "Testing__a": 2, "Testing__b": 2},
    "three": {"Train__a": 4, "Train__b": 4, "Test__a": 1, "Test__b": 1, "Val__a": 3, "Val__b": 3},
    "wrapped": {"seg_train__seg_train__a": 4, "seg_train__seg_train__b": 4, "seg_test__seg_test__a": 3},
    "year": {"train2017__a": 4, "train2017__b": 4, "val2017__a": 3},
    "words in one": {"TrainSet__a": 4, "TrainSet__b": 4, "TestSet__b": 3},
    "both": {"trainval__a": 4, "trainval__b": 4, "test__b": 3},
    "within classes": {"a__train": 4, "a__test": 2, "b__train": 4, "b__test": 2},
}
SIZES = {
    "upper case": [6, 2, 4],
    "three": [8, 6, 2],
    "wrapped": [6, 2, 3],
    "year": [7, 3, 1],
    "words in one": [6, 2, 3],
    "both": [6, 2, 3],
    "within classes": [6, 2, 4],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_by_their_usual_names(tmp_path: Path, layout: str) -> None:
    folder = make(tmp_path / "data", **LAYOUTS[layout])
    data, notes = notes_of(folder, val_fraction=0.25)
    assert data.class_names == ("a", "b")
    assert sizes(data) == SIZES[layout]
    has_val = any(split_of_name(name.partition("__")[0]) == VAL for name in LAYOUTS[layout])
    assert notes == f"--data.val_fraction has no effect: {folder} has a split of these images." * has_val
    for split in (data.train_set, data.val_set, data.test_set):
        assert split.rows is not None
        names = [data.file_names[row] for row in split.rows.tolist()]
        for name, label in zip(names, split.column("label"), strict=True):
            assert data.class_names[label] in name.split("/")


def test_folders_beside_splits_are_left_out_and_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", train__a=4, train__b=4, test__a=2, test__b=2, pred=3)
    data, notes = notes_of(folder, val_fraction=0)
    assert data.class_names == ("a", "b")
    assert sizes(data) == [8, 0, 4]
    assert "these folders are none of the splits test, train and are left out: pred." in notes


def test_a_class_named_train_stays_one_and_is_said(tmp_path: Path) -> None:
    data, notes = notes_of(make(tmp_path / "data", train=4, bus=4, car=4))
    assert data.class_names == ("bus", "car", "train")
    assert "train is taken as a class, although it may be a split" in notes


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("bounding_box_train", "bounding_box_test", "query"), "bounding_box_test, bounding_box_train are taken as"),
        (("test1", "test2"), "test1, test2 are taken as classes, although they may be splits"),
        (("freight_train_engine", "bus"), ""),
    ],
)
def test_names_that_hold_those_of_splits_are_said(tmp_path: Path, folders: tuple[str, ...], said: str) -> None:
    data, notes = notes_of(make(tmp_path / "data", **dict.fromkeys(folders, 4)))
    assert data.class_names == tuple(sorted(folders))
    assert said in notes if said else notes == ""


def test_a_class_named_train_with_splits_within_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", bus__train=4, bus__test=2, train__train=4, train__test=2)
    data, notes = notes_of(folder)
    assert data.class_names == ("bus", "train")
    assert "train is taken as a class, although it may be a split" in notes
    assert "all images of bus/test, bus/train are of the class bus" in notes


def test_splits_without_training_images(tmp_path: Path) -> None:
    data, notes = notes_of(make(tmp_path / "data", test__a=2, test__b=2, val__a=1, val__b=1))
    assert data.class_names == ("a", "b")
    assert sizes(data) == [0, 2, 4]
    assert "has no folder of training images: test, val hold the other splits" in notes


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "data", train__a=2, train__b=2, val__a=1, valid__a=1)
    with pytest.raises(DataError, match="more than one folder for one split: val, valid"):
        prepared(tmp_path / "data")


def test_images_without_a_class_beside_those_with_one(tmp_path: Path) -> None:
    """A test folder without sub-folders doesn't cost the training images their classes."""
    data, notes = notes_of(make(tmp_path / "data", train__a=3, train__b=3, test=4), val_fraction=0)
    assert data.class_names == ("a", "b")
    assert data.train_set.column("label").tolist() == [0] * 3 + [1] * 3
    assert data.test_set.column("label").tolist() == [-1] * 4
    assert "The test images of" in notes
    assert "they have no labels" in notes


def test_tiny_imagenets_layout_has_no_class_named_images(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", train__n01__images=2, train__n02__images=2, val__images=3)
    data, notes = notes_of(folder, test_fraction=0)
    assert data.class_names == ("n01", "n02")
    assert data.val_set.column("label").tolist() == [-1] * 3
    assert "The validation images of" in notes


def test_classes_that_the_draw_leaves_without_training_images_are_said(tmp_path: Path) -> None:
    """One class has a single image; some seeds draw it for validation or testing."""
    make(tmp_path / "data", often=20, once=1)
    model = DigitClassifier(image_size=16, channels=3, num_classes=2, widths=(2, 2))
    noted, without = set(), set()
    for seed in range(30):
        data = ImageFolder(str(tmp_path / "data"), image_size=16, channels=3, split_seed=seed)
        data.prepare_data()
        data.trainer = quiet_trainer()
        data.trainer.strategy.connect(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.setup("fit")
        sentence = ", 1 of 2 classes are left without training images, as all of theirs were drawn .*: once. Add images"
        noted |= {seed for one in caught if re.search(sentence, str(one.message))}
        without |= {seed} if 1 not in data.train_set.column("label") else set()
    assert noted == without
    assert 0 < len(without) < 30


def test_unlabeled_images(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", train__a=4, train__b=4, unlabeled=5)
    left_out, notes = notes_of(folder, val_fraction=0.25, test_fraction=0.25)
    assert sizes(left_out) == [4, 2, 2]
    assert "5 images without labels are left out; --data.unlabeled true adds them" in notes
    data = prepared(folder, val_fraction=0.25, test_fraction=0.25, unlabeled=True)
    assert data.train_set.column("label").eq(-1).sum() == 5
    assert sizes(data) == [9, 2, 2]
    with pytest.raises(DataError, match=r"no folder unlabeled/: set --data[.]unlabeled false"):
        prepared(make(tmp_path / "other", a=4, b=4), unlabeled=True)


def test_a_split_by_class(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", **{f"c{number}": 4 for number in range(10)})
    data = prepared(folder, split_by="class", val_fraction=0.2, test_fraction=0.3)
    labels = [set(split.column("label").tolist()) for split in (data.train_set, data.val_set, data.test_set)]
    assert [len(one) for one in labels] == [5, 2, 3]
    assert set.union(*labels) == set(range(10))
    assert sizes(data) == [20, 8, 12]
    episodes = EpisodeDataModule(data, n_way=3, n_query=3, test_way=2, test_query=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        episodes.setup("fit")
    with pytest.raises(DataError, match="has 2 classes, too few to split them"):
        prepared(make(tmp_path / "two", a=4, b=4), split_by="class")


# --- classes ----------------------------------------------------------------------------------------------------------


def test_empty_classes_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=5, dog=5, bird=0)
    (folder / "fish").mkdir()
    (folder / "fish" / "1.png").symlink_to(tmp_path / "gone.png")
    data, notes = notes_of(folder)
    assert data.class_names == ("cat", "dog")
    assert "these folders hold no images that can be read, and are no classes: bird, fish" in notes
    assert "1 links lead to no file and are left out: fish/1.png" in notes


def test_a_class_of_damaged_images_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=5, dog=1)
    (folder / "dog" / "000.png").write_text("text")
    data, notes = notes_of(folder)
    assert data.class_names == ("cat", "dog")
    assert "No image of dog in" in notes


def test_classes_that_differ_in_their_spelling_only_are_said(tmp_path: Path) -> None:
    data, notes = notes_of(make(tmp_path / "data", cat=3, Cat=3, dog=3))
    assert data.num_classes == 3
    assert "different classes, although they are spelled alike: Cat, cat" in notes


def test_names_of_any_bytes(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", tea=3)
    other = os.fsencode(folder) + b"/caf\xe9"
    shutil.copytree(folder / "tea", os.fsdecode(other))
    (folder / "tea" / "a\x1bb.png").write_bytes((folder / "tea" / "000.png").read_bytes())
    (folder / "tea" / "b\u202egnp.png").write_bytes((folder / "tea" / "000.png").read_bytes())
    data = prepared(folder)
    assert data.class_names == (r"caf\xe9", "tea")
    assert data.file_names[0] == r"caf\xe9/000.png"
    assert data.file_names[-2:] == (r"tea/a\x1bb.png", r"tea/b\x202egnp.png")
    assert all(name.encode("utf-8") for name in (*data.class_names, *data.file_names))


# --- files ------------------------------------------------------------------------------------------------------------


def test_pictures_of_other_suffixes(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=3, dog=3, cow=3)
    for path in (folder / "dog").iterdir():
        Image.open(path).save(path.with_suffix(".jfif"), "JPEG")
        path.unlink()
    for path in (folder / "cow").iterdir():
        Image.open(path).save(path.with_suffix(".jpe"), "JPEG")
        path.unlink()
    (folder / "cat" / "IMG_1.HEIC").write_bytes(b"heic")
    data, notes = notes_of(folder)
    assert data.class_names == ("cat", "cow", "dog")
    assert len(data.predict_set) == 9
    assert "pictures of kinds that relit doesn't read (1 .heic)" in notes


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=3, dog=3)
    (folder / "cat" / "again").symlink_to("..")
    (folder / "latest").symlink_to("dog")
    data, notes = notes_of(folder)
    assert len(data.predict_set) == 6
    assert data.class_names == ("cat", "dog")
    assert "lead to folders that are there already, and aren't followed: cat/again, latest" in notes


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=3)
    (folder / "dog").symlink_to(make(tmp_path / "elsewhere", skipped=3, pug=2))
    shutil.rmtree(tmp_path / "elsewhere" / "skipped")  # other pictures than the cats
    data, notes = notes_of(folder)
    assert data.class_names == ("cat", "dog")
    assert len(data.predict_set) == 5
    assert notes == ""
    assert walk(folder).folders == ["cat", "dog", "dog/pug"]


def test_links_that_lead_nowhere_are_left_out_and_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=3, dog=3)
    (folder / "cat" / "self.jpg").symlink_to("self.jpg")
    (folder / "owl").symlink_to("owl")
    data, notes = notes_of(folder)
    assert data.class_names == ("cat", "dog")
    assert "1 links lead to no file and are left out: cat/self.jpg" in notes


def test_pictures_of_trainings_are_no_data(tmp_path: Path) -> None:
    """A training that was started in the folder of the images leaves its samples there."""
    folder = make(tmp_path / "data", cat=3, dog=3, runs__vae__1__samples=2)
    for name in ("config.yaml", "run.json"):
        (folder / "runs" / "vae" / "1" / name).write_text("{}")
    data, notes = notes_of(folder)
    assert (data.class_names, len(data.predict_set)) == (("cat", "dog"), 6)
    assert "these are folders of relit's trainings, which are left out: runs/vae/1" in notes


def test_copies_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=5, dog=5)
    shutil.copy(folder / "cat" / "001.png", folder / "cat" / "001 copy.png")
    shutil.copy(folder / "cat" / "002.png", folder / "dog" / "again.png")
    _, notes = notes_of(folder)
    assert "2 images of" in notes
    assert "are copies of others, 1 of them of another class or split: cat/001.png = cat/001 copy.png, dog/a" in notes


def test_an_operating_systems_folders_are_no_classes(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", cat=3, dog=3)
    shutil.copytree(folder / "cat", folder / "cat" / "@eaDir")
    shutil.copytree(folder / "cat", folder / "__MACOSX")
    shutil.copytree(folder / "cat", folder / ".thumbnails")
    assert len(prepared(folder).predict_set) == 6


# --- pixels -----------------------------------------------------------------------------------------------------------


def one_picture(folder: Path, image: Image.Image, suffix: str = ".png", **arguments) -> torch.Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"1{suffix}")
    image.save(folder / f"2{suffix}")
    return prepared(folder, **arguments).predict_set[0].image


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_show_the_background(tmp_path: Path, channels: int) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 16))
    white = one_picture(tmp_path / "a", image, image_size=16, channels=channels)
    assert white[0, 8].tolist() == [0] * 8 + [255] * 8
    black = one_picture(tmp_path / "b", image, image_size=16, channels=channels, background="black")
    assert black.max() == 0
    half = one_picture(tmp_path / "c", Image.new("RGBA", (16, 16), (255, 0, 0, 51)), image_size=16)
    assert half[:, 0, 0].tolist() == [255, 204, 204]  # a fifth of red on four fifths of white


def ramp(low: float, high: float, dtype: type) -> Image.Image:
    return Image.fromarray(np.linspace(low, high, 256).reshape(16, 16).astype(dtype))


def test_files_of_more_than_8_bits(tmp_path: Path) -> None:
    expected = torch.arange(256).view(16, 16)
    full = {"image_size": 16, "channels": 1}
    floats = one_picture(tmp_path / "float", ramp(0, 1, np.float32), ".tif", **full)
    assert (floats[0] - expected).abs().max() <= 1
    deep = one_picture(tmp_path / "deep", ramp(0, 65535, np.uint16), ".png", **full)
    assert (deep[0] - expected).abs().max() <= 1
    for name, image, value_range in (
        ("signed", ramp(-1, 1, np.float32), (-1, 1)),
        ("bytes in floats", ramp(0, 255, np.float32), (0, 255)),
        ("bytes in words", ramp(0, 255, np.int32), (0, 255)),
        ("12 bits", ramp(0, 4095, np.uint16), (0, 4095)),
    ):
        ranged = one_picture(tmp_path / name, image, ".tif", value_range=value_range, **full)
        assert (ranged[0] - expected).abs().max() <= 1, name


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (ramp(-1, 1, np.float32), "floating-point numbers from -1 to 1"),
        (ramp(0, 255, np.float32), "floating-point numbers from 0 to 255"),
        (ramp(0, 255, np.int32), "32-bit integers from 0 to 255"),
    ],
)
def test_values_without_a_known_black_and_white_are_refused(tmp_path: Path, image: Image.Image, found: str) -> None:
    with pytest.raises(DataError, match=rf"1\.tif in .*its values are {found}; say .*--data\.value_range"):
        one_picture(tmp_path / "data", image, ".tif")


def test_a_transparent_value_of_16_bits(tmp_path: Path) -> None:
    pixels = np.full((16, 16), 32768, np.uint16)
    pixels[:, :8] = 7
    image = Image.fromarray(pixels)
    (tmp_path / "data").mkdir()
    for name in ("1.png", "2.png"):
        image.save(tmp_path / "data" / name)
        content = (tmp_path / "data" / name).read_bytes()
        chunk = b"tRNS" + (7).to_bytes(2, "big")  # between header (33 bytes) and pixels
        chunk = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        (tmp_path / "data" / name).write_bytes(content[:33] + chunk + content[33:])
    images = prepared(tmp_path / "data", image_size=16).predict_set[0].image
    assert images[:, 0].tolist() == [[255] * 8 + [128] * 8] * 3


def test_a_16_bit_pgm_is_read_as_a_16_bit_png(tmp_path: Path) -> None:
    deep = one_picture(tmp_path / "data", ramp(0, 65535, np.uint16), ".pgm", image_size=16, channels=1)
    assert (deep[0] - torch.arange(256).view(16, 16)).abs().max() <= 1


def test_lab_becomes_gray(tmp_path: Path) -> None:
    lab = Image.new("RGB", (16, 16), (200, 100, 50)).convert("LAB")
    gray = one_picture(tmp_path / "data", lab, ".tif", channels=1)
    assert abs(int(gray[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 3


def test_pictures_of_too_many_pixels_are_said_and_large_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "data", a=2)
    Image.new("L", (30, 30), 9).save(folder / "a" / "large.png")
    Image.new("L", (60, 60)).save(folder / "a" / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)  # Pillow warns above, and refuses above twice as many
    data, notes = notes_of(folder)
    assert data.file_names == ("a/000.png", "a/001.png", "a/large.png")
    assert "a/huge.png (of more than 1,600 pixels)" in notes
    assert "bomb" not in notes


def test_dark_16_bit_images_are_said(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="brightest value in the 16-bit images of .* is 4095 of 65535"):
        one_picture(tmp_path / "data", ramp(0, 4095, np.uint16), ".png")


def test_what_the_arguments_make_of_the_images_is_said(tmp_path: Path) -> None:
    _, notes = notes_of(make(tmp_path / "small", a=4), image_size=64)
    assert "4 of the 4 images of" in notes
    assert "(most often 16x16) and are enlarged: set --data.image_size to 16 or less" in notes
    with pytest.warns(DataWarning, match="are gray: --data.channels 1 would do"):
        one_picture(tmp_path / "gray", Image.new("L", (16, 16), 3))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_of_classes_and_samples(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", a=6, b=6, c=6)
    data = prepared(folder, classes_per_batch=2, samples_per_class=3, val_fraction=0, test_fraction=0)
    for batch in data.train_dataloader():
        assert sorted(batch.label.bincount(minlength=3).tolist()) == [0, 3, 3]


@pytest.mark.parametrize("recipe", ["none", "flip", "standard", "strong"])
def test_augmentation(tmp_path: Path, recipe: str) -> None:
    data = prepared(make(tmp_path / "data", a=8), image_size=16, augmentation=recipe)
    batch = data.predict_set.__getitems__(range(8))
    torch.manual_seed(0)
    changed = data.transform(batch, training=True).image
    plain = batch.image.float() / 255
    assert torch.equal(data.transform(batch, training=False).image, plain)
    is_either = [torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(changed, plain, strict=True)]
    is_same = [torch.equal(a, b) for a, b in zip(changed, plain, strict=True)]
    assert all(is_same) == (recipe == "none")
    assert all(is_either) == (recipe in ("none", "flip"))
    assert changed.shape == plain.shape


# --- folders of others ------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> int:
    """A user without any rights, as whom a child process runs."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    return 65534


def as_user(user: int, action) -> int:  # a function without arguments
    """Runs a function in a child process as another user; 0 if it returned True."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os._exit(0 if action() else 3)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that all users may read, unlike pytest's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path / "cache"))
    monkeypatch.setenv("RELIT_DATA", str(path / "root"))
    yield path
    shutil.rmtree(path)


def test_folders_that_may_not_be_read_are_said(shared: Path, nobody: int) -> None:
    folder = make(shared / "data", a=4, b=4)
    (folder / "b").chmod(0)
    for name in ("cache", "root"):
        (shared / name).mkdir()
        (shared / name).chmod(0o777)
    said = "you may not read these folders, which are left out: b"
    assert as_user(nobody, lambda: said in notes_of(folder)[1]) == 0
    assert said not in notes_of(folder)[1]


def test_arrays_of_another_user_are_read(shared: Path, nobody: int) -> None:
    folder = make(shared / "data", a=4, b=4)
    prepared(folder)
    (shared / "cache").mkdir()
    (shared / "cache").chmod(0o777)
    (shared / "root").chmod(0o777)  # shared, but what is below belongs to root

    def read_prepared() -> bool:
        data = prepared(folder)
        return len(data.predict_set) == 8 and not list((shared / "cache").rglob("*.npy"))

    def prepare_more() -> bool:
        data = prepared(folder, image_size=9)
        return len(data.predict_set) == 8 and len(list((shared / "cache").rglob("image.npy"))) == 1

    assert as_user(nobody, read_prepared) == 0
    assert as_user(nobody, prepare_more) == 0


# --- sizes and channels that aren't given -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "size", "shape", "words"),
    [
        ("RGB", (40, 52), (3, 32, 32), "in color, of 32x32 pixels"),
        ("L", (28, 28), (1, 16, 16), "in gray, of 16x16 pixels"),
        ("L", (500, 300), (1, 64, 64), "in gray, of 64x64 pixels"),
    ],
)
def test_size_and_channels_are_found_and_said(
    tmp_path: Path, mode: str, size: tuple[int, int], shape: tuple[int, int, int], words: str
) -> None:
    for number in range(4):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.new(mode, size, 9 * number).save(tmp_path / "data" / f"{number}.png")
    Image.new(mode, (8, 8)).save(tmp_path / "data" / "smaller.png")
    data, notes = notes_of(tmp_path / "data", image_size=None, channels=None, val_fraction=0, test_fraction=0)
    assert data.image_shape == shape
    assert data.train_set[0].image.shape == shape
    assert words in notes
    assert "would do" not in notes
    again, notes = notes_of(tmp_path / "data", image_size=None, channels=None, val_fraction=0, test_fraction=0)
    assert (again.image_shape, words in notes) == (shape, True)


def test_size_and_channels_are_those_of_the_model(tmp_path: Path) -> None:
    """In training, and for the images of wrappers."""
    folder = str(make(tmp_path / "data", a=12, b=12))
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, enable_model_summary=False, **quiet)
    data = ImageFolder(folder, batch_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(VAE(image_size=16, channels=1, latent_dim=2, feature_maps=2), data)
    assert data.image_shape == (1, 16, 16)
    assert not [one for one in caught if issubclass(one.category, DataWarning)]
    few = FewLabels(ImageFolder(folder), count=8, folds=2)
    classifier = TransferClassifier(
        image_size=16, channels=3, num_classes=2, encoder_checkpoint=None, freeze_encoder=False, feature_maps=2, folds=2
    )
    trainer.fit(classifier, few)
    assert few.image_shape == few.images.image_shape == (3, 16, 16)


def test_prepare_makes_the_arrays_that_training_takes(
    relit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "data", a=12, b=12)
    arguments = ["--model=VAE", "--model.image_size=16", "--model.channels=1", "--data=ImageFolder", "--data.path=data"]
    arguments += ["--data.batch_size=4", f"--data.root={tmp_path / 'root'}"]
    assert relit("prepare", *arguments, "--picture=batch.png") == 0
    assert [path.name.split("-")[1] for path in (tmp_path / "root").glob("image_folder/prepared/data-*")] == ["16x16"]
    assert (tmp_path / "batch.png").is_file()
    assert "note" not in capsys.readouterr().err


# --- other files and folders that were read in silence ----------------------------------------------------------------


def test_pictures_by_their_content_only_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", a=3, b=3)
    for name, kind in (("plain", "JPEG"), ("photo.jpg_large", "JPEG"), ("drawing.bak", "PNG"), ("x.part", "WEBP")):
        Image.new("RGB", (8, 8)).save(folder / "a" / name, format=kind)
    (folder / "a" / "notes.txt").write_text("no picture")
    data, notes = notes_of(folder)
    assert sum(sizes(data)) == 6
    assert "are pictures, but not by their names, are left out: a/drawing.bak, a/photo.jpg_large, a/plain, …" in notes
    assert "(4 in all)" in notes


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        ({"a": 3, "b": 3, "thumbnails": 3}, "the images of thumbnails are taken like the others, although they may be"),
        ({"a__Thumbs": 3, "a": 3, "b": 3}, "the images of Thumbs are taken like the others"),
        ({"images": 3, "masks": 3}, "images, masks are taken as classes: keep masks, labels and the like out"),
        ({"fold1": 3, "fold2": 3}, "fold1, fold2 are taken as classes, although they look like parts of one set"),
        (
            {"pet__cat": 3, "pet__dog": 3, "owl": 2},
            "all images of pet/cat, pet/dog are of the class pet: only the upper",
        ),
        (
            {"trainA": 3, "trainB": 3, "testA": 2, "testB": 2},
            "look like two sets of pictures: PairedFolder reads those",
        ),
    ],
)
def test_folders_that_may_be_no_classes_are_said(tmp_path: Path, folders: dict[str, int], sentence: str) -> None:
    assert sentence in notes_of(make(tmp_path / "data", **folders))[1]


def test_classes_that_are_not_trained_on_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", train__a=3, train__b=3, test__a=2, test__c=2)
    assert "these classes have test images but no training images: c" in notes_of(folder)[1]
    assert notes_of(make(tmp_path / "episodes", train__a=3, train__b=3, test__c=2, test__d=2))[1] == ""


def test_accents_are_alike_on_all_systems(tmp_path: Path) -> None:
    decomposed, composed = {"cafe\u0301": 3}, {"caf\u00e9": 3}
    data = prepared(make(tmp_path / "data", **decomposed, tea=3))
    assert data.class_names == ("caf\u00e9", "tea")
    with pytest.warns(DataWarning, match="spelled alike"):
        data = prepared(make(tmp_path / "both", **decomposed, **composed))
    assert len(set(data.class_names)) == 2


def test_classes_named_a_and_b_are_not_remarked_on(tmp_path: Path) -> None:
    assert notes_of(make(tmp_path / "data", a=4, b=4, extra=4))[1] == ""


@pytest.mark.parametrize("kind", ["tif", "gif", "png"])
def test_of_several_frames_the_first_is_taken_and_said(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (50, 100, 200)]
    (tmp_path / "data").mkdir()
    for number in range(2):
        frames[0].save(tmp_path / "data" / f"{number}.{kind}", save_all=True, append_images=frames[1:])
    data, notes = notes_of(tmp_path / "data", channels=1, val_fraction=0, test_fraction=0)
    assert data.train_set[1].image.unique().tolist() == [50]
    assert f"2 of the images in {tmp_path / 'data'} hold several frames, slices or pages, of which the first" in notes


def test_a_picture_for_a_folder_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", a=1)
    with pytest.raises(DataError, match=r"000\.png is a single picture: set --data\.path to the folder that holds it"):
        prepared(folder / "a" / "000.png")


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    make(tmp_path / "data", a=3)
    values = np.full((16, 16), 0.5, np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "data" / "a" / "nan.tif")
    data, notes = notes_of(tmp_path / "data", value_range=(0, 1))
    assert sum(sizes(data)) == 3
    assert "a/nan.tif (some of its values are no numbers)" in notes


# --- threads, locks, a user without a home ----------------------------------------------------------------------------


def test_pictures_are_decoded_in_as_many_threads_as_there_are_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pictures are open at once, or the barrier breaks; also if few wait for a thread."""
    make(tmp_path / "data", a=7)
    monkeypatch.setattr(decoding, "processors", lambda: 3)
    monkeypatch.setattr(decoding, "AT_ONCE", 3)
    together = threading.Barrier(3, timeout=20)
    names = [f"00{n}.png" for n in range(6)]
    readable = decoding.decode(tmp_path / "data" / "a", names, lambda *_: together.wait())
    assert readable.tolist() == list(range(6))


def test_without_flock_a_file_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have no ``flock``; two processes must still not write at once."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    folder = make(tmp_path / "data", a=4)
    data = prepared(folder, root=str(tmp_path / "root"))
    assert sum(sizes(data)) == 4
    lock = tmp_path / "root" / "lock"
    events: list[str] = []

    def other() -> None:
        with locked(lock):
            events.append("other")

    with locked(lock):
        assert (tmp_path / "root" / "lock.held").exists()
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        events.append("first")
    waiting.join(20)
    assert events == ["first", "other"]
    assert not (tmp_path / "root" / "lock.held").exists()


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock"):
        pass


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    assert user_cache().parent == Path(tempfile.gettempdir())
    assert user_cache().name.startswith("relit-")
