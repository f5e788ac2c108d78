import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lit_models.__main__ import main
from lit_models.cli.report import pictures
from lit_models.support.animation import write_movie
from tests.support.browser import CHROMIUM, Page
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import wait_until
from tests.support.report_page import EVIL, Parsed, measured, picture, require_self_contained, write_tests, written
from tests.support.tiny import TINY, the_run

pytestmark = pytest.mark.usefixtures("in_a_folder")


def test_a_run_with_everything(gan: Path) -> None:
    page, parsed = written(gan)
    require_self_contained(page, parsed)
    text = parsed.text("script", "style")
    for expected in (
        "gan_digits",
        "DCGAN",
        "Digits",
        "12.6 min",
        "A processor, 2 threads",
        "1,347 train, 150 val",
        "0123456789ab+changes",
    ):
        assert expected in text
    assert "1.5 GiB (process)" in text
    assert "Not everything" not in text
    assert {image["alt"] for image in parsed.of("img")} == {
        *(f"{title} of one after epoch {epoch}" for title in ("samples", "triptychs") for epoch in (1, 2)),
        "embedding of one",
    }, "curves and confusion matrix are drawn by the page itself"
    shown = [image["alt"] for image in parsed.of("img") if "hidden" not in image]
    assert shown == ["samples of one after epoch 2", "triptychs of one after epoch 2", "embedding of one"]
    assert [data["data-epochs"] for data in parsed.of("input") if "data-epochs" in data] == ["1,2", "1,2"]
    shares = [(cell["class"], cell["style"]) for cell in parsed.of("td") if "style" in cell]
    assert shares == [
        ("right", "--share: 87.5%"),
        ("wrong", "--share: 12.5%"),
        ("wrong", "--share: 0.0%"),
        ("right", "--share: 100.0%"),
    ]
    assert '{"normal": []}' in text


EPISODES = {"class_path": "datamodules.OmniglotEpisodes", "split": "vinyals", "train_on_val": False, "test_shot": 1}


def test_tests_of_a_run_can_be_told_apart(gan: Path) -> None:
    name = "protonet_omniglot_5way1shot"
    write_tests(
        gan,
        measured({"test/accuracy": 0.9875}, name, **EPISODES, test_way=5),
        measured({"test/accuracy": 0.9625}, name, **EPISODES, test_way=20),
    )
    page, parsed = written(gan)
    require_self_contained(page, parsed)
    text = " ".join(parsed.text("script", "style").split())
    of_five, of_twenty = (text.index(f"test_way {way} checkpoint best.ckpt, step 1234 images 300") for way in (5, 20))
    five, twenty = text[of_five:of_twenty], text[of_twenty : text.index("val/fid")]
    assert "test/accuracy 0.9875 5-way accuracy / %, published: 98.8 ( Snell et al. 2017, table 1 )" in five
    assert "test/accuracy 0.9625 20-way accuracy / %, published: 96.0 ( Snell et al. 2017, table 1 )" in twenty
    assert "97.06 (a course's run)" in five
    assert "97.06" not in twenty
    assert "https://arxiv.org/abs/1703.05175" in {link["href"] for link in parsed.of("a")}


def test_a_test_of_a_part_says_so(gan: Path) -> None:
    test = measured({"test/accuracy": 0.9875}, "protonet_omniglot_5way1shot", **EPISODES, test_way=5)
    write_tests(gan, test | {"limit_test_batches": 3})
    text = " ".join(written(gan)[1].text("script", "style").split())
    assert "limit_test_batches 3 checkpoint best.ckpt, step 1234 images – test/accuracy 0.9875" in text
    assert ", published:" not in text


def test_the_same_test_of_several_runs_is_one_row(gan: Path, tmp_path: Path) -> None:
    other = tmp_path / "gan" / "two"
    other.mkdir()
    (other / "metrics.csv").write_text("epoch,step,val/fid\n0,9,7.5\n")
    write_tests(
        gan,
        measured({"test/fid": 2.5}, "gan_digits", count=100),
        measured({"test/fid": 1.5, "test/kid": 0.5}, "gan_digits", count=1000),
    )
    write_tests(other, measured({"test/fid": 3.5}, "gan_digits", count=1000, batch_size=8))
    _, parsed = written(gan, other)
    text = " ".join(parsed.text("script", "style").split())
    assert "count 100 checkpoint best.ckpt, step 1234 – images 300 – test/fid 2.5 –" in text
    assert "count 1000 checkpoint best.ckpt, step 1234 best.ckpt, step 1234" in text
    assert "test/fid 1.5 3.5 test/kid 0.5 –" in text
    assert "batch_size" not in text.split("Configuration")[0], "no run has two tests that differ in it"


