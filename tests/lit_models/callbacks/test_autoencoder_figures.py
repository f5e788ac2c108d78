"""Reconstructions, interpolations and the latent map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from datamodules import Digits, LabeledImages
from lit_models import VAE, DenoisingAutoencoder
from lit_models.callbacks import Interpolations, LatentMap, ReconstructionGrid
from lit_models.callbacks import interpolations as module
from lit_models.callbacks.interpolations import paired_rows, pixel_interpolation, share_sure, shown_rows
from lit_models.callbacks.latent_map import plane
from lit_models.callbacks.samples import SampleGrid, interleaved_rows
from lit_models.errors import RunError
from tests.support.fixtures import Patch
from tests.support.tables import rows_of
from tests.support.trainers import quiet_trainer


def trainer(folder: Path, callback: Callback, **arguments: Any) -> Trainer:
    return quiet_trainer(callbacks=[callback], default_root_dir=folder, **arguments)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))[:, :, 0] / 255


# --- reconstructions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [[20, 60], [3]])
def test_grids_after_the_given_epochs_only(epochs: list[int]) -> None:
    grid = SampleGrid(epochs=epochs)
    assert [epoch for epoch in range(1, 101) if grid._is_due(epoch, 100)] == epochs
    for arguments in ({"epochs": [0]}, {"every_n_epochs": 0}, {"count": 0}, {"columns": 0}):
        with pytest.raises(RunError, match="SampleGrid: count, columns, every_n_epochs and epochs must be at least 1"):
            SampleGrid(**arguments)


def test_lines_of_originals_with_reconstructions_below() -> None:
    originals, others = torch.arange(5.0).view(5, 1, 1, 1), 10 + torch.arange(5.0).view(5, 1, 1, 1)
    assert interleaved_rows([originals, others], 3).flatten().tolist() == [0, 1, 2, 10, 11, 12, 3, 4, 0, 13, 14, 0]
    assert interleaved_rows([originals, others], 5).flatten().tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


def test_the_picture_shows_validation_images_above_reconstructions(tmp_path: Path, digits_root: Path) -> None:
    torch.manual_seed(0)
    model = DenoisingAutoencoder(32, 1, 4, 2, noise_std=0.3)
    random_state = []

    class Note(Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            random_state.append(torch.get_rng_state())

    run = trainer(tmp_path, ReconstructionGrid(count=3, columns=8), max_epochs=1, limit_train_batches=1)
    run.callbacks.append(Note())
    data = Digits(root=str(digits_root), batch_size=8)
    torch.manual_seed(1)
    run.fit(model, data)
    picture = pixels(tmp_path / "samples" / "reconstructions_0001.png")
    assert picture.shape == (4 * 34 + 2, 3 * 34 + 2)
    batch = data.transform(data.val_set.__getitems__(range(3)), training=False)
    rows = [[picture[2 + 34 * r : 34 + 34 * r, 2 + 34 * c : 34 + 34 * c] for c in range(3)] for r in range(4)]
    rows = torch.tensor(np.array(rows))[:, :, None]
    assert torch.allclose(rows[0], batch.image.double(), atol=0.003)
    assert torch.allclose(rows[1], model.reconstruct(batch.image).double(), atol=0.003)
    assert 0.1 < (rows[2] - rows[0]).std() < 0.4, "the corrupted images"
    assert (rows[3] - rows[1]).abs().max() < 0.2
    assert len(random_state) == 1

    torch.manual_seed(1)
    without = trainer(tmp_path, Note(), max_epochs=1, limit_train_batches=1)
    torch.manual_seed(0)
    other = DenoisingAutoencoder(32, 1, 4, 2, noise_std=0.3)
    torch.manual_seed(1)
    without.fit(other, Digits(root=str(digits_root), batch_size=8))
    assert torch.equal(*random_state), "the picture takes nothing from the run's random numbers"


# --- interpolations ---------------------------------------------------------------------------------------------------


class Fader(LightningModule):
    """A model whose latent space is the pixels."""

    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: str) -> Tensor:
        return pixel_interpolation(start, end, steps)

    def test_step(self, batch: LabeledImages, batch_idx: int) -> None: ...


class Brightness(nn.Module):
    """Sure of class 1 where an image is bright, of class 0 where it is dark, and undecided in between."""

    def forward(self, image: Tensor) -> Tensor:
        value = 40 * (image.mean((1, 2, 3)) - 0.5)
        return torch.stack([-value, value], 1)


def test_pairs_of_all_two_classes_by_a_loop() -> None:
    label = torch.tensor([2, 0, 0, 2, 1, 0, 2])
    start, end = paired_rows(label, 2)
    expected = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = [[row for row in range(7) if label[row] == one][:2] for one in (a, b)]
        expected += list(zip(*rows, strict=False))
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == expected
    start, end = paired_rows(torch.zeros(7, dtype=torch.long), 2)
    assert (start.tolist(), end.tolist()) == ([0, 2], [1, 3])


def test_which_pairs_are_shown() -> None:
    start, end = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([1, 1, 3, 3, 3])
    assert shown_rows(start, end, None) == [0, 3]
    assert shown_rows(start, end, [(3, 0), (5, 6)]) == [2]
    assert shown_rows(torch.zeros(3), torch.zeros(3), None) == [0, 1, 2]


def test_share_of_sure_images() -> None:
    images = torch.tensor([0.0, 0.1, 0.5, 0.52, 1.0]).view(1, 5, 1, 1, 1).expand(1, 5, 1, 2, 2)
    zero, one, two = torch.tensor([[0], [1], [2]])
    assert share_sure(images, zero, one, Brightness(), 0.9).between.item() == pytest.approx(1 / 3), "without both ends"
    assert share_sure(images, zero, one, Brightness(), 0.8).between.item() == pytest.approx(2 / 3)
    for start, end, expected in ((zero, one, 2 / 3), (zero, two, 1 / 3), (two, one, 1 / 3), (two, two, 0)):
        assert share_sure(images, start, end, Brightness(), 0.8).of_either.item() == pytest.approx(expected)


def test_a_classifier_that_does_not_recognize_the_real_images_judges_nothing(tmp_path: Path, digits_root: Path) -> None:
    """Scikit-learn's digits are larger and blurrier than the digits that the shipped classifier knows."""
    run = trainer(tmp_path, Interpolations(steps=3, per_pair=1))
    with pytest.warns(UserWarning, match="recognizes only .* % of these test images, so that it can't judge"):
        (result,) = run.test(Fader(), Digits(root=str(digits_root), eval_batch_size=200), verbose=False)
    assert result == {}
    assert (tmp_path / "figures" / "interpolation_lerp.png").is_file()
    assert not (tmp_path / "figures" / "interpolation.csv").exists()


