from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from lit_models.__main__ import main
from lit_models.cli import demo
from lit_models.support.animation import sample_frames, walk_frames, write_gif
from tests.support.tiny import CONFIGS

WEIGHTS = CONFIGS.parent / "weights"


def player(name: str) -> demo.Player:
    (loaded,) = demo.load_models([WEIGHTS / f"{name}.safetensors"])
    return loaded


def test_the_page_is_built_of_the_shipped_weights() -> None:
    gradio = pytest.importorskip("gradio")
    app = demo.build_app(demo.load_models([]))
    assert isinstance(app, gradio.Blocks)
    assert app.analytics_enabled is False
    labels = {block.label for block in app.blocks.values() if isinstance(block, gradio.Tab)}
    assert labels == {path.stem for path in WEIGHTS.glob("*.safetensors")}


def test_generation_follows_seed_class_and_sliders() -> None:
    gan = player("conditional_gan_mnist")
    image = gan.generate(3, 7)
    assert image == gan.generate(3, 7)
    assert all(image != other for other in (gan.generate(4, 7), gan.generate(3, 8), gan.generate(3, 7, 2.0)))
    with torch.no_grad():
        latent = torch.randn(1, gan.model.latent_dim, generator=torch.Generator().manual_seed(3))
        expected = gan.model.images_of(latent, torch.tensor([7]))[0, 0]
    side = expected.shape[0]
    small = np.asarray(image.resize((side, side), Image.Resampling.NEAREST))
    assert np.array_equal(small, (expected * 255).round().byte().numpy())


def test_a_walk_begins_and_ends_at_its_seeds() -> None:
    gan = player("dcgan_mnist")
    row = np.asarray(gan.walk(0, 1, 0, steps=5).convert("L")).astype(int)
    grid_height = gan.model.image_shape[1] + 4
    factor = row.shape[0] // grid_height
    row = row[::factor, ::factor]
    side = gan.model.image_shape[2]
    for place, seed in ((0, 0), (4, 1)):
        left = 2 + place * (side + 2)
        single = np.asarray(gan.generate(seed, 0).resize((side, side), Image.Resampling.NEAREST)).astype(int)
        assert np.abs(row[2 : 2 + side, left : left + side] - single).max() <= 1


def test_drawn_digits_are_read() -> None:
    model = player("digit_classifier_mnist").model
    reader = demo.DigitReader(model, *demo.real_digits(model.image_shape))
    canvas = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).line([(200, 30), (190, 250)], fill=(0, 0, 0, 255), width=22)
    probability, nearest = reader.read({"composite": np.asarray(canvas)})
    assert max(probability, key=lambda name: probability[name]) == "1"
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    assert nearest is not None
    assert reader.read({"composite": np.zeros((280, 280, 4), np.uint8)}) == ({}, None)
    digits = load_digits()
    with torch.no_grad():
        taken = model(reader.images[:200]).argmax(1)
    assert (taken == torch.from_numpy(digits.target[:200])).float().mean() > 0.7, "trained on others: MNIST's are finer"


def test_a_digit_is_centered_by_its_mass() -> None:
    pixels = np.full((100, 60), 255, np.uint8)
    pixels[10:50, 40:44] = 0
    image = demo.centered_digit(pixels, (1, 28, 28))
    assert image is not None
    mass = image[0, 0] / image.sum()
    assert float((mass.sum(1) * torch.arange(28)).sum()) == pytest.approx(13.5, abs=0.6)
    assert float((mass.sum(0) * torch.arange(28)).sum()) == pytest.approx(13.5, abs=0.6)
    assert int((image[0, 0].amax(1) > 0.5).sum()) == 20


def test_few_shots() -> None:
    few = demo.FewShot(player("protonet_omniglot_1shot").model)

    def drawn(kind: str, shift: int) -> Image.Image:
        picture = Image.new("L", (105, 105), 255)
        pen, box = ImageDraw.Draw(picture), (20 + shift, 20, 80 + shift, 80)
        pen.ellipse(box, outline=0, width=4) if kind == "ring" else pen.line([*box[:2], *box[2:]], fill=0, width=4)
        return picture

    answer = few.classify(drawn("ring", 4), [drawn("line", 0)], [drawn("ring", 0), drawn("ring", 2)], None)
    assert set(answer) == {"class 1", "class 2"}
    assert answer["class 2"] > 0.9
    assert few.classify(drawn("ring", 4), [drawn("line", 0)]) == {}


def test_errors_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"relit: There is no checkpoint and no file of weights in {tmp_path}.\n"


def test_a_walk_is_closed_and_a_gif(tmp_path: Path) -> None:
    frames = walk_frames(player("dcgan_mnist").model, images=4, stops=2, steps=3)
    assert len(frames) == 6
    write_gif(frames, tmp_path / "walk.gif", seconds=0.2, hold=0.3)
    with Image.open(tmp_path / "walk.gif") as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (6, 0, 200)
        assert gif.size == (210, 210), "enlarged three times"


def test_samples_over_the_epochs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    for epoch in (1, 2, 10):
        Image.new("L", (34, 34), 20 * epoch).save(run / "samples" / f"epoch_{epoch:04}.png")
    (run / "samples" / "epoch_0003.png").write_bytes(b"\x89PNG cut off")
    (run / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n")
    assert [frame.getpixel((5, 40)) for frame in sample_frames(run)] == [(20,) * 3, (40,) * 3, (200,) * 3]
    output = ("--output", str(tmp_path / "page.html"), "--gif", str(tmp_path / "samples.gif"))
    assert main(["report", str(run), *output]) == 0
    with Image.open(tmp_path / "samples.gif") as gif:
        assert gif.n_frames == 3
