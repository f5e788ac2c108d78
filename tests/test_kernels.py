"""Every convolution that a shipped configuration takes, forwards and backwards, is right on this machine."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from benchmark.sides import CONFIGS
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_models.cli import command
from tests.support.kernels import check, error_of, recorded

N = 2
"""Images of a batch; wrong kernels have been so for all sizes of the batch."""


def translated(model: Any) -> Tensor:
    """Both networks of pix2pix, or all four of CycleGAN."""
    image = torch.rand(N, *model.image_shape)
    if isinstance(model.generator, nn.ModuleDict):
        made = [generator(image) for generator in model.generator.values()]
        judged = zip(model.discriminator.values(), made, strict=True)
        return torch.stack([discriminator(fake).mean() for discriminator, fake in judged])
    fake = model.generator(image)
    return model.discriminator(torch.cat((image, fake), 1) if model.conditional else fake)


def generated(model: Any) -> Tensor:
    """An unconditional GAN's networks."""
    return model.discriminator(model.generator(torch.randn(N, model.latent_dim)))


def generated_by_label(model: Any) -> Tensor:
    """A conditional GAN's networks."""
    label = torch.arange(N)
    return model.discriminator(model.generator(torch.randn(N, model.latent_dim), label), label)


def autoencoded(model: Any) -> Tensor:
    """An encoder and its decoder."""
    code = model.encoder(torch.rand(N, *model.image_shape))
    return model.decoder(code[0] if isinstance(code, tuple) else code)


def classified(model: Any) -> Tensor:
    """A network that takes an image. In training mode, so that its forward pass is that of a training step."""
    return model(torch.rand(N, *model.image_shape))


def retrained(model: Any) -> Tensor:
    """DARTS's network with its auxiliary classifier."""
    logits, auxiliary = model.network(torch.rand(N, *model.image_shape))
    return logits + auxiliary


RUNS: dict[str, Callable[[Any], Tensor]] = {
    **dict.fromkeys(("DCGAN", "SNGAN", "WGAN", "TripletGAN", "LatentGAN"), generated),
    "ConditionalGAN": generated_by_label,
    **dict.fromkeys(("Pix2Pix", "CycleGAN"), translated),
    **dict.fromkeys(("VAE", "DenoisingAutoencoder"), autoencoded),
    **dict.fromkeys(("DigitClassifier", "TransferClassifier", "MetricResNet", "ProtoNet", "DARTSSearch"), classified),
    "DARTSRetrain": retrained,
}
EXTRA = {
    "narrow ResNet": {"model": {"class_path": "MetricResNet", "init_args": {"image_size": 64, "feature_maps": 8}}},
    "narrower ResNet": {"model": {"class_path": "MetricResNet", "init_args": {"image_size": 64, "feature_maps": 4}}},
}
"""Networks that no configuration has, but a command line may make of one, in channels-last order."""


def built(content: dict[str, Any]) -> LightningModule:
    """The model of a configuration, in its memory order."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    model = parser.instantiate_classes(parser.parse_object({"model": content["model"]})).model
    return model.to(memory_format=torch.channels_last) if content.get("channels_last", True) else model


def calls_of(methods: Collection[str]) -> set[str]:
    """The convolutions of all configurations of these methods."""
    assert command, "makes the methods' short names known"
    contents = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
    calls: set[str] = set()
    seen: set[str] = set()
    for name, content in {**contents, **EXTRA}.items():
        method = content["model"]["class_path"].rpartition(".")[2]
        if method in methods:
            model = built(content)
            network = f"{model} {model.image_shape} {[value.shape for value in model.parameters()]}"
            if network not in seen:
                found = set().union(*(recorded(model, RUNS[method], bf16) for bf16 in (False, True)))
                assert found, name
                calls |= found
                seen.add(network)
    return calls


GROUPS = {"DARTS": {"DARTSSearch", "DARTSRetrain"}, "translation": {"Pix2Pix", "CycleGAN"}}
GROUPS["others"] = RUNS.keys() - set().union(*GROUPS.values())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", GROUPS)
def test_every_convolution_is_right(group: str) -> None:
    calls = calls_of(GROUPS[group])
    assert len(calls) > 100
    faults = check(calls)
    assert not faults, "\n".join(faults)


def test_every_method_of_a_configuration_is_known() -> None:
    methods = {
        yaml.safe_load(path.read_text())["model"]["class_path"].rpartition(".")[2] for path in CONFIGS.glob("*.yaml")
    }
    assert methods - RUNS.keys() == {"LayerwiseMLP"}, "which has no convolution"


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(nn.Conv2d(2, 3, 3), lambda network: network(torch.rand(2, 2, 8, 8)), False)
    (call,) = [one for one in calls if "backward" in one]
    assert error_of(call) < 1
    true = torch.ops.aten.convolution_backward.default

    def wrong(*arguments: Any) -> Any:
        to_x, to_weight, to_bias = true(*arguments)
        return to_x, to_weight * (1.001 if to_weight.dtype == torch.float32 else 1), to_bias

    monkeypatch.setattr("tests.support.kernels.BACKWARD", wrong)
    assert error_of(call) > 1


def test_a_crash_is_a_fault(tmp_path: Path) -> None:
    (fault,) = check({json.dumps(["no such kernel", []])})
    assert fault.startswith("process ended with 1 at call: ")
