"""Folders as people have them: what is read, what is left out, and that it is said."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules import DataError, DataWarning, FewLabels, ImageFolder
from datamodules.loading.folders import walk
from lit_models import VAE, TransferClassifier
from tests.support.data_modules import sizes
from tests.support.fixtures import Output, Patch, Relit
from tests.support.folders import make, notes_of, prepared
from tests.support.processes import exit_code_in_a_fork
from tests.support.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("default_root")


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


def is_true_of_user(user: int, action: Callable[[], bool]) -> bool:
    """What a function returns in a child process that runs as another user."""

    def run() -> None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        assert action()

    return exit_code_in_a_fork(run) == 0


@pytest.fixture
def shared(monkeypatch: Patch) -> Iterator[Path]:
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
    assert is_true_of_user(nobody, lambda: said in notes_of(folder)[1])
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

    assert is_true_of_user(nobody, read_prepared)
    assert is_true_of_user(nobody, prepare_more)


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
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
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


def test_prepare_makes_the_arrays_that_training_takes(relit: Relit, tmp_path: Path, capsys: Output) -> None:
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


def test_accents_are_alike_on_all_systems(tmp_path: Path) -> None:
    decomposed, composed = {"cafe\u0301": 3}, {"caf\u00e9": 3}
    data = prepared(make(tmp_path / "data", **decomposed, tea=3))
    assert data.class_names == ("caf\u00e9", "tea")
    with pytest.warns(DataWarning, match="spelled alike"):
        data = prepared(make(tmp_path / "both", **decomposed, **composed))
    assert len(set(data.class_names)) == 2


def test_classes_named_a_and_b_are_not_remarked_on(tmp_path: Path) -> None:
    assert notes_of(make(tmp_path / "data", a=4, b=4, extra=4))[1] == ""


def test_a_picture_for_a_folder_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", a=1)
    with pytest.raises(DataError, match=r"000\.png is a single picture: set --data\.path to the folder that holds it"):
        prepared(folder / "a" / "000.png")
