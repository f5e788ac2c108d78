"""Depthwise convolutions against torch's own in float64, values and all derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lit_models.networks import depthwise
from lit_models.networks.depthwise import depthwise_conv2d, weight_gradient
from tests.support.fixtures import Patch

CASES = [
    (size, kernel, stride, dilation) for size in (8, 7) for kernel in (3, 5) for stride in (1, 2) for dilation in (1, 2)
]


def plain(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """torch's, in contiguous order."""
    padding = dilation * (weight.shape[-1] // 2)
    return functional.conv2d(x.contiguous(), weight, None, stride, padding, dilation, len(weight))


def inputs(size: int, kernel: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size + 2, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)


@pytest.fixture(params=[True, False], ids=["of others", "torch's"], autouse=True)
def gradients(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    """Both ways to the gradients in float64, which is more than bfloat16 to compare with."""
    least = {torch.float64: 0} if request.param else {}
    monkeypatch.setattr(depthwise, "KERNELS", depthwise.KERNELS | least)
    monkeypatch.setattr(depthwise, "INPUTS", depthwise.INPUTS | least.keys())


@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), CASES)
def test_values_and_derivatives(size: int, kernel: int, stride: int, dilation: int) -> None:
    x, weight = inputs(size, kernel)
    expected = plain(x, weight, stride, dilation)
    found = depthwise_conv2d(x, weight, stride, dilation)
    assert torch.allclose(found, expected, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(depthwise_conv2d(x, weight, stride, dilation), expected, atol=1e-12)
    towards = torch.randn_like(expected)
    ours, theirs = (
        torch.autograd.grad((value * towards).sum() + value.pow(3).sum(), (x, weight), create_graph=True)
        for value in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    # Differentiated again, with respect to both.
    ours, theirs = (
        torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in gradients), (x, weight))
        for gradients in (ours, theirs)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-7)


@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), CASES)
def test_forward_mode_and_back(size: int, kernel: int, stride: int, dilation: int) -> None:
    """The derivative along a direction, and its gradient: what the second order of DARTS needs."""
    x, weight = inputs(size, kernel)
    factor = torch.ones(3, 1, 1, dtype=torch.float64, requires_grad=True)
    directions = (torch.randn_like(x), torch.randn_like(weight))
    found = []
    for function in (depthwise_conv2d, plain):
        _, slope = torch.func.jvp(
            lambda x, w: function(function(x * factor, w, stride, dilation).sin(), w, 1, 1).pow(2).sum(),  # noqa: B023
            (x.detach(), weight.detach()),
            directions,
        )
        found.append((slope.detach(), *torch.autograd.grad(slope, factor)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_kernel_gradients_are_exact_to_rounding(kernel: int, stride: int, dtype: torch.dtype) -> None:
    """Against sums over pixels, one for each place of the kernel."""
    torch.manual_seed(0)
    x, gradient = (
        torch.randn(20, 16, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
        for size in (32, 32 // stride)
    )
    found = weight_gradient(x, gradient, kernel, stride)
    padded = functional.pad(x.double(), (kernel // 2,) * 4)
    expected = torch.empty(16, 1, kernel, kernel, dtype=torch.float64)
    for row in range(kernel):
        for column in range(kernel):
            seen = padded[..., row : row + 32 : stride, column : column + 32 : stride]
            expected[:, 0, row, column] = (seen * gradient.double()).sum((0, 2, 3))
    error = float((found - expected).norm() / expected.norm())
    assert error < (1e-5 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(
    ("dtype", "kernel", "stride", "learns", "replaced"),
    [
        (torch.float32, 5, 1, True, True),
        (torch.float32, 5, 1, True, False),
        (torch.float32, 5, 2, False, False),
        (torch.float32, 3, 2, True, False),
        (torch.bfloat16, 5, 1, True, True),
        (torch.bfloat16, 5, 1, False, False),
        (torch.bfloat16, 5, 2, False, True),
        (torch.bfloat16, 3, 1, True, False),
    ],
)
def test_only_slow_gradients_are_replaced(
    dtype: torch.dtype, kernel: int, stride: int, learns: bool, replaced: bool, monkeypatch: Patch
) -> None:
    """In float32 those of many numbers."""
    monkeypatch.setattr(depthwise, "KERNELS", {torch.float32: 500 if replaced else 1000, torch.bfloat16: 0})
    monkeypatch.setattr(depthwise, "INPUTS", {torch.bfloat16})
    x, weight = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(4, 1, kernel, kernel, requires_grad=learns)
    found = depthwise_conv2d(x.to(dtype), weight.to(dtype), stride)
    assert ("_Depthwise" in type(found.grad_fn).__name__) == replaced


def test_autocast() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 32, 32, requires_grad=True), torch.randn(4, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise_conv2d(x, weight, 1, 2)
    assert found.dtype == torch.bfloat16
    ours = torch.autograd.grad(found.float().sin().sum(), (x, weight))
    theirs = torch.autograd.grad(plain(x, weight, 1, 2).sin().sum(), (x, weight))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 0.03
