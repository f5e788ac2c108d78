import os
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import GatherDataset, ImageDataModule, LabeledImages
from datamodules.loading.samplers import SequentialBatches
from lit_models.callbacks import PredictionWriter
from lit_models.errors import RunError
from lit_models.support.outputs import ClassProbabilities
from lit_models.support.ranks import batch_weight, gather, gather_on_device, gather_rows
from tests.support.trainers import trainer_of


class Rows(ImageDataModule):
    """So many images, whose pixels are their row's number."""

    def __init__(self, count: int) -> None:
        super().__init__(batch_size=2)
        self.count = count

    def setup(self, stage: str) -> None:
        number = torch.arange(self.count)
        self.predict_set = GatherDataset(LabeledImages(number.float().view(-1, 1, 1, 1), number))


class Predictor(LightningModule):
    def predict_step(self, batch: LabeledImages, batch_idx: int) -> ClassProbabilities:
        return ClassProbabilities(torch.cat([batch.image[:, 0, 0] / 10, 1 - batch.image[:, 0, 0] / 10], 1))


class Gathered(NamedTuple):
    rows: Tensor
    ranks: list[int]


class Gatherer(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Tensor] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: LabeledImages, *_: int
    ) -> None:
        self.rows.append(batch.label)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gathered = Gathered(gather_rows(trainer, torch.cat(self.rows)), gather(trainer, trainer.global_rank))
        assert batch_weight(3) == 3 * trainer.world_size
        assert torch.equal(gather_on_device(torch.cat(self.rows)), gathered.rows)
        torch.save(tuple(gathered), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("count", [7, 2])
@pytest.mark.parametrize("devices", [1, 2])
def test_rows_come_together_in_order(tmp_path: Path, count: int, devices: int) -> None:
    trainer = trainer_of(devices, callbacks=[Gatherer(tmp_path), PredictionWriter(folder=str(tmp_path))])
    trainer.predict(Predictor(), Rows(count), return_predictions=False)
    for rank in range(devices):
        rows, ranks = torch.load(tmp_path / f"{rank}.pt")
        assert rows.tolist() == list(range(count))
        assert ranks == list(range(devices))
    expected = [
        f"{row},{int(row < 5)},{max(row, 10 - row) / 10:.4f},{int(row > 5)},{min(row, 10 - row) / 10:.4f}"
        for row in range(count)
        if row != 5
    ]
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert lines[0] == "image,class,probability,class_2,probability_2"
    assert [line for line in lines[1:] if not line.startswith("5,")] == expected
    assert len(lines) == 1 + count


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_images_are_numbered_by_the_rows_that_they_were_made_of(world_size: int) -> None:
    """Ranks take turns with the rows, in batches of 2."""
    for rank in range(world_size):
        writer, trainer = PredictionWriter(), SimpleNamespace(global_rank=rank, world_size=world_size)
        batches = list(SequentialBatches(7, 2, rank, world_size).epoch(0))
        assert [writer._rows(trainer, len(batch)) for batch in batches] == [batch.tolist() for batch in batches]


def test_at_least_one_class_is_written() -> None:
    with pytest.raises(RunError, match=r"--predictions.top_classes is 0; it must be at least 1"):
        PredictionWriter(top_classes=0)
