"""Data modules that are set up, and the real data that some tests need."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.trainer.states import TrainerState

from datamodules import Digits, ImageDataModule, LabeledImages

DataModule = TypeVar("DataModule", bound=ImageDataModule)
REAL_ROOT = os.environ.get("RELIT_DATA")
"""Read before any test sets the variable."""


def set_up(data: DataModule, stage: str = "fit") -> DataModule:
    """The data module, prepared and set up."""
    data.prepare_data()
    data.setup(stage)
    return data


def sizes(data: ImageDataModule) -> list[int]:
    """The numbers of training, validation and test images."""
    return [len(split) for split in (data.train_set, data.val_set, data.test_set)]


def real_root(path: str) -> Path:
    """The folder of real data. Without this file or folder in it, the test is skipped."""
    if REAL_ROOT is None or not Path(REAL_ROOT, path).exists():
        pytest.skip(f"set RELIT_DATA to a folder with {path}")
    return Path(REAL_ROOT)


def with_trainer(data: DataModule, **facts: Any) -> DataModule:
    """The data module with what it asks of a trainer: one process that trains, unless the facts say otherwise."""
    one_process = {"global_rank": 0, "world_size": 1, "strategy": SimpleNamespace(root_device=torch.device("cpu"))}
    state = {"training": True, "state": TrainerState(), "callbacks": (), "precision_plugin": Precision()}
    data.trainer = SimpleNamespace(**{**one_process, **state, **facts})  # type: ignore[assignment]
    return data


def digits_of(root: Path, split: str = "test", count: int | None = None) -> LabeledImages:
    """The first of scikit-learn's digits in a split, or all of them, as a model gets them in evaluation."""
    data = Digits(root=str(root))
    data.setup("fit")
    images = getattr(data, f"{split}_set")
    return data.transform(images.__getitems__(range(count or len(images))), training=False)


def noise(size: int = 4, image_size: int = 16) -> LabeledImages:
    """A batch of random gray images of class 0."""
    return LabeledImages(torch.rand(size, 1, image_size, image_size), torch.zeros(size, dtype=torch.long))


def visible_files(folder: Path) -> list[str]:
    """The names of the files and folders in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