def test_nothing_published_stands_beside_other_data(gan: Path) -> None:
    name = "protonet_omniglot_5way1shot"
    for other in ({"test_way": 10}, {"test_shot": 5}, {"class_path": "datamodules.FolderEpisodes"}):
        write_tests(gan, measured({"test/accuracy": 0.9}, name, **{**EPISODES, "test_way": 5, **other}))
        assert ", published:" not in written(gan)[1].text("script", "style")


def test_runs_in_comparison(gan: Path, tmp_path: Path) -> None:
    other = tmp_path / "gan" / "two"
    (other / "samples").mkdir(parents=True)
    (other / "metrics.csv").write_text("epoch,step,val/fid\n0,9,7.5\n1,19,6.5\n")
    config = yaml.safe_load((gan / "config.yaml").read_text())
    config["model"]["init_args"] = {"latent_dim": 16, "n_critic": 1, "feature_maps": 4}
    config["run"]["id"] = "two"
    config["trainer"] = {**(config.get("trainer") or {}), "logger": {"class_path": "WandbLogger"}}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    picture(other / "samples" / "epoch_0002.png")
    page, parsed = written(gan, other)
    require_self_contained(page, parsed)
    text = " ".join(parsed.text("script", "style").split())
    assert "model.feature_maps – 4" in text
    assert "model.latent_dim 8 16" in text
    assert "model.n_critic 1 1" not in text, "what is equal isn't listed among the differences"
    assert "trainer.logger" not in text, "nor is what makes no other training"
    assert {line["label"]: line["value"] for line in parsed.curves()[0]} == {
        "one val": [8.25, 4.125],
        "two val": [7.5, 6.5],
    }
    assert "samples of two after epoch 2" in {image["alt"] for image in parsed.of("img")}


def test_nothing_can_be_injected(gan: Path, tmp_path: Path) -> None:
    header, *rows = (gan / "metrics.csv").read_text().splitlines()
    evil_header = header.replace("val/fid", '"val/' + EVIL.replace('"', '""') + '"')
    (gan / "metrics.csv").write_text("\n".join([evil_header, *rows]) + "\n")
    config = yaml.safe_load((gan / "config.yaml").read_text())
    config["model"]["init_args"][EVIL] = EVIL
    config["run"]["experiment"] = EVIL
    (gan / "config.yaml").write_text(yaml.safe_dump(config))
    (gan / "run.json").write_text(json.dumps({"training_seconds": 1.0, "processor": EVIL, "torch": EVIL}))
    (gan / "figures" / "confusion_matrix.csv").write_text(f"class,{EVIL},b\n{EVIL},1,2\nb,3,4\n")
    (gan / "genotype.json").write_text(EVIL)
    evil_name = EVIL.replace("/", "")
    picture(gan / "figures" / f"{evil_name}.png")
    picture(gan / "samples" / f"{evil_name}_0001.png")
    innocent = Parsed(_page_of(tmp_path / "innocent"))
    page, parsed = written(gan, "--names", EVIL)
    require_self_contained(page, parsed)
    assert len(parsed.of("script")) == len(innocent.of("script")) == 2
    assert "<script>alert" not in page
    assert all("onerror" not in image for image in parsed.of("img"))
    assert [image["src"] for image in parsed.of("img") if not str(image["src"]).startswith("data:image/")] == []
    assert EVIL in parsed.text("script", "style"), "it is there, as text"


def _page_of(run: Path) -> str:
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n1,19,2.0\n")
    return written(run)[0]


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    run = tmp_path / "bare"
    parsed = Parsed(_page_of(run))
    assert "bare has no config.yaml." in parsed.text()
    assert parsed.of("img") == []
    assert {"#runs", "#figures", "#curves", "#configuration"} == {link["href"] for link in parsed.of("a")}
    (run / "metrics.csv").write_text("epoch,step,val/loss\n")
    _, parsed = written(run)
    assert parsed.curves() == []
    assert {"#runs", "#configuration"} == {link["href"] for link in parsed.of("a")}


