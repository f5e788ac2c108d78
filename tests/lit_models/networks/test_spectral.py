from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lit_models.dcgan import Discriminator
from lit_models.networks.spectral import spectrally_normalized
from lit_models.sngan import CNNDiscriminator


def largest_singular_value(weight: torch.Tensor) -> float:
    return torch.linalg.svdvals(weight.detach().double().flatten(1))[0].item()


def layers(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]


@pytest.mark.parametrize("kind", ["dcgan", "cnn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_layers_largest_singular_value_is_1(kind: str, precision: str) -> None:
    """Also after steps that change the weights by a lot, and no layer is left out."""
    torch.manual_seed(0)
    network = CNNDiscriminator(16, 3, 8) if kind == "cnn" else Discriminator(16, 3, 8, batch_norm=False)
    before = [largest_singular_value(layer.weight) for layer in layers(network)]
    assert not any(0.98 < value < 1.02 for value in before)
    spectrally_normalized(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    image = torch.randn(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for step in range(60):
            loss = network(image).float().square().mean()
            if step < 10:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for layer in layers(network):
        assert parametrize.is_parametrized(layer, "weight")
        assert layer.weight.dtype == torch.float32
        assert largest_singular_value(layer.weight) == pytest.approx(1, abs=0.02)


def test_the_gradient_is_the_papers() -> None:
    """Eq. 12: ∂V/∂W = (E[δ hᵀ] − λ u vᵀ) / σ(W) with λ = E[δᵀ (W̄ h)], for a layer W̄ h of which V has gradient δ."""
    torch.manual_seed(0)
    linear = nn.Linear(5, 4, bias=False).double()
    weight = linear.weight.detach().clone()
    left, singular, right = torch.linalg.svd(weight)
    u, sigma, v = left[:, 0], singular[0], right[0]
    network = spectrally_normalized(nn.Sequential(linear))
    for _ in range(500):
        network[0].weight  # noqa: B018  (each use is a step of the power iteration)
    h = torch.randn(7, 5, dtype=torch.double)
    output = network(h)
    delta = torch.randn(7, 4, dtype=torch.double) / 7
    output.backward(delta)

    normalized = weight / sigma
    expected = (delta.T @ h - (delta * (h @ normalized.T)).sum() * torch.outer(u, v)) / sigma
    gradient = network[0].parametrizations.weight.original.grad
    assert torch.allclose(gradient, expected, atol=1e-9)
    # The gradient is at right angles to W itself: W̄ doesn't depend on the length of W.
    assert (gradient * weight).sum().abs() < 1e-9


def test_copies_and_evaluation_leave_the_iteration_alone() -> None:
    torch.manual_seed(0)
    network = spectrally_normalized(nn.Sequential(nn.Linear(6, 6))).eval()
    copy = deepcopy(network)
    state = deepcopy(network.state_dict())
    image = torch.randn(2, 6)
    assert torch.equal(network(image), network(image))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    network.train()(image)
    assert any(not torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in copy.state_dict().items())
    assert {name.rsplit(".", 1)[-1] for name in state} == {"bias", "original", "_u", "_v"}
