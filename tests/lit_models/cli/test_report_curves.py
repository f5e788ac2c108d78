"""Curves of a report: values, places, times."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_models.__main__ import main
from lit_models.cli.report import curves
from lit_models.cli.report.curves import thinned
from lit_models.cli.report.reading import read_record
from lit_models.runs.reading import Point, read_run
from tests.support.browser import CHROMIUM, Page
from tests.support.fixtures import Patch
from tests.support.report_page import written

pytestmark = pytest.mark.usefixtures("in_a_folder")


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
def test_the_time_axis_shows_only_what_is_known(tmp_path: Path, monkeypatch: Patch) -> None:
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
