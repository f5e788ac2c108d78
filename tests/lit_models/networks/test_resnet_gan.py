"""The residual networks against a plain computation after the definitions of mimicry (kwotsin/mimicry) and of the
papers' authors (pfnet-research/sngan_projection), which differ in two points: mimicry doubles the size by bilinear
interpolation, and its shortcuts in the discriminator come after a ReLU that works in place."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.networks.resnet_gan import (
    ConditionalBatchNorm2d,
    ResidualDiscriminator,
    ResidualGenerator,
    Upsampling,
    require_layout,
)
from lit_models.networks.spectral import spectrally_normalized
from lit_models.wgan import WGAN


def weight(layer: nn.Module) -> Tensor:
    """The layer's weight, divided by its largest singular value if it is spectrally normalized."""
    if not hasattr(layer, "parametrizations"):
        return layer.weight
    original = layer.parametrizations.weight.original
    vectors = layer.parametrizations.weight[0].parametrization
    return original / (vectors._u @ original.flatten(1) @ vectors._v)


def convolved(x: Tensor, layer: nn.Module) -> Tensor:
    return functional.conv2d(x, weight(layer), layer.bias, padding=weight(layer).shape[-1] // 2)


def normalized(x: Tensor, norm: nn.Module, label: Tensor | None) -> Tensor:
    """Batch normalization by the batch's statistics."""
    centered = x - x.mean((0, 2, 3), keepdim=True)
    unit = centered / (centered.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    if isinstance(norm, ConditionalBatchNorm2d):
        scales, shifts = norm.scale.weight, norm.shift.weight
        rows = [one * scales[y][:, None, None] + shifts[y][:, None, None] for one, y in zip(unit, label, strict=True)]
        return torch.stack(rows)
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def doubled(x: Tensor, upsampling: str) -> Tensor:
    if upsampling == "nearest":
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def plain_generator(network: ResidualGenerator, latent: Tensor, label: Tensor | None, upsampling: str) -> Tensor:
    dense = network.dense[0]
    side = network.dense[1].unflattened_size[-1]
    h = (latent @ dense.weight.T + dense.bias).view(len(latent), -1, side, side)
    for block in network.blocks:
        x = h
        h = normalized(h, block.normalization1, label).clamp(min=0)
        h = convolved(doubled(h, upsampling), block.convolution1)
        h = normalized(h, block.normalization2, label).clamp(min=0)
        h = convolved(h, block.convolution2) + convolved(doubled(x, upsampling), block.shortcut)
    norm, _, last, _ = network.image
    return convolved(normalized(h, norm, None).clamp(min=0), last).tanh()


def plain_discriminator(
    network: ResidualDiscriminator, image: Tensor, label: Tensor | None, halvings: int, pooling: str, in_place: bool
) -> Tensor:
    h = image
    for number, block in enumerate(list(network.blocks)[:-1]):
        x, halve = h, number < halvings
        if number:
            h = h.clamp(min=0)
            x = h if in_place else x
        h = convolved(convolved(h, block.convolution1).clamp(min=0), block.convolution2)
        h = halved(h) if halve else h
        if not isinstance(block.shortcut, nn.Identity):
            x = convolved(x, block.shortcut)
        h = h + (halved(x) if halve else x)
    h = h.clamp(min=0).sum((2, 3)) if pooling == "sum" else h.clamp(min=0).mean((2, 3))
    score = h @ weight(network.unconditional)[0] + network.unconditional.bias
    if label is None:
        return score
    return torch.stack([s + weight(network.embedding)[y] @ one for s, y, one in zip(score, label, h, strict=True)])


def assert_same_function(network: nn.Module, ours: Tensor, plain: Tensor, image_or_latent: Tensor) -> None:
    """Equal outputs, and equal gradients of the input and of every parameter."""
    assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-9)
    towards = torch.randn_like(ours)
    wanted = [image_or_latent, *network.parameters()]
    pairs = zip(*(torch.autograd.grad(output, wanted, towards) for output in (ours, plain)), strict=True)
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


def randomized(network: nn.Module) -> None:
    """Biases and normalizations other than 0 and 1."""
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("image_size", [32, 48])
def test_generator(image_size: int, upsampling: Upsampling, num_classes: int | None) -> None:
    torch.manual_seed(0)
    widths = require_layout(image_size, 1).generator
    network = ResidualGenerator(image_size, 3, 5, widths, num_classes, upsampling).double()
    randomized(network)
    latent = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    label = None if num_classes is None else torch.tensor([2, 0, 1, 2])
    ours = network(latent) if label is None else network(latent, label)
    assert ours.shape == (4, 3, image_size, image_size)
    assert_same_function(network, ours, plain_generator(network, latent, label, upsampling), latent)


@pytest.mark.parametrize("of_mimicry", [False, True])
@pytest.mark.parametrize(
    ("image_size", "pooling", "spectral", "num_classes"),
    [(32, "sum", True, None), (48, "sum", True, None), (32, "sum", True, 3), (32, "mean", False, None)],
)
def test_discriminator(
    image_size: int, pooling: Literal["sum", "mean"], spectral: bool, num_classes: int | None, of_mimicry: bool
) -> None:
    torch.manual_seed(0)
    _, widths, halvings = require_layout(image_size, 2)
    network = ResidualDiscriminator(3, widths, halvings, pooling, num_classes, of_mimicry).double()
    randomized(network)
    if spectral:
        spectrally_normalized(network)
    network.eval()  # the vectors of the power iteration stay
    image = torch.randn(3, 3, image_size, image_size, dtype=torch.float64, requires_grad=True)
    label = None if num_classes is None else torch.tensor([2, 0, 1])
    ours = network(image) if label is None else network(image, label)
    assert ours.shape == (3,)
    plain = plain_discriminator(network, image, label, halvings, pooling, in_place=of_mimicry)
    assert_same_function(network, ours, plain, image)


def test_sizes_of_the_papers() -> None:
    """Parameters of mimicry's networks, which have the tables' widths: SNGAN 32 and 48, cGAN-PD 32 with ten classes;
    and WGAN-GP's of the authors."""
    counts = {}
    for image_size in (32, 48):
        generator, discriminator, halvings = require_layout(image_size, 64)
        networks = ResidualGenerator(image_size, 3, 128, generator), ResidualDiscriminator(3, discriminator, halvings)
        counts[image_size] = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == {32: [4_276_739, 1_053_825], 48: [4_878_083, 10_141_441]}
    generator, discriminator, halvings = require_layout(32, 64)
    with_classes = (
        ResidualGenerator(32, 3, 128, generator, num_classes=10),
        ResidualDiscriminator(3, discriminator, halvings, num_classes=10),
    )
    assert [sum(p.numel() for p in network.parameters()) for network in with_classes] == [4_304_387, 1_055_105]
    with torch.device("meta"):
        wgan = WGAN(32, 3, 128, architecture="resnet", clip_value=None, gradient_penalty_weight=10.0)
    widths = {m.out_channels for m in wgan.generator.modules() if isinstance(m, nn.Conv2d)}
    assert widths == {128, 3}, "the authors' DIM_G"


@pytest.mark.parametrize("image_size", [64, 128])
def test_other_sizes(image_size: int) -> None:
    generator, discriminator, halvings = require_layout(image_size, 1)
    image = ResidualGenerator(image_size, 1, 2, generator)(torch.randn(2, 2))
    assert image.shape == (2, 1, image_size, image_size)
    assert ResidualDiscriminator(1, discriminator, halvings)(image).shape == (2,)


def test_initial_weights_are_glorots() -> None:
    """Uniform within ±gain · √(6 / (fan in + fan out)), with gain √2 in a block's 3x3 convolutions; biases 0."""
    torch.manual_seed(0)
    networks = ResidualGenerator(32, 3, 128, (64,) * 4), ResidualDiscriminator(3, (64,) * 4, 2, num_classes=10)
    for name, layer in (pair for network in networks for pair in network.named_modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)) or name == "embedding":
            fans = sum(layer.weight.shape[:2]) * layer.weight[0, 0].numel()
            bound = (2 if "convolution" in name else 1) ** 0.5 * (6 / fans) ** 0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound, name
            assert getattr(layer, "bias", None) is None or not layer.bias.any()


def test_scores_are_float32_under_autocast_and_keep_their_precision() -> None:
    network = ResidualDiscriminator(3, (4, 4, 4, 4), 2, num_classes=3)
    image, label = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image, label).dtype == torch.float32
    assert network.bfloat16()(image.bfloat16(), label).isfinite().all()
    assert network.double()(image.double(), label).dtype == torch.float64
