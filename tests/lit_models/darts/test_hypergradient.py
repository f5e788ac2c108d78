"""The gradient of α against automatic differentiation through the unrolled step, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from torch.optim import SGD

from lit_models.darts.batch_norm import batch_norm
from lit_models.darts.hypergradient import (
    LossFunction,
    Tensors,
    drift_of,
    exact_product,
    finite_difference,
    first_order,
    second_order,
)
from lit_models.darts.supernet import Supernet, statistics_kept

Activation = Callable[[Tensor], Tensor]


def small_losses(
    activation: Activation, pool: Callable[..., Tensor]
) -> tuple[LossFunction, LossFunction, Tensors, Tensors]:
    """Two layers of mixed operations (two convolutions and a pooling) with batch normalization, and a classifier."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)

    def loss_on(image: Tensor, label: Tensor) -> LossFunction:
        def loss(weights: Tensors, alphas: Tensors) -> Tensor:
            *kernels, classifier = weights
            state = image
            for layer, alpha in enumerate(alphas):
                first, second = kernels[2 * layer : 2 * layer + 2]
                share = alpha.softmax(0)
                candidates = (
                    functional.conv2d(activation(state), first, padding=1),
                    functional.conv2d(activation(state), second, padding=2, dilation=2),
                    pool(state, 3, 1, 1),
                )
                mixed = sum(weight * candidate for weight, candidate in zip(share, candidates, strict=True))
                state = batch_norm(mixed)
            return functional.cross_entropy(activation(state).mean((2, 3)) @ classifier, label)

        return loss

    batches = [(random(6, 3, 6, 6), torch.randint(4, (6,), generator=generator)) for _ in range(2)]
    weights = (*(random(3, 3, 3, 3, scale=0.3) for _ in range(4)), random(3, 4))
    alphas = (random(3), random(3))
    train, val = (loss_on(*batch) for batch in batches)
    return train, val, weights, alphas


def smooth() -> tuple[LossFunction, LossFunction, Tensors, Tensors]:
    return small_losses(functional.softplus, functional.avg_pool2d)


def kinked() -> tuple[LossFunction, LossFunction, Tensors, Tensors]:
    return small_losses(functional.relu, functional.max_pool2d)


def unrolled_by_autograd(
    loss_train: LossFunction,
    loss_val: LossFunction,
    weights: Tensors,
    alphas: Tensors,
    rate: float,
    drift: Tensors | None = None,
) -> Tensors:
    """∇_α L_val(w − ξ (∇_w L_train(w, α) + d), α)."""
    weights = tuple(weight.detach().requires_grad_() for weight in weights)
    alphas = tuple(alpha.detach().requires_grad_() for alpha in alphas)
    step = torch.autograd.grad(loss_train(weights, alphas), weights, create_graph=True)
    drift = drift or tuple(torch.zeros_like(weight) for weight in weights)
    moved = tuple(w - rate * (g + d) for w, g, d in zip(weights, step, drift, strict=True))
    return torch.autograd.grad(loss_val(moved, alphas), alphas)


def relative_error(found: Tensors, expected: Tensors) -> float:
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat([b.flatten() for b in expected]).norm())


@pytest.mark.parametrize(("product", "tolerance"), [(exact_product, 1e-11), (finite_difference, 1e-4)])
def test_second_order_on_a_smooth_network(product: Any, tolerance: float) -> None:
    loss_train, loss_val, weights, alphas = smooth()
    drift = tuple(torch.randn_like(weight) for weight in weights)
    for extra in (None, drift):
        expected = unrolled_by_autograd(loss_train, loss_val, weights, alphas, 0.5, extra)
        found = second_order(loss_train, loss_val, weights, alphas, 0.5, extra, product)
        assert relative_error(found.gradient, expected) < tolerance
        plain = first_order(loss_val, weights, alphas)
        assert relative_error(plain.gradient, expected) > 0.05, "the second order makes a difference here"


@pytest.mark.parametrize("losses", [smooth, kinked])
def test_the_exact_product_by_differentiating_twice(losses: Any) -> None:
    loss, _, weights, alphas = losses()
    vector = tuple(torch.randn_like(weight) for weight in weights)
    found = exact_product(loss, weights, alphas, vector)
    variables = tuple(tensor.clone().requires_grad_() for tensor in (*weights, *alphas))
    value = loss(variables[: len(weights)], variables[len(weights) :])
    gradient = torch.autograd.grad(value, variables[: len(weights)], create_graph=True)
    slope = sum((g * v).sum() for g, v in zip(gradient, vector, strict=True))
    expected = torch.autograd.grad(slope, variables[len(weights) :])
    assert relative_error(found, expected) < 1e-11


