"""When a method loads the weights that it starts from."""

import pytest

import lit_models
from lit_models import METHODS
from lit_models.errors import ModelError
from lit_models.support.starting import StartsTrained
from tests.support.small_models import small_model

STAGES = {
    "MetricResNet": "fit validate test",
    "ProtoNet": "fit validate test predict",
    "Pix2Pix": "fit validate test predict",
    "CycleGAN": "fit validate test predict",
    "TransferClassifier": "fit",
    "LatentGAN": "fit",
}
HOOKS = {stage: f"on_{'validation' if stage == 'validate' else stage}_start" for stage in STAGES["ProtoNet"].split()}


def test_the_methods_that_start_from_weights() -> None:
    assert {name for name in METHODS if issubclass(getattr(lit_models, name), StartsTrained)} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("stage", HOOKS)
def test_weights_are_loaded_once_unless_a_checkpoint_was(
    name: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restored in (False, True):
        model, loads = small_model(name), []
        assert isinstance(model, StartsTrained)
        monkeypatch.setattr(model, "load_starting_weights", lambda loads=loads: loads.append(1))
        model.pretrained = "weights.pth"
        if restored:
            model.has_weights = True  # as `on_load_checkpoint` leaves it
        allowed = stage in STAGES[name].split()
        if not allowed and not restored:
            with pytest.raises(ModelError, match=f"{name} starts from --model.pretrained in training"):
                StartsTrained.__dict__[HOOKS[stage]](model)
            model.pretrained = None
            StartsTrained.__dict__[HOOKS[stage]](model)  # nothing to start from, nothing to refuse
        for _ in range(2):
            StartsTrained.__dict__[HOOKS[stage]](model)
        assert len(loads) == int(allowed and not restored)


@pytest.mark.parametrize("name", STAGES)
def test_a_checkpoint_leaves_nothing_to_load(name: str) -> None:
    model = small_model(name)
    assert isinstance(model, StartsTrained)
    checkpoint = {"hyper_parameters": dict(model.hparams)}
    model.on_load_checkpoint(checkpoint)
    assert model.has_weights
    assert {"pretrained", "encoder_checkpoint", "decoder_checkpoint"} & set(model.restored_arguments)
