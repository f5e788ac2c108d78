"""When a method loads the weights that it starts from, and what it refuses without them."""

import pytest

import lit_models
from lit_models import METHODS
from lit_models.errors import ModelError
from lit_models.support.pretrained import StartsFromWeights
from tests.support.fixtures import Patch
from tests.support.small_models import small_model

REFUSED = {
    "LatentGAN": "",
    "Pix2Pix": "",
    "CycleGAN": "",
    "TransferClassifier": "validation test predict",
    "MetricResNet": "predict",
    "ProtoNet": "",
}
"""Stages that a model can't begin with the weights that it starts from alone."""


def starting(name: str, monkeypatch: Patch) -> tuple[StartsFromWeights, list[str]]:
    """A model that has no weights yet, and a list of the times that it loads them."""
    model = small_model(name)
    assert isinstance(model, StartsFromWeights)
    loads: list[str] = []
    monkeypatch.setattr(model, "load_starting_weights", lambda: loads.append(name))
    model.pretrained, model.has_weights = "weights.pth", False
    return model, loads


def test_the_methods_that_start_from_weights() -> None:
    assert {name for name in METHODS if issubclass(getattr(lit_models, name), StartsFromWeights)} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stage", ["validation", "test", "predict"])
def test_what_takes_training_is_refused_without(name: str, stage: str, monkeypatch: Patch) -> None:
    model, _ = starting(name, monkeypatch)
    begin = getattr(StartsFromWeights, f"on_{stage}_start")
    if stage in REFUSED[name].split():
        with pytest.raises(ModelError, match=f"{name} starts from --model.pretrained in training"):
            begin(model)
        model.load_state_dict(model.state_dict())
    begin(model)


@pytest.mark.parametrize("name", REFUSED)
def test_weights_are_loaded_once_unless_a_checkpoint_was(name: str, monkeypatch: Patch) -> None:
    model, loads = starting(name, monkeypatch)
    for _ in range(2):
        model.on_fit_start()
    assert loads == [name]
    model, loads = starting(name, monkeypatch)
    model.load_state_dict(model.state_dict())
    model.on_fit_start()
    assert not loads
    assert {"pretrained", "encoder_checkpoint", "decoder_checkpoint"} & set(model.restored_arguments)
