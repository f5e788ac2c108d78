import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

import lit_models
from datamodules import MNIST
from lit_models.__main__ import main
from lit_models.cli import demo, playing
from lit_models.errors import RunError
from lit_models.runs.reading import sample_series
from lit_models.support.animation import sample_frames, walk_frames, write_movie
from tests.support.fixtures import Output, Patch
from tests.support.tiny import CONFIGS

WEIGHTS = CONFIGS.parent / "weights"
WALK = "walk between two pictures"
READERS = CLASSIFIER, AUTOENCODER = "digit_classifier_mnist", "autoencoder_mnist"


def player(name: str) -> playing.Player:
    (loaded,) = playing.load_models([name])
    return loaded


@pytest.mark.long
def test_the_page_is_built_of_the_shipped_weights() -> None:
    gradio = pytest.importorskip("gradio")
    app = demo.build_app(playing.load_models([]))
    assert isinstance(app, gradio.Blocks)
    assert app.analytics_enabled is False
    labels = {block.label for block in app.blocks.values() if isinstance(block, gradio.Tab)}
    assert labels == {path.stem for path in WEIGHTS.glob("*.safetensors")} - set(READERS) | {"draw a digit", WALK}
    shown = {getattr(block, "label", None) for block in app.blocks.values()}
    assert {f"{CLASSIFIER}: class", f"{AUTOENCODER}: digit and reconstruction"} <= shown, "without any --weights"


def test_generation_follows_seed_class_and_sliders() -> None:
    gan = player("conditional_gan_mnist")
    image = gan.generate(3, 7)
    assert image == gan.generate(3, 7)
    assert gan.generate(None, 7) == gan.generate(0, 7), "an emptied field"
    assert gan.generate(10**30, 7) != image
    assert all(image != other for other in (gan.generate(4, 7), gan.generate(3, 8), gan.generate(3, 7, 2.0)))
    with torch.no_grad():
        latent = torch.randn(1, gan.model.latent_dim, generator=torch.Generator().manual_seed(3))
        expected = gan.model.images_of(latent, torch.tensor([7]))[0, 0]
    side = expected.shape[0]
    small = np.asarray(image.resize((side, side), Image.Resampling.NEAREST))
    assert np.array_equal(small, (expected * 255).round().byte().numpy())