def test_pictures_that_do_not_fit_are_named(gan: Path, monkeypatch: Patch, capsys: Output) -> None:
    rng = np.random.default_rng(0)
    for epoch in range(1, 21):
        pixels = rng.integers(256, size=(40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(gan / "samples" / f"epoch_{epoch:04}.png")
    (gan / "samples" / "triptychs" / "epoch_0002.png").write_bytes(b"\x89PNG cut off")
    monkeypatch.setattr(pictures, "MOST_PICTURE_BYTES", 26_000)
    page, parsed = written(gan)
    kept = [int(str(image["data-epoch"])) for image in parsed.of("img") if str(image["alt"]).startswith("samples")]
    assert len(page) < 26_000 + 60_000
    assert 4 <= len(kept) < 20
    assert kept[0] == 1
    assert kept[-1] == 20
    assert np.ptp(np.diff(kept)) <= 1, "epochs at equal distances"
    said = capsys.readouterr().err
    assert f"{20 - len(kept)} pictures of samples are left out, to keep the page small." in said
    assert re.search(r"epoch_0002.png is left out, as it can't be read as a picture", said)
    assert f"{20 - len(kept)} pictures of samples are left out" in parsed.text("script", "style")


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(256, size=(200, 1800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    embedded = pictures.embedded(path)
    assert embedded.source.startswith("data:image/webp;base64,")
    assert (embedded.width, embedded.height) == (1600, 178)
    assert len(embedded.source) < path.stat().st_size / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no folder nowhere"),
        (["{run}", "{run}", "--names", "a", "a"], "Two runs have the same name"),
        (["{run}", "--output", "{run}/metrics.csv/page.html"], "can't be written"),
    ],
)
def test_errors_are_a_sentence(gan: Path, capsys: Output, arguments: list[str], message: str) -> None:
    assert main(["report", *(argument.format(run=gan) for argument in arguments)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("relit: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "tests.json"])
def test_a_broken_record_is_named(gan: Path, capsys: Output, name: str) -> None:
    (gan / name).write_text("{")
    assert main(["report", str(gan)]) == 1
    assert re.fullmatch(rf"relit: .*{name} can't be read: .*\n", capsys.readouterr().err)


def test_a_walk_that_was_predicted_moves_on_the_page(gan: Path) -> None:
    for number, name in enumerate(("predictions", "predictions_2", "predictions_10")):
        frames = [Image.new("L", (68, 68), 40 * number + 20 * step) for step in range(4)]
        write_movie(frames, gan / name / "walk.gif")
    page, parsed = written(gan)
    require_self_contained(page, parsed)
    (source,) = (str(image["src"]) for image in parsed.of("img") if str(image["src"]).startswith("data:image/gif"))
    assert base64.b64decode(source.partition(",")[2]) == (gan / "predictions_10" / "walk.gif").read_bytes()
    assert "walk in the latent space" in parsed.text("script", "style")


def test_a_walk_that_was_predicted_as_a_video_plays_on_the_page(gan: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    video = gan / "predictions" / "walk.mp4"
    write_movie([Image.new("L", (68, 68), 20 * step) for step in range(4)], video)
    page, parsed = written(gan)
    require_self_contained(page, parsed)
    assert "media-src data:;" in page
    (player,) = parsed.of("video")
    assert base64.b64decode(str(player["src"]).partition(",")[2]) == video.read_bytes()
    video.write_bytes(b"cut off")
    page, parsed = written(gan)
    assert not parsed.of("video")
    assert "walk.mp4 is left out, as it can't be read as a picture" in parsed.text("script", "style")


def test_a_real_run(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=2", "--trainer.limit_train_batches=2") == 0
    page, parsed = written(the_run().parent)
    require_self_contained(page, parsed)
    text = parsed.text("script", "style")
    assert "generator_optimizer.lr" in text
    assert "samples" in text
    assert {line["label"] for plot in parsed.curves() for line in plot} >= {"val/discriminator_loss"}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser(gan: Path) -> None:
    """No complaint, no request, no scrolling to the side; the slider, the values at the pointer and the theme work."""
    written(gan, "--title", EVIL)
    with Page(Path("page.html"), width=400, theme="dark") as page:
        assert page.evaluate("document.title") == EVIL
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.evaluate("document.getElementById('theme').click()")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark, light) == ("rgb(20, 23, 28)", "rgb(255, 255, 255)")

        shown = "[...document.querySelectorAll('.frames img:not([hidden])')].map((image) => image.alt)"
        assert page.evaluate(shown) == ["samples of one after epoch 2", "triptychs of one after epoch 2"]
        page.evaluate(
            "{ const range = document.querySelector('.slider input'); range.value = 0;"
            " range.dispatchEvent(new Event('input')); }"
        )
        assert page.evaluate(shown) == ["samples of one after epoch 1", "triptychs of one after epoch 2"]
        page.evaluate("document.querySelector('.play').click()")
        wait_until(lambda: page.evaluate(shown)[0] == "samples of one after epoch 2", seconds=10)
        page.evaluate("document.querySelector('.play').click()")
        assert page.evaluate("document.querySelector('.play').innerText") == "play"

        page.evaluate("document.querySelector('.plot').scrollIntoView()")
        x, y, width, height = page.evaluate(
            "(({x, y, width, height}) => [x, y, width, height])"
            "(document.querySelector('.plot svg').getBoundingClientRect())"
        )
        page.point_at(x + 0.95 * width, y + 0.5 * height)
        assert page.evaluate("document.querySelector('.tip').innerText") == "epoch 2, step 19\nval/fid 4.125"
        images = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        assert page.evaluate(images)
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
