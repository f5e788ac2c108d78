"""Own pictures by the command: what is kept of a configuration, where results go, and what is predicted."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from datamodules.loading.decoding import Reading, central_square
from lit_models import VAE, DenoisingAutoencoder
from lit_models.cli.given_classes import GivenClasses
from lit_models.cli.processes import fit_command
from lit_models.cli.swaps import typed
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import CONFIGS, QUIET, TINY, the_run


@pytest.fixture
def pictures(tmp_path: Path, relit: Relit, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for name in ("a/one", "a/two", "b/three"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8)).save(folder / f"{name}{number}.png")
    return folder


def test_arguments_that_are_kept_and_dropped_are_said(relit: Relit, pictures: Path, capsys: Output) -> None:
    config = {
        "model": {"class_path": "DCGAN", "init_args": {"image_size": 32, "channels": 1, "feature_maps": 2}},
        "data": {
            "class_path": "LFW",
            "init_args": {"crop": 30, "people": ["George W Bush"], "min_images": 2, "image_size": 32, "batch_size": 64},
        },
        "run": {"experiment": "dcgan_lfw"},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    swap = ("--config=mine.yaml", "--data=ImageFolder", f"--data.path={pictures}", "--data.channels=1")
    run = ("--data.batch_size=2", "--trainer.max_epochs=1", *QUIET)
    assert relit("fit", *swap, *run) == 0
    err = capsys.readouterr().err
    assert "--data ImageFolder in place of the configuration's LFW: " in err
    assert "crop = 30, image_size = 32 kept; " in err
    assert "min_images = 2, people = ['George W Bush'] dropped" in err
    assert [path.name for path in Path("runs").iterdir()] == ["dcgan_imagefolder"]
    assert experiment_shown(relit, capsys, *swap, *run) == "dcgan_imagefolder"
    assert experiment_shown(relit, capsys, *swap, *run, "--run.experiment=mine") == "mine"
    assert relit("fit", *swap, *run, "--run.experiment=mine") == 0
    assert Path("runs/mine").is_dir()
    folder = Path("runs/dcgan_lfw/one").absolute()  # where a sweep or a script has planned it
    assert relit(*fit_command(folder, [*swap, *run])) == 0
    assert (folder / "run.json").is_file()


def experiment_shown(relit: Relit, capsys: Output, *arguments: str) -> str | None:
    """The experiment that ``--print_config`` shows."""
    capsys.readouterr()
    assert relit("fit", *arguments, "--print_config") == 0
    return yaml.safe_load(capsys.readouterr().out)["run"]["experiment"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ({}, "protonet_episodes"),
        ({"data": "EpisodeDataModule"}, "protonet_episodes"),
        ({"data.images": "datamodules.Digits"}, "protonet_episodedatamodule"),
        ({"data": "OmniglotEpisodes"}, "protonet_omniglotepisodes"),
        ({"model": "mine.Net", "data": "Digits"}, "net_digits"),
        ({"data": "SupportQuery"}, "protonet_episodes"),
    ],
)
def test_the_experiment_is_known_before_torch_is_imported(typed: dict[str, str], shown: str) -> None:
    classes = GivenClasses()
    images = {"class_path": "datamodules.ImageFolder", "init_args": {"path": "x"}}
    data = {"class_path": "EpisodeDataModule", "init_args": {"images": images}}
    assert classes.unknown_in(Path("mine.yaml"), {"model": {"class_path": "ProtoNet"}, "data": data}) is None
    for option, name in typed.items():
        assert classes.unknown_option(option, name) is None
    assert classes.experiment("protonet_episodes") == shown


def test_nothing_is_said_where_nothing_is_swapped(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--data=Digits", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    assert "in place of" not in capsys.readouterr().err
    assert the_run().parent.name == "dcgan_digits"
    assert typed(["--data", "X"], "data")
    assert typed(["--data=X"], "data")
    assert not typed(["--data.path", "X"], "data")


@pytest.mark.parametrize("method", ["vae", "autoencoder"])
def test_given_pictures_are_reconstructed(
    relit: Relit, pictures: Path, tmp_path: Path, method: str, monkeypatch: Patch
) -> None:
    config = CONFIGS / f"{method}_digits.yaml"
    small = ("--config", config, "--model.feature_maps=2", "--trainer.callbacks=null", *QUIET)
    assert relit("fit", *small, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2") == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = ("--data=ImageFolder", f"--data.path={pictures}", "--data.image_size=32", "--data.channels=1")
    common = ("predict", "--ckpt_path", checkpoint, *QUIET)
    assert relit(*common, *folder, "--predictions.folder=~/folder") == 0
    assert relit(*common, "--data=Pictures", f"--data.path={pictures}", "--predictions.folder=$HOME/each") == 0
    names = [f"{name}{number}.png" for name in ("a/one", "a/two", "b/three") for number in range(4)]
    for name in names:
        one, other = (Image.open(tmp_path / "home" / where / name) for where in ("folder", "each"))
        assert one.size == (32, 32)
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
    kind = VAE if method == "vae" else DenoisingAutoencoder
    model = kind.load_from_checkpoint(checkpoint, weights_only=False).eval()
    with Image.open(pictures / "a" / "two3.png") as image:
        given = torch.from_numpy(central_square(image, 32, Reading(1)).copy())[None] / 255
    with torch.no_grad():
        expected = model.reconstruct(given).mul(255).round()[0, 0].numpy()
    with Image.open(tmp_path / "home" / "each" / "a" / "two3.png") as image:
        assert np.abs(np.asarray(image.convert("L"), int) - expected).max() <= 1


def test_a_gan_says_that_it_uses_no_pictures(relit: Relit, pictures: Path, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    data = ("--data=ImageFolder", f"--data.path={pictures}")
    assert relit("predict", "--ckpt_path", checkpoint, *data, *QUIET) == 0
    assert "DCGAN draws images from nothing: the pictures of ImageFolder aren't used" in capsys.readouterr().err
    assert len(list(the_run().glob("predictions/*.png"))) == 64


def test_swapped_images_within_other_data_are_said(relit: Relit, pictures: Path, capsys: Output) -> None:
    config = {
        "model": {"class_path": "DigitClassifier", "init_args": {"image_size": 32, "channels": 1, "num_classes": 2}},
        "data": {
            "class_path": "FewLabels",
            "init_args": {
                "images": {"class_path": "LFW", "init_args": {"crop": 30, "min_images": 2, "image_size": 32}},
                "count": 4,
                "batch_size": 2,
            },
        },
        "run": {"experiment": "classifier_lfw"},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    swap = ("--data.images=ImageFolder", f"--data.images.path={pictures}", "--data.images.channels=1")
    assert relit("fit", "--config=mine.yaml", *swap, "--trainer.max_epochs=1", *QUIET) == 0
    err = capsys.readouterr().err
    assert "--data.images ImageFolder in place of the configuration's LFW: crop = 30, image_size = 32 kept; " in err
    assert "min_images = 2 dropped" in err
    assert [path.name for path in Path("runs").iterdir()] == ["digitclassifier_fewlabels"]
