"""Data modules that are set up, and the real data that some tests need."""

import os
from pathlib import Path
from typing import TypeVar

import pytest

from datamodules import ImageDataModule

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


def visible_files(folder: Path) -> list[str]:
    """The names of the files and folders in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
