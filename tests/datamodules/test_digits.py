from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from datamodules import Digits
from tests.support.data_modules import set_up


def prepared(root: Path, **arguments) -> Digits:
    return set_up(Digits(str(root), **arguments))


def cubic_enlargement() -> np.ndarray:
    """The matrix that enlarges a line of 8 pixels to 32 by cubic convolution (Keys 1981, with a = -0.75)."""

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    matrix = np.zeros((32, 8))
    for out in range(32):
        center = (out + 0.5) / 4 - 0.5
        for pixel in range(-2, 10):  # beyond the border, the border's pixel is repeated
            matrix[out, min(max(pixel, 0), 7)] += kernel(center - pixel)
    return matrix


def test_images_are_scikit_learns_enlarged(tmp_path: Path) -> None:
    columns = prepared(tmp_path).train_set.columns
    digits = load_digits()
    assert columns.image.shape == (1797, 1, 32, 32)
    assert columns.image.dtype == torch.uint8
    assert columns.label.tolist() == digits.target.tolist()
    enlarge = cubic_enlargement()
    expected = np.clip(enlarge @ (digits.images / 16) @ enlarge.T, 0, 1) * 255
    assert np.abs(columns.image[:, 0].numpy() - expected).max() < 0.51
    assert columns.image.min() == 0
    assert columns.image.max() == 255


def test_splits_are_disjoint_complete_and_fixed(tmp_path: Path) -> None:
    data, again, other = prepared(tmp_path), prepared(tmp_path), prepared(tmp_path, split_seed=1)
    splits = [data.train_set.rows, data.val_set.rows, data.test_set.rows]
    assert [len(rows) for rows in splits] == [1297, 200, 300]
    assert sorted(torch.cat(splits).tolist()) == list(range(1797))
    assert torch.equal(data.train_set.rows, again.train_set.rows)
    assert not torch.equal(data.train_set.rows, other.train_set.rows)
    assert data.predict_set is data.test_set


def test_batches(tmp_path: Path) -> None:
    data = prepared(tmp_path, batch_size=50, eval_batch_size=150)
    train = list(data.train_dataloader())
    assert [len(batch.label) for batch in train] == [50] * 25  # the last, smaller one is left out
    assert [len(batch.label) for batch in data.test_dataloader()] == [150, 150]
    image = data.on_after_batch_transfer(train[0], 0).image
    assert image.shape == (50, *data.image_shape)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, train[0].image.float() / 255)
    assert data.num_classes == len(data.class_names) == 10


def test_is_prepared_once(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    before = (data.store.folder / "image.npy").stat().st_mtime_ns
    prepared(tmp_path)
    assert (data.store.folder / "image.npy").stat().st_mtime_ns == before
