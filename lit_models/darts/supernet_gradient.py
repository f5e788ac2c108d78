"""The hypergradient (:mod:`lit_models.darts.hypergradient`) of a supernet on a batch of both halves of the images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

from datamodules import LabeledImages, SearchBatch
from lit_models.darts.hypergradient import (
    Hypergradient,
    LossFunction,
    Tensors,
    drift_of,
    exact_product,
    finite_difference,
    first_order,
    full_precision,
    second_order,
)
from lit_models.darts.supernet import Supernet, statistics_kept
from lit_models.support.ranks import means_over_ranks


def supernet_hypergradient(
    supernet: Supernet, alphas: Sequence[Tensor], batch: SearchBatch, optimizer: Optimizer | None, exact: bool
) -> Hypergradient:
    """The gradient of α on a batch, the mean over all processes. The running means of normalization stay.

    Args:
        supernet: The network, with the weights w.
        alphas: α of the normal and of the reduction cells.
        batch: Images of both halves.
        optimizer: The optimizer of w, whose next step second order anticipates; None for first order.
        exact: Whether the second-order term is computed exactly, not by finite differences.
    """
    names, parameters = zip(*supernet.named_parameters(), strict=True)

    def loss_on(images: LabeledImages) -> LossFunction:
        def loss(weights: Tensors, alphas: Tensors) -> Tensor:
            values = dict(zip(names, weights, strict=True))
            logits = functional_call(supernet, values, (images.image, *alphas))
            return functional.cross_entropy(logits.float(), images.label)

        return loss

    def mixed_product(*arguments: Any) -> Tensors:
        # Without autocast, in which ± ε would be lost.
        device = parameters[0].device
        with full_precision(device), statistics_kept(supernet, twice_differentiable=exact):
            return exact_product(*arguments) if exact else finite_difference(*arguments)

    with statistics_kept(supernet):
        if optimizer is None:
            return first_order(loss_on(batch.val), parameters, tuple(alphas), means_over_ranks)
        return second_order(
            loss_on(batch.train),
            loss_on(batch.val),
            parameters,
            tuple(alphas),
            optimizer.param_groups[0]["lr"],
            drift_of(optimizer, parameters),
            mixed_product,
            means_over_ranks,
        )
