from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lit_models import DCGAN, SNGAN
from lit_models.losses.gan import discriminator_bce, discriminator_hinge
from lit_models.sngan import CNNDiscriminator, CNNGenerator
from tests.support.data_modules import noise


def tiny(**arguments: Any) -> SNGAN:
    torch.manual_seed(0)
    return SNGAN(**{"image_size": 16, "channels": 1, "latent_dim": 3, "feature_maps": 2, **arguments})


def test_the_networks_of_table_3() -> None:
    generator, discriminator = CNNGenerator(32, 3, 128, 64), CNNDiscriminator(32, 3, 64)
    shapes = [
        (type(m).__name__, tuple(m.weight.shape))
        for network in (generator, discriminator)
        for m in network.modules()
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    ]
    assert shapes == [
        ("Linear", (4 * 4 * 512, 128)),
        ("ConvTranspose2d", (512, 256, 4, 4)),
        ("ConvTranspose2d", (256, 128, 4, 4)),
        ("ConvTranspose2d", (128, 64, 4, 4)),
        ("Conv2d", (3, 64, 3, 3)),
        ("Conv2d", (64, 3, 3, 3)),
        ("Conv2d", (64, 64, 4, 4)),
        ("Conv2d", (128, 64, 3, 3)),
        ("Conv2d", (128, 128, 4, 4)),
        ("Conv2d", (256, 128, 3, 3)),
        ("Conv2d", (256, 256, 4, 4)),
        ("Conv2d", (512, 256, 3, 3)),
        ("Linear", (1, 4 * 4 * 512)),
    ]
    assert {m.negative_slope for m in discriminator.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


@pytest.mark.parametrize("image_size", [16, 32, 48])
def test_shapes_of_the_cnn(image_size: int) -> None:
    model = tiny(image_size=image_size, architecture="cnn")
    image = model.sample(2)
    assert image.shape == (2, 1, image_size, image_size)
    assert model.discriminator(image).shape == (2,)


@pytest.mark.parametrize("architecture", ["dcgan", "cnn", "resnet"])
def test_the_discriminator_is_normalized_throughout_and_the_generator_nowhere(architecture: str) -> None:
    model = tiny(architecture=architecture, image_size=32 if architecture == "resnet" else 16)
    weighty = (nn.Conv2d, nn.Linear)
    layers = [m for m in model.discriminator.modules() if isinstance(m, weighty)]
    assert len(layers) == {"dcgan": 3, "cnn": 8, "resnet": 11}[architecture]
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
    assert not any(parametrize.is_parametrized(m) for m in model.generator.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.modules())


def test_same_generator_as_dcgan_and_same_discriminator_but_for_the_norms() -> None:
    def shapes(network: nn.Module, *kinds: type) -> list[torch.Size]:
        return [m.weight.shape for m in network.modules() if isinstance(m, kinds)]

    ours, theirs = SNGAN(image_size=32, channels=1), DCGAN(image_size=32, channels=1, latent_dim=128)
    assert shapes(ours.generator, nn.ConvTranspose2d, nn.BatchNorm2d) == shapes(
        theirs.generator, nn.ConvTranspose2d, nn.BatchNorm2d
    )
    assert shapes(ours.discriminator, nn.Conv2d) == shapes(theirs.discriminator, nn.Conv2d)


def test_the_loss_that_is_asked_for() -> None:
    data, fake = noise(), torch.rand(4, 1, 16, 16) * 2 - 1
    for loss, function in (("bce", discriminator_bce), ("hinge", discriminator_hinge)):
        model = tiny(loss=loss).eval()
        real_score, fake_score = model.discriminator(data.image * 2 - 1), model.discriminator(fake)
        assert torch.equal(model.discriminator_loss(data, fake), function(real_score, fake_score))
    assert model.generator_loss(data, fake).item() == pytest.approx(-fake_score.mean().item())
    swapped = tiny(data_label=0).eval()
    assert swapped.generator_loss(data, fake).item() == pytest.approx(
        -torch.nn.functional.logsigmoid(-swapped.discriminator(fake)).mean().item()
    )


@pytest.mark.parametrize("method", [SNGAN, DCGAN])
def test_r1_joins_the_loss(method: type[SNGAN] | type[DCGAN]) -> None:
    """Against the slopes at one image at a time."""
    torch.manual_seed(0)
    model = method(image_size=16, channels=1, latent_dim=3, feature_maps=2, r1_weight=6.0).eval()
    data, fake = noise(), torch.rand(4, 1, 16, 16) * 2 - 1
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.modules())
    assert model.not_compiled == ("discriminator",)
    assert tiny().not_compiled == ()
    values = model.discriminator_loss(data, fake)
    squares = []
    for image in data.image * 2 - 1:
        image = image.clone().requires_grad_()
        squares.append(torch.autograd.grad(model.discriminator(image[None]).sum(), image)[0].square().sum())
    expected = sum(squares) / 4
    loss = discriminator_bce(model.discriminator(data.image * 2 - 1), model.discriminator(fake))
    assert values["r1_penalty"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert values["loss"].item() == pytest.approx((loss + 3 * expected).item(), rel=1e-5)
