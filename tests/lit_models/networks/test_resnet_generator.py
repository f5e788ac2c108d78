import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.networks.resnet_generator import ResNetGenerator
from tests.lit_models.networks.test_patch_discriminator import parameters


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        assert parameters(ResNetGenerator(3, 64, 9, "instance")) == 11_378_179
        assert parameters(ResNetGenerator(3, 64, 6, "instance")) == 7_837_699


def plain_generator(network: ResNetGenerator, image: Tensor) -> Tensor:
    """c7s1-k, d2k, d4k, R4k, u2k, uk, c7s1-3 of the paper's section 7.2, with one residual block."""
    weights = iter(network.parameters())

    def instance_norm(x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    def reflected(x: Tensor, margin: int) -> Tensor:
        return functional.conv2d(functional.pad(x, (margin,) * 4, mode="reflect"), next(weights), next(weights))

    x = functional.relu(instance_norm(reflected(image, 3)))
    for _ in range(2):
        x = functional.relu(instance_norm(functional.conv2d(x, next(weights), next(weights), stride=2, padding=1)))
    x = x + instance_norm(reflected(functional.relu(instance_norm(reflected(x, 1))), 1))
    for _ in range(2):
        x = functional.conv_transpose2d(x, next(weights), next(weights), stride=2, padding=1, output_padding=1)
        x = functional.relu(instance_norm(x))
    return reflected(x, 3).tanh()


def test_the_network_written_out() -> None:
    torch.manual_seed(0)
    network, image = ResNetGenerator(3, 2, 1, "instance"), torch.rand(2, 3, 32, 24)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    expected = plain_generator(network, image)
    assert expected.shape == image.shape
    for _ in (network.train(), network.eval()):
        assert torch.allclose(network(image), expected, atol=1e-5)
