"""Batch normalization that can be differentiated along a direction, and then again.

torch's own (2.14) can't: its derivative along a direction takes the batch's mean and variance for constants when it is
differentiated in turn, and so gives wrong numbers without a word. And its second derivatives, which this one replaces
by a formula, take some thirty passes over the images.

For a channel of n numbers x with mean m(x) and inverse deviation s, and x̂ = s (x − m(x)), the derivative along v is

    J(v) = s (v − m(v) − x̂ m(x̂ v)),

a symmetric function: the backward pass is the same. Its derivative in turn is that of the number ⟨u, J(v)⟩ for the
gradient u of J(v):

    with respect to v:   J(u)
    with respect to x:   −s m(x̂ v) J(u) − s m(x̂ u) J(v) − s x̂ m(u J(v)).
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

EPSILON = 1e-5


def batch_norm(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """Brings each channel of a batch to mean 0 and variance 1, and multiplies it by a factor.

    Same as ``torch.nn.functional.batch_norm(x, None, None, factor, training=True)``, but for the above. It can't be
    compiled.

    Args:
        x: ``(B, C, H, W)``.
        factor: ``(C,)``; 1 if None. It must not depend on what is moved along the direction.
    """
    return cast(Tensor, _BatchNorm.apply(x, factor)[0])


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, factor, None, None, None, True, 0.0, EPSILON)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, mean, inverse_std = output
        ctx.mark_non_differentiable(mean, inverse_std)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, mean, inverse_std)
        ctx.save_for_forward(*inputs, mean, inverse_std)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x, factor, mean, inverse_std = ctx.saved_tensors
        to_x, to_factor = derivative(gradient, x, factor, mean, inverse_std)[:2]
        return to_x, None if factor is None else to_factor

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, factor_tangent: Tensor | None) -> tuple[Tensor, None, None]:
        if factor_tangent is not None:
            raise ValueError("The factor of batch_norm must not move along the direction.")
        return cast(Tensor, _Along.apply(tangent, *ctx.saved_tensors)[0]), None, None


class _Along(torch.autograd.Function):
    """J(v) times the factor; J(v) itself, where there is one; and for each channel the sum of x̂ v."""

    @staticmethod
    def forward(
        tangent: Tensor, x: Tensor, factor: Tensor | None, mean: Tensor, inverse_std: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        along, with_tangent = derivative(tangent, x, None, mean, inverse_std)[:2]
        if factor is None:
            return along, along.new_empty(0), with_tangent
        return along * factor[:, None, None], along, with_tangent

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        scaled, along, with_tangent = output
        ctx.mark_non_differentiable(along, with_tangent)
        ctx.set_materialize_grads(False)
        _, x, factor, mean, inverse_std = inputs
        ctx.save_for_backward(scaled if factor is None else along, with_tangent, x, factor, mean, inverse_std)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        along, with_tangent, x, factor, mean, s = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        to_tangent, with_gradient = derivative(gradient, x, factor, mean, s)[:2]
        to_factor = (gradient * along).sum((0, 2, 3))
        scale = 1 if factor is None else factor
        slope = -s.pow(2) * scale * to_factor / count  # s x̂ is s² (x − mean)
        to_x = torch.addcmul((-slope * mean)[:, None, None], x, slope[:, None, None])
        to_x.addcmul_(to_tangent, (-s * with_tangent / count)[:, None, None])
        to_x.addcmul_(along, (-s * scale * with_gradient / count)[:, None, None])
        return to_tangent, to_x, None if factor is None else to_factor, None, None


def derivative(
    vector: Tensor, x: Tensor, factor: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """J of a vector times the factor; and for each channel the sums of x̂ times the vector and of the vector.

    Args:
        vector: Shaped like ``x``.
        x: ``(B, C, H, W)``.
        factor: ``(C,)``; 1 if None.
        mean: The batch's, ``(C,)``.
        inverse_std: Inverse of the batch's standard deviation, ``(C,)``.
    """
    return torch.ops.aten.native_batch_norm_backward(
        vector, x, factor, None, None, mean, inverse_std, True, EPSILON, [True, True, True]
    )
