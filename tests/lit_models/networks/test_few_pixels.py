"""Convolutions as matrix products against torch's in float64, values and derivatives."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.networks import few_pixels
from lit_models.networks.few_pixels import DoublingConv2d, HalvingConv2d
from tests.support.fixtures import Patch

KINDS: dict[str, tuple[type[Any], Any]] = {
    "halving": (HalvingConv2d, lambda x, weight: functional.conv2d(x, weight, None, 2, 1)),
    "doubling": (DoublingConv2d, lambda x, weight: functional.conv_transpose2d(x, weight, None, 2, 1)),
}
SIZES = {"halving": [(2, 2), (4, 8)], "doubling": [(1, 1), (2, 4)]}
CASES = [(kind, size) for kind in KINDS for size in SIZES[kind]]


@pytest.fixture
def any_layer(monkeypatch: Patch) -> list[str]:
    """Matrix products for few weights and in float64, too; returns the list of those that were computed."""
    monkeypatch.setattr(few_pixels, "WEIGHTS", 0)
    computed: list[str] = []
    monkeypatch.setattr(few_pixels, "PIXELS", dict.fromkeys((torch.float64, torch.float32, torch.bfloat16), (100, 100)))
    true = few_pixels.weight_gradient

    def noted(large: Tensor, small: Tensor, weight: Tensor) -> Tensor:
        computed.append(str(large.dtype))
        gradient = true(large, small, weight)
        assert gradient.stride() == weight.stride(), "no copy into the weights' order"
        return gradient

    monkeypatch.setattr(few_pixels, "weight_gradient", noted)
    return computed


def made(kind: str, size: tuple[int, int], order: torch.memory_format, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer = KINDS[kind][0](3, 5, bias=False).to(memory_format=order, dtype=dtype)
    return layer, torch.randn(2, 3, *size, dtype=dtype).contiguous(memory_format=order).requires_grad_()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "size"), CASES)
def test_values_and_derivatives(
    kind: str, size: tuple[int, int], order: torch.memory_format, any_layer: list[str]
) -> None:
    layer, x = made(kind, size, order, torch.float64)
    found, expected = layer(x), KINDS[kind][1](x, layer.weight)
    assert torch.allclose(found, expected, atol=1e-12)
    towards = torch.randn_like(expected)
    firsts = [
        torch.autograd.grad((value * towards).sum() + value.pow(3).sum(), (x, layer.weight), create_graph=True)
        for value in (found, expected)
    ]
    assert any_layer == ["torch.float64"]
    seconds = [
        torch.autograd.grad(sum(one.pow(2).sum() for one in first), (x, layer.weight))  # type: ignore[arg-type]
        for first in firsts
    ]
    for ours, theirs in (firsts, seconds):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("kind", "size"), CASES)
def test_exact_to_rounding(kind: str, size: tuple[int, int], autocast: bool, any_layer: list[str]) -> None:
    layer, x = made(kind, size, torch.channels_last, torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = layer(x)
    assert found.dtype == (torch.bfloat16 if autocast else torch.float32)
    expected = KINDS[kind][1](x.double(), layer.weight.double())
    towards = torch.randn_like(expected)
    ours, theirs = (
        (value, *torch.autograd.grad((value.double() * towards).sum(), (x, layer.weight)))
        for value in (found, expected)
    )
    assert any_layer == ["torch.bfloat16" if autocast else "torch.float32"]
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).norm() / other.norm()) < (0.01 if autocast else 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_to_torch(kind: str, any_layer: list[str]) -> None:
    """Many pixels, layers with a bias, and whatever isn't trained."""
    layer, x = made(kind, (4, 4), torch.channels_last, torch.float32)
    with torch.no_grad():
        assert torch.equal(layer(x), KINDS[kind][1](x, layer.weight))
    many = torch.randn(40, 3, 4, 4)
    assert torch.equal(layer(many), KINDS[kind][1](many, layer.weight))
    layer(many).sum().backward()
    with_bias = KINDS[kind][0](3, 5)
    with_bias(x).sum().backward()
    assert with_bias.bias.grad is not None
    assert any_layer == []


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "size", "fits", "fits_bf16"),
    [
        (HalvingConv2d, 512, 512, 8, True, True),
        (HalvingConv2d, 512, 512, 16, False, True),
        (DoublingConv2d, 512, 512, 4, True, True),
        (DoublingConv2d, 512, 512, 8, False, True),
        (DoublingConv2d, 1024, 512, 8, True, True),
        (DoublingConv2d, 1024, 512, 16, False, True),
        (HalvingConv2d, 128, 256, 4, False, False),
    ],
)
def test_which_layers_of_pix2pix_are_products(
    kind: type[Any], inputs: int, outputs: int, size: int, fits: bool, fits_bf16: bool
) -> None:
    """By their input's size: 4x4 pixels of the smaller image in float32, 8x8 with many weights, 16x16 in bfloat16."""
    layer, x = kind(inputs, outputs, bias=False), torch.randn(1, inputs, size, size)
    for autocast, expected in ((False, fits), (True, fits_bf16)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            product = type(layer(x).grad_fn).__name__ in ("_HalvingBackward", "_DoublingBackward")
        assert product == expected
