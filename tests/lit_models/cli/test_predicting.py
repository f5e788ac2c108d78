"""`relit predict`: classes and counts as people type them, and the run that is predicted from."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from datamodules import Pictures, Samples
from lit_models import VAE, DenoisingAutoencoder
from lit_models.callbacks import PredictionWriter
from lit_models.cli.arguments import read_arguments
from lit_models.errors import ModelError
from lit_models.support.animation import walk_frames
from tests.support.fixtures import Output, Relit
from tests.support.tiny import QUIET, TINY, the_run

WEIGHTS = "predict --weights conditional_gan_mnist"


@pytest.mark.parametrize(
    ("typed", "data"),
    [
        ("--class 7 --count 10", "--data Samples --data.labels [7] --data.count 10"),
        ("--class=3,7", "--data Samples --data.labels [3,7]"),
        ("--data.labels 7", "--data Samples --data.labels [7]"),
        ("--data.labels [7] --data.count 3", "--data Samples --data.labels [7] --data.count 3"),
        ("--data.labels='[1,2]' --data.seed=4", "--data Samples --data.labels [1,2] --data.seed 4"),
        ("--data.seed 4 --count 8", "--data Samples --data.seed 4 --data.count 8"),
        ("--data Samples --data.labels 7 --count 10", "--data Samples --data.labels [7] --data.count 10"),
    ],
)  # fmt: skip
def test_classes_and_counts_ask_for_samples(typed: str, data: str) -> None:
    read = read_arguments(shlex.split(f"{WEIGHTS} {typed}"))
    assert shlex.join(read[3:]).replace("'", "") == data
    assert read[:2] == ["predict", "--weights"]


def test_a_configuration_before_them_does_not_replace_them() -> None:
    read = read_arguments(shlex.split("predict --data.labels 7 conditional_gan_digits --ckpt_path none"))
    assert read[1] == "--config"
    assert read[-4:] == ["--data", "Samples", "--data.labels", "[7]"]


def test_samples_come_from_the_configurations_run(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    run = the_run().resolve()
    capsys.readouterr()
    assert relit("predict", *TINY, "--ckpt_path=last", "--count=2", *QUIET) == 0
    assert len(list((run / "predictions").glob("*.png"))) == 2
    captured = capsys.readouterr()
    assert "in place of" not in captured.err
    assert captured.out == f"The predictions are in {run / 'predictions'}: 2 files\n"
    assert relit("predict", "--ckpt_path=runs/dcgan_digits", "--count=2", "--grid", *QUIET) == 0, "its newest run"
    assert capsys.readouterr().out == f"The predictions are in {run / 'predictions_2'}: 1 file\n"
    assert [path.name for path in Path("runs").iterdir()] == ["dcgan_digits"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three gray pictures of 32x32."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, pixels in zip("abc", np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def read_pictures(folder: Path) -> torch.Tensor:
    levels = [np.array(Image.open(path)) for path in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(levels))[:, None] / 255


def frames_of(gif: Path, side: int) -> np.ndarray:
    with Image.open(gif) as movie:
        levels = []
        for number in range(movie.n_frames):
            movie.seek(number)
            levels.append(np.asarray(movie.convert("L").resize((side, side), Image.Resampling.NEAREST)))
    return np.stack(levels).astype(int)


def test_a_walk_through_ones_own_pictures(relit: Relit, pictures: Path, tmp_path: Path) -> None:
    """From a to b to c and back to a, along straight lines between the codes."""
    pytest.importorskip("imageio_ffmpeg")
    wanted = ("--data=Pictures", f"--data.path={pictures}", "--predictions.gif", "--predictions.mp4")
    assert relit("predict", "--weights=autoencoder_mnist", *wanted, "--predictions.folder=made", *QUIET) == 0
    assert sorted(path.name for path in Path("made").iterdir()) == ["a.png", "b.png", "c.png", "walk.gif", "walk.mp4"]
    assert Path("made/walk.mp4").read_bytes()[4:8] == b"ftyp"
    model = DenoisingAutoencoder.from_pretrained("autoencoder_mnist")
    with torch.no_grad():
        code = model.encoder(read_pictures(pictures))
        codes = [(1 - k / 12) * code[n] + k / 12 * code[(n + 1) % 3] for n in range(3) for k in range(12)]
        expected = (model.decoder(torch.stack(codes)).sigmoid()[:, 0] * 255).round().int().numpy()
    shown = frames_of(Path("made/walk.gif"), 32)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= 1
    assert np.abs(shown[0] - shown[12]).max() > 50, "of two pictures"


def predicted(model: LightningModule, data: Pictures | Samples, folder: Path, **writing: object) -> Path:
    writer = PredictionWriter(str(folder), gif=True, **writing)  # type: ignore[arg-type]
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[writer], enable_progress_bar=False)
    trainer.predict(model, datamodule=data, return_predictions=False)
    return folder / "walk.gif"


def test_a_vae_walks_through_pictures_or_between_random_vectors(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = VAE(image_size=32, channels=1, feature_maps=2, latent_dim=4)
    with torch.no_grad():  # Pillow merges frames that are the same
        for weight in vae.parameters():
            weight.mul_(4 if weight.ndim > 1 else 1)
    shown = frames_of(predicted(vae, Pictures(str(pictures)), tmp_path / "pictures_walk", walk="slerp"), 32)
    vae.eval()
    with torch.no_grad():
        start, end = vae.embed(read_pictures(pictures)[[2, 0]])
        angle = torch.acos((start * end).sum() / (start.norm() * end.norm()))
        middle = (torch.sin(angle / 2) * start + torch.sin(angle / 2) * end) / torch.sin(angle)
        expected = (vae.decode(middle[None])[0, 0] * 255).round().int().numpy()
    assert len(shown) == 36
    assert np.abs(shown[30] - expected).max() <= 1, "halfway from c to a"

    frames = walk_frames(vae)
    walked = frames_of(predicted(vae, Samples(count=2), tmp_path / "random_walk"), frames[0].height)
    assert np.abs(walked - np.stack([np.asarray(frame.convert("L")) for frame in frames])).max() <= 1


def test_a_walk_needs_two_pictures(pictures: Path, tmp_path: Path) -> None:
    for name in "ab":
        (pictures / f"{name}.png").unlink()
    model = DenoisingAutoencoder(feature_maps=2, latent_dim=4)
    with pytest.raises(ModelError, match=r"^A walk between pictures needs at least two of them\.$"):
        predicted(model, Pictures(str(pictures)), tmp_path / "made")
