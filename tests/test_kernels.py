"""Every convolution that a shipped configuration takes, forwards and backwards, is right on this machine."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from benchmark.sides import CONFIGS, model_of
from torch import Tensor, nn

from lit_models.losses.gan import IMAGES_IN_BF16, gradient_penalty
from tests.methods import METHODS
from tests.support.fixtures import Patch
from tests.support.kernels import check, error_of, recorded

EXTRA = {
    f"ResNet of {width}": {
        "model": {"class_path": "MetricResNet", "init_args": {"image_size": 64, "feature_maps": width}},
        "channels_last": True,
    }
    for width in (8, 4)
}
"""Networks that no configuration has, but a command line may make of one, in channels-last order."""


def penalized(model: Any) -> Tensor:
    """A critic's gradient penalty, whose backward pass takes second derivatives, on as few pairs as bfloat16 gets."""
    image = torch.rand(IMAGES_IN_BF16, *model.image_shape)
    return gradient_penalty(model.discriminator, image, torch.rand_like(image))


def passes_of(model: Any, method: str) -> list[Callable[[Any], Tensor]]:
    """What a training of the model computes."""
    passes = [METHODS[method].networks]
    return [*passes, penalized] if getattr(model, "gradient_penalty_weight", 0) else passes


def calls_of(methods: Collection[str]) -> set[str]:
    """The convolutions of all configurations of these methods."""
    contents = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
    calls: set[str] = set()
    seen: set[str] = set()
    for name, content in {**contents, **EXTRA}.items():
        method = content["model"]["class_path"].rpartition(".")[2]
        if method in methods:
            model = model_of(content)
            passes = passes_of(model, method)
            sizes = [(one.shape, one.stride()) for one in model.parameters()]
            network = f"{model} {model.image_shape} {sizes} {len(passes)}"
            if network not in seen:
                found = set().union(*(recorded(model, run, bf16) for run in passes for bf16 in (False, True)))
                assert found, name
                calls |= found
                seen.add(network)
    return calls


GROUPS = {"DARTS": {"DARTSSearch", "DARTSRetrain"}, "translation": {"Pix2Pix", "CycleGAN"}}
GROUPS["others"] = METHODS.keys() - {"LayerwiseMLP"} - set().union(*GROUPS.values())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", GROUPS)
def test_every_convolution_is_right(group: str) -> None:
    calls = calls_of(GROUPS[group])
    assert len(calls) > 100
    faults = check(calls)
    assert not faults, "\n".join(faults)


def test_second_derivatives_are_recorded() -> None:
    """A critic with a gradient penalty takes convolutions of other shapes than one without."""
    critic = model_of(yaml.safe_load((CONFIGS / "wgan_gp_digits.yaml").read_text()))
    first, second = (recorded(critic, run, False) for run in passes_of(critic, "WGAN"))
    assert len(second - first) > 3
    clipped = model_of(yaml.safe_load((CONFIGS / "wgan_mnist.yaml").read_text()))
    assert len(passes_of(clipped, "WGAN")) == 1


def test_a_wrong_kernel_is_noticed(monkeypatch: Patch) -> None:
    calls = recorded(nn.Conv2d(2, 3, 3), lambda network: network(torch.rand(2, 2, 8, 8)), False)
    (call,) = [one for one in calls if "backward" in one]
    assert error_of(call) < 1
    true = torch.ops.aten.convolution_backward.default

    def wrong(*arguments: Any) -> Any:
        to_x, to_weight, to_bias = true(*arguments)
        return to_x, to_weight * (1.001 if to_weight.dtype == torch.float32 else 1), to_bias

    monkeypatch.setattr("tests.support.kernels.BACKWARD", wrong)
    assert error_of(call) > 1


@pytest.mark.long
def test_a_crash_is_a_fault(tmp_path: Path) -> None:
    (fault,) = check({json.dumps(["no such kernel", []])})
    assert fault.startswith("process ended with 1 at call: ")
