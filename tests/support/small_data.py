"""Small data sets in the official formats, for configurations whose own data would have to be downloaded.

Each function writes below a data root what isn't there yet, and returns the arguments that the configuration needs.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.omniglot import CHARACTERS, split_of


def digits(root: Path) -> list[str]:
    """Scikit-learn's digits in place of MNIST."""
    return ["--data=Digits", "--data.batch_size=8"]


def few_digits(root: Path) -> list[str]:
    """Scikit-learn's digits as the data module whose first images are learnt from."""
    return ["--data.images=Digits"]


def unseen_digits(root: Path) -> list[str]:
    """Scikit-learn's digits, the first four for training, and a network of their size."""
    model = {"image_size": 32, "channels": 1, "num_classes": 4, "mean": "[0.5]", "std": "[0.5]", "feature_maps": 8}
    model |= {"stem": "7x7", "references_per_class": 1}
    return ["--data.images=Digits", "--data.classes_per_batch=4", *(f"--model.{k}={v}" for k, v in model.items())]


def cifar10(root: Path) -> list[str]:
    """Noise in CIFAR-10's binary format."""
    folder = root / "cifar10" / "cifar-10-batches-bin"
    if not folder.exists():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            label, pixels = rng.integers(10, size=(20, 1)), rng.integers(256, size=(20, 3072))
            (folder / f"{name}.bin").write_bytes(np.hstack([label, pixels]).astype(np.uint8).tobytes())
    return ["--data.batch_size=8"]


def search_halves(root: Path) -> list[str]:
    """CIFAR-10's noise, and smaller networks: one step of the paper's takes a CPU many seconds."""
    cifar10(root)
    return ["--data.batch_size=8", "--model.init_channels=2", "--model.layers=3"]


def stl10(root: Path) -> list[str]:
    """Noise in STL-10's binary format."""
    folder = root / "stl10" / "stl10_binary"
    if not folder.exists():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split, count in (("train", 20), ("test", 10)):
            (folder / f"{split}_X.bin").write_bytes(rng.bytes(count * 3 * 96 * 96))
            (folder / f"{split}_y.bin").write_bytes(rng.integers(1, 11, count).astype(np.uint8).tobytes())
    return ["--data.batch_size=8"]


def tiny_imagenet(root: Path) -> list[str]:
    """A zip in Tiny ImageNet's layout with four noisy training images of each class and some for validation; and a
    narrow network, as the real one takes ten seconds a step."""
    path = root / "tiny-imagenet-200" / "tiny-imagenet-200.zip"
    if not path.exists():
        path.parent.mkdir(parents=True)
        rng = np.random.default_rng(0)
        pictures = []
        for _ in range(20):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
            pictures.append(buffer.getvalue())
        wnids = [f"n{number:08}" for number in range(200)]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(wnids))
            archive.writestr("tiny-imagenet-200/words.txt", "".join(f"{wnid}\tclass {wnid}\n" for wnid in wnids))
            for n in range(800):
                name = f"train/{wnids[n // 4]}/images/{wnids[n // 4]}_{n % 4}.JPEG"
                archive.writestr(f"tiny-imagenet-200/{name}", pictures[n % 20])
            for n in range(40):
                archive.writestr(f"tiny-imagenet-200/val/images/val_{n}.JPEG", pictures[n % 20])
            lines = [f"val_{n}.JPEG\t{wnids[n % 200]}\t0\t0\t62\t62\n" for n in range(40)]
            archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "".join(lines))
    return ["--model.feature_maps=8", "--model.stem=7x7", "--model.references_per_class=1", "--data.eval_batch_size=20"]