def test_a_photograph_is_given_in_the_channels_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lit_models.Pix2Pix(32, 3, feature_maps=2, discriminator_feature_maps=2, patch_size=16, source_channels=1)
    colors = playing.Player("colors", model.eval())
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    gray = torch.from_numpy(np.array(photograph.convert("L")))[None, None] / 255
    with torch.no_grad():
        expected = (model.translate(gray)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    photograph.save(tmp_path / "photograph.png")
    assert colors.translate(str(tmp_path / "photograph.png")) == colors.translate(photograph)
    assert colors.translate(None) is None
    (tmp_path / "broken.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(RunError, match=r"^broken\.png can't be read as a picture\.$"):
        colors.translate(str(tmp_path / "broken.png"))
    made = colors.translate(photograph)
    assert made is not None
    assert np.array_equal(np.asarray(made.resize((32, 32), Image.Resampling.NEAREST)), expected)


@pytest.mark.parametrize(("scale", "side"), [(0.5, None), (None, 40)])
def test_a_photograph_is_resized_as_those_that_the_model_learned_from(scale: float | None, side: int | None) -> None:
    """As `relit predict` does, so that a street is as wide as in training."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "feature_maps": 2, "blocks": 1, "discriminator_feature_maps": 2, "patch_size": 16}
    model = lit_models.Pix2Pix(generator="resnet", **sizes).eval()
    model.source_scale, model.source_side = scale, side
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8))
    small = np.array(photograph.resize((60, 40), Image.Resampling.BICUBIC))
    with torch.no_grad():
        made = model.translate(torch.from_numpy(small).permute(2, 0, 1)[None] / 255)
        expected = (made[0] * 255).round().byte().permute(1, 2, 0).numpy()
    shown = playing.Player("maps", model).translate(photograph)
    assert shown is not None
    assert np.array_equal(np.asarray(shown.resize((60, 40), Image.Resampling.NEAREST)), expected)


def test_the_shipped_translator_makes_a_map() -> None:
    """By its card it finds half of the roads, which a mean map doesn't have; water is blue, a town isn't."""
    card = json.loads((WEIGHTS / "pix2pix_maps_128_small.json").read_text())
    assert card["figures"]["test/map_recall_road"] > 0.5
    translator = player("pix2pix_maps_128_small")
    assert translator.model.source_scale == pytest.approx(286 / 600)
    smooth = np.full((600, 600, 3), (60, 90, 50), dtype=np.uint8)
    blocks = np.random.default_rng(0).integers(60, 220, (50, 50, 1), dtype=np.uint8)
    rough = blocks.repeat(12, 0).repeat(12, 1).repeat(3, 2)
    water, town = (translator.translate(Image.fromarray(pixels)) for pixels in (smooth, rough))
    assert water is not None
    assert town is not None
    assert water.size == town.size == (286, 286)
    blue = [float((np.asarray(made, dtype=float) @ (-1, 0, 1)).mean()) for made in (water, town)]
    assert blue[0] > blue[1] + 20, "what is smooth and dark is water"


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


def drawn_one() -> Image.Image:
    canvas = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).line([(200, 30), (190, 250)], fill=(0, 0, 0, 255), width=22)
    return canvas


def autoencoder() -> playing.Player:
    torch.manual_seed(0)
    return playing.Player("autoencoder", lit_models.DenoisingAutoencoder(feature_maps=2, latent_dim=4).eval())


def test_a_drawn_digit_is_read_reconstructed_and_compared(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    classifier, other = player(CLASSIFIER), autoencoder()
    reader = playing.DigitReader([classifier], [other])
    assert (classifier.reads_digits, classifier.classifies) == (True, True)
    assert (other.reads_digits, other.classifies) == (True, False)
    probability, reconstructed, nearest = reader.read({"composite": np.asarray(drawn_one())})
    assert max(probability, key=lambda name: probability[name]) == "1"
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    digit = playing.centered_digit(np.asarray(drawn_one()), (1, 32, 32))
    assert digit is not None
    side = reconstructed.height // 36
    shown = np.asarray(reconstructed.convert("L"))[::side, ::side][2:34, 36:68].astype(int)
    expected = (other.model.reconstruct(digit)[0, 0] * 255).round().byte().numpy()
    assert np.abs(shown - expected).max() <= 1
    assert nearest.size[0] > 4 * nearest.size[1], "five in a row"
    assert reader.read({"composite": np.zeros((280, 280, 4), np.uint8)}) == [{}, None, None]
    assert reader.read(None) == [{}, None, None]
    assert reader.examples.source == "scikit-learn's digits"
    with torch.no_grad():
        taken = classifier.model(reader.examples.images[:200]).argmax(1)
    right = (taken == torch.from_numpy(load_digits().target[:200])).float().mean()
    assert right > 0.7, "trained on others: MNIST's are finer"


def tiles_of(row: Image.Image, side: int, channels: int) -> torch.Tensor:
    """The images in a row, ``(N, C, H, W)`` in 0..255; between them lie two white pixels."""
    factor = row.height // (side + 4)
    pixels = torch.from_numpy(np.array(row.convert("L" if channels == 1 else "RGB"))[::factor, ::factor].astype(int))
    pixels = pixels.reshape(side + 4, -1, channels)[2:-2, 2:].unfold(1, side, side + 2)
    return pixels.permute(1, 2, 0, 3)


def drawn_ring() -> Image.Image:
    canvas = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).ellipse((60, 40, 200, 240), outline=(0, 0, 0, 255), width=20)
    return canvas


def test_the_way_between_two_drawings() -> None:
    walker = player(AUTOENCODER)
    row, file = playing.Walk([walker]).between({"composite": drawn_one()}, {"composite": drawn_ring()}, steps=5)
    model = walker.model
    digits = [playing.centered_digit(np.asarray(drawn), (1, 32, 32)) for drawn in (drawn_one(), drawn_ring())]
    assert digits[0] is not None
    assert digits[1] is not None
    with torch.no_grad():
        start, end = model.encoder(digits[0]), model.encoder(digits[1])
        way = [torch.sigmoid(model.decoder((1 - step / 4) * start + step / 4 * end)) for step in range(5)]
    expected = (torch.cat([digits[0], *way, digits[1]]) * 255).round().int()
    shown = tiles_of(row, 32, 1)
    assert shown.shape == expected.shape
    assert (shown - expected).abs().max() <= 1
    assert (shown[1] - shown[5]).abs().max() > 100, "of two digits"
    with Image.open(file) as gif:
        assert gif.n_frames == 8, "there and back"
        for frame, step in enumerate((0, 1, 2, 3, 4, 3, 2, 1)):
            gif.seek(frame)
            level = np.asarray(gif.convert("L").resize((32, 32), Image.Resampling.NEAREST)).astype(int)
            assert np.abs(level - shown[step + 1, 0].numpy()).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_way_between_two_photographs(channels: int) -> None:
    """Their central squares, in the model's channels, neither cut out nor inverted; along the great circle."""
    torch.manual_seed(0)
    vae = lit_models.VAE(image_size=32, channels=channels, feature_maps=2, latent_dim=4).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    photographs = [Image.fromarray(one) for one in pixels]
    walker = playing.Player("vae", vae)
    ink = channels == 3  # is of no use for color
    row = playing.Walk([walker]).between(*photographs, steps=3, path="slerp", ink=ink)[0]
    seen = [np.array(one.convert("L" if channels == 1 else "RGB"))[:, 8:40] for one in photographs]
    images = [torch.from_numpy(one.reshape(1, 32, 32, channels)).permute(0, 3, 1, 2) / 255 for one in seen]
    with torch.no_grad():
        start, end = vae.embed(images[0]), vae.embed(images[1])
        angle = torch.acos((start * end).sum() / (start.norm() * end.norm()))
        middle = (torch.sin(angle / 2) * start + torch.sin(angle / 2) * end) / torch.sin(angle)
        way = [vae.decode(latent) for latent in (start, middle, end)]
    expected = (torch.cat([images[0], *way, images[1]]) * 255).round().int()
    assert (tiles_of(row, 32, channels) - expected).abs().max() <= 1


def test_each_model_walks_in_its_own_size() -> None:
    torch.manual_seed(0)
    vae = lit_models.VAE(image_size=16, feature_maps=2, latent_dim=4).eval()
    walk = playing.Walk([autoencoder(), playing.Player("vae", vae)])
    answers = walk.between(drawn_one(), drawn_ring(), steps=4)
    assert [tiles_of(row, side, 1).shape for row, side in ((answers[0], 32), (answers[2], 16))] == [
        (6, 1, 32, 32),
        (6, 1, 16, 16),
    ]
    assert answers[1] != answers[3]


def test_a_walk_needs_two_pictures() -> None:
    walk, empty = playing.Walk([autoencoder()]), Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    sentence = r"^The {} picture is missing or blank: draw one, or drop or pick a file that is a picture\.$"
    for missing in (None, {"background": None, "layers": [], "composite": None}, empty, Image.new("L", (9, 9), 255)):
        with pytest.raises(RunError, match=sentence.format("second")):
            walk.between(drawn_one(), missing)
        with pytest.raises(RunError, match=sentence.format("first")):
            walk.between(missing, drawn_one())
    with pytest.raises(RunError, match=sentence.format("first")):
        walk.between(empty, drawn_one(), ink=False)


def test_digits_to_pick_from(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    walk = playing.Walk([autoencoder()])
    zero, one = (Image.open(file) for file in walk.examples(2))
    shown = tiles_of(walk.between(zero, one)[0], 32, 1) / 255
    similar = [
        torch.corrcoef(torch.stack([shown[end].flatten(), image.flatten()]))[0, 1]
        for end, image in zip((0, -1), playing.training_digits((1, 32, 32)).images[:2], strict=True)
    ]
    assert min(similar) > 0.95, "as they were"


def test_who_walks() -> None:
    gradio = pytest.importorskip("gradio")
    colors = playing.Player("colors", lit_models.VAE(image_size=16, channels=3, feature_maps=2, latent_dim=4).eval())
    app = demo.build_app([colors])
    tabs = [block.label for block in app.blocks.values() if isinstance(block, gradio.Tab)]
    assert tabs == ["colors", WALK]
    assert not any(isinstance(block, gradio.Dataset) for block in app.blocks.values()), "no digits to pick"
    assert [player(name).interpolates for name in ("dcgan_mnist", CLASSIFIER, AUTOENCODER)] == [False, False, True]


def test_the_most_similar_images(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    reader = playing.DigitReader([], [autoencoder()])
    images = reader.examples.images
    with torch.no_grad():
        codes = reader.autoencoders[0].model.embed(images)
    distances = [float((code - codes[7]).square().sum()) for code in codes]
    expected = sorted(range(len(images)), key=lambda row: distances[row])
    assert reader.most_similar(images[7:8], 3).tolist() == expected[:3]
    assert expected[0] == 7


def test_mnists_training_images_are_compared_if_they_are_there(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    store = MNIST(image_size=28).store
    images = np.random.default_rng(0).integers(0, 255, (6000, 1, 28, 28), dtype=np.uint8)

    def build(writer: Any) -> None:
        for split in ("train", "test"):
            writer.write(f"{split}_image", images)
            writer.write(f"{split}_label", np.zeros(6000, np.int64))

    for source in store.sources:
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(b"")
    store.prepare(build)
    examples = playing.training_digits((1, 28, 28))
    assert examples.source == "the first 5,000 training images of MNIST"
    assert torch.equal((examples.images * 255).round().byte(), torch.from_numpy(images[:5000]))
    assert playing.training_digits((1, 32, 32)).source == "scikit-learn's digits"


def test_a_digit_is_centered_by_its_mass() -> None:
    pixels = np.full((100, 60), 255, np.uint8)
    pixels[10:50, 40:44] = 0
    image = playing.centered_digit(pixels, (1, 28, 28))
    assert image is not None
    mass = image[0, 0] / image.sum()
    assert float((mass.sum(1) * torch.arange(28)).sum()) == pytest.approx(13.5, abs=0.6)
    assert float((mass.sum(0) * torch.arange(28)).sum()) == pytest.approx(13.5, abs=0.6)
    assert int((image[0, 0].amax(1) > 0.5).sum()) == 20


def drawn_shape(kind: str, shift: int) -> Image.Image:
    """A ring or a line, dark on white."""
    picture = Image.new("L", (105, 105), 255)
    pen, box = ImageDraw.Draw(picture), (20 + shift, 20, 80 + shift, 80)
    pen.ellipse(box, outline=0, width=4) if kind == "ring" else pen.line([*box[:2], *box[2:]], fill=0, width=4)
    return picture


def test_few_shots(tmp_path: Path) -> None:
    few = playing.FewShot(player("protonet_omniglot_1shot").model)

    answer = few.classify(
        drawn_shape("ring", 4), [drawn_shape("line", 0)], [drawn_shape("ring", 0), drawn_shape("ring", 2)], None
    )
    assert set(answer) == {"class 1", "class 2"}
    assert answer["class 2"] > 0.9
    paper = Image.new("RGBA", (105, 105), (0, 0, 0, 0))
    paper.putalpha(drawn_shape("ring", 4).point(lambda level: 255 - level))
    assert few.classify(paper, [drawn_shape("line", 0)], [drawn_shape("ring", 0)])["class 2"] > 0.9, "transparent"
    with pytest.raises(RunError, match=r"^Put pictures into at least two classes, and one to ask about\.$"):
        few.classify(drawn_shape("ring", 4), [drawn_shape("line", 0)])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(RunError, match=r"^broken\.png can't be read as a picture\.$"):
        few.classify(drawn_shape("ring", 4), [drawn_shape("line", 0)], [str(tmp_path / "broken.png")])


def test_a_port_in_use_is_a_sentence(capsys: Output) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "dcgan_mnist", "--port", str(port)]) == 1
    assert capsys.readouterr().err == f"relit: Port {port} can't be used: choose another --port.\n"


def test_errors_are_a_sentence(tmp_path: Path, capsys: Output) -> None:
    assert main(["demo", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no checkpoint" in capsys.readouterr().err
    assert main(["demo", "dcgan_mnst"]) == 1
    assert "There are no weights dcgan_mnst" in capsys.readouterr().err


def test_a_walk_is_closed_and_a_gif(tmp_path: Path) -> None:
    frames = walk_frames(player("dcgan_mnist").model, images=4, stops=2, steps=3)
    assert len(frames) == 6
    write_movie(frames, tmp_path / "walk.gif", seconds=0.2, hold=0.3)
    with Image.open(tmp_path / "walk.gif") as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (6, 0, 200)
        assert gif.size == (210, 210), "enlarged three times"


def test_a_walk_as_a_video(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [Image.new("L", (35, 49), 30 * number) for number in range(6)]
    write_movie(frames, tmp_path / "walk.mp4", seconds=0.2, hold=0.4)
    assert ffmpeg.count_frames_and_secs(str(tmp_path / "walk.mp4")) == (8, pytest.approx(1.6, abs=0.01))
    reader = ffmpeg.read_frames(str(tmp_path / "walk.mp4"))
    assert next(reader)["size"] == (246, 344), "enlarged seven times, to an even number of pixels"
    levels = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert np.allclose(levels[:6], [30 * number for number in range(6)], atol=4)


def test_samples_over_the_epochs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    for epoch in (1, 2, 10):
        Image.new("L", (34, 34), 20 * epoch).save(run / "samples" / f"epoch_{epoch:04}.png")
    (run / "samples" / "epoch_0003.png").write_bytes(b"\x89PNG cut off")
    (run / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n")
    assert [frame.getpixel((5, 40)) for frame in sample_frames(sample_series(run))] == [
        (20,) * 3,
        (40,) * 3,
        (200,) * 3,
    ]
    output = ("--output", str(tmp_path / "page.html"), "--gif", str(tmp_path / "samples.gif"))
    assert main(["report", str(run), *output]) == 0
    assert main(["report", str(run), "--output", str(tmp_path / "page.html"), "--movie", str(tmp_path / "a.txt")]) == 1
    with Image.open(tmp_path / "samples.gif") as gif:
        assert gif.n_frames == 3
