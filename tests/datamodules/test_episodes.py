import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules import DataError, DataWarning, Digits, EpisodeDataModule, Episodes, ImageDataModule, ImageFolder
from datamodules.episodes import EpisodeDataset
from datamodules.loading.tensors import GatherDataset, LabeledImages
from tests.support.fixtures import Patch


class Numbered(ImageDataModule):
    """Images that are their own row's number; 12 classes of 10 for training, 6 each for validation and testing."""

    name = "numbered"
    image_shape = (1, 1, 1)
    num_classes = 24

    def setup(self, stage: str) -> None:
        label = torch.arange(24).repeat_interleave(10)
        columns = LabeledImages(torch.arange(240, dtype=torch.uint8).view(240, 1, 1, 1), label)
        rows = torch.randperm(240, generator=torch.Generator().manual_seed(0))
        classes = ((0, 12), (12, 18), (18, 24))
        self.train_set, self.val_set, self.test_set = (
            GatherDataset(columns, rows[(label[rows] >= low) & (label[rows] < high)]) for low, high in classes
        )


def episodes(**arguments: int | None) -> EpisodeDataModule:
    module = EpisodeDataModule(Numbered(), **({"n_query": 2, "test_query": 2} | arguments))
    module.setup("fit")
    return module


def rows(part: Tensor) -> Tensor:
    return part[..., 0, 0, 0].long()


def all_rows(loader: object) -> Tensor:
    return torch.cat([rows(torch.cat((batch.support, batch.query), 2)) for batch in loader])


def test_classes_are_places_and_the_support_is_of_the_queries_classes() -> None:
    module = episodes(n_way=5, k_shot=2, n_query=3, episodes_per_batch=4, train_episodes=20)
    loader = module.train_dataloader()
    assert len(loader) == 5
    for batch in loader:
        assert isinstance(batch, Episodes)
        assert batch.support.shape == (4, 5, 2, 1, 1, 1)
        assert batch.query.shape == (4, 5, 3, 1, 1, 1)
        support, query = rows(batch.support) // 10, rows(batch.query) // 10
        assert (support < 12).all()
        assert (support == support[:, :, :1]).all()
        assert (query == support[:, :, :1]).all()
        assert all(len(classes.unique()) == 5 for classes in support[:, :, 0])


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_has_its_own_settings_classes_and_number_of_episodes(split: str) -> None:
    module = episodes(
        k_shot=1, test_way=6, test_shot=3, test_query=2, eval_episodes_per_batch=4, val_episodes=10, test_episodes=7
    )
    loader = getattr(module, f"{split}_dataloader")()
    drawn = all_rows(loader)
    assert next(iter(loader)).support.shape == (4, 6, 3, 1, 1, 1)
    assert drawn.shape == ({"val": 10, "test": 7}[split], 6, 5)
    assert len(loader) == {"val": 3, "test": 2}[split]
    assert set((drawn // 10).unique().tolist()) == set({"val": range(12, 18), "test": range(18, 24)}[split])


def test_validation_may_have_fewer_classes_than_the_test_and_is_then_the_same_for_all_tests() -> None:
    validation = []
    for test_way in (5, 6):
        module = episodes(k_shot=1, test_way=test_way, val_way=3)
        assert next(iter(module.test_dataloader())).support.shape[1] == test_way
        validation.append(all_rows(module.val_dataloader()))
    assert validation[0].shape[1] == 3
    assert torch.equal(*validation)


def test_the_shot_of_evaluation_is_that_of_training_unless_said_otherwise() -> None:
    batch = next(iter(episodes(k_shot=3).test_dataloader()))
    assert batch.support.shape == (1, 5, 3, 1, 1, 1)


def test_evaluation_episodes_are_always_the_same_and_training_episodes_never(monkeypatch: Patch) -> None:
    names = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
    first = {name: all_rows(getattr(episodes(), name)()) for name in names}
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    for name in names:
        loader = getattr(episodes(eval_episodes_per_batch=13), name)()
        loader.set_epoch(3)
        assert torch.equal(all_rows(loader), first[name]) == (name != "train_dataloader")
    assert not torch.equal(all_rows(episodes(eval_seed=1).val_dataloader()), first["val_dataloader"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    assert torch.equal(all_rows(episodes().train_dataloader()), first["train_dataloader"])


def test_episodes_reach_the_model_as_floats() -> None:
    module = episodes()
    batch = next(iter(module.train_dataloader()))
    floats = module.on_after_batch_transfer(batch, 0)
    assert isinstance(floats, Episodes)
    assert floats.support.dtype == floats.query.dtype == torch.float32
    assert torch.equal(floats.support, batch.support / 255)


def test_the_first_samples_are_the_support() -> None:
    images = GatherDataset(LabeledImages(torch.arange(240.0).view(240, 1, 1, 1), torch.zeros(240)))
    drawn = torch.randint(240, (2, 3, 5))
    batch = EpisodeDataset(images, 2).__getitems__(drawn)
    assert torch.equal(rows(batch.support), drawn[:, :, :2])
    assert torch.equal(rows(batch.query), drawn[:, :, 2:])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"val_way": 7}, "of 7 classes can't be drawn from 6 classes: set --data.val_way to 1..6, or leave it out"),
        ({"val_way": 0}, "of 0 classes can't be drawn from 6 classes: set --data.val_way to 1..6, or leave it out"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(change: dict[str, int], sentence: str) -> None:
    settings = {"n_way": 5, "k_shot": 1, "n_query": 5, "test_way": 5, "test_query": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        episodes(**settings)
    with pytest.raises(DataError, match=sentence):
        episodes(**(settings | change))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    module = EpisodeDataModule(ImageFolder(str(tmp_path), root=str(tmp_path / "root"), image_size=8))
    module.prepare_data()
    sentence = "can't be drawn from training images of a single class: sort the folder's images into a sub-folder for"
    with pytest.raises(DataError, match=sentence):
        module.setup("fit")


def test_test_classes_that_are_trained_on_are_noted(digits_root: Path) -> None:
    module = EpisodeDataModule(Digits(root=str(digits_root)), test_query=10)
    module.prepare_data()
    with pytest.warns(DataWarning, match="The test images of digits are of classes that are trained on"):
        module.setup("fit")
    assert module.image_shape == (1, 32, 32)
    assert module.num_classes == 10
    assert next(iter(module.train_dataloader())).query.shape == (1, 5, 15, 1, 32, 32)
