"""Convolutions of 4x4 that halve or double images of few pixels, as matrix products on a CPU.

They compute what torch's do. The innermost layers of a U-Net, of 512 channels and 1x1 to 16x16 pixels, have far more
weights than pixels, for which oneDNN's kernels are slow. The gradient of the weights is a product of the smaller
images' pixels and the larger ones' patches; so are the output of a halving layer and the gradient of a doubling
layer's input. The output of a doubling layer and the gradient of a halving layer's input are sums of overlapping
patches, each the product of a pixel and the weights.

Times with torch 2.14 on one thread of an AMD EPYC with AVX512-BF16: a training step of pix2pix's generator at 256x256
takes 295 ms instead of 328 ms in bfloat16 and 351 ms instead of 371 ms in float32; in channels-last order 316 ms
instead of 402 ms in bfloat16 and 378 ms instead of 445 ms in float32. That is without the sums of overlapping patches,
with which a step of both networks takes 0.40 s of CPU time instead of 0.44 s in bfloat16, and 0.64 s instead of 0.70 s
in float32 (a core shared with other programs).

In float32, forward and both gradients of the layers in contiguous order are, by pixels, 1.0 to 1.2 times as fast at 16,
0.98 to 1.1 at 32, and 0.85 to 0.91 at 64; with 1,024 to 512 channels, 1.7, 1.5 and 1.4 times, but 0.9 at 256.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = 2**20
"""Layers of fewer weights are left to torch."""
LARGE = 2**23
"""Weights from which on matrix products gain at more pixels in float32."""
PIXELS = {torch.bfloat16: (256, 256), torch.float32: (32, 64)}
"""By type, the most pixels of all smaller images of a batch: in layers of fewer weights than ``LARGE``, and in others.
More pixels and other types are left to torch."""
PRODUCTS = {torch.float32: 16}
"""By type, the most pixels of all smaller images for which a doubling layer's output, and the gradient of a halving
layer's input, are matrix products; all if none is given."""


def _fits(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, pixels: int) -> bool:
    """Whether matrix products are faster.

    Args:
        layer: The layer.
        x: Its input.
        pixels: Pixels of the smaller images of the batch.
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    weights = layer.weight.numel()
    return layer.bias is None and weights >= WEIGHTS and pixels <= PIXELS.get(dtype, (0, 0))[weights >= LARGE]


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """As autocast does, which doesn't reach into an ``autograd.Function``."""
    if not torch.is_autocast_enabled("cpu"):
        return x, weight
    dtype = torch.get_autocast_dtype("cpu")
    return x.to(dtype), weight.to(dtype)


class HalvingConv2d(nn.Conv2d):
    """A convolution of 4x4, stride 2 and padding 1.

    Args:
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        bias: Whether to add a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        even = input.shape[-2] % 2 == 0 and input.shape[-1] % 2 == 0
        if even and _fits(self, input, input.numel() // (4 * self.in_channels)):
            result: Tensor = _Halving.apply(*_cast(input, self.weight))
            return result
        return super().forward(input)


class DoublingConv2d(nn.ConvTranspose2d):
    """A transposed convolution of 4x4, stride 2 and padding 1.

    Args:
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        bias: Whether to add a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is None and _fits(self, input, input.numel() // self.in_channels):
            result: Tensor = _Doubling.apply(*_cast(input, self.weight))
            return result
        return super().forward(input, output_size)


class _Halving(torch.autograd.Function):
    """Its derivatives can be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return halved(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x = doubled(gradient, weight) if ctx.needs_input_grad[0] else None
        return to_x, weight_gradient(x, gradient, weight) if ctx.needs_input_grad[1] else None


class _Doubling(torch.autograd.Function):
    """Its derivatives can be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return doubled(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x = halved(gradient, weight) if ctx.needs_input_grad[0] else None
        return to_x, weight_gradient(gradient, x, weight) if ctx.needs_input_grad[1] else None


def halved(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution, ``(B, C, H, W)`` to ``(B, D, H / 2, W / 2)``, with weights ``(D, C, 4, 4)``."""
    batch, _, height, width = x.shape
    if weight.is_contiguous():
        columns = functional.unfold(x, 4, padding=1, stride=2)
        return (weight.flatten(1) @ columns).view(batch, len(weight), height // 2, width // 2)
    rows = patches(x) @ weight.permute(0, 2, 3, 1).flatten(1).t()
    return rows.view(batch, height // 2, width // 2, len(weight)).permute(0, 3, 1, 2)


def doubled(x: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution, ``(B, D, H, W)`` to ``(B, C, 2 H, 2 W)``, with weights ``(D, C, 4, 4)``."""
    batch, _, height, width = x.shape
    if batch * height * width > PRODUCTS.get(x.dtype, math.inf):
        return functional.conv_transpose2d(x, weight, None, 2, 1)
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    if weight.is_contiguous():
        columns = (rows @ weight.flatten(1)).view(batch, height * width, -1).transpose(1, 2)
        return functional.fold(columns, (2 * height, 2 * width), 4, padding=1, stride=2)
    channels = weight.shape[1]
    blocks = (rows @ weight.permute(0, 2, 3, 1).flatten(1)).view(batch, height, width, 2, 2, 2, 2, channels)
    padded = x.new_zeros(batch, 2 * height + 2, 2 * width + 2, channels)
    for i in range(2):  # the halves of a patch's rows, and of its columns: among themselves they don't overlap
        for j in range(2):
            half = blocks[:, :, :, i, :, j].transpose(2, 3).reshape(batch, 2 * height, 2 * width, channels)
            padded[:, 2 * i : 2 * (i + height), 2 * j : 2 * (j + width)] += half
    return padded[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def weight_gradient(large: Tensor, small: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weights, in their memory order.

    Args:
        large: The input of a convolution, or the gradient of a transposed one's output, ``(B, C, H, W)``.
        small: The gradient of its output, or the input, ``(B, D, H / 2, W / 2)``.
        weight: The weights, ``(D, C, 4, 4)``.
    """
    if weight.is_contiguous():
        columns = functional.unfold(large, 4, padding=1, stride=2).transpose(0, 1).flatten(1)
        return (small.transpose(0, 1).flatten(1) @ columns.t()).view(weight.shape)
    rows = small.permute(0, 2, 3, 1).flatten(0, 2)
    return (rows.t() @ patches(large)).view(len(weight), 4, 4, weight.shape[1]).permute(0, 3, 1, 2)


def patches(x: Tensor) -> Tensor:
    """The patch of 4x4 around each 2x2 pixels, ``(B, C, H, W)`` to ``(B H / 2 W / 2, 16 C)``; zeros at the border."""
    padded = functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    return padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
