"""Every command of docs/your_own_images.md, on small folders and small networks."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import TensorDataset

from tests.datamodules.test_torch_dataset import FakeFashion
from tests.support.fixtures import Patch, Relit
from tests.support.tiny import CONFIGS

PAGE = CONFIGS.parent / "docs" / "your_own_images.md"
CELLS = re.findall(r"^\| .* \| `(relit [^`]+)` \|$", PAGE.read_text(), re.MULTILINE)
TRAININGS = [cell for cell in CELLS if cell.startswith("relit fit")]
USES = [cell for cell in CELLS if not cell.startswith("relit fit")]
LIMITS = (
    *("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
)
SMALL = {
    "MetricResNet": ("--model.feature_maps=8", "--data.eval_batch_size=8"),
    "ProtoNet": ("--model.feature_maps=2", "--data.val_episodes=2", "--data.test_episodes=2"),
    "LayerwiseMLP": ("--model.widths=[4,4]", "--model.code_layer=1", "--model.pretrain_epochs=1"),
    "DARTSSearch": ("--model.init_channels=2", "--model.layers=3", "--model.epochs=1"),
    "Pix2Pix": ("--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
    "CycleGAN": ("--model.feature_maps=2", "--model.discriminator_feature_maps=2", "--model.blocks=1"),
    "TransferClassifier": ("--model.feature_maps=2",),
}


def write_folders(root: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"pictures": (48, 40), "pairs": (64, 32), "two_sets/trainA": (32, 32), "two_sets/trainB": (32, 32)}
    sizes |= {f"classes/{name}": (40, 48) for name in ("cat", "dog")}
    sizes |= {f"many_classes/{number}": (32, 32) for number in range(8)}
    for name, (width, height) in sizes.items():
        (root / name).mkdir(parents=True)
        for number in range(40 if "/" not in name else 20):
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", FakeFashion)
    write_folders(tmp_path)
    return tmp_path


def words_of(command: str) -> list[str]:
    return shlex.split(command)[1:]


def small(words: list[str]) -> list[str]:
    method = words[words.index("--model") + 1]
    own_batches = ("PairedFolder", "EpisodeDataModule", "FewLabels", "SearchDataModule", "--data.classes_per_batch")
    batch = [] if set(own_batches) & set(words) else ["--data.batch_size=4"]
    epochs = [] if method in ("LayerwiseMLP", "DARTSSearch") else ["--trainer.max_epochs=1"]
    return [*words, *SMALL.get(method, ("--model.feature_maps=2",)), *batch, *LIMITS, *epochs]


def test_the_page_names_every_method() -> None:
    assert len(TRAININGS) >= 18
    assert len(USES) == 6


@pytest.mark.long
@pytest.mark.parametrize("command", TRAININGS)
def test_training(folders: Path, relit: Relit, monkeypatch: Patch, command: str) -> None:
    monkeypatch.setenv("RELIT_DATA", str(folders / "root"))
    assert relit(*small(words_of(command))) == 0
    assert len(list(folders.glob("runs/*/*/checkpoints/last.ckpt"))) == 1


@pytest.mark.long
@pytest.mark.parametrize("command", USES)
def test_use(folders: Path, relit: Relit, monkeypatch: Patch, command: str) -> None:
    monkeypatch.setenv("RELIT_DATA", str(folders / "root"))
    words = words_of(command)
    experiment = words[words.index("--run.experiment") + 1]
    name = experiment.partition("_")[0]
    training = next(one for one in TRAININGS if f"--model {name} " in one.lower())
    assert relit(*small(words_of(training))) == 0
    assert relit(*words, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false") == 0
    if words[0] == "predict":
        written = [path for path in folders.glob("runs/*/*/predictions/**/*") if path.is_file()]
        counts = {"metricresnet": 1, "dcgan": 100}  # one table; 4 of the 40 pairs are for the test
        expected = counts.get(name, 40) if "--data" in words else 4
        assert len(written) == expected
        if "Pictures" in words:
            assert {path.name for path in written} == {f"{number}.png" for number in range(40)}


@pytest.mark.long
def test_the_first_commands(folders: Path, relit: Relit, monkeypatch: Patch) -> None:
    monkeypatch.setenv("RELIT_DATA", str(folders / "root"))
    (block,) = re.findall(r"```shell\n(.*?)```", PAGE.read_text(), re.DOTALL)
    look, prepare, fit = map(words_of, block.splitlines())
    assert relit(*look) == 0
    assert relit(*prepare) == 0
    assert (folders / "batch.png").stat().st_size > 1_000
    assert relit(*fit, *LIMITS, "--trainer.max_epochs=1", "--model.feature_maps=8") == 0


def test_the_python_example(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    block = block.replace("max_epochs=10", "fast_dev_run=True, accelerator='cpu', enable_progress_bar=False")
    block = block.replace("channels=3", "channels=3, feature_maps=2").replace("batch_size=64", "batch_size=4")
    images = torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    exec(block, {"my_dataset": TensorDataset(images, torch.zeros(8, dtype=torch.int64))})
