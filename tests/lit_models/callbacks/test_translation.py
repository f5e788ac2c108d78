import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor, nn

from datamodules import Digits, ImagePair, Maps
from lit_models import DCGAN, DigitClassifier, Pix2Pix
from lit_models.callbacks import TranslationScores, Triptychs
from lit_models.errors import RunError
from lit_models.metrics.generation import frechet_distance
from lit_models.metrics.image_errors import MAP_COLORS, TranslationMetrics, nearest_colors
from lit_models.support.named_extractors import load_extractor
from tests.support.pairs import write_maps
from tests.support.tables import table_of
from tests.support.trainers import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


@pytest.fixture
def data(tmp_path: Path) -> Maps:
    write_maps(tmp_path / "data" / "maps", train=4, val=15, height=40)
    return Maps(root=str(tmp_path / "data"), image_size=32, batch_size=2, eval_batch_size=2)


class Inverter(Pix2Pix):
    """Makes negatives."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(image_size=32, feature_maps=2, discriminator_feature_maps=2, patch_size=16)

    def translate(self, source: Tensor) -> Tensor:
        return 1 - source


def trainer(folder: Path, *callbacks: TranslationScores | Triptychs, devices: int = 1, epochs: int = 1) -> Trainer:
    return quiet_trainer(
        default_root_dir=folder,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_fork_find_unused_parameters_true",
        use_distributed_sampler=False,
        max_epochs=epochs,
        callbacks=list(callbacks),
    )


def evaluation(data: Maps, split: str) -> ImagePair:
    """All pairs of a split, as the model gets them."""
    rows = getattr(data, f"{split}_set")
    return data.transform(rows.__getitems__(range(len(rows))), training=False)


def assert_logged(run: Trainer, stage: str, found: dict[str, float]) -> None:
    """All values are logged but those that don't exist."""
    logged = {name.partition("/")[2]: float(value) for name, value in run.callback_metrics.items() if stage in name}
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    assert {name: value for name, value in logged.items() if name in found} == pytest.approx(known, rel=1e-5)


def test_what_has_no_value_is_not_logged(data: Maps, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", TranslationScores("digits"))
    run.limit_test_batches = 1
    data.eval_batch_size = 1
    data.prepare_data()
    data.setup("test")
    target = data.transform(data.test_set.__getitems__([0]), training=False).target
    kinds = nearest_colors(target).unique().tolist()
    assert len(kinds) < len(MAP_COLORS)
    run.test(Inverter(), data, verbose=False)
    recalls = {name for name in run.callback_metrics if name.startswith("test/map_recall")}
    assert recalls == {f"test/map_recall_{kind}" for number, kind in enumerate(MAP_COLORS) if number in kinds}
    assert "test/fid" not in run.callback_metrics
    assert not any(math.isnan(value) for value in run.callback_metrics.values())


def test_scores_of_a_split(data: Maps, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", TranslationScores())
    run.fit(Inverter(), data)
    found = {}
    for split in ("val", "test"):
        pairs, metrics = evaluation(data, split), TranslationMetrics()
        metrics.update(1 - pairs.source, pairs.target)
        found[split] = metrics.compute()
    assert_logged(run, "val", found["val"])
    run.test(Inverter(), data, verbose=False)
    assert_logged(run, "test", found["test"])
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["l1"] == pytest.approx(found["test"]["l1"], rel=1e-5)
    assert scores["extractor"] is None
    table = table_of(tmp_path / "run" / "figures" / "map_colors.csv")
    assert [row[0] for row in table] == ["true", *MAP_COLORS]
    assert sum(int(cell) for row in table[1:] for cell in row[1:]) == 8 * 32 * 32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_ranks_measure_what_one_does(data: Maps, tmp_path: Path) -> None:
    """Seven validation pairs, so that the ranks have four and three."""
    found = []
    for devices in (1, 2):
        run = trainer(tmp_path / f"run{devices}", TranslationScores("digits"), devices=devices)
        run.validate(Inverter(), data, verbose=False)
        found.append({name: float(value) for name, value in run.callback_metrics.items()})
    assert found[0].keys() == found[1].keys() >= {"val/l1", "val/ssim", "val/map_accuracy", "val/fid"}
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-4), name


def test_fid_over_an_extractor(data: Maps, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = DigitClassifier(image_size=32, channels=3, widths=[4, 8])
    path = tmp_path / "classifier.ckpt"
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    config = {"model": {"class_path": "lit_models.DigitClassifier"}}
    torch.save({**content, "config": config, "pytorch-lightning_version": "2.6.0"}, path)
    run = trainer(tmp_path / "run", TranslationScores(str(path), map_colors=False))
    run.test(Inverter(), data, verbose=False)
    pairs, extractor = evaluation(data, "test"), load_extractor(str(path))
    expected = frechet_distance(extractor(pairs.target).embedding, extractor(1 - pairs.source).embedding)
    assert float(run.callback_metrics["test/fid"]) == pytest.approx(expected, rel=1e-3)
    assert expected > 0
    assert "test/map_accuracy" not in run.callback_metrics


def test_triptychs_are_of_the_same_pairs(data: Maps, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", Triptychs(count=3, epochs=[2, 3]), epochs=3)
    run.fit(Inverter(), data)
    run.test(Inverter(), data, verbose=False)
    folder = tmp_path / "run" / "samples"
    names = ["test_triptychs.png", "triptychs_0002.png", "triptychs_0003.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / names[1]).read_bytes() == (folder / names[2]).read_bytes()
    for name, split in ((names[0], "test"), (names[1], "val")):
        pairs = evaluation(data, split)
        picture = np.asarray(Image.open(folder / name))
        assert picture.shape == (2 + 34 * 3, 2 + 34 * 3, 3)
        for row in range(3):
            parts = (pairs.source[row], pairs.target[row], 1 - pairs.source[row])
            for column, part in enumerate(parts):
                shown = picture[2 + 34 * row : 34 + 34 * row, 2 + 34 * column : 34 + 34 * column]
                assert np.array_equal(shown, (part * 255).round().byte().permute(1, 2, 0).numpy())


def test_triptychs_of_tiles_are_of_different_images(data: Maps, tmp_path: Path) -> None:
    """Tiles of one image overlap: the first of each is drawn. Two triptychs stand in a row if asked for."""
    tiled = Maps(root=str(tmp_path / "data"), image_size=32, load_size=64, evaluation="tiles")
    trainer(tmp_path / "run", Triptychs(count=2, across=2)).test(Inverter(), tiled, verbose=False)
    source = evaluation(tiled, "test").source
    assert tiled.tiles_of_an_image == 4
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / "test_triptychs.png"))
    assert picture.shape == (2 + 34, 2 + 34 * 6, 3)
    for place, row in ((0, 0), (3, 4)):
        shown = picture[2:34, 2 + 34 * place : 34 + 34 * place]
        assert np.array_equal(shown, (source[row] * 255).round().byte().permute(1, 2, 0).numpy())


def test_other_models_and_data_are_refused(data: Maps, tmp_path: Path, digits_root: Path) -> None:
    with pytest.raises(RunError, match="Triptychs is for models that translate images, which DCGAN doesn't"):
        trainer(tmp_path, Triptychs()).fit(DCGAN(image_size=32, channels=1), Digits(root=str(digits_root)))
    loader = nn.Module()
    with pytest.raises(RunError, match="TranslationScores needs a data module of datamodules/"):
        trainer(tmp_path, TranslationScores()).fit(Inverter(), [loader])  # type: ignore[list-item]
    with pytest.raises(RunError, match="must be at least 1"):
        Triptychs(count=0)
