"""What Python users get without the command: forward, types, and errors that name the cause."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors.torch import load_file
from torchvision.io import read_image
from torchvision.utils import make_grid

import lit_models
from lit_models import VAE
from lit_models.cli import versions
from lit_models.cli.commands import NEED_EVERY_PACKAGE
from lit_models.errors import ModelError
from tests.methods import SMALL_MODELS
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_fits import small_fit
from tests.support.small_models import called, small_model
from tests.support.tiny import QUIET, TINY, assert_same_run, the_run

REPOSITORY = Path(__file__).parents[1]
REFUSED = "relit needs lightning <2.8,>=2.6, and 2.9.1 is installed: pip install 'lightning<2.8,>=2.6'."


@pytest.mark.parametrize("title", SMALL_MODELS)
def test_forward_does_the_obvious(title: str) -> None:
    """Latent vectors become images, images become reconstructions, translations, logits or embeddings."""
    model: Any = small_model(title)
    method, record = SMALL_MODELS[title].method, SMALL_MODELS[title].record
    with torch.no_grad():
        result = called(model, record.inputs)
    assert result.dtype == torch.float32
    assert len(result) == 2
    if "num_classes" in record.small and method != "ConditionalGAN":
        assert result.shape == (2, 3), "logits"
    elif method == "ProtoNet":
        assert result.ndim == 2, "embeddings"
    else:
        assert result.shape[1:] == model.image_shape
        assert 0 <= result.min() < result.max() <= 1
    if method in ("VAE", "DenoisingAutoencoder"):
        torch.manual_seed(0)
        assert torch.equal(result, model.reconstruct(torch.rand(2, *model.image_shape)))
    if method in ("Pix2Pix", "CycleGAN") and title != "Pix2Pix":  # Pix2Pix's dropout is random
        torch.manual_seed(0)
        source = torch.rand(2, *model.image_shape)
        assert torch.allclose(result, model.translate(source), atol=1e-6)


def test_a_folder_that_hides_our_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "datamodules").mkdir()
    (tmp_path / "datamodules" / "__init__.py").write_text("")
    ran = subprocess.run(
        [sys.executable, "-c", "import lit_models"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: relit needs its own package `datamodules`, but Python finds ")
    assert f"{tmp_path}/datamodules/__init__.py first: rename that folder" in last


class Followed(Callback):
    """The exponential average of the parameters after each step, in plain arithmetic."""

    def __init__(self, decay: float) -> None:
        self.decay, self.average = decay, dict[str, torch.Tensor]()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for name, value in pl_module.named_parameters():
            before = self.average.get(name, value.detach().clone())
            self.average[name] = self.decay * before + (1 - self.decay) * value.detach()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("title", [title for title in SMALL_MODELS if "," not in title])
def test_lightnings_average_of_weights_is_right_or_refused(title: str, tmp_path: Path) -> None:
    """Right where the trainer takes the steps, refused where the method does."""
    followed = Followed(0.8)
    callbacks = [followed, EMAWeightAveraging(decay=0.8)]
    model, data, trainer = small_fit(title, tmp_path, callbacks=callbacks, max_epochs=2)
    if not model.automatic_optimization:
        with pytest.raises(
            ModelError, match=f"EMAWeightAveraging would average all networks of {type(model).__name__}"
        ):
            trainer.fit(model, data)
        return
    trainer.fit(model, data)
    assert followed.average.keys() == dict(model.named_parameters()).keys()
    for name, value in model.named_parameters():
        assert torch.allclose(value, followed.average[name], atol=1e-6), name
    trainer.test(model, data, verbose=False)  # by the average


SHORT_VAE = (
    *("--config=vae_digits", "--model.feature_maps=2", *QUIET),
    *("--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"),
)


@pytest.mark.parametrize("average", [("EMAWeightAveraging",), ("StochasticWeightAveraging", "swa_lrs=0.01")])
def test_lightnings_averages_of_weights_are_refused_for_gans(
    relit: Relit, capsys: Output, average: tuple[str, ...]
) -> None:
    name, *arguments = average
    more = [f"--trainer.callbacks.{argument}" for argument in arguments]
    assert relit("fit", *TINY, f"--trainer.callbacks={name}", *more) == 1
    assert f"{name} would average all networks of DCGAN" in capsys.readouterr().err


@pytest.mark.long
def test_lightnings_average_goes_on_in_a_resumed_run_and_is_what_is_exported(relit: Relit) -> None:
    fit = ("fit", *SHORT_VAE, "--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.8")
    assert relit(*fit, "--trainer.max_epochs=2", "--run.root=whole") == 0
    assert relit(*fit, "--trainer.max_epochs=1") == 0
    assert relit(*fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert_same_run(the_run(), the_run(Path("whole")))
    content = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
    average, trained = content["state_dict"], content["current_model_state"]
    assert any(not torch.equal(value, trained[name]) for name, value in average.items())
    assert relit("export", the_run(), "--output=vae") == 0
    exported = load_file("vae.safetensors")
    assert exported
    assert all(torch.equal(value, average[name]) for name, value in exported.items())


@pytest.mark.filterwarnings("ignore")
def test_an_average_draws_the_pictures_and_is_no_place_to_go_on_from_without_its_callback(
    relit: Relit, capsys: Output
) -> None:
    average = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.99", "--model.optimizer.lr=0.03")
    grids = [f"--trainer.callbacks+={name}" for name in ("SampleGrid", "ReconstructionGrid")]
    assert relit("fit", *SHORT_VAE, *average, *grids, "--trainer.max_epochs=1") == 0
    model = VAE.load_from_checkpoint(the_run() / "checkpoints" / "last.ckpt").eval()
    drawn = read_image(str(the_run() / "samples" / "epoch_0001.png"))
    expected = make_grid(model.sample(64, generator=torch.Generator().manual_seed(0)), nrow=8)
    assert (drawn / 255 - expected).abs().max() < 0.004
    grid = read_image(str(the_run() / "samples" / "reconstructions_0001.png"))[None, :1] / 255
    image, reconstruction = grid[..., 2:34, 2:34], grid[..., 36:68, 2:34]
    assert (model.reconstruct(image) - reconstruction).abs().max() < 0.004
    assert relit("fit", f"--ckpt_path={the_run()}", *QUIET, "--trainer.max_epochs=2") == 1
    assert "The checkpoint's weights are an average that a callback of the run has taken" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_a_stochastic_weight_average_is_in_the_last_checkpoint(relit: Relit, capsys: Output) -> None:
    """Also of a network without batch normalization, which takes the average after its last epoch."""
    average = ("--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01")
    fit = ("fit", *SHORT_VAE, *average, "--trainer.callbacks.swa_epoch_start=1")
    assert relit(*fit, "--trainer.max_epochs=3") == 0
    content = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (2, 12)
    (state,) = (state for name, state in content["callbacks"].items() if name.startswith("StochasticWeight"))
    assert state["n_averaged"] == 3
    for name, value in state["average_model_state"].items():
        if not name.endswith("s2"):  # which is no parameter
            assert torch.equal(content["state_dict"][name], value), name
    assert relit(*fit, "--trainer.max_epochs=4", "--ckpt_path=last") == 1
    assert "can't go on once StochasticWeightAveraging has begun" in capsys.readouterr().err


@pytest.mark.parametrize("command", NEED_EVERY_PACKAGE)
def test_a_version_that_does_not_fit_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: Patch, capsys: Output
) -> None:
    from lit_models.__main__ import main

    monkeypatch.setattr(versions, "requires", lambda name: ["lightning<2.8,>=2.6", 'wandb>=0.19; extra == "wandb"'])
    monkeypatch.setattr(versions, "version", lambda name: "2.9.1")
    lines = {"fit": ["dcgan_digits"], "prepare": ["dcgan_digits"], "sweep": ["dcgan_digits"], "demo": []}
    (tmp_path / "last.ckpt").touch()
    lines |= {"export": [str(tmp_path / "last.ckpt")], "push": ["dcgan_mnist", "owner/name"]}
    assert main([command, *lines.get(command, ["--weights", "dcgan_mnist"])]) == 1
    assert capsys.readouterr().err == f"relit: {REFUSED}\n"
    monkeypatch.setattr(versions, "version", lambda name: "2.7.0")
    assert versions.refusal() is None
    monkeypatch.setattr(versions, "version", lambda name: None)
    assert versions.refusal() == "relit needs the package lightning: pip install 'lightning<2.8,>=2.6'."


def test_a_version_that_an_import_fails_with_is_named(monkeypatch: Patch) -> None:
    def fail(module: str) -> None:
        raise ImportError("cannot import name 'WeightAveraging' from 'lightning.pytorch.callbacks'")

    monkeypatch.setattr(lit_models, "import_module", fail)
    with pytest.raises(ImportError, match="cannot import name"):
        _ = lit_models.VAE
    monkeypatch.setattr(versions, "requires", lambda name: ["lightning<2.8,>=2.6"])
    monkeypatch.setattr(versions, "version", lambda name: "2.9.1")
    with pytest.raises(ImportError) as caught:
        _ = lit_models.VAE
    assert str(caught.value) == REFUSED
