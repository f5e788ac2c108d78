"""Every file in configs/ is complete, named after its experiment, and runs one real step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.methods import METHODS
from tests.support.small_data import SMALL_DATA
from tests.support.small_runs import autoencoder_for
from tests.support.tiny import CONFIGS

Relit = Callable[..., int]
EXPERIMENTS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("*/*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_prints(relit: Relit, capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert relit("fit", "--config", path, "--print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["run"]["experiment"] == path.stem
    assert isinstance(config["seed_everything"], int)
    assert f"--config configs/{path.name}" in path.read_text(), "the header shows the command"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_one_step(relit: Relit, path: Path, digits_root: Path) -> None:
    """One step on a small data set in the official format; on the data set itself where it needs no files."""
    config = yaml.safe_load(path.read_text())
    data, model = (config[part]["class_path"] for part in ("data", "model"))
    arguments = SMALL_DATA[data](digits_root) if data in SMALL_DATA else []
    arguments += autoencoder_for(METHODS[model.rpartition(".")[2]], digits_root)
    if config["model"]["init_args"].get("image_size") == 28 and data == "MNIST":
        arguments.append("--model.image_size=32")  # that of the small data set
    assert relit("fit", "--config", path, *arguments, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu") == 0


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_overlays_fit_on_an_experiment(relit: Relit, capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert relit("fit", "--config", CONFIGS / "dcgan_digits.yaml", "--config", path, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["run"]["experiment"] == "dcgan_digits"
