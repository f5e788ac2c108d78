import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lit_models.__main__ import main
from lit_models.cli.report.overview import Overview, find_runs, last_sample
from lit_models.cli.report.serving import Server
from lit_models.runs.ownership import Ownership
from lit_models.runs.reading import sample_series
from lit_models.support.animation import sample_frames
from tests.lit_models.cli.test_report import EVIL, Parsed, require_self_contained
from tests.support.browser import CHROMIUM, Page
from tests.support.fixtures import Output, Patch
from tests.support.processes import wait_until

browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


def make_run(folder: Path, seed: int = 0, dim: int = 8, finished: bool = True, epochs: int = 10) -> Path:
    """A run folder with a configuration, a curve that falls with the epoch, and samples."""
    rng = np.random.default_rng(seed + 100 * dim)
    folder.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "run": {"experiment": folder.parent.name, "id": folder.name},
        "checkpoint": {"monitor": "val/fid", "mode": "min"},
        "model": {"class_path": "lit_models.DCGAN", "init_args": {"latent_dim": dim, "optimizer": {"lr": 2e-4}}},
        "data": {"class_path": "datamodules.Digits", "init_args": {"root": None}},
        "trainer": {"max_epochs": 10},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # YAML, too, and written faster
    rows = [
        f"{epoch},{20 * epoch + 19},{1 / (epoch + 1)},{100 / dim + 20 / (epoch + 1) + seed + rng.normal() / 9}\n"
        for epoch in range(epochs)
    ]
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/fid\n" + "".join(rows))
    (folder / "run.json").write_text(json.dumps({"finished": finished, "training_seconds": 60.0 * epochs}))
    (folder / "samples").mkdir()
    pixels = rng.integers(256, size=(36, 36), dtype=np.uint8)
    Image.fromarray(pixels).resize((72, 72)).save(folder / "samples" / "epoch_0001.png")
    return folder


def make_runs(root: Path, count: int) -> Path:
    for number in range(count):
        name = ("dcgan_digits", "wgan_digits")[number % 2]
        make_run(
            root / name / f"run-{number:04}", seed=number // 2 % 3, dim=8 * (1 + number // 6), finished=number % 7 > 0
        )
    return root


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_runs(tmp_path / "runs", 12)


def test_runs_with_their_states_and_values(runs: Path) -> None:
    killed = make_run(runs / "old" / "killed", finished=False, epochs=4)
    for path in killed.iterdir():
        os.utime(path, (1e9, 1e9))
    os.utime(killed, (1e9, 1e9))
    owned = make_run(runs / "old" / "owned", finished=False, epochs=3)
    left = make_run(runs / "old" / "left", finished=False, epochs=3)
    (left / ".lock").write_text(json.dumps({"host": os.uname().nodename, "process": os.getppid()}))
    elsewhere = make_run(runs / "old" / "elsewhere", finished=False, epochs=3)
    for path in elsewhere.iterdir():
        os.utime(path, (1e9, 1e9))
    (elsewhere / ".lock").write_text(json.dumps({"host": "elsewhere", "process": 1}))
    make_run(runs / "old" / "interrupted", finished=False, epochs=3)
    foreign = make_run(runs / "old" / "foreign")
    for name in ("config.yaml", "run.json"):
        (foreign / name).unlink()
    owner = Ownership(owned)
    found = {run["id"]: run for run in Overview(runs).runs()}
    owner.release()
    assert len(found) == 18
    assert {name.removeprefix("old/"): run["state"] for name, run in found.items() if name.startswith("old/")} == {
        "killed": "stopped",
        "owned": "training",
        "elsewhere": "training",  # its lock's time stamp is new
        "left": "stopped",  # the number is another process's now
        "interrupted": "stopped",  # a moment ago: it gave up its lock
        "foreign": "training",  # by its age
    }
    run = found["dcgan_digits/run-0002"]
    rows = (runs / run["id"] / "metrics.csv").read_text().splitlines()[1:]
    values = [float(row.split(",")[3]) for row in rows]
    assert run["metric"] == "val/fid"
    assert run["metrics"]["val/fid"]["best"] == pytest.approx(min(values))
    assert run["metrics"]["val/fid"]["last"] == pytest.approx(values[-1])
    assert (run["state"], run["epoch"], run["epochs"], run["seconds"]) == ("finished", 10, 10, 600.0)
    assert run["settings"] == {"seed_everything": "1", "model.latent_dim": "8"}
    assert found["old/killed"]["epoch"] == 4
    assert run["thumbnail"].startswith("data:image/webp;base64,")