def test_second_order_on_a_network_with_kinks_is_exact_by_the_exact_product_only() -> None:
    loss_train, loss_val, weights, alphas = kinked()
    expected = unrolled_by_autograd(loss_train, loss_val, weights, alphas, 0.5)
    exact, rough = (
        second_order(loss_train, loss_val, weights, alphas, 0.5, mixed_product=product)
        for product in (exact_product, finite_difference)
    )
    assert relative_error(exact.gradient, expected) < 1e-11
    assert relative_error(rough.gradient, expected) > 1e-5


def test_second_order_on_the_supernet_itself() -> None:
    torch.manual_seed(0)
    network = Supernet(1, 3, 2, 3).double()
    names, weights = zip(*network.named_parameters(), strict=True)
    alphas = tuple(torch.randn(14, 8, dtype=torch.float64) for _ in range(2))
    label = torch.tensor([0, 1, 2])

    def loss_on(image: Tensor) -> LossFunction:
        def loss(weights: Tensors, alphas: Tensors) -> Tensor:
            return functional.cross_entropy(
                functional_call(network, dict(zip(names, weights, strict=True)), (image, *alphas)), label
            )

        return loss

    train, val = (loss_on(image) for image in torch.randn(2, 3, 1, 8, 8, dtype=torch.float64))
    with statistics_kept(network):
        expected = unrolled_by_autograd(train, val, weights, alphas, 0.1)
    with statistics_kept(network, twice_differentiable=True):
        found = second_order(train, val, weights, alphas, 0.1)
    assert relative_error(found.gradient, expected) < 1e-9
    assert float(found.loss) > 0


def test_the_finite_difference_by_hand() -> None:
    """On L = α w³ at w = 2 along v = 1: ((2 + ε)³ − (2 − ε)³) / 2ε = 12 + ε², with ε = 0.01 / |v|."""
    weights, alphas = (torch.tensor([2.0], dtype=torch.float64),), (torch.ones(1, dtype=torch.float64),)

    def loss(weights: Tensors, alphas: Tensors) -> Tensor:
        return (alphas[0] * weights[0] ** 3).sum()

    (found,) = finite_difference(loss, weights, alphas, (torch.tensor([1.0], dtype=torch.float64),))
    assert float(found) == pytest.approx(12 + 1e-4, abs=1e-9)
    (found,) = finite_difference(loss, weights, alphas, (torch.tensor([4.0], dtype=torch.float64),))
    assert float(found) == pytest.approx(4 * (12 + 1e-4), abs=1e-9), "how far w moves doesn't depend on the size of v"


def test_nothing_is_left_behind() -> None:
    loss_train, loss_val, weights, alphas = smooth()
    weights = tuple(weight.requires_grad_() for weight in weights)
    alphas = tuple(alpha.requires_grad_() for alpha in alphas)
    before = [tensor.clone() for tensor in (*weights, *alphas)]
    found = [
        first_order(loss_val, weights, alphas),
        *(
            second_order(loss_train, loss_val, weights, alphas, 0.1, mixed_product=product)
            for product in (exact_product, finite_difference)
        ),
    ]
    for tensor, was in zip((*weights, *alphas), before, strict=True):
        assert torch.equal(tensor, was)
        assert tensor.grad is None
    assert not any(gradient.requires_grad for one in found for gradient in one.gradient)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.0, 0.01), (0.9, 0.0)])
def test_the_drift_is_what_sgd_adds(momentum: float, weight_decay: float) -> None:
    torch.manual_seed(0)
    parameters = tuple(torch.randn(3, 2, requires_grad=True) for _ in range(2))
    optimizer = SGD(parameters, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(3):
        gradients = tuple(torch.randn_like(parameter) for parameter in parameters)
        drift = drift_of(optimizer, parameters)
        expected = [p.detach() - 0.1 * (g + d) for p, g, d in zip(parameters, gradients, drift, strict=True)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for parameter, value in zip(parameters, expected, strict=True):
            assert torch.allclose(parameter, value, atol=1e-6)
