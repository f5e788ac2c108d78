"""``--trainer.precision`` for every method: 64-true computes in double precision, 16 bits throughout are refused."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_models.losses.gan import generator_linear
from lit_models.support.abilities import classes_of
from tests.methods import NO_CALLBACKS, SMALL_MODELS
from tests.support.fixtures import Output, Relit
from tests.support.small_fits import small_fit
from tests.support.tiny import TINY, assert_same_training, quick_run, the_run, weights


@pytest.mark.parametrize("title", SMALL_MODELS)
def test_double_precision(title: str, tmp_path: Path) -> None:
    model, data, trainer = small_fit(title, tmp_path, precision="64-true")
    trainer.fit(model, data)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    trainer.test(model, data, verbose=False)
    assert all(value.isfinite().all() for value in trainer.callback_metrics.values())
    if hasattr(model, "sample"):
        labels = torch.arange(3) if classes_of(model) else None
        assert model.sample(3, labels).isfinite().all()
    if hasattr(model, "interpolate"):
        start, end = torch.rand(2, 1, *model.image_shape, dtype=torch.float64)
        assert model.interpolate(start, end, 3).isfinite().all()
    predicts = type(model).predict_step is not LightningModule.predict_step
    if predicts and not hasattr(model, "sample") and title != "ProtoNet":  # which predicts from other data
        assert trainer.predict(model, data)


@pytest.mark.parametrize("average", [(), ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.8")])
@pytest.mark.filterwarnings("ignore")
def test_a_run_in_double_precision_goes_on_in_it(relit: Relit, average: tuple[str, ...]) -> None:
    """Lightning loads a checkpoint, and copies the weights to average them, before it converts a module."""
    fit = (
        "fit",
        *quick_run("vae_digits", "--trainer.precision=64-true", NO_CALLBACKS, *average, model={"feature_maps": 2}),
    )
    few = ("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.log_every_n_steps=1")
    assert relit(*fit, *few, "--trainer.max_epochs=2", "--run.root=whole") == 0
    assert relit(*fit, *few, "--trainer.max_epochs=1") == 0
    assert {value.dtype for value in weights(the_run()).values()} == {torch.float64}
    assert relit(*fit, *few, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert_same_training(the_run(), the_run(Path("whole")))


def test_losses_of_doubles_are_doubles() -> None:
    """By way of float32 this one would be off by 1e-9."""
    assert generator_linear(torch.tensor([0.1, 0.2], dtype=torch.float64)).item() == pytest.approx(-0.15, abs=1e-15)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_weights_of_16_bits_are_refused(relit: Relit, capsys: Output, precision: str, command: str) -> None:
    assert relit(command, *TINY, "--ckpt_path=none", f"--trainer.precision={precision}") == 1
    sentence = f"--trainer.precision {precision} keeps the weights themselves in 16 bits"
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()
