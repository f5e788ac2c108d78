from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

import lit_models
from datamodules import DataError, DataWarning, Picture, Pictures
from datamodules.pictures import png_names
from tests.support.fixtures import Output, Relit
from tests.support.small_data import write_autoencoder
from tests.support.trainers import quiet_trainer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A large picture, a tiny one, a gray one, one in a sub-folder, a broken one, and a file that is none."""
    root = tmp_path / "photographs"
    (root / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("large.png", (90, 150, 3)), ("tiny.png", (3, 5, 3)), ("more/one.jpg", (32, 32, 3))):
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(root / name)
    Image.fromarray(rng.integers(256, size=(40, 32), dtype=np.uint8)).save(root / "gray.png")
    (root / "broken.jpg").write_bytes((root / "more" / "one.jpg").read_bytes()[:200])
    (root / "notes.txt").write_text("not a picture")
    return root


METHODS = {
    "U-Net": ("Pix2Pix", {}, 80, "multiples of 32 and at least 32"),
    "ResNet": ("Pix2Pix", {"generator": "resnet", "blocks": 1}, 4, "multiples of 4 and at least 8"),
    "CycleGAN": ("CycleGAN", {"blocks": 1}, 4, "multiples of 4 and at least 8"),
}
"""By a title: the method, its arguments, and a tile that it can't take, and why."""


