"""Smallest data sets in the official layouts, one function each, and the data modules that read them."""

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import datamodules
from datamodules import ImageDataModule

SMALL = {
    "Digits": {},
    "MNIST": {},
    "Omniglot": {},
    "OmniglotEpisodes": {"split": "background", "n_way": 2, "k_shot": 1, "n_query": 1, "test_way": 2, "test_query": 1},
    "CIFAR10": {},
    "TinyImageNet": {},
    "STL10": {"image_size": 8},
    "LFW": {"image_size": 8},
    "CelebA": {"image_size": 8},
    "Maps": {"image_size": 32},
    "ImageFolder": {"image_size": 8},
}
"""The data modules, with arguments that make them fast."""


def module(name: str, root: Path) -> ImageDataModule:
    arguments = dict(SMALL[name])
    if name == "ImageFolder":
        arguments["path"] = str(root / "pictures")
    if name != "OmniglotEpisodes":
        arguments["batch_size"] = 2
    return getattr(datamodules, name)(root=str(root), **arguments)


def picture(width: int, height: int, kind: str = "JPEG", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert("1") if kind == "PNG" else image).save(out, kind)
    return out.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def idx(values: np.ndarray) -> bytes:
    """Bytes in the format of MNIST's files."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_mnist(root: Path, train_images: int = 60_000) -> None:
    for prefix, images, labels in (("train", train_images, 60_000), ("t10k", 10_000, 10_000)):
        for kind, values in (("images-idx3", np.zeros((images, 28, 28))), ("labels-idx1", np.zeros(labels))):
            write(root / "mnist" / f"{prefix}-{kind}-ubyte.gz", gzip.compress(idx(values), 1))


def write_omniglot(root: Path, side: int = 105) -> None:
    alphabets = {"images_background": ["Greek", "Hebrew"], "images_evaluation": ["Angelic"]}
    for part, names in alphabets.items():
        with zipfile.ZipFile(with_parent(root / "omniglot" / f"{part}.zip"), "w") as archive:
            for alphabet in names:
                for character in range(1, 4):
                    for drawer in (1, 2):
                        name = f"{part}/{alphabet}/character{character:02}/{character:04}_{drawer:02}.png"
                        archive.writestr(name, picture(side, side, "PNG", character))


def write_cifar10(root: Path, rows: int = 5) -> None:
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        write(root / "cifar10" / "cifar-10-batches-bin" / f"{name}.bin", (b"\x03" + bytes(range(256)) * 12) * rows)


def write_tiny_imagenet(root: Path, size: int = 64) -> None:
    wnids = [f"n{i:08}" for i in range(200)]
    content = picture(size, size)
    with zipfile.ZipFile(with_parent(root / "tiny-imagenet-200" / "tiny-imagenet-200.zip"), "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(wnids))
        archive.writestr("tiny-imagenet-200/words.txt", "".join(f"{wnid}\tthing, object\n" for wnid in wnids))
        for wnid in wnids:
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{wnid}_0.JPEG", content)
        lines = "".join(f"val_{i}.JPEG\t{wnids[i]}\t0\t0\t9\t9\n" for i in range(10))
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", lines)
        for i in range(10):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", content)


def write_stl10(root: Path, train: int = 12) -> None:
    for split, count in (("train", train), ("test", 4)):
        write(root / "stl10" / "stl10_binary" / f"{split}_X.bin", b"")
        os.truncate(root / "stl10" / "stl10_binary" / f"{split}_X.bin", count * 3 * 96 * 96)
        write(root / "stl10" / "stl10_binary" / f"{split}_y.bin", bytes([1]) * count)


def write_lfw(root: Path) -> None:
    for i in range(1, 21):
        path = root / "lfw" / "lfw-deepfunneled" / "George_W_Bush" / f"George_W_Bush_{i:04}.jpg"
        write(path, picture(25, 25, seed=i))


def write_celeba(root: Path) -> None:
    for i in [*range(1, 11), 162_771, 182_638]:
        write(root / "celeba" / "img_align_celeba" / f"{i:06}.jpg", picture(18, 22, seed=i))


def write_maps(root: Path, width: int = 64) -> None:
    for split in ("train", "val"):
        for i in range(1, 7):
            write(root / "maps" / split / f"{i}.jpg", picture(width, 32, seed=i))


def write_pictures(root: Path) -> None:
    for i in range(20):
        write(root / "pictures" / "ab"[i % 2] / f"{i:02}.jpg", picture(20, 16, seed=i))


WRITE: dict[str, Callable[[Path], None]] = {
    "Digits": lambda root: None,
    "MNIST": write_mnist,
    "Omniglot": write_omniglot,
    "OmniglotEpisodes": write_omniglot,
    "CIFAR10": write_cifar10,
    "TinyImageNet": write_tiny_imagenet,
    "STL10": write_stl10,
    "LFW": write_lfw,
    "CelebA": write_celeba,
    "Maps": write_maps,
    "ImageFolder": write_pictures,
}


def with_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
