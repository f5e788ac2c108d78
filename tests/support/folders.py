"""Folders of small noisy pictures, and what a data module notes on them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules import ImageFolder
from tests.support.data_modules import set_up


def make(folder: Path, **counts: int) -> Path:
    """Writes noisy pictures of 16x16 pixels into folders (``a__b`` is ``a/b``)."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        below = folder / name.replace("__", "/")
        below.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(below / f"{number:03}.png")
    return folder


def prepared(path: Path, **arguments) -> ImageFolder:
    return set_up(ImageFolder(str(path), **{"image_size": 8, "channels": 3, "batch_size": 2, **arguments}))


def notes_of(path: Path, **arguments) -> tuple[ImageFolder, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = prepared(path, **arguments)
    return data, "\n".join(str(one.message) for one in caught)