def test_the_last_whole_test_stands_for_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "gan" / "tested", epochs=2)
    (run / "metrics.csv").write_text("epoch,step,val/fid,test/fid\n1,39,3.0,\n2,39,,1.0\n2,39,,2.0\n")
    tests = [{"figures": {"test/fid": 1.0}}, {"figures": {"test/fid": 2.0}, "limit_test_batches": 0.5}]
    overview = Overview(tmp_path)
    for kept, value, notes in ((tests[:1], 1.0, 0), (tests, 1.0, 0), (tests[1:], 2.0, 1)):
        (run / "tests.json").write_text(json.dumps(kept))
        (found,) = overview.runs()
        assert found["metrics"]["test/fid"]["curve"] == [[3.0, value]]
        assert found["notes"] == ["tested on some batches only (limit_test_batches 0.5)"] * notes


def test_the_last_picture_is_a_sample_or_of_the_first_other_series(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    for name in ("triptychs_0009.png", "triptychs_0010.png", "plans_0020.png", "grid.png"):
        samples.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(samples / name)
    assert last_sample(tmp_path) == samples / "plans_0020.png"
    (samples / "plans_0020.png").unlink()
    assert last_sample(tmp_path) == samples / "triptychs_0010.png"
    assert len(sample_frames(sample_series(tmp_path))) == 2
    Image.new("L", (8, 8)).save(samples / "epoch_0002.png")
    assert last_sample(tmp_path) == samples / "epoch_0002.png"
    assert last_sample(tmp_path / "nothing") is None


def test_seeds_are_grouped_and_other_settings_are_not(runs: Path) -> None:
    groups: dict[str, set[tuple[str, str]]] = {}
    for run in Overview(runs).runs():
        groups.setdefault(run["group"], set()).add((run["experiment"], run["settings"].get("model.latent_dim")))
    assert len(groups) == 4, "two experiments with two widths each"
    assert all(len(settings) == 1 for settings in groups.values())
    make_run(runs / "dcgan_digits" / "run-0002-again", seed=1, dim=8)
    found = {run["id"].partition("/")[2]: run["group"] for run in Overview(runs).runs()}
    assert found["run-0002"] == found["run-0000"] != found["run-0002-again"], "a repeated seed is no further seed"


def test_half_written_folders_are_noted(runs: Path) -> None:
    broken = {name: make_run(runs / "broken" / name) for name in ("yaml", "json", "csv", "picture", "bare", "list")}
    (broken["yaml"] / "config.yaml").write_text("{")
    (broken["json"] / "run.json").write_text('{"finished": tr')
    (broken["csv"] / "metrics.csv").write_bytes(b"epoch,step,val/fid\n0,1,2.5\n1,2,abc\n\xff")
    (broken["picture"] / "samples" / "epoch_0001.png").write_bytes(b"\x89PNG cut off")
    for name in ("run.json", "metrics.csv"):
        (broken["bare"] / name).unlink()
    (broken["list"] / "config.yaml").write_text("- 1")
    strange = make_run(runs / "strange" / "sections")
    (strange / "config.yaml").write_text("checkpoint: {monitor: [1]}\ntrainer: 5\nrun: [1]\nmodel: null\n")
    (runs / "broken" / "comparison").mkdir()
    (runs / "loop").symlink_to(runs)
    found = {run["id"].rpartition("/")[2]: run for run in Overview(runs).runs() if run["id"].startswith("broken")}
    assert {name: run["notes"] for name, run in found.items()} == {
        "yaml": ["config.yaml can't be read"],
        "json": ["run.json can't be read"],
        "csv": ["metrics.csv can't be read to its end"],
        "picture": ["epoch_0001.png can't be read as a picture"],
        "bare": ["nothing is logged yet"],
        "list": ["config.yaml doesn't hold names with values"],
    }
    assert found["csv"]["metrics"]["val/fid"]["last"] == 2.5
    assert len(list(find_runs(runs))) == 19
    assert main(["report", "runs", "--output", "overview.html"]) == 0
    assert main(["runs"]) == 0


def test_a_folder_that_is_removed_while_it_is_read_is_left_out(runs: Path, monkeypatch: Patch) -> None:
    gone = runs / "dcgan_digits" / "run-0002"
    original = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path) == runs / "wgan_digits":
            raise FileNotFoundError(path)
        return original(path)

    def read(overview: Overview, folder: Path, stamp: Any) -> Any:
        if folder == gone:
            raise FileNotFoundError(folder)
        return read_run(overview, folder, stamp)

    read_run = Overview._read_run
    monkeypatch.setattr("os.scandir", scandir)
    monkeypatch.setattr(Overview, "_read_run", read)
    found = [run["id"] for run in Overview(runs).runs()]
    assert found == [f"dcgan_digits/run-{number:04}" for number in (0, 4, 6, 8, 10)]