def test_figures_and_share_of_a_test(tmp_path: Path, digits_root: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "recognizing_classifier", lambda *_: Brightness())
    run = trainer(tmp_path, Interpolations(steps=5, per_pair=2, shown=[(3, 8)]))
    data = Digits(root=str(digits_root), eval_batch_size=200)
    (result,) = run.test(Fader(), data, verbose=False)
    batch = data.transform(data.test_set.__getitems__(range(200)), training=False)
    start, end = (batch.image[batch.label == digit][0, 0] for digit in (3, 8))
    for path in ("lerp", "slerp"):
        picture = pixels(tmp_path / "figures" / f"interpolation_{path}.png")
        assert picture.shape == (36, 5 * 34 + 2)
        for step in range(5):
            expected = start + (end - start) * step / 4
            assert np.allclose(picture[2:34, 2 + 34 * step : 34 + 34 * step], expected, atol=0.003)
    rows = rows_of(tmp_path / "figures" / "interpolation.csv")
    # 45 pairs of classes, 2 pairs of images of each, 3 images in between
    assert [(row["path"], row["images"]) for row in rows] == [("lerp", "270"), ("slerp", "270"), ("pixels", "270")]
    assert float(rows[0]["share_sure"]) == pytest.approx(result["test/sure_between_lerp"], abs=1e-4)
    assert float(rows[0]["share_sure_of_either"]) == pytest.approx(result["test/sure_of_either_lerp"], abs=1e-4)
    assert rows[0]["share_sure"] == rows[2]["share_sure"], "this model fades pixels"


def test_faces_get_no_number(tmp_path: Path, digits_root: Path) -> None:
    run = trainer(tmp_path, Interpolations(sure_above=None))
    (result,) = run.test(Fader(), Digits(root=str(digits_root), eval_batch_size=50), verbose=False)
    assert result == {}
    assert not (tmp_path / "figures" / "interpolation.csv").exists()
    with pytest.raises(RunError, match="judges images of 1x32x32: set the callback's sure_above to null"):
        module.the_digit_classifier(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("arguments", [{"steps": 2}, {"per_pair": 0}, {"sure_above": 1.0}])
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=f"Interpolations: .*{next(iter(arguments))}"):
        Interpolations(**arguments)


# --- the map ----------------------------------------------------------------------------------------------------------


def test_points_of_the_plane() -> None:
    points = plane(5).view(5, 5, 2)
    expected = stats.norm.ppf(np.linspace(0.01, 0.99, 5))
    assert np.allclose(points[2, :, 0], expected, atol=1e-5), "the first component rises to the right"
    assert np.allclose(points[:, 3, 1], expected[::-1], atol=1e-5), "the second rises upwards"


def test_the_map_of_a_model(tmp_path: Path, digits_root: Path) -> None:
    torch.manual_seed(0)
    model = VAE(32, 1, 2, 2)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(3)
    trainer(tmp_path, LatentMap(columns=4)).test(model, Digits(root=str(digits_root)), verbose=False)
    picture = pixels(tmp_path / "figures" / "latent_map.png")
    expected = model.decode(plane(4)).detach()[6, 0]  # second row, third column
    assert np.allclose(picture[32:64, 64:96], expected, atol=0.003)
    assert np.asarray(Image.open(tmp_path / "figures" / "latent_plane.png")).std() > 0


def test_only_a_plane_can_be_drawn(tmp_path: Path, digits_root: Path) -> None:
    with pytest.raises(RunError, match=r"the latent vectors have 3 components: set --model.latent_dim 2"):
        trainer(tmp_path, LatentMap()).test(VAE(32, 1, 3, 2), Digits(root=str(digits_root)), verbose=False)
