import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

from datamodules import Digits, LabeledImages
from lit_models import MetricResNet
from lit_models.callbacks import ClassificationReport
from lit_models.callbacks.classification import (
    as_table,
    classification_report,
    confusion_counts,
    draw_class_accuracy,
    draw_confused_pairs,
    draw_confusion,
    most_confused,
    write_class_accuracy,
    write_confused_pairs,
    write_confusion,
    write_report,
)
from lit_models.errors import RunError
from tests.support.fixtures import Patch
from tests.support.tables import rows_of, table_of
from tests.support.trainers import quiet_trainer, trainer_of


class Guesser(LightningModule):
    """Sees the sum of the pixels."""

    def test_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
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


def test_equal_logits_are_the_first_class_in_the_report_and_in_the_accuracy(tmp_path: Path, digits_root: Path) -> None:
    model = MetricResNet(image_size=32, channels=1, num_classes=10, feature_maps=2, mean=[0.5], std=[0.5])
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    trainer = quiet_trainer(default_root_dir=tmp_path, callbacks=[ClassificationReport()])
    (values,) = trainer.test(model, Digits(root=digits_root), verbose=False)
    zero, *_, total = rows_of(tmp_path / "figures" / "class_accuracy.csv")
    assert zero["correct"] == total["correct"] == zero["images"]
    assert values["test/accuracy"] == pytest.approx(int(total["correct"]) / int(total["images"]))


def test_tables_and_a_class_without_images(tmp_path: Path) -> None:
    counts = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    names = ["cat", "dog, small", "emu"]
    write_class_accuracy(counts, names, tmp_path / "a.csv")
    assert table_of(tmp_path / "a.csv") == [
        ["class", "images", "correct", "accuracy"],
        ["cat", "4", "3", "0.7500"],
        ["dog, small", "2", "2", "1.0000"],
        ["emu", "0", "0", ""],
        ["all", "6", "5", "0.8333"],
    ]
    write_confusion(counts, names, tmp_path / "c.csv")
    assert table_of(tmp_path / "c.csv") == [
        ["class", *names],
        ["cat", "3", "1", "0"],
        [names[1], "0", "2", "0"],
        ["emu", *"000"],
    ]
    draw_class_accuracy(counts, names, tmp_path / "a.png")
    draw_confusion(counts, names, tmp_path / "c.png")
    for name in "ac":
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 0


def test_most_confused_pairs_by_a_loop(tmp_path: Path) -> None:
    counts = torch.randint(6, (7, 7), generator=torch.Generator().manual_seed(0))
    counts[5] = 0
    counts[:, 5] = 0
    pairs = most_confused(counts, 100)
    expected = {}
    for a in range(7):
        for b in range(a + 1, 7):
            mistakes = counts[a, b].item() + counts[b, a].item()
            if mistakes:
                expected[frozenset((a, b))] = mistakes / (counts[a].sum().item() + counts[b].sum().item())
    assert {frozenset((pair.first, pair.second)): pair.share for pair in pairs} == pytest.approx(expected)
    shares = [pair.share for pair in pairs]
    assert shares == sorted(shares, reverse=True)
    for pair in pairs:
        assert pair.mistakes == (counts[pair.first, pair.second], counts[pair.second, pair.first])
        assert pair.mistakes[0] >= pair.mistakes[1]
        assert pair.images == (counts[pair.first].sum(), counts[pair.second].sum())
    assert most_confused(counts, 3) == pairs[:3]
    assert most_confused(torch.eye(3, dtype=torch.int64), 3) == []

    names = [f"class {label}" for label in range(7)]
    write_confused_pairs(pairs[:1], names, tmp_path / "p.csv")
    (row,) = rows_of(tmp_path / "p.csv")
    first = pairs[0]
    assert row["class"] == names[first.first]
    assert row["taken for"] == names[first.second]
    assert (row["times"], row["the other way"]) == tuple(map(str, first.mistakes))
    draw_confused_pairs(pairs, names, tmp_path / "p.png")
    assert np.asarray(Image.open(tmp_path / "p.png")).std() > 0


