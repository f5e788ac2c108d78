"""Depthwise convolution whose gradients are right, and fast in bfloat16, on a CPU.

The convolutions keep the size of their input, or halve it, and have an odd kernel and no bias. They compute what
``torch.nn.functional.conv2d`` does. Inside, some gradients are made of others, because of torch 2.14.1's oneDNN 3.12:

1. In channels-last order and bfloat16, its gradient of a dilated depthwise kernel is uninitialized memory (at 31x31
   and 32x32; not at 16x16). A convolution of dilation 2 sees every other pixel only. On an input that is rearranged
   into its four grids of every other pixel, it is an ordinary convolution.
2. In bfloat16, its gradient of a 5x5 kernel is slow. At stride 1 it is made of four windows of 3x3, and at stride 2 of
   one 3x3 kernel for each of the four grids: 3 to 11 times as fast.
3. In bfloat16, its gradient of the input at stride 2 is slow. It is made by a convolution of stride 1 with the flipped
   kernel, of gradients between which zeros are put: 14 to 60 times as fast.

Times: 16 images of 16 to 64 channels, 16x16 and 32x32, one thread of an AMD EPYC with AVX512-BF16. In float32, windows
are up to 2.2 times as fast by themselves, but a step of a DARTS search takes 1.05 times as long with them.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

DTYPES = {torch.bfloat16}
"""Types in which gradients are made of others."""


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """``(B, C, H, W)`` to the same, or to half of the size.

    Args:
        x: The input.
        weight: ``(C, 1, K, K)``, K 3 or 5.
        stride: 1 or 2.
        dilation: 1 or 2.
    """
    if x.device.type == "cpu" and torch.is_grad_enabled():
        if dilation == 2 and weight.requires_grad:
            return _dilated(x, weight, stride)
        if torch.is_autocast_enabled("cpu"):  # which doesn't reach into the function below
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        slow = stride == 2 or (weight.shape[-1] == 5 and weight.requires_grad)
        if slow and dilation == 1 and x.dtype in DTYPES and not torch.compiler.is_compiling():
            return cast(Tensor, _Depthwise.apply(x, weight, stride))
    return functional.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation, len(weight))


def _dilated(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A convolution of dilation 2 by ordinary ones on grids of every other pixel."""
    if stride == 2:
        return depthwise_conv2d(x[..., ::2, ::2], weight)
    height, width = x.shape[-2:]
    return from_grids(depthwise_conv2d(to_grids(_even(x)), weight))[..., :height, :width]


def _even(x: Tensor) -> Tensor:
    """The images with a row and a column of zeros more where their number is odd."""
    height, width = x.shape[-2:]
    return functional.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


class _Depthwise(torch.autograd.Function):
    """The convolution without dilation; its derivatives backwards and forwards can be differentiated in turn."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, ctx.stride = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x = input_gradient(x, gradient, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        size = weight.shape[-1]
        return to_x, weight_gradient(x, gradient, size, ctx.stride) if ctx.needs_input_grad[1] else None, None

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor, weight_tangent: Tensor, _: None) -> Tensor:
        x, weight = ctx.saved_tensors
        return depthwise_conv2d(x_tangent, weight, ctx.stride) + depthwise_conv2d(x, weight_tangent, ctx.stride)


def input_gradient(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Gradient of the input of a depthwise convolution.

    Args:
        x: The input, of which only the shape counts.
        gradient: The gradient of the output.
        weight: The kernels.
        stride: 1 or 2.
    """
    if stride == 1:
        return _gradients(x, gradient, weight, 1, weight.shape[-1] // 2, [True, False, False])[0]
    spread = torch.zeros_like(x)
    spread[..., ::2, ::2] = gradient
    return depthwise_conv2d(spread, weight.flip(2, 3))


def weight_gradient(x: Tensor, gradient: Tensor, size: int, stride: int) -> Tensor:
    """Gradient of the kernels of a depthwise convolution, ``(C, 1, size, size)``.

    Args:
        x: The input.
        gradient: The gradient of the output.
        size: Side of the kernels: 3 or 5.
        stride: 1 or 2.
    """
    if size == 3:
        return _of_3x3(x, gradient, stride, padding=1)
    result = x.new_empty(x.shape[1], 1, 5, 5)
    height, width = gradient.shape[-2:]
    padded = functional.pad(x, (2, 2, 2, 2)) if stride == 1 else _even(x)
    for i in range(2):
        for j in range(2):
            if stride == 1:  # windows that begin at rows and columns 0 and 2 of the kernel
                window = padded[..., 2 * i : 2 * i + height + 2, 2 * j : 2 * j + width + 2]
                result[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = _of_3x3(window, gradient, 1, padding=0)
            else:  # the grid of rows i, i + 2, …, which meet rows i, i + 2, … of the kernel, and of such columns
                grid = _of_3x3(padded[..., i::2, j::2], gradient, 1, padding=1)
                result[..., i::2, j::2] = grid[..., : 3 - i, : 3 - j]
    return result


def _of_3x3(x: Tensor, gradient: Tensor, stride: int, padding: int) -> Tensor:
    """torch's gradient of 3x3 kernels."""
    kernels = x.new_empty(x.shape[1], 1, 3, 3)
    return _gradients(x, gradient, kernels, stride, padding, [False, True, False])[1]


def _gradients(
    x: Tensor, gradient: Tensor, weight: Tensor, stride: int, padding: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """torch's gradients of the input, of the kernels, and of no bias."""
    strides, paddings = [stride] * 2, [padding] * 2
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [0], strides, paddings, [1, 1], False, [0, 0], len(weight), wanted
    )


def to_grids(x: Tensor) -> Tensor:
    """Images as their four grids of every other pixel: ``(B, C, H, W)`` to ``(4 B, C, H / 2, W / 2)``."""
    batch, channels, height, width = x.shape
    blocks = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.permute(2, 4, 0, 1, 3, 5).reshape(4 * batch, height // 2, width // 2, channels).permute(0, 3, 1, 2)


def from_grids(x: Tensor) -> Tensor:
    """The reverse of :func:`to_grids`."""
    batch, channels, height, width = x.shape
    grids = x.permute(0, 2, 3, 1).reshape(2, 2, batch // 4, height, width, channels)
    return grids.permute(2, 3, 0, 4, 1, 5).reshape(batch // 4, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
