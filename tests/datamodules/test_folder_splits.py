"""Folders of training, validation and test images: their names, and what is drawn where there are none."""

import re
import warnings
from pathlib import Path

import pytest

from datamodules import DataError, DataWarning, EpisodeDataModule, ImageFolder
from datamodules.loading.folders import TEST, TRAIN, VAL, split_of_name
from lit_models import DigitClassifier
from tests.support.data_modules import sizes
from tests.support.folders import make, notes_of, prepared
from tests.support.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("default_root")


LAYOUTS = {
    "upper case": ({"Training__a": 4, "Training__b": 4, "Testing__a": 2, "Testing__b": 2}, [6, 2, 4]),
    "three": ({"Train__a": 4, "Train__b": 4, "Test__a": 1, "Test__b": 1, "Val__a": 3, "Val__b": 3}, [8, 6, 2]),
    "wrapped": ({"seg_train__seg_train__a": 4, "seg_train__seg_train__b": 4, "seg_test__seg_test__a": 3}, [6, 2, 3]),
    "year": ({"train2017__a": 4, "train2017__b": 4, "val2017__a": 3}, [7, 3, 1]),
    "words in one": ({"TrainSet__a": 4, "TrainSet__b": 4, "TestSet__b": 3}, [6, 2, 3]),
    "both": ({"trainval__a": 4, "trainval__b": 4, "test__b": 3}, [6, 2, 3]),
    **{
        name: ({"train__a": 5, "train__b": 5, f"{name}__a": 3, "test__b": 2}, [10, 3, 2])
        for name in ("val", "valid", "validation")
    },
    "within classes": ({"a__train": 4, "a__test": 2, "b__train": 4, "b__test": 2}, [6, 2, 4]),
}
"""Folders with their numbers of images, and the sizes of the three splits."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_by_their_usual_names(tmp_path: Path, layout: str) -> None:
    counts, expected = LAYOUTS[layout]
    folder = make(tmp_path / "data", **counts)
    data, notes = notes_of(folder, val_fraction=0.25)
    assert data.class_names == ("a", "b")
    assert sizes(data) == expected
    has_val = any(split_of_name(name.partition("__")[0]) == VAL for name in counts)
    assert notes == f"--data.val_fraction has no effect: {folder} has a split of these images." * has_val
    paths = [name.split("/") for name in data.file_names]
    named = [next(kind for part in path if (kind := split_of_name(part)) is not None) for path in paths]
    shown: list[int] = []
    for kind, split in ((TRAIN, data.train_set), (VAL, data.val_set), (TEST, data.test_set)):
        for row, label in zip(split.rows.tolist(), split.column("label"), strict=True):
            assert named[row] == (kind if kind in named else TRAIN), "what has no folder is drawn from training"
            assert data.class_names[label] in paths[row]
            shown.append(row)
    assert sorted(shown) == list(range(len(paths))) == data.predict_set.rows.tolist()


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


def test_classes_that_are_not_trained_on_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", train__a=3, train__b=3, test__a=2, test__c=2)
    assert "these classes have test images but no training images: c" in notes_of(folder)[1]
    assert notes_of(make(tmp_path / "episodes", train__a=3, train__b=3, test__c=2, test__d=2))[1] == ""
