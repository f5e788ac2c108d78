"""What all data modules refuse before any batch, and what all of them share."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerState
from PIL import Image

from datamodules import (
    DataError,
    DataWarning,
    Digits,
    EpisodeDataModule,
    FewLabels,
    GatherDataset,
    ImageDataModule,
    ImageFolder,
    LabeledImages,
    SearchBatch,
    SearchDataModule,
    UnseenClasses,
)
from datamodules.base import first_of
from tests.support.data_modules import with_trainer


class Few(ImageDataModule):
    """So many images in each split."""

    def __init__(self, train: int = 8, val: int = 8, test: int = 8, **arguments: Any) -> None:
        super().__init__("/nowhere", 2, **arguments)
        sizes = {"train_set": train, "val_set": val, "test_set": test, "predict_set": test}
        for name, size in sizes.items():
            columns = LabeledImages(torch.zeros(size, 1, 4, 4, dtype=torch.uint8), torch.arange(size) % 4)
            setattr(self, name, GatherDataset(columns))


def in_stage(data: Few, stage: TrainerFn, world_size: int = 1, callbacks: Sequence[object] = ()) -> Few:
    return with_trainer(data, state=TrainerState(fn=stage), world_size=world_size, callbacks=callbacks)


def test_fewer_images_than_processes_are_refused() -> None:
    data = in_stage(Few(val=1), TrainerFn.FITTING, 2)
    with pytest.raises(DataError, match=r"Few has 1 validation image, fewer than the 2 processes: .*devices to 1 or"):
        data.val_dataloader()
    assert len(in_stage(Few(val=2), TrainerFn.FITTING, 2).val_dataloader()) == 1
    with pytest.raises(DataError, match="Few has 3 prediction images, fewer than the 4 processes"):
        in_stage(Few(test=3), TrainerFn.PREDICTING, 4).predict_dataloader()


def test_a_test_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="Few has no test images: choose other data"):
        in_stage(Few(test=0), TrainerFn.TESTING).test_dataloader()
    assert len(in_stage(Few(val=0), TrainerFn.FITTING).val_dataloader()) == 0


def test_a_monitor_without_validation_images_is_refused() -> None:
    waiting = [SimpleNamespace(monitor="val/loss")]
    with pytest.raises(DataError, match="waits for val/loss, but Few has no validation images: choose other data, or"):
        in_stage(Few(val=0), TrainerFn.FITTING, callbacks=waiting).train_dataloader()
    for callbacks in ([SimpleNamespace(monitor="train/loss")], [SimpleNamespace(monitor=None)], [object()]):
        assert len(in_stage(Few(val=0), TrainerFn.FITTING, callbacks=callbacks).train_dataloader()) == 4
    assert len(in_stage(Few(), TrainerFn.FITTING, callbacks=waiting).train_dataloader()) == 4


def test_a_validation_split_that_comes_out_empty_is_said() -> None:
    data = in_stage(Few(val=0), TrainerFn.FITTING)
    data.val_fraction = 0.1  # type: ignore[attr-defined]
    with pytest.warns(DataWarning, match="Few has no validation images, as it has too few: choose other data"):
        data.train_dataloader()
    data.val_fraction = 0.0  # type: ignore[attr-defined]  # as it was asked for
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.train_dataloader()


@pytest.mark.parametrize("wrapper", [EpisodeDataModule, FewLabels, SearchDataModule, UnseenClasses])
def test_options_of_wrapped_images_are_named_as_they_are_typed(tmp_path: Path, wrapper: Any) -> None:
    arguments = {"train_classes": 1, "val_classes": 1} if wrapper is UnseenClasses else {}
    nowhere = ImageFolder(str(tmp_path / "nowhere"), root=str(tmp_path), image_size=8, channels=1)
    with pytest.raises(DataError, match=r"There is no folder .*: set --data\.images\.path to one"):
        wrapper(nowhere, **arguments).prepare_data()
    for name in ("a", "b"):
        (tmp_path / "gray" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 30 * number).save(tmp_path / "gray" / name / f"{name}{number}.png")
    gray = wrapper(ImageFolder(str(tmp_path / "gray"), root=str(tmp_path), image_size=8, channels=3), **arguments)
    with pytest.warns(DataWarning, match=r"are gray: --data\.images\.channels 1 would do"):
        gray.prepare_data()


def test_batches_of_classes_and_samples() -> None:
    data = Few(train=16, classes_per_batch=2, samples_per_class=3)
    assert {tuple(batch.label.bincount().sort().values[-2:].tolist()) for batch in data.train_dataloader()} == {(3, 3)}
    data.train_set.columns.label[0] = -1
    with pytest.raises(DataError, match="need a label on each"):
        data.train_dataloader()


def test_classes_in_another_order(digits_root: Path) -> None:
    data = Digits(str(digits_root))
    data.setup("fit")
    label = data.train_set.column("label").clone()
    data.test_set.columns.label[data.test_set.rows[0]] = -1  # type: ignore[index]
    data.reorder_classes("9876543210")
    assert torch.equal(data.train_set.column("label"), 9 - label)
    assert data.class_names == tuple("9876543210")
    assert data.test_set.column("label")[0] == -1


def test_the_first_entries_of_batches_within_batches() -> None:
    images = LabeledImages(torch.arange(5), torch.arange(5) * 2)
    found = first_of(SearchBatch(images, images), 2)
    assert type(found) is SearchBatch
    assert all(half.image.tolist() == [0, 1] and half.label.tolist() == [0, 2] for half in found)
    assert len(first_of(images, 9).image) == 5