@pytest.mark.long
def test_many_classes_are_drawn_side_by_side(tmp_path: Path) -> None:
    counts = torch.randint(3, (101, 101), generator=torch.Generator().manual_seed(0))
    names = [f"class {label}" for label in range(101)]
    draw_class_accuracy(counts, names, tmp_path / "a.png")
    width, height = Image.open(tmp_path / "a.png").size
    assert height < width < 2000
    draw_confusion(counts[:45, :45], names[:45], tmp_path / "c.png")
    assert np.asarray(Image.open(tmp_path / "c.png")).std() > 0


def test_at_least_one_pair() -> None:
    with pytest.raises(RunError, match="confused_pairs is 0; it must be at least 1"):
        ClassificationReport(confused_pairs=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
@pytest.mark.long
def test_two_ranks_write_what_one_process_writes(tmp_path: Path, digits_root: Path) -> None:
    tables = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        trainer = trainer_of(devices, callbacks=[ClassificationReport()], default_root_dir=folder)
        trainer.test(Guesser(), Digits(root=str(digits_root), batch_size=32), verbose=False)
        tables.append((folder / "figures" / "confusion_matrix.csv").read_text())
    assert tables[0] == tables[1]
    numbers = [list(map(int, line.split(",")[1:])) for line in tables[0].splitlines()[1:]]
    assert np.sum(numbers) == 300
    assert np.count_nonzero(numbers) > 50


def test_report_by_plain_loops(tmp_path: Path) -> None:
    """Class 2 has no images, and nothing is taken for class 3: what can't be told counts as 0."""
    counts = torch.tensor([[5, 2, 1, 0], [1, 3, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]])
    names = ["a", "b", "c", "d"]
    expected = []
    for one in range(4):
        right, taken_for, support = (int(n) for n in (counts[one, one], counts[:, one].sum(), counts[one].sum()))
        precision = right / taken_for if taken_for else 0.0
        recall = right / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        expected.append((precision, recall, f1, support))
    report = classification_report(counts, names)
    assert [row[0] for row in report] == [*names, "macro average", "weighted average"]
    for row, values in zip(report, expected, strict=False):
        assert row[1:] == pytest.approx(values)
    assert report[4][1:] == pytest.approx([*(sum(row[i] for row in expected) / 4 for i in range(3)), 14])
    weighted = [sum(row[i] * row[3] for row in expected) / 14 for i in range(3)]
    assert report[5][1:] == pytest.approx([*weighted, 14])
    assert report[5][2] == pytest.approx(8 / 14), "the weighted recall is the accuracy"

    write_report(report, tmp_path / "report.csv")
    rows = rows_of(tmp_path / "report.csv")
    assert rows[0] == {"class": "a", "precision": "0.6250", "recall": "0.6250", "f1": "0.6250", "support": "8"}
    table = as_table(report).splitlines()
    assert table[0].split() == ["precision", "recall", "f1", "support"]
    assert table[1].split() == ["a", "0.625", "0.625", "0.625", "8"]
    assert len({len(line) for line in table}) == 1


def test_dollar_signs_in_names_are_no_formulas(tmp_path: Path, monkeypatch: Patch) -> None:
    from matplotlib import mathtext

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a name is read as a formula")

    monkeypatch.setattr(mathtext.MathTextParser, "parse", refuse)
    names = ["$5 #1", "$10 #2", "US$100^2", "$20_note"]
    counts = torch.randint(1, 9, (4, 4), generator=torch.Generator().manual_seed(0))
    draw_class_accuracy(counts, names, tmp_path / "a.png")
    draw_confusion(counts, names, tmp_path / "c.png")
    draw_confused_pairs(most_confused(counts, 3), names, tmp_path / "p.png")
    assert len(list(tmp_path.glob("*.png"))) == 3
