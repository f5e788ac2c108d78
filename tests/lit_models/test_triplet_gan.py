from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lit_models import TripletGAN
from tests.support.data_modules import noise

OBJECTIVES = ["distance", "norm", "negative_norm"]


def tiny(**arguments: Any) -> TripletGAN:
    torch.manual_seed(0)
    defaults = {"image_size": 16, "channels": 1, "latent_dim": 3, "feature_maps": 2, "embedding_dim": 4}
    return TripletGAN(**{**defaults, **arguments})


@pytest.mark.parametrize("size", [4, 5])
def test_the_losses_of_a_batch_image_by_image(size: int) -> None:
    """Each image is once an anchor, with the image half a batch further on as its positive and a fake of its own."""
    model, data, fake = tiny(margin=0.01).eval(), noise(size), torch.rand(size, 1, 16, 16)
    f = [model.discriminator(image[None] * 2 - 1)[0] for image in data.image]
    g = [model.discriminator(image[None])[0] for image in fake]
    positives = [f[(i - size // 2) % size] for i in range(size)]
    assert all(positive is not f[i] for i, positive in enumerate(positives))
    near = [(f[i] - positives[i]).square().sum() for i in range(size)]
    far = [(f[i] - g[i]).square().sum() for i in range(size)]
    values = model.discriminator_loss(data, fake)
    expected = sum(torch.relu(a - b + 0.01) for a, b in zip(near, far, strict=True)) / size
    assert torch.allclose(values["loss"], expected, atol=1e-7)
    assert torch.allclose(values["real_distance"], sum(near) / size, atol=1e-7)
    assert torch.allclose(values["fake_distance"], sum(far) / size, atol=1e-7)
    norm = sum(one.square().sum() for one in g) / size
    for objective, loss in zip(OBJECTIVES, (sum(far) / size, norm, -norm), strict=True):
        model = tiny(generator_objective=objective).eval()
        assert torch.allclose(model.generator_loss(data, fake), loss, atol=1e-7)


def test_spectral_norm_is_the_default_and_in_place_of_batch_norm() -> None:
    for spectral in (True, False):
        layers = list(tiny(**({} if spectral else {"spectral_norm": False})).discriminator)
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        assert len(convolutions) == 3
        assert all(parametrize.is_parametrized(layer, "weight") == spectral for layer in convolutions)
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers) != spectral