def write_checkpoint(path: Path, method: str, **arguments: Any) -> Path:
    torch.manual_seed(0)
    small = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
    model = getattr(lit_models, method)(**small, **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    trainer = quiet_trainer()
    trainer.strategy.connect(model)
    model.trainer = trainer
    model.source_scale = 0.5
    trainer.save_checkpoint(path)
    return path


def predict_with(method: str, checkpoint: Path, **arguments: Any) -> list[str]:
    """The arguments of ``relit`` for a checkpoint of :func:`write_checkpoint`."""
    model = ["predict", f"--model={method}", "--model.image_size=32", "--model.feature_maps=2", "--model.patch_size=16"]
    model += ["--model.discriminator_feature_maps=2", *(f"--model.{name}={value}" for name, value in arguments.items())]
    return [*model, f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu"]


@pytest.mark.parametrize("title", METHODS)
def test_predict_writes_every_picture_that_can_be_read(
    relit: Relit, folder: Path, tmp_path: Path, capsys: Output, title: str
) -> None:
    method, arguments, tile, reason = METHODS[title]
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", method, **arguments)
    run = predict_with(method, checkpoint, **arguments)
    pictures = ["--data=Pictures", f"--data.path={folder}"]
    assert relit(*run, *pictures, "--data.scale=1", "--data.tile=64", "--predictions.folder=maps") == 0
    said = capsys.readouterr().err
    assert "1 of the 5 pictures in" in said
    assert "left out: broken.jpg (" in said
    found = {path.relative_to("maps").as_posix(): Image.open(path) for path in Path("maps").rglob("*.*")}
    sizes = {name: (image.mode, image.size) for name, image in found.items()}
    assert sizes == {
        "large.png": ("RGB", (150, 90)),
        "tiny.png": ("RGB", (5, 3)),
        "gray.png": ("RGB", (32, 40)),
        "more/one.png": ("RGB", (32, 32)),
    }
    network = getattr(lit_models, method).load_from_checkpoint(checkpoint, weights_only=True)
    with Image.open(folder / "more" / "one.jpg") as image:
        source = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    expected = (network.translate(source)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(found["more/one.png"]), expected)

    assert relit(*run, *pictures, "--predictions.folder=half") == 0
    assert "resized to 50.0 % first" in capsys.readouterr().err
    with Image.open("half/large.png") as image:
        assert image.size == (75, 45)

    assert relit(*run, *pictures, f"--data.tile={tile}") == 1
    refusal = f"tile is {tile}, but this {method} translates images whose sides are {reason}: set --data.tile"
    assert refusal in capsys.readouterr().err
    assert relit(*run, *pictures, "--predictions.grid=true") == 1
    assert "Pictures of different sizes don't fit in a grid" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["Pix2Pix", "CycleGAN"])
def test_other_data_are_refused_by_the_name_of_these(
    relit: Relit, folder: Path, tmp_path: Path, capsys: Output, method: str
) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", method)
    run = predict_with(method, checkpoint)
    assert relit(*run, "--data=ImageFolder", f"--data.path={folder}") == 1
    said = capsys.readouterr().err
    assert (
        f"{method} translates pictures in their own size, which ImageFolder doesn't give: set --data Pictures" in said
    )
    assert "Traceback" not in said


def test_names_of_results_all_differ() -> None:
    assert png_names(["a/b.jpg", "c.jpg"]) == ["a/b.png", "c.png"]
    for files in (["b.jpg", "b.jpg.png", "b.tif"], ["B.jpg", "b.tif"], ["a.png", "a.jpg"]):
        names = png_names(files)
        assert names == [f"{name}.png" for name in files]
        assert len({name.lower() for name in names}) == len(files)


class Keeper(LightningModule):
    """Keeps the pictures that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}

    def translate(self, image: Tensor) -> Tensor:
        return image

    def predict_step(self, batch: Picture, batch_idx: int) -> None:
        self.seen[int(batch.row)] = batch.image


def predicted(**arguments: object) -> tuple[Pictures, Keeper]:
    data, model = Pictures(**arguments), Keeper()  # type: ignore[arg-type]
    trainer = quiet_trainer()
    trainer.predict(model, data, return_predictions=False)
    return data, model


@pytest.mark.filterwarnings("ignore:.*can't be read:datamodules.DataWarning")
def test_pixels_are_as_they_are_in_the_file(folder: Path) -> None:
    data, model = predicted(path=str(folder))
    for row, image in model.seen.items():
        with Image.open(folder / data.files[row]) as file:
            pixels = np.asarray(file.convert("RGB"))
        assert torch.equal(image[0].permute(1, 2, 0), torch.from_numpy(pixels.copy()).float() / 255)
    assert [data.files[row] for row in model.seen] == ["gray.png", "large.png", "more/one.jpg", "tiny.png"]


@pytest.mark.filterwarnings("ignore:.*can't be read:datamodules.DataWarning")
def test_scale_is_pillows_bicubic(folder: Path) -> None:
    data, model = predicted(path=str(folder), scale=0.5)
    with Image.open(folder / "large.png") as file:
        pixels = np.asarray(file.resize((75, 45), Image.Resampling.BICUBIC))
    image = model.seen[data.files.index("large.png")]
    assert torch.equal((image[0] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(pixels.copy()))


def test_the_right_way_up(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = picture.getexif()
    exif[274] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    _, model = predicted(path=str(tmp_path))
    assert model.seen[0].shape == (1, 3, 4, 2)


def test_faults_are_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*: set --data.path"):
        predicted(path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        predicted(path=str(tmp_path / "empty"))
    (tmp_path / "empty" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of the 1 pictures in .* can be read: a.jpg \(not an image\)"):
        predicted(path=str(tmp_path / "empty"))
    with pytest.warns(DataWarning, match="1 of the 5 pictures in .* can't be read, left out: broken.jpg"):
        predicted(path=str(folder))
    with pytest.raises(DataError, match="can only be predicted from"):
        Pictures(str(folder)).setup("fit")
    for wrong in ({"scale": 0.0}, {"tile": 0}):
        with pytest.raises(DataError, match=f"{next(iter(wrong))} is 0"):
            Pictures(str(folder), **wrong)


def test_a_model_of_other_things_is_told_apart(relit: Relit, folder: Path, tmp_path: Path, capsys: Output) -> None:
    path = write_autoencoder(tmp_path / "classifier.ckpt", lit_models.DigitClassifier)
    pictures = ["--data=Pictures", f"--data.path={folder}"]
    assert relit("predict", "--model=DigitClassifier", f"--ckpt_path={path}", *pictures) == 1
    assert "Pictures are for models that translate or reconstruct images, which DigitCl" in capsys.readouterr().err
