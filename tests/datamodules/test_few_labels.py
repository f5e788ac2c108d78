from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import MNIST, DataError, DataWarning, Digits, FewLabels, FoldedImages, GatherDataset, LabeledImages
from datamodules.few_labels import dealt_out, first_rows
from tests.support.data_modules import real_root, set_up


def few(root: Path, **arguments: object) -> FewLabels:
    return set_up(FewLabels(Digits(root=str(root)), **arguments))  # type: ignore[arg-type]


def test_the_first_fifty_of_mnist() -> None:
    data = set_up(FewLabels(MNIST(root=str(real_root("mnist")))))
    assert data.train_set.column("label").bincount().tolist() == [4, 7, 4, 7, 4, 4, 5, 4, 4, 7]
    assert data.train_set.column("label")[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "in the order of the file"
    assert len(data.val_set) == 50
    assert len(data.test_set) == 10_000
    for fold in range(4):
        rest = data.train_set.column("label")[data.train_set.column("fold") != fold]
        assert rest.bincount(minlength=10).min() >= 3, "each class is learnt from in each fold"


def test_the_first_images_that_are_not_for_testing(digits_root: Path) -> None:
    data = few(digits_root, count=60, folds=3)
    image, label = data.images.train_set.columns
    tested = set(data.images.test_set.rows.tolist())
    rows = [row for row in range(len(label)) if row not in tested][:60]
    assert torch.equal(data.train_set.column("label"), label[rows])
    assert torch.equal(data.train_set.column("image"), image[rows])
    assert rows != list(range(60)), "some of the first images are test images"
    assert data.test_set is data.images.test_set


def test_data_in_order_of_their_classes_are_dealt_out_by_class() -> None:
    label = torch.tensor([0] * 6 + [1] * 3 + [2] * 4)
    split = GatherDataset(LabeledImages(torch.zeros(13, 1, 2, 2), label))
    none = GatherDataset(LabeledImages(torch.zeros(0, 1, 2, 2), label[:0]))
    with pytest.warns(DataWarning, match="first 5 images of pets aren't of all classes alike"):
        assert first_rows(split, none, 5, "pets").tolist() == [0, 1, 6, 7, 9]
    with pytest.warns(DataWarning):  # though all classes are among the first eleven
        assert label[first_rows(split, none, 11)].bincount().tolist() == [4, 3, 4]
    with pytest.raises(DataError, match=r"2 images can't be of all 3 classes of pets: set --data\.count to 3 or more"):
        first_rows(split, none, 2, "pets")


def test_first_images_that_lack_a_class_are_dealt_out_by_class() -> None:
    label = torch.tensor([1, 0, 1, 0, 2, 0])
    split = GatherDataset(LabeledImages(torch.zeros(6, 1, 2, 2), label))
    with pytest.warns(DataWarning):
        assert first_rows(split, split, 3).tolist() == [0, 1, 4]


def test_rows_of_splits_from_other_files() -> None:
    def split(rows: list[int], columns: LabeledImages) -> GatherDataset[LabeledImages]:
        return GatherDataset(columns, torch.tensor(rows))

    one, other = (LabeledImages(torch.zeros(9, 1, 2, 2), torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 1])) for _ in range(2))
    assert first_rows(split([5, 1, 8], one), split([0, 7], one), 4).tolist() == [0, 1, 5, 7]
    assert first_rows(split([5, 1, 8], one), split([0, 7], other), 3).tolist() == [1, 5, 8]
    with pytest.raises(DataError, match=r"count is 4, but there are 3 images: set --data.count"):
        first_rows(split([5, 1, 8], one), split([0, 7], other), 4)


def test_folds_are_dealt_out_by_class() -> None:
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.integers(6, size=47))
    fold = dealt_out(label, 4)
    assert (fold.bincount() - 47 / 4).abs().max() < 1
    for one in range(6):
        sizes = fold[label == one].bincount(minlength=4)
        assert sizes.max() - sizes.min() <= 1


def test_an_epoch_goes_through_all_images_some_times(digits_root: Path) -> None:
    data = few(digits_root, count=12, folds=2, repeats=3, batch_size=6)
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    assert isinstance(batches[0], FoldedImages)
    seen = torch.cat([batch.image for batch in batches]).flatten(1)
    original = data.train_set.column("image").flatten(1)
    assert [int((seen == image).all(1).sum()) for image in original] == [3] * 12


def test_augmentation_is_for_training_only(digits_root: Path) -> None:
    data = few(digits_root, count=10, folds=2, max_rotation=20, max_translation=0.1)
    batch = next(iter(data.val_dataloader()))
    plain, augmented = data.transform(batch, training=False), data.transform(batch, training=True)
    assert torch.equal(plain.image, batch.image / 255)
    assert not torch.allclose(plain.image, augmented.image, atol=0.1)
    assert torch.equal(augmented.fold, batch.fold)
    unchanged = few(digits_root, count=10, folds=2).transform(batch, training=True)
    assert torch.equal(unchanged.image, plain.image)