def test_only_what_has_changed_is_read_again(runs: Path, monkeypatch: Patch) -> None:
    overview = Overview(runs)
    before = {run["id"]: run for run in overview.runs()}
    read: list[str] = []
    original = Overview._read_run
    monkeypatch.setattr(
        Overview, "_read_run", lambda self, folder, stamp: read.append(folder.name) or original(self, folder, stamp)
    )
    changed = runs / "dcgan_digits" / "run-0002"
    with (changed / "metrics.csv").open("a") as file:
        file.write("10,219,0.1,0.125\n")
    after = {run["id"]: run for run in overview.runs()}
    assert read == ["run-0002"]
    assert after["dcgan_digits/run-0002"]["metrics"]["val/fid"]["best"] == 0.125
    assert {name for name in before if before[name] != after[name]} == {"dcgan_digits/run-0002"}


def test_the_page_is_one_file_and_escaped(runs: Path, capsys: Output) -> None:
    evil = make_run(runs / "evil" / EVIL.replace("/", ""))
    config = yaml.safe_load((evil / "config.yaml").read_text())
    config["model"]["init_args"]["latent_dim"] = EVIL
    config["run"]["experiment"] = EVIL
    (evil / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["report", "runs", "--output", "overview.html"]) == 0
    assert "13 runs" in capsys.readouterr().out
    page = Path("overview.html").read_text()
    parsed = Parsed(page)
    require_self_contained(page, parsed)
    assert len(parsed.of("script")) == 2
    assert "<script>alert" not in page


def test_an_experiment_is_still_its_newest_run(runs: Path) -> None:
    assert main(["report", "runs/dcgan_digits", "--output", "page.html"]) == 0
    assert "Configuration" in Path("page.html").read_text()
    assert main(["report", "runs/dcgan_digits", "--overview", "--output", "page.html"]) == 0
    assert "dcgan_digits" in Path("page.html").read_text()


@pytest.mark.long
def test_a_thousand_runs_are_read_in_seconds(tmp_path: Path) -> None:
    """The bound is for a busy machine; see docs for the measured time."""
    root = make_runs(tmp_path / "many", 1000)
    start = time.process_time()
    assert len(Overview(root, served=True).runs()) == 1000
    assert time.process_time() - start < 20


