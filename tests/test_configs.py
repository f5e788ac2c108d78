"""Every file in configs/ is complete, named after its experiment, and runs one real step."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import datamodules
from tests.methods import METHODS
from tests.support.fixtures import Output, Relit
from tests.support.small_data import SMALL_DATA
from tests.support.small_runs import autoencoder_for
from tests.support.tiny import CONFIGS

EXPERIMENTS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("*/*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_prints(relit: Relit, capsys: Output, path: Path) -> None:
    assert relit("fit", "--config", path, "--print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["run"]["experiment"] == path.stem
    assert isinstance(config["seed_everything"], int)
    assert f"--config configs/{path.name}" in path.read_text(), "the header shows the command"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_one_step(relit: Relit, path: Path, digits_root: Path) -> None:
    """One step of narrow networks, on a small data set in the official format; on the data set itself where it needs no
    files."""
    config = yaml.safe_load(path.read_text())
    data, model = (config[part]["class_path"] for part in ("data", "model"))
    given, method = config["model"]["init_args"], METHODS[model.rpartition(".")[2]]
    # Small pairs have networks of their size, and so have the configurations of digits.
    arguments = [] if method.scale.pairs or data == "Digits" else [*method.scale.small]
    if model == "LayerwiseMLP" and "widths" in given:
        arguments.append(f"--model.widths={[16] * len(given['widths'])}")
    if data not in ("OmniglotEpisodes", "EpisodeDataModule"):
        arguments.append("--data.eval_batch_size=8")
    arguments += SMALL_DATA[data](digits_root) if data in SMALL_DATA else []
    arguments += autoencoder_for(method, digits_root)
    if given.get("image_size") == 28 and data == "MNIST":
        arguments.append("--model.image_size=32")  # that of the small data set
    assert relit("fit", "--config", path, *arguments, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu") == 0


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_overlays_fit_on_an_experiment(relit: Relit, capsys: Output, path: Path) -> None:
    assert relit("fit", "--config", CONFIGS / "dcgan_digits.yaml", "--config", path, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["run"]["experiment"] == "dcgan_digits"


@pytest.mark.parametrize(
    ("name", "images", "held_out"),
    [
        ("wgan_gp_mnist", 60_000, lambda data: data["val_images"]),
        ("sngan_cifar10_resnet", 50_000, lambda data: round(50_000 * data["val_fraction"])),
        ("wgan_gp_cifar10_resnet", 50_000, lambda data: round(50_000 * data["val_fraction"])),
    ],
)
def test_the_rates_reach_zero_as_the_training_ends(
    name: str, images: int, held_out: Callable[[dict[str, Any]], int]
) -> None:
    """Schedules in steps of the generator, on the training images that the configuration leaves."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    data, model = config["data"], config["model"]["init_args"]
    parameters = inspect.signature(getattr(datamodules, data["class_path"])).parameters
    arguments = {key: parameter.default for key, parameter in parameters.items()} | data["init_args"]
    batches = (images - held_out(arguments)) // arguments["batch_size"]
    steps = config["trainer"]["max_epochs"] * batches / model["n_critic"]
    for player in ("generator", "discriminator"):
        assert model[f"{player}_scheduler"]["init_args"]["total_iters"] == pytest.approx(steps, rel=2e-3)
