"""Depthwise convolution whose gradients are right, and fast, on a CPU.

The convolutions keep the size of their input, or halve it, and have an odd kernel and no bias. They compute what
``torch.nn.functional.conv2d`` does. Inside, some gradients are made of others, because of torch 2.14.1's oneDNN 3.12:

1. In channels-last order and bfloat16, its gradient of a dilated depthwise kernel is uninitialized memory (at 31x31
   and 32x32; not at 16x16). A convolution of dilation 2 sees every other pixel only. On an input that is rearranged
   into its four grids of every other pixel, it is an ordinary convolution.
2. Its gradient of a kernel of more than 3 columns is slow, and so is that of a padded one at 4x4 pixels. A 5x5 kernel's
   is made of two of 5x3, the first three columns and the last three, on padded inputs: 1.3 to 5 times as fast in
   float32, 7 to 15 times in bfloat16.
3. In bfloat16, its gradient of the input at stride 2 is slow. It is made by a convolution of stride 1 with the flipped
   kernel, of gradients between which zeros are put: 14 to 60 times as fast.

Times: 16 images of 16 to 256 channels, 4x4 to 32x32, one thread of an AMD EPYC with AVX512-BF16. A step of a DARTS
search in float32 takes 0.95 of the time with 16 channels and 8 cells; with 4 channels and 4 cells, nothing is gained.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

KERNELS = {torch.float32: 2**18, torch.bfloat16: 0}
"""By type, the input must have more numbers than this for a 5x5 kernel's gradient to be made of two others. (With less
to compute in float32, starting them takes as long as they save.)"""
INPUTS = {torch.bfloat16}
"""Types in which the input's gradient at stride 2 is made by a convolution of stride 1."""


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
        slow_kernel = weight.shape[-1] == 5 and weight.requires_grad and x.numel() > KERNELS.get(x.dtype, math.inf)
        slow_input = stride == 2 and x.dtype in INPUTS
        if (slow_kernel or slow_input) and dilation == 1 and not torch.compiler.is_compiling():
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
    if stride == 1 or x.dtype not in INPUTS:
        return _gradients(x, gradient, weight, stride, weight.shape[-1] // 2, [True, False, False])[0]
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
    if size == 3 or x.numel() <= KERNELS.get(x.dtype, math.inf):
        kernels = x.new_empty(x.shape[1], 1, size, size)
        return _gradients(x, gradient, kernels, stride, size // 2, [False, True, False])[1]
    kernels = x.new_empty(x.shape[1], 1, 5, 3)
    # Pixels that the kernel's five rows meet, and any three of its columns, at the output's first to last pixel.
    rows, columns = (stride * (pixels - 1) + met for pixels, met in zip(gradient.shape[-2:], (5, 3), strict=True))
    height, width = x.shape[-2:]
    first, last = (
        # Negative padding cuts pixels off.
        functional.pad(x, (before, columns - width - before, 2, rows - height - 2))
        for before in (2, 0)
    )
    left, right = (_gradients(seen, gradient, kernels, stride, 0, [False, True, False])[1] for seen in (first, last))
    return torch.cat((left, right[..., 1:]), 3)


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
