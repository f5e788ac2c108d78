"""Pairs of pictures, and where a window was cut out of one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from datamodules import GatherDataset, ImagePair

only_a_subset = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


def picture(seed: int, size: int = 40, mode: str = "RGB") -> Image.Image:
    """A square picture without sharp edges, another one for each seed."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def write_pair(path: Path, number: int, size: int = 40) -> None:
    """The pictures `2 * number` and `2 * number + 1` side by side, without loss also where the name says JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pair = Image.new("RGB", (2 * size, size))
    for half in range(2):
        pair.paste(picture(2 * number + half, size), (half * size, 0))
    pair.save(path, format="PNG")


def side_by_side(folder: Path, count: int, first: int = 0, size: int = 40) -> Path:
    """A folder of so many pairs."""
    for number in range(first, first + count):
        write_pair(folder / f"{number}.png", number, size)
    return folder


def write_maps(folder: Path, train: int = 12, val: int = 5, height: int = 60) -> Path:
    """The data set `Maps` with so many pairs, whose validation pairs are numbered from 101 on."""
    for number in range(1, train + 1):
        write_pair(folder / "train" / f"{number}.jpg", number, height)
    for number in range(1, val + 1):
        write_pair(folder / "val" / f"{number}.jpg", 100 + number, height)
    return folder


def resized(seed: int, size: int, side: int = 40) -> Tensor:
    """A picture as the data modules resize it."""
    resize = transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC)
    return functional.pil_to_tensor(resize(picture(seed, side)))


def everything(split: GatherDataset[ImagePair]) -> ImagePair:
    """All pairs of a split."""
    return split.__getitems__(range(len(split)))


def place_of_window(image: Tensor, window: Tensor) -> tuple[int, int, bool]:
    """Where ``window`` was cut out of ``image``, and whether it was mirrored; found by trying all places."""
    size = window.shape[-1]
    margin = image.shape[-1] - size
    found = [
        (top, left, mirrored)
        for top in range(margin + 1)
        for left in range(margin + 1)
        for mirrored in (False, True)
        if torch.equal(image[:, top : top + size, left : left + size], window.flip(-1) if mirrored else window)
    ]
    assert len(found) == 1
    return found[0]
