"""What all benchmarks share: turns, ratios, tables and options."""

import argparse
import json
import re
import runpy
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from benchmark import read, scores, start, watch
from benchmark.bare_start import made
from benchmark.fit import BARE, Measured, counted, fallen, rows_of, shares_of, watched
from benchmark.race import WARM_UP, print_sides, print_table, race, ratio, require_data, timed, write_json
from benchmark.sides import CONFIGS, model_of, relit_fit
from benchmark.watch import Watch
from PIL import Image

from datamodules import Digits, SearchDataModule
from lit_models import DARTSSearch
from lit_models.optimizers import FusedAdam
from lit_models.runs.memory import peak_memory
from tests.support.fixtures import Output, Patch
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


def test_tables(capsys: Output) -> None:
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


def test_pictures_to_read_are_all_different(tmp_path: Path) -> None:
    size = read.make_folder(tmp_path / "pictures", 30, 32)
    files = sorted((tmp_path / "pictures").glob("*/*.jpg"))
    contents = {file.read_bytes() for file in files}
    assert len(contents) == 30
    assert size == sum(map(len, contents)) // 30
    with Image.open(files[0]) as image:
        assert image.size == (32, 32)
    assert len({file.parent.name for file in files}) == read.CLASSES


def test_the_cost_of_scores(digits_root: Path, tmp_path: Path, capsys: Output, monkeypatch: Patch) -> None:
    parser = argparse.ArgumentParser()
    scores.add_arguments(parser)
    measured = scores.seconds_of_a_test
    callbacks: list[str] = []

    def seconds_of_a_test(side: Any, images: int, data: Any) -> float:
        callbacks.append(type(side(images)).__name__)
        assert measured(side, images, data) > 0
        return 3.0 if "Three" in callbacks[-1] else 4.5

    monkeypatch.setattr(scores, "seconds_of_a_test", seconds_of_a_test)
    file = tmp_path / "scores.json"
    options = ("--data=Digits", "--images=30", "--rounds=1", "--threads=1", f"--root={digits_root}", f"--json={file}")
    args = parser.parse_args(options)
    args.run(args)
    assert callbacks == ["ThreeScores", "GenerationScores"]
    said = capsys.readouterr().out
    assert "| all scores                |     4.5 |" in said
    assert "All take 1.50 times the processor time. Medians of 1 round, in turns, 1 thread, Digits." in said
    assert json.loads(file.read_text())["seconds"]["all scores"] == [4.5]


