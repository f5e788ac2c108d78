import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

from datamodules import Digits, LabeledImages
from lit_models.callbacks import EmbeddingPlot, embeddings
from lit_models.callbacks.embeddings import draw_embedding
from lit_models.errors import RunError
from lit_models.metrics.retrieval import first_of_each_class
from tests.support.data_modules import digits_of
from tests.support.fixtures import Patch
from tests.support.trainers import trainer_of


class Embedder(LightningModule):
    def __init__(self, dimensions: int = 5) -> None:
        super().__init__()
        self.dimensions = dimensions

    def embed(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, 400 : 400 + self.dimensions]

    def test_step(self, batch: LabeledImages, batch_idx: int) -> None: ...


def run_test(root: Path, folder: Path, model: LightningModule, plot: EmbeddingPlot, devices: int = 1) -> None:
    trainer = trainer_of(devices, callbacks=[plot], default_root_dir=folder)
    trainer.test(model, Digits(root=str(root), batch_size=32), verbose=False)


def test_the_first_of_each_class_by_a_loop() -> None:
    torch.manual_seed(0)
    label = torch.randint(4, (60,)) * 3
    label[5] = 100
    seen: dict[int, int] = {}
    expected = []
    for row, one in enumerate(label.tolist()):
        seen[one] = seen.get(one, 0) + 1
        if seen[one] <= 7:
            expected.append(row)
    assert first_of_each_class(label, 7).tolist() == expected
    assert len(expected) == 4 * 7 + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
def test_one_process_and_two_draw_the_first_of_each_class(
    tmp_path: Path, digits_root: Path, monkeypatch: Patch
) -> None:
    def keep(embedding: Tensor, label: Tensor, names: Any, path: Path, perplexity: float, seed: int) -> None:
        path.parent.mkdir(parents=True)
        torch.save((embedding, label), path.with_suffix(".pt"))
        Image.new("RGB", (1, 1)).save(path)

    monkeypatch.setattr(embeddings, "draw_embedding", keep)
    batch = digits_of(digits_root)
    rows = torch.cat([(batch.label == one).nonzero()[:4, 0] for one in range(7)]).sort().values
    for devices in (1, 2):
        plot = EmbeddingPlot(per_class=4, max_classes=7)
        run_test(digits_root, tmp_path / str(devices), Embedder(), plot, devices)
        embedding, label = torch.load(tmp_path / str(devices) / "figures" / "embedding.pt")
        assert torch.equal(label, batch.label[rows])
        assert torch.equal(embedding, Embedder().embed(batch.image[rows]))


def test_the_picture_is_the_same_for_one_seed(tmp_path: Path, digits_root: Path) -> None:
    pictures = []
    for run in range(2):
        run_test(digits_root, tmp_path / str(run), Embedder(), EmbeddingPlot(per_class=4))
        pictures.append(np.asarray(Image.open(tmp_path / str(run) / "figures" / "embedding.png")))
    assert pictures[0].std() > 0
    assert np.array_equal(*pictures)


def test_many_classes_and_no_names(tmp_path: Path) -> None:
    for classes in (12, 30):
        draw_embedding(torch.randn(60, 3), torch.arange(60) % classes, (), tmp_path / "x.png", 30.0, 0)
        assert np.asarray(Image.open(tmp_path / "x.png")).std() > 0


def test_one_dimension_is_too_few(tmp_path: Path, digits_root: Path) -> None:
    with pytest.warns(UserWarning, match="with 1-dimensional embeddings are too few to draw"):
        run_test(digits_root, tmp_path, Embedder(dimensions=1), EmbeddingPlot())
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("arguments", [{"per_class": 0}, {"max_classes": 0}, {"perplexity": 0.0}])
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(
        RunError, match="EmbeddingPlot: per_class and max_classes must be at least 1, perplexity greater"
    ):
        EmbeddingPlot(**arguments)
