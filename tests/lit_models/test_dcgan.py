import pytest
import torch
from torch import nn

from lit_models import DCGAN
from lit_models.dcgan import Discriminator, Generator
from lit_models.errors import ModelError


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_range(image_size: int, channels: int) -> None:
    generator = Generator(image_size, channels, latent_dim=5, feature_maps=2)
    discriminator = Discriminator(image_size, channels, feature_maps=2)
    image = generator(torch.randn(2, 5))
    assert image.shape == (2, channels, image_size, image_size)
    assert image.abs().max() <= 1
    assert discriminator(image).shape == (2,)


def test_the_networks_of_the_paper() -> None:
    """At 64x64 with the paper's 128 feature maps, figure 1: 1024, 512, 256, 128 maps at 4, 8, 16, 32 pixels."""
    generator = Generator(64, 3, latent_dim=100, feature_maps=128)
    convolutions = [layer for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in convolutions] == [1024, 512, 256, 128, 3]
    discriminator = Discriminator(64, 3, feature_maps=128)
    strided = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.in_channels for layer in strided] == [3, 128, 256, 512, 1024]
    # pytorch/examples' DCGAN at 64x64 (64 maps) has 3,576,704 and 2,765,568 parameters without the biases of the
    # layers next to the image, which ours has: 3 in the generator, 64 and 1 in the discriminator.
    count = [sum(p.numel() for p in net.parameters()) for net in (Generator(64, 3, 100, 64), Discriminator(64, 3, 64))]
    assert count == [3_576_704 + 3, 2_765_568 + 64 + 1]


def test_batch_norm_is_everywhere_but_at_the_ends_and_slopes_are_the_papers() -> None:
    model = DCGAN(image_size=32)
    generator, discriminator = list(model.generator.layers), list(model.discriminator.layers)
    assert isinstance(generator[-1], nn.Tanh)
    assert isinstance(generator[-2], nn.ConvTranspose2d)
    assert isinstance(discriminator[1], nn.LeakyReLU)
    norms = [
        [isinstance(layer, nn.BatchNorm2d) for layer in layers].count(True) for layers in (generator, discriminator)
    ]
    assert norms == [3, 2]
    slopes = {layer.negative_slope for layer in discriminator if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_initialization() -> None:
    torch.manual_seed(0)
    model = DCGAN(image_size=64)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 10_000:
            assert module.weight.mean().abs() < 1e-3
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.02)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.4)
            assert not module.bias.any()


def test_optimizers_are_the_papers() -> None:
    (generator, discriminator), schedulers = DCGAN(image_size=16).configure_optimizers()
    assert schedulers == []
    for optimizer in (generator, discriminator):
        assert isinstance(optimizer, torch.optim.Adam)
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.5, 0.999))


def test_samples() -> None:
    model = DCGAN(image_size=16, channels=3, latent_dim=3, feature_maps=2)
    images = model.sample(5, generator=torch.Generator().manual_seed(1))
    assert images.shape == (5, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, model.sample(5, generator=torch.Generator().manual_seed(1)))
    assert model.generator.training, "sampling puts the network back into training mode"
    assert not images.requires_grad
    with pytest.raises(ModelError, match="has no classes"):
        model.sample(2, labels=torch.zeros(2, dtype=torch.long))