def test_reading_on_one_core_and_on_all(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """Two starts with each number of cores, of which the second finds the arrays of the first."""
    cores_in_use = []
    monkeypatch.setattr(read, "limit_to", cores_in_use.append)
    monkeypatch.setattr(read, "in_new_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    parser = argparse.ArgumentParser()
    read.add_arguments(parser)
    options = ("--images=100", "--side=32", "--image_size=8", "--rounds=2", "--threads=8", f"--json={tmp_path}/x.json")
    args = parser.parse_args(options)
    args.run(args)
    assert cores_in_use == [1, 1, 3, 3] * 2
    out = capsys.readouterr().out
    assert "100 JPEG files of 32x32 pixels" in out
    assert re.search(r"^\| 3 +\| +[\d,]+ \| +[\d.]+ s \| +[\d.]+ \|$", out, re.MULTILINE)
    written = json.loads((tmp_path / "x.json").read_text())
    assert min(min(times) for times in written["first_start"].values()) > max(written["second_start"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_shared_options(command: str, tmp_path: Path) -> None:
    part = import_module(f"benchmark.{command}")
    parser = argparse.ArgumentParser()
    part.add_arguments(parser)
    given = ["dcgan_digits"] if command == "fit" else []
    args = parser.parse_args([*given, "--rounds", "2", "--threads", "1", "--json", str(tmp_path / "x.json")])
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


def test_a_hook_times_the_steps_after_the_first(tmp_path: Path, monkeypatch: Patch) -> None:
    moments = iter([100.0, 101.0, 103.0, 110.0])  # of its start, the first, second and fifth step
    began = next(moments)
    watch = Watch(tmp_path / "found.json", began, skip=2, count=3)
    monkeypatch.setattr(watch, "_now", lambda: next(moments))
    monkeypatch.setattr("os._exit", lambda code: None)
    for _ in range(5):
        watch()
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["first_step"], found["seconds"]) == (1.0, 7.0)
    assert 0 < found["first_cpu"] < time.process_time()
    assert 1e7 < found["peak_bytes"] < 1e11


def test_shares_of_the_peak() -> None:
    """2 GFLOP in half a second are 4 GFLOP/s: 40 % of 10, 20 % of 20. A peer has half as many images in a batch."""
    found = {
        "relit fit": [Measured(5.0, 4.0, 0.5, 1e9), Measured(7.0, 6.0, 0.5, 3e9), Measured(6.0, 5.0, 0.5, 2e9)],
        "relit fit, bf16": [Measured(5.0, 4.0, 0.5, 1e9)] * 3,
        "peer": [Measured(2.0, 1.0, 0.5, 1e9)] * 3,
        "bare program": [Measured(4.0, 4.0, 0.4, 5e8)] * 3,
    }
    shares = shares_of(found, 2_000_000_000, {"float32": 10.0, "bfloat16": 20.0})
    rows = rows_of(found, shares, {**dict.fromkeys(found, 8), "peer": 4})
    assert rows == [
        ("relit fit", "16", "1.00", "40 %", "6.0", "1.00", "5.0", "1.00", "2,000"),
        ("relit fit, bf16", "16", "1.00", "20 %", "5.0", "1.20", "4.0", "1.25", "1,000"),
        ("peer", "8", "0.50", "", "2.0", "3.00", "1.0", "5.00", "1,000"),
        ("bare program", "20", "1.25", "50 %", "4.0", "1.50", "4.0", "1.25", "500"),
    ]
    assert fallen({"a": shares}, {"a": {"relit fit": 0.44, "relit fit, bf16": 0.23}, "b": {"relit fit": 1.0}}) == [
        "a, relit fit, bf16: 20 % of the peak, before 23 %."
    ]


def test_starts_of_configurations(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """A row for each, medians over the rounds; one that fails is named at the end, and the others are measured."""
    cpu_times = {"lit_models": [9.0, 4.0, 6.0, 5.0], str(BARE): [4.0, 5.0, 2.0]}  # the first only prepares the data

    def watched(command: list[str], steps: int, optimizer_steps: int, threads: int, *_: object, **__: object) -> object:
        if command[0] == str(BARE):
            assert (Path(command[1]).read_text(), steps) == ("a: 1", 0)
            return Measured(8.0, cpu_times[command[0]].pop(0), 0.0, 1e8)
        config = Path(command[command.index("--config") + 1])
        if config.stem == "vae_mnist":
            raise SystemExit("ended before\nMNIST isn't there")
        runs = Path(command[-1].removeprefix("--run.root="), "run")
        runs.mkdir(exist_ok=True)
        (runs / "config.yaml").write_text("a: 1")
        return Measured(10.0, cpu_times[command[1]].pop(0), 0.3, 2e9)

    monkeypatch.setattr(start, "watched", watched)
    parser = argparse.ArgumentParser()
    start.add_arguments(parser)
    options = ["--bare", "--prepare", "--rounds", "3", "--threads", "1", "--json", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit, match=r"Not measured: vae_mnist\."):
        start.run_start(parser.parse_args(["vae_mnist", "dcgan_mnist", *options]))
    said = capsys.readouterr()
    assert "vae_mnist: MNIST isn't there" in said.err
    cells = [re.sub(r"[| ]+", " ", line).strip() for line in said.out.splitlines() if "dcgan" in line]
    assert cells == ["`dcgan_mnist` 10.0 5.0 2,000 4.0 1.20"]
    assert json.loads((tmp_path / "x.json").read_text())["configurations"].keys() == {"dcgan_mnist"}
    assert {"vae_mnist", "dcgan_mnist"} < set(start.shipped())


SCRIPT = """
import sys
import helper  # of the script's folder
import torch

weight = torch.nn.Parameter(torch.ones(2))
optimizers = [torch.optim.SGD([weight], 0.1), torch.optim.Adam([weight])]
assert sys.argv[1:] == ["--epochs", "3"]
for _ in range(helper.STEPS):
    for optimizer in optimizers:
        weight.sum().backward()
        optimizer.step()
print("the end")
"""


@pytest.mark.long
def test_a_script_is_timed_from_outside(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("STEPS = 1000")
    command = ["main.py", "--epochs", "3"]
    found = watched(command, steps=5, optimizer_steps=2, threads=1, folder=tmp_path)
    assert 0 < found.seconds < 1 < found.peak_bytes
    assert 0.1 < found.first_cpu < 1.1 * found.first_step < 100
    (tmp_path / "helper.py").write_text(f"STEPS = {WARM_UP + 4}")
    with pytest.raises(SystemExit, match=r"ended before its 16 optimizer steps were done:\n.*the end"):
        watched(command, steps=5, optimizer_steps=2, threads=1, folder=tmp_path)


@pytest.mark.long
def test_operations_and_optimizer_steps_are_counted(digits_root: Path, tmp_path: Path) -> None:
    """Of a configuration that monitors a validation score, too; a bare program makes its first step."""
    stopping = '--trainer.callbacks+={"class_path": "EarlyStopping", "init_args": {"monitor": "val/fid"}}'
    batch = counted([*TINY, f"--data.root={digits_root}", "--checkpoint.monitor=val/inception_score", stopping])
    assert (batch.images, batch.optimizer_steps, batch.passes) == (64, 2, 2)
    assert batch.flops > 1e6
    config = tmp_path / "config.yaml"
    config.write_text(batch.config)
    start = watched([str(BARE), str(config)], 0, batch.optimizer_steps, 1, tmp_path)
    assert 0.1 < start.first_cpu < 1.1 * start.first_step < 100
    assert start.seconds == 0


def test_a_bare_start_makes_the_objects_of_a_configuration() -> None:
    config = yaml.safe_load((CONFIGS / "darts_search_digits.yaml").read_text())
    config["model"]["class_path"] = "lit_models.DARTSSearch"
    config["model"]["init_args"]["arch_optimizer"]["class_path"] = "lit_models.optimizers.FusedAdam"
    config["data"]["class_path"] = "datamodules.SearchDataModule"
    config["data"]["init_args"]["images"]["class_path"] = "datamodules.Digits"
    model, data = made(config["model"]), made(config["data"])
    assert (type(model), type(data), type(data.images)) == (DARTSSearch, SearchDataModule, Digits)
    optimizer = model.optimizer_callables[1]([torch.nn.Parameter(torch.ones(1))])
    assert (type(optimizer), optimizer.defaults["betas"]) == (FusedAdam, (0.5, 0.999))


def test_a_process_has_its_own_peak_of_memory() -> None:
    """And not that of the process that has started it, which holds torch."""
    folder = Path(watch.__file__).parent
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import watch; print(watch.peak_bytes())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) < 1e8 < watch.peak_bytes()
    process = peak_memory(torch.device("cpu"))["process"]
    assert process is not None
    assert 0.9 < process / watch.peak_bytes() < 1.1