@pytest.fixture
def server(runs: Path) -> Iterator[Server]:
    with Server(runs, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(server.address + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_answers_for_its_folder_alone(server: Server, tmp_path: Path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert b"Runs in runs" in asked(server, "")[1]
    listed = json.loads(asked(server, "runs.json")[1])["runs"]
    assert len(listed) == 12
    code, picture = asked(server, listed[0]["thumbnail"])
    assert (code, picture[8:12]) == (200, b"WEBP")
    with urllib.request.urlopen(server.address + listed[0]["thumbnail"], timeout=30) as answer:
        assert "max-age" in answer.headers["Cache-Control"], "asked for once, not every two seconds"
    code, page = asked(server, "report?run=dcgan_digits/run-0002&run=dcgan_digits/run-0004")
    assert code == 200
    assert b"1 setting differs" in page
    outside = make_run(tmp_path / "outside" / "secret")
    (server.root / "link").symlink_to(outside)
    for path in (
        "../outside/secret",
        str(outside),
        "link",
        "dcgan_digits",
        "nowhere",
        "%00",
        "..%2Foutside%2Fsecret",
        "",
    ):
        assert asked(server, f"report?run={path}")[0] == 404, path
        assert asked(server, f"thumbnail?run={path}")[0] == 404, path
    for path in ("config.yaml", "dcgan_digits/run-0002/config.yaml", "../outside/secret/config.yaml"):
        assert asked(server, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert asked(server, "", method)[0] == 501
    assert asked(server, "runs.json", Host="evil.example")[0] == 403


def test_a_run_that_is_removed_while_its_page_is_made_is_a_sentence(server: Server, monkeypatch: Patch) -> None:
    def removed(folder: Path, name: str) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(folder / "metrics.csv"))

    monkeypatch.setattr("lit_models.runs.reading.read_run", removed)
    code, sentence = asked(server, "report?run=dcgan_digits/run-0002")
    assert code == 200
    assert b"No such file or directory" in sentence


def test_a_browser_that_leaves_is_no_error(server: Server, capfd: Output) -> None:
    for error in (BrokenPipeError(), ConnectionResetError(), ValueError("a fault")):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
    assert [line for line in capfd.readouterr().err.splitlines() if "Error" in line] == ["ValueError: a fault"]


def test_a_port_in_use_is_a_sentence(server: Server, capsys: Output) -> None:
    port = server.server_address[1]
    assert main(["report", str(server.root), "--watch", "--port", str(port)]) == 1
    assert re.fullmatch(rf"relit: Port {port} can't be used \(.*\): choose another --port.*\n", capsys.readouterr().err)


@pytest.mark.browser
@browser
@pytest.mark.parametrize("width", [1600, 390])
def test_the_overview_in_a_browser(runs: Path, width: int) -> None:
    assert main(["report", "runs", "--output", "page.html"]) == 0
    rows = "document.querySelectorAll('#runs .run').length"
    with Page(Path("page.html"), width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(rows) == 4, "seeds together"
        assert "± " in page.evaluate("document.querySelector('.best').innerText")
        page.evaluate("document.getElementById('seeds').click()")
        assert page.evaluate(rows) == 12
        choose(page, "#experiment", "wgan_digits")
        assert page.evaluate(rows) == 6
        choose(page, "#sort", "best")
        shown = page.evaluate("[...document.querySelectorAll('.best b')].map((best) => Number(best.textContent))")
        assert shown == sorted(shown)
        choose(page, "#filter", "latent_dim=16")
        assert page.evaluate(rows) == 3
        page.evaluate("[...document.querySelectorAll('.run input')].forEach((box) => box.click())")
        assert page.evaluate("document.querySelectorAll('#comparison .line').length") == 3
        page.evaluate("document.getElementById('seeds').click()")
        assert page.evaluate("document.querySelectorAll('#comparison .band').length") == 1
        assert page.evaluate("document.getElementById('command').innerText").count("wgan_digits/") == 3
        assert page.evaluate("document.querySelectorAll('#comparison .plot').length") == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []


@pytest.mark.browser
@browser
def test_runs_with_other_metrics_have_other_plots(runs: Path) -> None:
    other = make_run(runs / "other" / "classifier")
    for path in (other / "metrics.csv", other / "config.yaml"):
        path.write_text(path.read_text().replace("val/fid", "val/accuracy").replace("min", "max"))
    assert main(["report", "runs", "--output", "page.html"]) == 0
    with Page(Path("page.html")) as page:
        for name in ("other/classifier", "dcgan_digits/run-0000", "dcgan_digits/run-0006"):
            page.evaluate(f"document.querySelector('.run[data-id=\"{name}\"] input').click()")
        plots = (
            "[...document.querySelectorAll('#comparison .plot')]"
            ".map((plot) => [plot.querySelector('h3').textContent, plot.querySelectorAll('.line').length])"
        )
        assert sorted(page.evaluate(plots)) == [["val/accuracy", 1], ["val/fid", 2]]
        rows = "[...document.querySelectorAll('#settings tr')].map((row) => row.textContent)"
        assert sum("best val/" in row for row in page.evaluate(rows)) == 2
        choose(page, "#sort", "best")
        shown = page.evaluate("[...document.querySelectorAll('.best .quiet')].map((metric) => metric.textContent)")
        assert shown == ["val/accuracy", *["val/fid"] * 4]
    assert page.complaints == []


def choose(page: Page, field: str, value: str) -> None:
    """Gives a value to the field that a selector finds."""
    page.evaluate(
        f'{{ const field = document.querySelector("{field}"); field.value = {json.dumps(value)};'
        " field.dispatchEvent(new Event('input')); }"
    )


@pytest.mark.browser
@browser
def test_fifty_runs_open_within_a_second(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", 50)
    assert main(["report", "runs", "--output", "page.html"]) == 0
    with Page(Path("page.html")) as page:
        page.evaluate("document.getElementById('seeds').click()")
        took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart")
        assert page.evaluate("document.querySelectorAll('.run').length") == 50
    assert took < 1000


@pytest.mark.long
@pytest.mark.browser
@browser
def test_a_served_page_follows_a_training(server: Server) -> None:
    with Page(server.address) as page:
        focused = "document.activeElement.getAttribute('aria-label')"
        box = "document.querySelector('.run[data-id=\"wgan_digits/run-0001\"] input')"
        page.evaluate(f"{box}.focus()")
        make_run(server.root / "dcgan_digits" / "new", dim=999, finished=False, epochs=5)
        owner = Ownership(server.root / "dcgan_digits" / "new")
        wait_until(lambda: page.evaluate("document.body.innerText.includes('dcgan_digits/new')"), seconds=30)
        assert "training" in page.evaluate("document.querySelector('.run[data-id=\"dcgan_digits/new\"]').innerText")
        assert page.evaluate(focused) == "choose wgan_digits/run-0001", "other rows are not drawn again"
        owner.release()
    assert page.complaints == []


@pytest.mark.browser
@browser
def test_the_curves_of_a_run_can_be_changed(runs: Path) -> None:
    names = [str(runs / "dcgan_digits" / f"run-{number:04}") for number in (2, 4)]
    assert main(["report", *names, "--output", "page.html"]) == 0
    text = "[...document.querySelectorAll('.plot[data-plot=\"0\"] svg text')].map((text) => text.textContent)"
    with Page(Path("page.html"), width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        links = "[...document.querySelectorAll('nav a')].every((a) => a.getBoundingClientRect().right <= 390)"
        assert page.evaluate(links), "the whole navigation is in sight"
        bands = "document.querySelectorAll('.plot[data-plot=\"0\"] .band').length"
        assert page.evaluate(bands) == 1, "runs that differ only in the seed"
        page.evaluate("document.querySelector('[name=seeds]').click()")
        assert page.evaluate(bands) == 0
        choose(page, "#controls [name=axis]", "time")
        assert "minutes" in page.evaluate(text)
        choose(page, "#controls [name=axis]", "step")
        assert "step" in page.evaluate(text)
        choose(page, "#controls [name=scale]", "logarithmic")
        choose(page, "#controls [name=smooth]", "0.8")
        assert page.evaluate("document.querySelectorAll('.plot[data-plot=\"0\"] .pale').length") == 2
        page.evaluate("document.querySelector('[data-hides]').click()")
        assert page.evaluate("document.querySelectorAll('.plot[data-plot=\"0\"] .pale').length") == 1
        page.evaluate("document.querySelector('.enlarge').click()")
        assert page.evaluate("document.querySelector('.plot').classList.contains('large')")
        page.evaluate("document.querySelector('.pictures img').click()")
        assert page.evaluate("document.getElementById('viewer').open")
        page.evaluate("document.getElementById('viewer').click()")
        assert not page.evaluate("document.getElementById('viewer').open")
    assert page.complaints == []


def test_seeds_in_compare_and_report(runs: Path, capsys: Output) -> None:
    """Numbers 0, 2, 4 have the seeds 0, 1, 2 and width 8; number 6 has another width."""
    folders = [runs / "dcgan_digits" / f"run-{number:04}" for number in (0, 2, 4, 6)]
    rows = [(folder / "metrics.csv").read_text().splitlines()[-1] for folder in folders]
    finals = [float(row.split(",")[3]) for row in rows]
    mean, sd = np.mean(finals[:3]), np.std(finals[:3], ddof=1)
    assert main(["compare", *map(str, folders)]) == 0
    assert f"| run-0000 … (3 seeds) | {mean:.4g} ± {sd:.2g} (n = 3)" in capsys.readouterr().out
    assert Path("comparison/comparison.csv").read_text().count("val/fid") == 4, "single runs stay in the file"
    assert main(["compare", *map(str, folders), "--each_seed"]) == 0
    assert "seeds)" not in capsys.readouterr().out
    assert main(["report", *map(str, folders), "--output", "page.html"]) == 0
    text = Parsed(Path("page.html").read_text()).text("script", "style")
    assert f"{mean:.4g} ± {sd:.2g} (n = 3)" in text


def test_what_makes_no_other_training_makes_no_other_group(runs: Path) -> None:
    """Another place of the data, other predictions, and an argument that an older relit didn't have."""
    from lit_models.cli.compare import seed_groups
    from lit_models.runs.reading import read_run

    folders = [runs / "dcgan_digits" / name for name in ("run-0000", "run-0002", "run-0004")]
    path = folders[1] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["root"] = "/data"
    config["model"]["init_args"]["augmentations"] = None
    path.write_text(yaml.safe_dump({**config, "predictions": {"gif": True}}))
    config["model"]["init_args"]["augmentations"] = "flip"
    (folders[2] / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 2}))
    found = {run["name"]: run["group"] for run in Overview(runs).runs()}
    assert found["run-0000"] == found["run-0002"] != found["run-0004"]
    groups = seed_groups([read_run(folder, folder.name) for folder in folders])
    assert [[run.name for run in group] for group in groups] == [["run-0000", "run-0002"], ["run-0004"]]


def test_a_repeated_seed_is_no_further_seed(runs: Path) -> None:
    from lit_models.cli.compare import seed_groups
    from lit_models.runs.reading import read_run

    make_run(runs / "dcgan_digits" / "again", seed=1, dim=8)
    folders = [runs / "dcgan_digits" / name for name in ("run-0000", "run-0002", "again")]
    groups = seed_groups([read_run(folder, folder.name) for folder in folders])
    assert [[run.name for run in group] for group in groups] == [["run-0000", "run-0002"], ["again"]]
