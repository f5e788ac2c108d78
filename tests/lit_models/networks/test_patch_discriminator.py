import pytest
import torch
from torch import nn

from lit_models.errors import ModelError
from lit_models.networks.patch_discriminator import PatchDiscriminator


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_size() -> None:
    assert parameters(PatchDiscriminator(256, 6, 64, 70, "batch")) == 2_768_705
    assert parameters(PatchDiscriminator(256, 3, 64, 70, "instance")) == 2_764_737
    assert PatchDiscriminator(256, 6, 1, 70, "batch")(torch.rand(2, 6, 256, 256)).shape == (2, 1, 30, 30)


@pytest.mark.parametrize("patch_size", [1, 16, 34, 70, 142, 286])
def test_a_logit_depends_on_a_patch(patch_size: int) -> None:
    """The pixels from which a logit in the middle has a gradient, without the normalization, which sees everything."""
    torch.manual_seed(0)
    network = PatchDiscriminator(320, 1, 1, patch_size, "batch")
    layers = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        nn.init.constant_(layer.weight, 0.1)
    image = torch.rand(1, 1, 320, 320, requires_grad=True)
    score = nn.Sequential(*layers)(image)
    middle = score.shape[-1] // 2
    (gradient,) = torch.autograd.grad(score[0, 0, middle, middle], image)
    seen = gradient[0, 0] != 0
    assert seen.any(0).sum() == seen.any(1).sum() == patch_size


def test_pixels_written_out() -> None:
    """Three convolutions of 1x1: each pixel by itself goes through a small perceptron, but for the normalization."""
    torch.manual_seed(0)
    network, image = PatchDiscriminator(8, 3, 4, 1, "batch"), torch.rand(2, 3, 8, 8)
    assert parameters(network) == (3 * 4 + 4) + 4 * 8 + 2 * 8 + (8 + 1)
    first, second, last = (layer for layer in network.layers if isinstance(layer, nn.Conv2d))
    hidden = torch.einsum("oi,nihw->nohw", first.weight[:, :, 0, 0], image) + first.bias.view(-1, 1, 1)
    hidden = torch.einsum("oi,nihw->nohw", second.weight[:, :, 0, 0], hidden.where(hidden > 0, 0.2 * hidden))
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), correction=0, keepdim=True)
    scale, shift = (value.view(1, -1, 1, 1) for value in (network.layers[3].weight, network.layers[3].bias))
    hidden = (hidden - mean) / (variance + 1e-5).sqrt() * scale + shift
    hidden = hidden.where(hidden > 0, 0.2 * hidden)
    expected = torch.einsum("oi,nihw->nohw", last.weight[:, :, 0, 0], hidden) + last.bias.view(-1, 1, 1)
    assert network(image).shape == (2, 1, 8, 8)
    assert torch.allclose(network(image), expected, atol=1e-5)


def test_patches_that_dont_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="Patches of 286 pixels can't be judged in images of 64: set patch_size 142"):
        PatchDiscriminator(64, 3, 4, 286, "batch")
    for size, patch in ((32, 70), (64, 142), (128, 286)):
        assert PatchDiscriminator(size, 3, 1, patch, "instance")(torch.rand(1, 3, size, size)).isfinite().all()
