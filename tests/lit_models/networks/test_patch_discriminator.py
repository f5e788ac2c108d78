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


@pytest.mark.parametrize("patch_size", [16, 34, 70, 142, 286])
def test_a_logit_depends_on_a_patch(patch_size: int) -> None:
    """The pixels from which a logit in the middle has a gradient, without the normalisation, which sees everything."""
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


def test_patches_that_dont_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="Patches of 286 pixels can't be judged in images of 64: set patch_size 142"):
        PatchDiscriminator(64, 3, 4, 286, "batch")
    with pytest.raises(ModelError, match="patch_size is 60; it must be one of 16, 34, 70, 142, 286"):
        PatchDiscriminator(64, 3, 4, 60, "batch")
    for size, patch in ((32, 70), (64, 142), (128, 286)):
        assert PatchDiscriminator(size, 3, 1, patch, "instance")(torch.rand(1, 3, size, size)).isfinite().all()
