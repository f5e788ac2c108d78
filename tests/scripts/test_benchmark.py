"""What all benchmarks share: turns, ratios, tables and options."""

import argparse
import json
import runpy
import statistics
from importlib import import_module
from pathlib import Path

import pytest
from benchmark.race import WARM_UP, print_sides, print_table, race, ratio, require_data, timed, write_json
from benchmark.sides import CONFIGS, model_of, relit_fit

from tests.support.tiny import TINY

COMMANDS = runpy.run_path(str(CONFIGS.parent / "scripts" / "benchmark.py"))["COMMANDS"]


def test_sides_take_turns() -> None:
    order: list[str] = []
    found = race({name: lambda name=name: order.append(name) or len(order) for name in "ABC"}, 2)
    assert "".join(order) == "ABCABC"
    assert found == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    """A slow round of both sides doesn't count, which a ratio of medians would let through."""
    ours, theirs = [1.0, 10.0, 1.2, 9.0], [2.0, 20.0, 2.4, 18.0]
    assert ratio(ours, theirs) == 0.5
    assert ratio([1, 10, 3], [2, 1, 1]) == statistics.median([0.5, 10, 3])


def test_the_first_steps_are_not_timed() -> None:
    moments: list[int] = []
    assert timed(lambda: moments.append(0), 5, clock=lambda: len(moments)) == 5
    assert len(moments) == WARM_UP + 5


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("side", "ms"), [("a", "1"), ("longer", "12.5")])
    assert capsys.readouterr().out.splitlines() == [
        "| side   |   ms |",
        "| ------ | ---: |",
        "| a      |    1 |",
        "| longer | 12.5 |",
    ]
    seconds = {"relit fit": [1.0, 2.0], "textbook": [2.0, 6.0], "relit fit, bf16": [0.5, 1.0], "bare loop": [0.5, 1.0]}
    print_sides(seconds, 300, "images")
    said = capsys.readouterr().out
    assert "| textbook        |    75.00 |              0.42 |" in said
    assert "bf16 against fp32: 2.00 times as fast." in said
    assert "Against the textbook, relit fit is 2.50 times as fast." in said


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Not found: .*/maps/train/\*\.jpg\. Set --root or \$RELIT_DATA"):
        require_data(tmp_path, "maps/train/*.jpg")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_shared_options(command: str, tmp_path: Path) -> None:
    part = import_module(f"benchmark.{command}")
    parser = argparse.ArgumentParser()
    part.add_arguments(parser)
    args = parser.parse_args(["--rounds", "2", "--threads", "1", "--json", str(tmp_path / "x.json")])
    assert callable(args.run)
    write_json(args, seconds={"a": [1.0]})
    written = json.loads((tmp_path / "x.json").read_text())
    assert (written["rounds"], written["threads"], written["seconds"]) == (2, 1, {"a": [1.0]})


def test_a_training_is_timed_with_all_that_it_does(digits_root: Path) -> None:
    measure = relit_fit(2, *TINY, f"--data.root={digits_root}")
    assert 0 < measure() < 60


def test_a_model_is_that_of_its_configuration() -> None:
    model = model_of({"model": {"class_path": "DCGAN", "init_args": {"image_size": 16, "feature_maps": 2}}})
    assert model.image_shape[1] == 16
