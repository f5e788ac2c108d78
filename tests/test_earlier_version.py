"""Runs of relit as it was at an earlier commit: what it wrote is read, and gives the values that it gave."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_models
from lit_models.support.checkpoint_files import read_checkpoint

Relit = Callable[..., int]
REPOSITORY = Path(__file__).parents[1]
COMMIT = "37bf220"
OUTPUT = """
def output_of(model):
    # What a network makes of fixed numbers.
    torch.manual_seed(0)
    image, labels = torch.rand(3, *model.image_shape), [torch.arange(3)] if getattr(model, "num_classes", 0) else []
    with torch.no_grad():
        if hasattr(model, "translate"):
            return model.translate(image)
        if hasattr(model, "generator"):
            return model.generator(torch.rand(3, model.latent_dim), *labels)
        return model.encoder(image) if hasattr(model, "decoder") else model(image)
"""
TRAINS = """
import os
from pathlib import Path
import torch
import lit_models
from lit_models.__main__ import main
from tests.small_runs import RUNS, small_run

here = Path.cwd()
data = here / "data"
data.mkdir()
os.environ["RELIT_DATA"] = str(data)
for page, runs in RUNS.items():
    for number, run in enumerate(runs):
        arguments = [*small_run(run, data), f"--run.id={number}", f"--run.experiment={page}"]
        assert main(["fit", *arguments]) == 0, run
        folder = here / "runs" / page / str(number)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        assert main(["test", *arguments, f"--ckpt_path={checkpoint}"]) == 0, run
        assert main(["export", str(checkpoint), "--output", str(folder / "weights")]) == 0, run
        state = torch.load(checkpoint, weights_only=True)
        model = getattr(lit_models, state["config"]["model"]["class_path"].rpartition(".")[2])
        model = model.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        torch.save(output_of(model), folder / "output.pt")
"""
FEW = ("--trainer.limit_test_batches=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
OTHER_MEASURES = ("fid", "kid", "precision", "recall", "density", "coverage", "inception_score", "memorized")
"""Scores of generated images go by other features since."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the runs of all methods, and the data."""
    git = ["git", "-C", str(REPOSITORY), "archive", COMMIT]
    packed = subprocess.run(git, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"needs a clone with the commit {COMMIT}")
    code, here = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(code, filter="data")
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-c", f"import torch\n{OUTPUT}\n{TRAINS}"]
    ran = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return here


def values_of(run: Path) -> list[dict[str, float]]:
    """What each test of a run logged."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v and k.startswith("test/")} for row in csv.DictReader(file)]
    return [row for row in rows if row]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_method_gives_the_values_that_it_gave(
    relit: Relit, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checkpoint and from the exported weights; and the runs go on."""
    monkeypatch.chdir(earlier)
    monkeypatch.setenv("RELIT_DATA", str(earlier / "data"))
    names: dict[str, Any] = {"torch": torch}
    exec(OUTPUT, names)
    runs = sorted(earlier.glob("runs/*/*"))
    assert len(runs) > 15
    for run in runs:
        checkpoint = run / "checkpoints" / "last.ckpt"
        content = read_checkpoint(checkpoint)
        method = getattr(lit_models, content["config"]["model"]["class_path"].rpartition(".")[2])
        expected = torch.load(run / "output.pt", weights_only=True)
        (weights,) = run.glob("weights*.safetensors")
        for source in (checkpoint, weights):
            assert_close(names["output_of"](method.from_pretrained(source)), expected, f"{run} {source.name}")
        assert relit("test", f"--ckpt_path={checkpoint}", *FEW) == 0, run
        before, now = values_of(run)
        shared = {name for name in before.keys() & now.keys() if not name.endswith(OTHER_MEASURES)}
        assert shared, run
        assert {name: now[name] for name in shared} == pytest.approx({n: before[n] for n in shared}, rel=1e-4), run
        config: dict[str, Any] = content["config"]
        length = {"model.epochs": 2} if "epochs" in config["model"]["init_args"] else {"trainer.max_epochs": 2}
        if method is lit_models.LayerwiseMLP:
            length = {"model.finetune_epochs": 2}
        more = [f"--{name}={value}" for name, value in length.items()]
        assert relit("fit", f"--ckpt_path={checkpoint}", *more) == 0, run
        assert read_checkpoint(checkpoint)["epoch"] > content["epoch"], run
        assert json.loads((run / "run.json").read_text())["finished"]
    assert relit("report", *map(str, runs[:2]), "--output=page.html") == 0
    assert relit("compare", *map(str, runs), "--output=compared") == 0


def assert_close(value: Any, expected: Any, where: str) -> None:
    """Numbers that differ by rounding only."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{where}: {text}")
    else:
        for one, other in zip(value, expected, strict=True):
            assert_close(one, other, where)
