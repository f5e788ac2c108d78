from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torchmetrics import MeanMetric

from lit_models.callbacks import SampleGrid
from lit_models.errors import RunError
from lit_models.runs.curves import draw_curves
from lit_models.runs.reading import read_steps
from lit_models.runs.resume import ExactResume
from lit_models.support.checkpoint_files import AtomicCheckpointIO, load_safely
from tests.support.fixtures import Patch


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [
        (None, 15, [1, 2, 5, 10, 15]),
        (None, 3, [1, 2, 3]),
        (None, 2, [1, 2]),
        (5, 12, [1, 2, 5, 10, 12]),
        (None, None, [1, 2]),
        (None, -1, [1, 2]),
    ],
)
def test_epochs_with_a_grid(every: int | None, last: int | None, expected: list[int]) -> None:
    grid = SampleGrid(every_n_epochs=every)
    epochs = range(1, max(last or 0, 3) + 1)
    assert [epoch for epoch in epochs if grid._is_due(epoch, last)] == expected


def test_curves_are_read_and_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a/loss,b/loss\n0,1.0,\n1,,3.0\n2,2.0,nan\n")
    curves = read_steps(tmp_path / "metrics.csv")
    assert curves == {"a/loss": [(0, 1), (2, 2)], "b/loss": [(1, 3)]}
    draw_curves(curves, tmp_path / "figures" / "x.png")
    assert np.asarray(Image.open(tmp_path / "figures" / "x.png")).std() > 0
    assert read_steps(tmp_path / "none.csv") == {}


def test_a_failed_save_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"n": 1}, path)

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(RunError, match=r"No space left on device.*the one before it is kept"):
        AtomicCheckpointIO().save_checkpoint({"n": 2}, path)
    assert load_safely(path) == {"n": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_means_of_two_processes_go_on_in_one() -> None:
    """Their sums are put together; what an older checkpoint doesn't know begins again."""
    module = LightningModule()
    module.known, module.new = MeanMetric(nan_strategy="disable"), MeanMetric(nan_strategy="disable")
    rank0 = {"known": {"mean_value": torch.tensor(3.0), "weight": torch.tensor(2.0)}}
    rank1 = {"known": {"mean_value": torch.tensor(1.0), "weight": torch.tensor(2.0)}}
    trainer: Any = SimpleNamespace(world_size=1, global_rank=0, is_global_zero=True)
    ExactResume().on_load_checkpoint(trainer, module, {"means": [rank0, rank1]})
    module.known.update(torch.tensor([0.5]))
    module.new.update(torch.tensor([0.5]))
    assert float(module.known.compute()) == pytest.approx((3.0 + 1.0 + 0.5) / 5)
    assert float(module.new.compute()) == 0.5