def omniglot(root: Path) -> list[str]:
    """Enough characters for 60-way training and 20-way evaluation, and Lake's one-shot runs, all of random strokes."""
    folder = root / "omniglot"
    if not folder.exists():
        folder.mkdir(parents=True)
        train, val, test = (
            [
                character
                for character in CHARACTERS
                if {split_of(character, s) for s in ("vinyals", "background")} == {of}
            ]
            for of in ("train", "val", "test")
        )
        chosen = [*train[:15], *val[:5], *test[:5]]
        drawings = [_strokes(seed) for seed in range(20 * len(chosen))]
        for part in ("background", "evaluation"):
            with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as archive:
                for number, character in enumerate(chosen):
                    for drawer in range(20 * (character.part == part)):
                        name = f"images_{part}/{character}/{number:04}_{drawer + 1:02}.png"
                        archive.writestr(name, drawings[20 * number + drawer])
        with zipfile.ZipFile(folder / "all_runs.zip", "w") as archive:
            for run in (f"run{number:02}" for number in range(1, 21)):
                pairs = [(f"{run}/test/item{n:02}.png", f"{run}/training/class{n:02}.png") for n in range(1, 21)]
                for number, name in enumerate(name for pair in pairs for name in pair):
                    archive.writestr(name, drawings[number])
                archive.writestr(f"{run}/class_labels.txt", "".join(f"{item} {known}\n" for item, known in pairs))
    return []


def episodes(root: Path) -> list[str]:
    """A folder of noisy pictures with 20 classes for training, 5 for validation and 5 for testing."""
    folder = root / "pictures"
    if not folder.exists():
        rng = np.random.default_rng(0)
        classes = [f"train/{n:02}" for n in range(20)] + [f"{split}/{n}" for split in ("val", "test") for n in range(5)]
        for name in classes:
            (folder / name).mkdir(parents=True)
            for number in range(20):
                pixels = rng.integers(256, size=(12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return [f"--data.images.path={folder}", "--data.n_way=5"]  # 20 ways of these large pictures take seconds


def lfw(root: Path) -> list[str]:
    """Noise in place of the photographs of one person."""
    folder = root / "lfw" / "lfw-deepfunneled" / "George_W_Bush"
    if not folder.exists():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for number in range(1, 17):
            pixels = rng.integers(256, size=(250, 250, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"George_W_Bush_{number:04}.jpg")
    return ["--data.batch_size=4", "--model.feature_maps=4"]


def maps(root: Path) -> list[str]:
    """Pairs of noise in place of photographs and maps; and smaller networks, as the real ones take seconds a step."""
    folder = root / "maps"
    if not folder.exists():
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            (folder / split).mkdir(parents=True)
            for number in range(1, 5):
                pixels = rng.integers(256, size=(64, 128, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{number}.jpg")
    sizes = ["--data.image_size=64", "--data.load_size=72", "--model.image_size=64"]
    return [*sizes, "--model.feature_maps=4", "--model.discriminator_feature_maps=4"]


def _strokes(seed: int) -> bytes:
    """A drawing as in Omniglot: 105x105 pixels of one bit, black on white."""
    paper = np.kron(np.random.default_rng(seed).random((15, 15)) > 0.25, np.ones((7, 7), bool))
    buffer = io.BytesIO()
    Image.fromarray(paper).save(buffer, "PNG")
    return buffer.getvalue()


SMALL_DATA: dict[str, Callable[[Path], list[str]]] = {
    "MNIST": digits,
    "FewLabels": few_digits,
    "UnseenClasses": unseen_digits,
    "CIFAR10": cifar10,
    "SearchDataModule": search_halves,
    "STL10": stl10,
    "LFW": lfw,
    "Maps": maps,
    "TinyImageNet": tiny_imagenet,
    "OmniglotEpisodes": omniglot,
    "EpisodeDataModule": episodes,
}
"""By the class of a configuration's data; others, such as Digits, need no files."""


def write_autoencoder(path: Path, kind: Any = None, **arguments: Any) -> Path:
    """The checkpoint of an untrained model, by default of a DenoisingAutoencoder and for images of 1x32x32."""
    import lightning
    import torch

    from lit_models import DenoisingAutoencoder

    torch.manual_seed(1)
    model = (kind or DenoisingAutoencoder)(**{"image_size": 32, "channels": 1, **arguments})
    content = {
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
    }
    torch.save(content, path)
    return path
