"""The gradient of α in DARTS: of what the validation loss becomes once the weights have adapted to α (Liu et al. 2019,
section 2.3).

All functions are pure. A loss is a function ``loss(weights, alphas)`` of two tuples of tensors, and returns a scalar.

The weights that are best for α can't be had at each step. Instead they take one step (eq. 6),

    w' = w − ξ (∇_w L_train(w, α) + d),

where d holds the other parts of the optimizer's step, which don't depend on α: weight decay, and momentum from earlier
steps. The chain rule then gives (eq. 7)

    ∇_α L_val(w', α)  −  ξ ∇²_{α,w} L_train(w, α) v,     v = ∇_{w'} L_val(w', α).

With ξ = 0 this is ∇_α L_val(w, α), the first-order approximation. The product of the mixed second derivative with v can
be had in two ways:

- by finite differences (eq. 8), (∇_α L_train(w + εv, α) − ∇_α L_train(w − εv, α)) / 2ε with ε = 0.01 / ‖v‖. That needs
  a loss that is smooth over this distance, which ReLU and max-pooling don't give, and arithmetic that is fine enough
  for it: neither bfloat16 nor the TF32 of GPUs is.
- exactly, as the derivative with respect to α of the scalar ⟨v, ∇_w L_train⟩. This scalar is the derivative of L_train
  along v, which one forward pass computes (forward-mode differentiation), so that a plain backward pass to α is all
  that is left; no backward pass has to be differentiated.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

Tensors = tuple[Tensor, ...]
LossFunction = Callable[[Tensors, Tensors], Tensor]


class Hypergradient(NamedTuple):
    """The gradient of α.

    Attributes:
        gradient: One tensor for each of α's.
        loss: The validation loss that it was taken of (at w' in second order), a scalar.
    """

    gradient: Tensors
    loss: Tensor


def identity(tensors: Tensors) -> Tensors:
    """Of one process, the mean over all processes."""
    return tensors


def first_order(
    loss_val: LossFunction, weights: Tensors, alphas: Tensors, average: Callable[[Tensors], Tensors] = identity
) -> Hypergradient:
    """∇_α L_val(w, α).

    Args:
        loss_val: L_val.
        weights: w.
        alphas: α.
        average: Puts in the place of gradients their means over all processes.
    """
    gradient, loss = gradient_of_alphas(loss_val, detached(weights), alphas)
    return Hypergradient(average(gradient), loss)


def finite_difference(
    loss: LossFunction, weights: Tensors, alphas: Tensors, vector: Tensors, radius: float = 0.01
) -> Tensors:
    """∇²_{α,w} L(w, α) v by central differences of ∇_α L (eq. 8).

    Args:
        loss: L.
        weights: w.
        alphas: α.
        vector: v, shaped like w.
        radius: How far w is moved along v in each direction, ε‖v‖.
    """
    epsilon = radius / torch.linalg.vector_norm(torch.stack(torch._foreach_norm(vector)))
    shift = torch._foreach_mul(vector, epsilon)
    above, _ = gradient_of_alphas(loss, tuple(torch._foreach_add(weights, shift)), alphas)
    below, _ = gradient_of_alphas(loss, tuple(torch._foreach_sub(weights, shift)), alphas)
    return tuple((high - low) / (2 * epsilon) for high, low in zip(above, below, strict=True))


def exact_product(loss: LossFunction, weights: Tensors, alphas: Tensors, vector: Tensors) -> Tensors:
    """∇²_{α,w} L(w, α) v by automatic differentiation: forwards along v, then backwards to α.

    Args:
        loss: L. In place of torch's batch normalization it must use :func:`lit_models.darts.batch_norm.batch_norm`.
        weights: w.
        alphas: α.
        vector: v, shaped like w.
    """
    alphas = tuple(alpha.requires_grad_() for alpha in detached(alphas))
    _, slope = cast(Tensors, torch.func.jvp(lambda *moving: loss(moving, alphas), detached(weights), detached(vector)))
    return torch.autograd.grad(slope, alphas)


def second_order(
    loss_train: LossFunction,
    loss_val: LossFunction,
    weights: Tensors,
    alphas: Tensors,
    learning_rate: float,
    drift: Tensors | None = None,
    mixed_product: Callable[[LossFunction, Tensors, Tensors, Tensors], Tensors] = exact_product,
    average: Callable[[Tensors], Tensors] = identity,
) -> Hypergradient:
    """∇_α L_val(w', α) − ξ ∇²_{α,w} L_train(w, α) v.

    Args:
        loss_train: L_train.
        loss_val: L_val.
        weights: w.
        alphas: α.
        learning_rate: ξ.
        drift: d; nothing if None.
        mixed_product: Computes the second term's ∇²_{α,w} L v: :func:`exact_product` or :func:`finite_difference`.
        average: Puts in the place of gradients their means over all processes.
    """
    weights, count = detached(weights), len(weights)
    variables = tuple(weight.requires_grad_() for weight in detached(weights))
    step = average(torch.autograd.grad(loss_train(variables, detached(alphas)), variables))
    if drift is not None:
        step = tuple(torch._foreach_add(step, drift))
    unrolled = tuple(weight.requires_grad_() for weight in torch._foreach_add(weights, step, alpha=-learning_rate))
    alphas = tuple(alpha.requires_grad_() for alpha in detached(alphas))
    loss = loss_val(unrolled, alphas)
    gradients = torch.autograd.grad(loss, (*unrolled, *alphas))
    direct, vector = gradients[count:], average(gradients[:count])
    implicit = mixed_product(loss_train, weights, alphas, vector)
    gradient = tuple(torch._foreach_add(direct, implicit, alpha=-learning_rate))
    return Hypergradient(average(gradient), loss.detach())


def gradient_of_alphas(loss: LossFunction, weights: Tensors, alphas: Tensors) -> tuple[Tensors, Tensor]:
    """∇_α L(w, α) and L(w, α); no time is spent on the gradient of w, which should be detached."""
    alphas = tuple(alpha.requires_grad_() for alpha in detached(alphas))
    value = loss(weights, alphas)
    return torch.autograd.grad(value, alphas), value.detach()


def detached(tensors: Tensors) -> Tensors:
    """The same values without their history."""
    return tuple(tensor.detach() for tensor in tensors)


def drift_of(optimizer: Optimizer, parameters: Tensors) -> Tensors:
    """What SGD will add to the gradient in its next step: weight decay, and momentum from earlier steps.

    Args:
        optimizer: An SGD of one group.
        parameters: Its parameters.
    """
    (group,) = optimizer.param_groups
    drift = torch._foreach_mul([parameter.detach() for parameter in parameters], group["weight_decay"])
    buffers = [optimizer.state[parameter].get("momentum_buffer") for parameter in parameters]
    if all(buffer is not None for buffer in buffers):
        torch._foreach_add_(drift, cast("list[Tensor]", buffers), alpha=group["momentum"])
    return tuple(drift)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within the block everything is computed in float32 proper, and nothing in compiled networks."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
