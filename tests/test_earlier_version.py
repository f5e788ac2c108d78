"""Runs of relit as it was at an earlier commit: what it wrote is read, and gives the values that it gave."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_models
from lit_models.support.checkpoint_files import read_checkpoint
from tests.support.compare import assert_alike
from tests.support.fixtures import Patch, Relit

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
        return model.encoder(image) if hasattr(model, "encoder") and hasattr(model, "decoder") else model(image)
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
        # The length of a search or of its retraining is that of its schedule, which can't be changed on the way: of
        # two epochs of two batches each, it is stopped in the second.
        stopped = page == "darts"
        arguments = [*small_run(run, data, epochs=1 + stopped), f"--run.id={number}", f"--run.experiment={page}"]
        stop = ["--trainer.callbacks+=tests.tiny.InterruptAt", "--trainer.callbacks.batch=3"] if stopped else []
        assert main(["fit", *arguments, *stop]) == (130 if stopped else 0), run
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
MEASURED = {
    "test/accuracy": ("DigitClassifier", "TransferClassifier", "LayerwiseMLP", "DARTSRetrain"),
    "test/loss": ("DigitClassifier", "TransferClassifier", "LayerwiseMLP"),
}
"""Values that draw no random numbers, and the methods that log them."""


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


def values_of(run: Path) -> dict[str, float]:
    """What the last test of a run measured."""
    return json.loads((run / "tests.json").read_text())[-1]["figures"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", lit_models.METHODS)
def test_a_method_gives_the_values_that_it_gave(relit: Relit, earlier: Path, method: str, monkeypatch: Patch) -> None:
    """From the checkpoint and from the exported weights; and the run goes on."""
    monkeypatch.chdir(earlier)
    monkeypatch.setenv("RELIT_DATA", str(earlier / "data"))
    names: dict[str, Any] = {"torch": torch}
    exec(OUTPUT, names)
    runs = {run: read_checkpoint(run / "checkpoints" / "last.ckpt") for run in sorted(earlier.glob("runs/*/*"))}
    runs = {
        run: content for run, content in runs.items() if method in content["config"]["model"]["class_path"].split(".")
    }
    assert runs
    for run, content in runs.items():
        checkpoint = run / "checkpoints" / "last.ckpt"
        expected = torch.load(run / "output.pt", weights_only=True)
        for source in (checkpoint, run / "weights.safetensors"):
            output = names["output_of"](getattr(lit_models, method).from_pretrained(source))
            if method != "DARTSSearch":  # which is evaluated by the statistics of the batch since, as in the paper
                assert_alike(output, expected, rtol=1e-4, atol=1e-5)
        before = values_of(run)
        assert relit("test", f"--ckpt_path={checkpoint}", *FEW) == 0
        now = values_of(run)
        assert before.keys() & now.keys()
        for name, methods in MEASURED.items():
            if method in methods:
                assert now[name] == pytest.approx(before[name], rel=1e-4), name
        here = [f"--ckpt_path={checkpoint}"]
        longer = {
            "DARTSSearch": here,
            "DARTSRetrain": here,
            "LayerwiseMLP": [f"--config={run / 'config.yaml'}", "--ckpt_path=last", "--model.finetune_epochs=2"],
        }
        assert relit("fit", *longer.get(method, [*here, "--trainer.max_epochs=2"])) == 0
        assert read_checkpoint(checkpoint)["global_step"] > content["global_step"]
        assert json.loads((run / "run.json").read_text())["finished"]
    assert relit("report", *map(str, runs), f"--output={method}.html") == 0
    assert relit("compare", *map(str, runs), f"--output={method}") == 0
