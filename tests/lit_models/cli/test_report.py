import base64
import json
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lit_models.__main__ import main
from lit_models.cli.report import curves, pictures
from lit_models.cli.report.curves import thinned
from lit_models.cli.report.reading import read_record
from lit_models.runs.reading import Point, read_run
from lit_models.support.animation import write_movie
from tests.support.browser import CHROMIUM, Page
from tests.support.tiny import TINY, the_run

Relit = Callable[..., int]
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>"""


class Parsed(HTMLParser):
    """Elements with their attributes and texts of a page, whose tags are checked to be closed in order."""

    VOID = ("meta", "img", "input", "br", "link", "line", "path", "circle")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page.replace("<wbr>", ""))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *but: str) -> str:
        return " ".join(text for tag, text in self.texts if tag not in but)

    def curves(self) -> list[list[dict[str, Any]]]:
        texts = [text for tag, text in self.texts if tag == "script" and text.startswith('{"plots"')]
        return json.loads(texts[0])["plots"] if texts else []


def picture(path: Path, color: int = 255, size: tuple[int, int] = (34, 34)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, color).save(path)


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    """A run with everything: two epochs of ten steps, a test, samples, triptychs, figures, a confusion matrix."""
    run = tmp_path / "gan" / "one"
    run.mkdir(parents=True)
    header = "epoch,step,train/loss,val/loss,val/fid,val/images,test/fid\n"
    train = [f"{epoch},{10 * epoch + i},{0.1 * i + epoch + 0.123456789},,,,\n" for epoch in (0, 1) for i in (4, 9)]
    val = ["0,9,,2.5,8.25,1000,\n", "1,19,,1.5,4.125,1000,\n"]
    (run / "metrics.csv").write_text(header + "".join(train + val) + "0,0,,,,,3.0625\n")
    write_tests(run, measured({"test/fid": 3.0625}, "gan_digits"))
    config = {
        "seed_everything": 3,
        "run": {"experiment": "gan_digits", "id": "one"},
        "checkpoint": {"monitor": "val/fid"},
        "model": {"class_path": "lit_models.DCGAN", "init_args": {"latent_dim": 8, "n_critic": 1}},
        "data": {"class_path": "datamodules.Digits", "init_args": {"root": None}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    record: dict[str, Any] = {
        "finished": True,
        "training_seconds": 754.0,
        "processor": "A processor",
        "threads": 2,
        "processes": 1,
    }
    record["data"] = {"name": "Digits", "train_images": 1347, "val_images": 150}
    record["peak_memory_bytes"] = {"process": 3 * 2**29, "accelerator": None}
    (run / "run.json").write_text(json.dumps({**record, "accelerator": None, "git_commit": "0123456789abcdef+changes"}))
    for epoch in (1, 2):
        picture(run / "samples" / f"epoch_{epoch:04}.png", 60 * epoch)
        picture(run / "samples" / "triptychs" / f"epoch_{epoch:04}.png", 70 * epoch)
    for name in ("embedding", "losses", "confusion_matrix"):
        picture(run / "figures" / f"{name}.png", 5)
    (run / "figures" / "confusion_matrix.csv").write_text("class,cat,dog\ncat,7,1\ndog,0,5\n")
    (run / "genotype.json").write_text('{"normal": []}')
    return run


def measured(figures: dict[str, float], experiment: str, **settings: Any) -> dict[str, Any]:
    """A test as tests.json holds it."""
    data = {"class_path": settings.pop("class_path", "datamodules.Digits"), "init_args": {"root": None, **settings}}
    return {
        "experiment": experiment,
        "checkpoint": "best.ckpt",
        "step": 1234,
        "settings": data,
        "figures": figures,
        "data": {"name": "Digits", "test_images": 300},
    }


def write_tests(run: Path, *tests: dict[str, Any]) -> None:
    (run / "tests.json").write_text(json.dumps(tests))


def written(*arguments: object) -> tuple[str, Parsed]:
    assert main(["report", *map(str, arguments), "--output", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    return page, Parsed(page)


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def require_self_contained(page: str, parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            if tag == "a" and name == "href" and attributes.get("rel") == "noreferrer":
                continue  # asks for nothing before somebody follows it
            assert value is None or value.startswith(("data:image/", "data:video/mp4;", "#")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "@import" not in page
    assert "url(" not in page
    policy = next(meta["content"] for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


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


def test_values_are_those_of_the_metrics(gan: Path) -> None:
    _, parsed = written(gan)
    figures = [float(str(data["value"])) for data in parsed.of("data")]
    assert figures == [3.0625, 4.125, 1000.0, 1.5], "the test, then the final values of fid, images and loss"
    lines = {line["label"]: line for plot in parsed.curves() for line in plot}
    assert set(lines) == {"train/loss", "val/loss", "val/fid"}, "what never changes has no curve"
    assert lines["train/loss"]["value"] == [0.4 + 0.123456789, 0.9 + 0.123456789, 1.4 + 0.123456789, 1.9 + 0.123456789]
    assert lines["train/loss"]["step"] == [4, 9, 14, 19]
    assert lines["train/loss"]["epoch"] == [0.5, 1.0, 1.5, 2.0]
    assert lines["val/fid"]["value"] == [8.25, 4.125]
    assert lines["val/fid"]["epoch"] == [1.0, 2.0]
    assert parsed.curves()[0][0]["label"] == "val/fid", "what chooses the best checkpoint comes first"


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


def test_places_follow_the_values(gan: Path) -> None:
    _, parsed = written(gan)
    for plot in parsed.curves():
        points = [
            point for line in plot for point in zip(line["epoch"], line["x"], line["value"], line["y"], strict=True)
        ]
        epoch, x, value, y = np.array(points).T
        if len(points) > 2:
            assert np.corrcoef(epoch, x)[0, 1] > 0.9999
            assert np.corrcoef(value, y)[0, 1] < -0.9999
        assert curves.LEFT <= x.min() <= x.max() <= curves.WIDTH - curves.RIGHT + 0.1
        assert curves.TOP <= y.min() <= y.max() <= curves.HEIGHT - curves.BOTTOM


def test_a_logarithmic_axis(gan: Path) -> None:
    rows = "".join(f"{epoch},{epoch},{10.0 ** (3 - epoch)}\n" for epoch in range(5))
    (gan / "metrics.csv").write_text("epoch,step,val/fid\n" + rows)
    page, parsed = written(gan)
    assert "logarithmic" in page
    assert np.ptp(np.diff(parsed.curves()[0][0]["y"])) < 0.2, "powers of ten are at equal distances"
    ticks = set(re.findall(r'text-anchor="end">([^<]+)</text>', page))
    assert {"1000", "100", "10", "1", "0.1"} <= ticks


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


def test_curves_of_the_training_are_dotted_whatever_the_runs_are_called(gan: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "one"
    shutil.copytree(gan, other)
    _, parsed = written(gan, other)
    kinds = {line["label"]: line["dashed"] for plot in parsed.curves() for line in plot}
    assert kinds == {
        f"{run} {stage}": stage == "train" for run in ("gan/one", "more/one") for stage in ("train", "val")
    }
    dotted = [path for path in parsed.of("path") if "dashed" in str(path["class"])]
    assert len(dotted) == 2, "as drawn before a control is used"
    _, alone = written(gan)
    assert not any(line["dashed"] for plot in alone.curves() for line in plot)


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


def test_pictures_that_do_not_fit_are_named(
    gan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    ("record", "expected"),
    [
        pytest.param({"seconds_after_epoch": [10, 20, 100]}, [5, 10, 15, 20, 60, 100], id="another pace"),
        pytest.param({"seconds_after_epoch": [10, 20]}, [5, 10, 15, 20, 60, 100], id="interrupted"),
        pytest.param({"seconds_after_epoch": [10, 20], "training_seconds": 20}, [5, 10, 15, 20, 25, 30], id="training"),
        pytest.param({"seconds_after_epoch": [None, 40, 100]}, [10, 20, 30, 40, 70, 100], id="times kept later"),
        pytest.param({"seconds_after_epoch": [10, 20, 100, 120]}, [5, 10, 15, 20, 60, 100], id="not yet logged"),
        pytest.param({}, [100 * n / 6 for n in range(1, 7)], id="times not kept"),
        pytest.param({"seconds_after_epoch": "x"}, [100 * n / 6 for n in range(1, 7)], id="not a list"),
        pytest.param({"training_seconds": None}, None, id="no time"),
    ],
)
def test_times_are_those_of_the_epochs(tmp_path: Path, record: dict[str, Any], expected: list[float] | None) -> None:
    """Three epochs of 2, 4 and 6 steps, with a value in the middle and at the end of each."""
    rows = ["epoch,step,train/loss", "0,0,6", "0,1,5", "1,3,4", "1,5,3", "2,8,2", "2,11,1"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "run.json").write_text(json.dumps({"training_seconds": 100.0, **record}))
    read = read_record(read_run(tmp_path, "run"))
    assert [point.epoch for point in read.points["train/loss"]] == [0.5, 1, 1.5, 2, 2.5, 3]
    found = curves.minutes(read, read.points["train/loss"])
    assert found == (None if expected is None else pytest.approx([at / 60 for at in expected], abs=1e-3))


def test_a_training_that_ends_within_an_epoch_ends_at_its_time(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,3,2\n0,7,2\n1,11,1\n")
    (tmp_path / "run.json").write_text(json.dumps({"training_seconds": 16.0, "seconds_after_epoch": [10, 16]}))
    read = read_record(read_run(tmp_path, "run"))
    assert [point.epoch for point in read.points["train/loss"]] == [0.5, 1, 1.5]
    assert curves.minutes(read, read.points["train/loss"]) == pytest.approx([5 / 60, 10 / 60, 16 / 60], abs=1e-3)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_time_axis_shows_only_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = {
        "kept": {"training_seconds": 360.0, "seconds_after_epoch": [60, 360]},
        "older": {"training_seconds": 240.0},
        "unknown": {},
    }
    for name, record in records.items():
        Path(name).mkdir()
        Path(name, "metrics.csv").write_text("epoch,step,val/loss\n0,1,2\n1,3,1\n")
        Path(name, "run.json").write_text(json.dumps(record))
    assert main(["report", *records, "--output", "page.html"]) == 0
    with Page(Path("page.html")) as page:
        assert not page.evaluate("document.getElementById('pace').checkVisibility()")
        assert page.evaluate("document.querySelectorAll('.plot .line').length") == 3
        page.evaluate(
            "{ const axis = document.querySelector('[name=axis]'); axis.value = 'time';"
            " axis.dispatchEvent(new Event('input')); }"
        )
        assert page.evaluate("document.querySelectorAll('.plot .line').length") == 2
        said = page.evaluate("document.getElementById('pace').innerText")
        places = page.evaluate(
            "[...document.querySelectorAll('.plot circle')].map((dot) => Number(dot.getAttribute('cx')))"
        )
    assert said == "A constant pace is assumed for older: the times of the epochs were not kept."
    first, last = 54, 440 - 12
    assert places == pytest.approx([first + (last - first) * minutes / 6 for minutes in (1, 6, 2, 4)], abs=0.1)


def test_long_curves_are_means_of_neighbors() -> None:
    points = [Point(i / 8, i, float(i % 7)) for i in range(1001)]
    short, size = thinned(points)
    assert size == 3
    assert len(short) == 334
    assert short[10] == Point(31 / 8, 32, (30 % 7 + 31 % 7 + 32 % 7) / 3)
    assert short[-1] == Point(999.5 / 8, 1000, (999 % 7 + 1000 % 7) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no folder nowhere"),
        (["{run}", "{run}", "--names", "a", "a"], "Two runs have the same name"),
        (["{run}", "--output", "{run}/metrics.csv/page.html"], "can't be written"),
    ],
)
def test_errors_are_a_sentence(
    gan: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["report", *(argument.format(run=gan) for argument in arguments)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("relit: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "tests.json"])
def test_a_broken_record_is_named(gan: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
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
        deadline = time.monotonic() + 10
        while page.evaluate(shown)[0] != "samples of one after epoch 2":
            assert time.monotonic() < deadline
            time.sleep(0.1)
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
