"""``relit init`` on folders of six kinds and more: what it says of them, and that what it writes is run as it is."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from datamodules import ImageFolder
from datamodules.loading.folders import printable
from lit_models.cli.init import RECIPES, look, main
from lit_models.cli.parsers import INIT_METHODS
from tests.support.fixtures import Output, Patch, Relit


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RELIT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)


def write(folder: Path, count: int, width: int = 32, height: int = 32, mode: str = "RGB") -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")


def classes(folder: Path) -> None:
    for name in ("cat", "dog"):
        write(folder / name, 20)


def splits(folder: Path) -> None:
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for number in range(6):
            write(folder / split / f"kind {number}", count, 20, 16)


def flat(folder: Path) -> None:
    write(folder, 40, 28, 28, "L")


def side_by_side(folder: Path) -> None:
    write(folder / "train", 8, 64, 32)
    write(folder / "test", 3, 64, 32)


def two_sets(folder: Path) -> None:
    write(folder / "trainA", 8)
    write(folder / "trainB", 6)


def mess(folder: Path) -> None:
    write(folder / "one", 9, 40, 30)
    write(folder / "other", 9)
    write(folder / "other", 3, 16, 50)
    (folder / "empty").mkdir()
    (folder / "other" / "broken.jpg").write_text("no picture")
    (folder / "other" / "IMG.HEIC").write_text("no picture")
    (folder / "one" / "again").symlink_to("..")


KINDS: dict[str, tuple[Callable[[Path], None], str, list[str]]] = {
    "classes": (
        classes,
        "resnet18",
        ["40 pictures, color, all of 32x32", "2 classes: cat, dog; the smallest, cat,"],
    ),
    "splits": (
        splits,
        "resnet18",
        ["48 training, 24 validation, 24 test", "6 classes: kind 0, kind 1", "--method vae, dcgan, protonet"],
    ),
    "flat": (
        flat,
        "vae",
        ["40 pictures, gray, all of 28x28", "no classes", "resnet18 needs a sub-folder for each"],
    ),
    "pairs": (side_by_side, "pix2pix", ["pairs: side by side", "splits: 8 training, 3 test", "--method cycle_gan"]),
    "two sets": (two_sets, "cycle_gan", ["two sets of pictures that aren't pairs", "pix2pix needs pairs"]),
    "mess": (
        mess,
        "resnet18",
        ["1 can't be read, such as other/broken.jpg", "no classes: empty", "(1 .heic)", "aren't followed: one/again"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_folders(tmp_path: Path, capsys: Output, kind: str) -> None:
    make, method, sentences = KINDS[kind]
    make(tmp_path / "it's mine: $5 #1")
    assert main(["it's mine: $5 #1"]) == 0
    out = capsys.readouterr().out
    assert all(sentence in out for sentence in sentences), out
    written = yaml.safe_load((tmp_path / f"{method}.yaml").read_text())
    data = written["data"]["init_args"]
    assert data.get("images", {}).get("init_args", data)["path"] == str(tmp_path / "it's mine: $5 #1")


def test_folders_a_and_b_may_be_classes(tmp_path: Path, capsys: Output) -> None:
    write(tmp_path / "letters" / "A", 20)
    write(tmp_path / "letters" / "B", 20)
    assert main(["letters"]) == 0
    out = capsys.readouterr().out
    assert "pairs: in two folders, by equal names\n  or 2 classes: A, B" in out
    assert "Wrote pix2pix.yaml. Also fitting: --method cycle_gan, resnet18, vae, dcgan." in out
    assert main(["letters", "--method", "resnet18"]) == 0
    assert yaml.safe_load((tmp_path / "resnet18.yaml").read_text())["model"]["init_args"]["num_classes"] == 2


def test_a_table_of_classes_is_not_read_and_said(tmp_path: Path, capsys: Output) -> None:
    flat(tmp_path / "pictures")
    (tmp_path / "pictures" / "labels.csv").write_text("file,label")
    assert main(["pictures"]) == 0
    assert "labels.csv isn't read: if it holds classes, sort the pictures into a folder" in capsys.readouterr().out


def every_fitting() -> list[tuple[str, str]]:
    fits = {
        "classes": ("resnet18", "vae", "dcgan"),
        "splits": ("resnet18", "protonet"),
        "flat": ("vae", "dcgan"),
        "pairs": ("pix2pix", "cycle_gan"),
        "two sets": ("cycle_gan",),
        "mess": ("resnet18",),
    }
    return [(kind, method) for kind, methods in fits.items() for method in methods]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "method"), every_fitting())
def test_what_is_written_runs(tmp_path: Path, relit: Relit, kind: str, method: str) -> None:
    KINDS[kind][0](tmp_path / "pictures")
    assert main(["pictures", "--method", method, "--output", "mine.yaml"]) == 0
    assert relit("prepare", "--config", "mine.yaml", "--picture", "batch.png") == 0
    assert (tmp_path / "batch.png").stat().st_size > 1_000
    small = {
        "protonet": [
            "--model.feature_maps=4",
            "--data.train_episodes=4",
            "--data.val_episodes=2",
            "--data.test_episodes=2",
        ],
        "pix2pix": ["--model.feature_maps=2", "--model.discriminator_feature_maps=2"],
        "cycle_gan": ["--model.feature_maps=2", "--model.discriminator_feature_maps=2", "--model.blocks=1"],
        "resnet18": ["--model.feature_maps=8"],
    }.get(method, ["--model.feature_maps=2"])
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.accelerator=cpu"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--run.id=one"]
    assert relit("fit", "--config", "mine.yaml", *small, *limits, *quiet) == 0
    assert relit("test", "--config", "mine.yaml", *small, "--ckpt_path=last", "--trainer.accelerator=cpu") == 0


@pytest.mark.parametrize("name", [b"caf\xe9", "two\nlines 🐈".encode(), "\u202eright to left".encode()])
def test_folders_of_any_name(tmp_path: Path, capsys: Output, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    write(folder, 8)
    assert main([folder.name]) == 0
    assert printable(str(folder)) in capsys.readouterr().out
    text = (tmp_path / "vae.yaml").read_text()
    assert yaml.safe_load(text)["data"]["init_args"]["path"] == str(folder)
    assert ImageFolder(yaml.safe_load(text)["data"]["init_args"]["path"]).source() == folder


def test_gray_halves_make_networks_of_one_channel(tmp_path: Path, capsys: Output) -> None:
    write(tmp_path / "pairs" / "A", 8, mode="L")
    write(tmp_path / "pairs" / "B", 8)
    assert main(["pairs"]) == 0
    assert "16 pictures, gray and color, all of 32x32 pixels" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "pix2pix.yaml").read_text())
    model, data = (written[part]["init_args"] for part in ("model", "data"))
    assert (model["channels"], model["source_channels"], data["source_channels"]) == (3, 1, 1)
    assert "target_channels" not in data
    assert main(["pairs", "--method", "cycle_gan"]) == 0
    model = yaml.safe_load((tmp_path / "cycle_gan.yaml").read_text())["model"]["init_args"]
    assert (model["source_channels"], model["lambda_identity"]) == (1, 0)


def test_refusals(tmp_path: Path, capsys: Output) -> None:
    assert main(["nowhere"]) == 1
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["empty"]) == 1
    assert "holds no pictures: name a folder that does" in capsys.readouterr().err
    flat(tmp_path / "flat")
    assert main(["flat", "--method", "pix2pix"]) == 1
    assert "pix2pix doesn't fit" in capsys.readouterr().err
    assert main(["flat"]) == 0
    assert main(["flat"]) == 1
    assert "vae.yaml is there already: give another --output, or --force" in capsys.readouterr().err
    assert main(["flat", "--force"]) == 0
    (tmp_path / "file").write_text("")
    assert main(["file"]) == 1
    assert "file is a file: name a folder of pictures; unpack an archive first." in capsys.readouterr().err
    assert main(["flat", "--output", "file/vae.yaml"]) == 1
    assert "file/vae.yaml can't be written (File exists): give another --output." in capsys.readouterr().err
    write(tmp_path / "one", 1)
    assert main(["one"]) == 1
    assert "No method fits" in capsys.readouterr().err


def test_a_thousand_pictures_are_looked_at_in_part(tmp_path: Path, monkeypatch: Patch) -> None:
    flat(tmp_path / "flat")
    monkeypatch.setattr("datamodules.loading.decoding.LOOKED_AT", 15)
    folder = look(tmp_path / "flat")
    assert (folder.images, len(folder.look.sizes)) == (40, 14)
    assert set(RECIPES) >= {"pix2pix", "resnet18", "vae"}


def test_the_parser_takes_every_recipe() -> None:
    assert sorted(RECIPES) == list(INIT_METHODS)
