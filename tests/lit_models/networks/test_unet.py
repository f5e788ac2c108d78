import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.errors import ModelError
from lit_models.networks.unet import UNet
from tests.lit_models.networks.test_patch_discriminator import parameters


def test_the_papers_size() -> None:
    with torch.device("meta"):
        assert parameters(UNet(256, 3, 64)) == 54_413_955


def test_an_independent_count_at_other_sizes() -> None:
    """Convolutions of 4x4 on both sides, decoder layers of twice the width behind the innermost; two numbers for each
    normalized channel; biases at the end only."""
    for size, widths in ((128, [1, 2, 4, 8, 8, 8, 8]), (64, [1, 2, 4, 8, 8, 8]), (32, [1, 2, 4, 8, 8])):
        widths = [5 * width for width in widths]
        down = [3, *widths]
        expected = sum(16 * a * b for a, b in itertools.pairwise(down)) + 2 * sum(widths[1:-1])
        for i in range(len(widths) - 1, 0, -1):
            expected += 16 * widths[i] * (1 if i == len(widths) - 1 else 2) * widths[i - 1] + 2 * widths[i - 1]
        expected += 16 * 2 * widths[0] * 3 + 3
        assert parameters(UNet(size, 3, 5)) == expected


def plain_unet(network: UNet, image: Tensor) -> Tensor:
    """The paper's text, layer by layer, with the weights of a network for images of 32 pixels and without dropout."""
    weight = dict(network.named_parameters())

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (weight[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def down(x: Tensor, name: str) -> Tensor:
        return functional.conv2d(x, weight[f"{name}.weight"], stride=2, padding=1)

    def up(x: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
        return functional.conv_transpose2d(functional.relu(x), weight[f"{name}.weight"], bias, stride=2, padding=1)

    e1 = down(image, "encoder.0")
    e2 = batch_norm(down(functional.leaky_relu(e1, 0.2), "encoder.1.1"), "encoder.1.2")
    e3 = batch_norm(down(functional.leaky_relu(e2, 0.2), "encoder.2.1"), "encoder.2.2")
    e4 = batch_norm(down(functional.leaky_relu(e3, 0.2), "encoder.3.1"), "encoder.3.2")
    e5 = down(functional.leaky_relu(e4, 0.2), "encoder.4.1")
    d4 = batch_norm(up(e5, "decoder.0.1"), "decoder.0.2")
    d3 = batch_norm(up(torch.cat([d4, e4], 1), "decoder.1.1"), "decoder.1.2")
    d2 = batch_norm(up(torch.cat([d3, e3], 1), "decoder.2.1"), "decoder.2.2")
    d1 = batch_norm(up(torch.cat([d2, e2], 1), "decoder.3.1"), "decoder.3.2")
    return up(torch.cat([d1, e1], 1), "head.1", weight["head.1.bias"]).tanh()


def test_the_network_written_out() -> None:
    torch.manual_seed(0)
    network, image = UNet(32, 3, 2, dropout=0.0), torch.rand(3, 3, 32, 32)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    assert torch.allclose(network(image), plain_unet(network, image), atol=1e-5)
    network.eval()
    one_by_one = torch.cat([plain_unet(network, one[None]) for one in image])
    assert torch.allclose(network(image), one_by_one, atol=1e-5)
    assert not torch.allclose(one_by_one, plain_unet(network, image), atol=1e-2)


def test_where_dropout_is() -> None:
    for size, count in ((32, 1), (64, 2), (128, 3), (256, 3)):
        network = UNet(size, 3, 1)
        drops = [any(isinstance(layer, nn.Dropout) for layer in block) for block in network.decoder]  # type: ignore
        assert drops == [True] * count + [False] * (len(drops) - count)


def test_larger_images() -> None:
    network = UNet(32, 3, 2).eval()
    assert network(torch.rand(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = UNet(64, 3, 8)
    assert network.encoder[3][1].weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert network.encoder[3][2].weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert network.head[1].bias.tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [16, 100, 2048])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ModelError, match=f"image_size is {size}; it must be one of 32, 64, 128, 256, 512, 1024"):
        UNet(size, 3, 4)
