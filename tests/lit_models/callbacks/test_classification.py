import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from datamodules import Digits, LabelledImages
from lit_models.callbacks import ClassificationReport
from lit_models.callbacks.classification import (
    confusion_counts,
    draw_class_accuracy,
    draw_confusion,
    write_class_accuracy,
    write_confusion,
)


class Guesser(LightningModule):
    """Sees the sum of the pixels."""

    def test_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        return torch.nn.functional.one_hot(batch.image.mul(255).round().sum((1, 2, 3)).long() % 10, 10).float()


def test_confusion_counts_by_a_loop() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(50, 4), torch.randint(3, (50,))
    expected = np.zeros((4, 4), int)
    for row, true in zip(logits.tolist(), label.tolist(), strict=True):
        expected[true, row.index(max(row))] += 1
    counts = confusion_counts(logits, label)
    assert counts.tolist() == expected.tolist()
    assert counts[3].sum() == 0


def test_tables_and_a_class_without_images(tmp_path: Path) -> None:
    counts = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    names = ["cat", "dog, small", "emu"]
    write_class_accuracy(counts, names, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["class", "images", "correct", "accuracy"],
            ["cat", "4", "3", "0.7500"],
            ["dog, small", "2", "2", "1.0000"],
            ["emu", "0", "0", ""],
            ["all", "6", "5", "0.8333"],
        ]
    write_confusion(counts, names, tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["class", *names],
            ["cat", "3", "1", "0"],
            [names[1], "0", "2", "0"],
            ["emu", *"000"],
        ]
    draw_class_accuracy(counts, names, tmp_path / "a.png")
    draw_confusion(counts, names, tmp_path / "c.png")
    for name in "ac":
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
def test_two_ranks_write_what_one_process_writes(tmp_path: Path, digits_root: Path) -> None:
    tables = []
    for devices in (1, 2):
        trainer = Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="auto" if devices == 1 else "ddp_fork",
            callbacks=[ClassificationReport()],
            use_distributed_sampler=False,
            default_root_dir=tmp_path / str(devices),
            logger=False,
            enable_progress_bar=False,
        )
        trainer.test(Guesser(), Digits(root=str(digits_root), batch_size=32), verbose=False)
        tables.append((tmp_path / str(devices) / "figures" / "confusion_matrix.csv").read_text())
    assert tables[0] == tables[1]
    numbers = [list(map(int, line.split(",")[1:])) for line in tables[0].splitlines()[1:]]
    assert np.sum(numbers) == 300
    assert np.count_nonzero(numbers) > 50
