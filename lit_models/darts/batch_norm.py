"""Batch normalization that can be differentiated along a direction, and then again.

torch's own (2.14) can't: its derivative along a direction takes the batch's mean and variance for constants when it is
differentiated in turn, and so gives wrong numbers without a word.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

EPSILON = 1e-5


def batch_norm(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """Brings each channel of a batch to mean 0 and variance 1, and multiplies it by a factor.

    Same as ``torch.nn.functional.batch_norm(x, None, None, factor, training=True)``, but for the above. It is a little
    slower, and can't be compiled.

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
        to_x, to_factor = _transposed(ctx, gradient, with_factor=True)
        return to_x, to_factor

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, factor_tangent: Tensor | None) -> tuple[Tensor, None, None]:
        if factor_tangent is not None:
            raise ValueError("The factor of batch_norm must not move along the direction.")
        # The Jacobian is symmetric, so that a backward pass is a forward one.
        return _transposed(ctx, tangent, with_factor=False)[0], None, None


def _transposed(ctx: Any, vector: Tensor, with_factor: bool) -> tuple[Tensor, Tensor | None]:
    x, factor, mean, inverse_std = ctx.saved_tensors
    wanted = [True, with_factor and factor is not None, False]
    to_x, to_factor, _ = torch.ops.aten.native_batch_norm_backward(
        vector, x, factor, None, None, mean, inverse_std, True, EPSILON, wanted
    )
    return to_x, to_factor if wanted[1] else None
