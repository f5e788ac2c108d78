"""The one reader of run folders, against plain loops."""

import math
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import lit_models.cli.report
from lit_models.errors import RunError
from lit_models.runs.reading import (
    COLORS,
    color_of,
    differences,
    flattened,
    read_epochs,
    read_logged,
    read_points,
    read_results,
    read_run,
    read_steps,
    settings_text,
    smooth,
)

ROWS = (
    "epoch,step,train/loss,val/fid,test/fid\n0,0,1,,\n0,1,3,,\n0,1,,8.5,\n1,2,inf,,\n1,3,2,7.5,\n,,,,3.5\n1,4,,,3.25\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "metrics.csv").write_text(ROWS)
    return tmp_path / "metrics.csv"


def looped(path: Path, x: str) -> dict[str, list[tuple[float, float]]]:
    """Every finite value with its step or epoch, by splitting the text."""
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    found = defaultdict(list)
    for cells in rows:
        row = dict(zip(header, cells, strict=True))
        for name, cell in row.items():
            if name not in ("epoch", "step") and cell and math.isfinite(float(cell)) and row[x]:
                found[name].append((float(row[x]), float(cell)))
    return found


def test_values_by_step_by_epoch_and_of_the_last_test(path: Path) -> None:
    assert read_steps(path) == looped(path, "step")
    by_epoch = looped(path, "epoch")
    for name, curve in read_epochs(path).items():
        for epoch, value in curve:
            assert value == np.mean([one for at, one in by_epoch[name] if at == epoch - 1])
    assert read_epochs(path)["train/loss"] == [(1, 2), (2, 2)]
    assert read_results(path) == {"test/fid": 3.25}
    assert [row.values for row in read_logged(path)][3] == {}, "infinite"


def test_an_unfinished_epoch_is_as_long_as_the_longest(path: Path) -> None:
    path.write_text("epoch,step,train/loss\n0,4,1\n0,9,1\n1,14,1\n1,19,1\n2,24,nan\n2,24,3\n")
    assert [point.epoch for point in read_points(path)["train/loss"]] == [0.5, 1.0, 1.5, 2.0, 2.5]


def test_a_row_that_was_cut_off_does_not_count(path: Path) -> None:
    before = list(read_logged(path))
    with path.open("a") as file:
        file.write("9,99," + "1.5e-")
    assert list(read_logged(path)) == before
    assert list(read_logged(path.with_name("none.csv"))) == []


@pytest.mark.parametrize("row", ["2,9,abc,,", "2,9,1", "x,9,1,,"])
def test_a_broken_row_is_named_after_those_before_it(path: Path, row: str) -> None:
    before = list(read_logged(path))
    path.write_text(f"{ROWS}{row}\n2,9,1,,\n")
    rows = read_logged(path)
    assert [next(rows) for _ in before] == before
    with pytest.raises(RunError, match=f"can't be read at line {len(ROWS.splitlines()) + 1}: repair or remove"):
        next(rows)
    with pytest.raises(RunError, match="can't be read at line"):
        read_run(path.parent, "run")


def test_configurations_are_flattened_and_compared() -> None:
    class_ = {"class_path": "my.Grid", "init_args": {"count": 64, "options": {}}}
    config = {"model": class_, "callbacks": [class_], "run": {"id": "a"}, "sizes": [1, 2]}
    assert flattened(config)["model.init_args.count"] == 64
    assert flattened(config)["callbacks"] == [class_]
    assert settings_text(config) == {
        "model.class_path": "my.Grid",
        "model.count": "64",
        "model.options": "{}",
        "callbacks.Grid.class_path": "my.Grid",
        "callbacks.Grid.count": "64",
        "callbacks.Grid.options": "{}",
        "run.id": "a",
        "sizes": "[1, 2]",
    }
    others = [{**flattened(config), "run.id": "b"}, {**flattened(config), "sizes": [1], "more": None}]
    assert differences([flattened(config), *others]) == {"sizes": [[1, 2], [1, 2], [1]]}
    assert differences([flattened(config), *others], same=lambda a, b: True) == {}
    assert differences([{"a": 1}]) == {}


@pytest.mark.parametrize("count", [3, 5, 50, 100])
def test_smooth_against_a_loop(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count).tolist()
    width = max(1, count // 20)
    expected = [np.mean(values[max(0, i - width) : i + width + 1]) for i in range(count)] if count >= 5 else values
    assert np.allclose(smooth(values), expected)
    assert min(values) <= min(smooth(values)) <= max(smooth(values)) <= max(values)


def test_colors_are_those_of_the_style_sheet() -> None:
    sheet = (Path(lit_models.cli.report.__file__).parent / "templates" / "report.css").read_text()
    assert tuple(re.findall(r"--c\d: light-dark\((#\w+),", sheet)) == COLORS
    assert [color_of(number) for number in (0, 9, 10)] == [0, 9, 0]


def test_the_reader_needs_no_torch() -> None:
    code = "import sys, lit_models.runs.reading, lit_models.cli.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
