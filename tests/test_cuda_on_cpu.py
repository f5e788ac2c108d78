"""Complete runs of every method, with the callbacks that it may have, on a CUDA device that computes on the CPU."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_models import callbacks
from lit_models.metrics.retrieval import first_of_each_class
from tests.methods import METHODS
from tests.support.cuda_on_cpu import cuda_on_cpu
from tests.support.fake_cuda import CUDA
from tests.support.fixtures import Relit
from tests.support.small_runs import small_run

pytestmark = pytest.mark.long


def callback(name: str, **arguments: object) -> str:
    values = "".join(f", {key}: {value}" for key, value in arguments.items())
    return f"{{class_path: {name}, init_args: {{{values[2:]}}}}}"


SCORES = callback("GenerationScores", test_count=20, count=20, real_count=20)
EMBEDDING = callback("EmbeddingPlot", per_class=3)
BETWEEN = callback("Interpolations", per_pair=1)
REPORT = callback("ClassificationReport"), callback("ClassExamples", count=3)
CALLBACKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("DCGAN", "SNGAN", "WGAN", "TripletGAN", "ConditionalGAN"), ("SampleGrid", SCORES)),
    "LatentGAN": ("SampleGrid", SCORES, BETWEEN),
    **dict.fromkeys(("Pix2Pix", "CycleGAN"), ("Triptychs", "TranslationScores")),
    "VAE": ("SampleGrid", "ReconstructionGrid", BETWEEN, SCORES, "HistogramBaseline", EMBEDDING),
    "VAE, on a plane": ("LatentMap",),
    "DenoisingAutoencoder": ("ReconstructionGrid", BETWEEN, EMBEDDING),
    "DigitClassifier": (callback("ClassificationReport", train="true"), REPORT[1]),
    **dict.fromkeys(("TransferClassifier", "DARTSSearch", "DARTSRetrain"), REPORT),
    **dict.fromkeys(("LayerwiseMLP", "MetricResNet"), (*REPORT, EMBEDDING)),
    "MetricResNet, on a plane": ("FeaturePlane",),
    "ProtoNet": (),
}
RUNS = {
    f"{method} {number}" if number > 1 else method: (method, run)
    for method, record in METHODS.items()
    for number, run in enumerate(record.runs, 1)
}
for title, argument in (("VAE", "latent_dim"), ("MetricResNet", "embedding_dim")):
    RUNS[f"{title}, on a plane"] = (title, (*RUNS[title][1], f"--model.{argument}=2"))


def data_to_predict(method: str) -> list[str]:
    """ProtoNet predicts by known images; the others need no data, or have those that they were trained on."""
    if method != "ProtoNet":
        return []
    for gray, folder in enumerate(("known/a", "known/b", "asked")):
        Path(folder).mkdir(parents=True)
        Image.new("L", (32, 32), 50 * gray).save(f"{folder}/one.png")
    return ["--data=SupportQuery", "--data.support=known", "--data.query=asked"]


@pytest.mark.parametrize("title", RUNS)
def test_a_run(title: str, relit: Relit, digits_root: Path) -> None:
    """It is interrupted in its second epoch, goes on, is tested, and predicts."""
    method, run = RUNS[title]
    on_device = ("--trainer.accelerator=cuda", "--trainer.inference_mode=false")
    callbacks = f"--trainer.callbacks=[{', '.join(CALLBACKS.get(title, CALLBACKS[method]))}]"
    arguments = [*small_run(run, digits_root, epochs=2), *on_device, callbacks]
    interrupt = ["--trainer.callbacks+=tests.support.tiny.InterruptAt", "--trainer.callbacks.batch=3"]
    with cuda_on_cpu():
        assert relit("fit", *arguments, *interrupt) == 130
        (checkpoint,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
        assert relit("fit", *arguments, "--ckpt_path=last") == 0
        assert relit("test", *arguments, "--ckpt_path=last") == 0
        limit = "--trainer.limit_predict_batches=1"
        assert relit("predict", f"--ckpt_path={checkpoint}", *data_to_predict(method), *on_device, limit) == 0
    assert any(checkpoint.parents[1].glob("predictions/*"))


def test_every_callback_has_a_run() -> None:
    used = set(re.findall(r"\b[A-Z]\w+", str(CALLBACKS)))
    of_every_run = {"Checkpoints", "ExactResume", "LossCurves", "Preemption"}
    # Those of DARTS and of `relit predict`; and one that changes a number before the training.
    by_itself = of_every_run | {"CellFigures", "PredictionWriter", "LearningRateScaling"}
    assert set(callbacks.__all__) - by_itself <= used


FAULTS: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda value: value + torch.ones(3),
    "in place": lambda value: torch.ones(3).add_(value),
    "indices of the device": lambda value: torch.ones(3)[value.long()],
    "put by an index": lambda value: value.index_put_((torch.tensor([0]),), torch.ones(1)),
    "layer": lambda value: torch.nn.functional.linear(value, torch.ones(3, 3)),
    "list": lambda value: torch.cat([value, torch.ones(1)]),
    "generator": lambda value: torch.randn(3, device=CUDA, generator=torch.Generator()),
    "numpy": lambda value: value.numpy(),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name: str) -> None:
    with cuda_on_cpu(), pytest.raises((RuntimeError, TypeError)):
        FAULTS[name](torch.ones(3, device=CUDA))


def test_what_cuda_takes() -> None:
    with cuda_on_cpu():
        value = torch.arange(3.0, device=CUDA)
        assert (value * torch.tensor(2.0)).tolist() == [0, 2, 4]
        assert value[torch.tensor([2])].is_cuda
        value[torch.tensor([0])] = torch.tensor(5.0)
        assert value.cpu().tolist() == [5, 1, 2]
        assert torch.zeros(3).copy_(value).device.type == "cpu"
        layer = torch.nn.Linear(3, 3)
        weight = layer.weight
        layer.to(CUDA)
        assert layer.weight is weight
        assert weight.is_cuda
        assert layer(value).is_cuda


def test_rows_of_classes_on_the_device() -> None:
    with cuda_on_cpu():
        rows = first_of_each_class(torch.tensor([1, 0, 1, 1, 0], device=CUDA), 1)
        assert rows.is_cuda
        assert rows.tolist() == [0, 1]
