"""Prototypical Networks' distances and loss (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175)."""

import torch
from torch import Tensor
from torch.nn import functional


def squared_euclidean(query: Tensor, prototype: Tensor) -> Tensor:
    """``d(z, c) = ‖z − c‖²``, the distance of the paper (section 2.6), of every query to every prototype.

    Args:
        query: ``(..., M, D)``.
        prototype: ``(..., N, D)``.

    Returns:
        ``(..., M, N)``, not negative.
    """
    # ‖z − c‖² = ‖z‖² − 2 z·c + ‖c‖² is one matrix product, but loses digits where the norms are much larger than the
    # distance. Distances don't depend on the origin, so that it may be moved to where the norms are small.
    origin = prototype.detach().mean(-2, keepdim=True)
    query, prototype = query - origin, prototype - origin
    norms = query.square().sum(-1, keepdim=True) + prototype.square().sum(-1).unsqueeze(-2)
    return (norms - 2 * query @ prototype.mT).clamp(min=0)


def cosine(query: Tensor, prototype: Tensor, scale: float = 1.0) -> Tensor:
    """``d(z, c) = scale · (1 − z·c / (‖z‖ ‖c‖))``, in ``[0, 2 · scale]``, of every query to every prototype.

    Args:
        query: ``(..., M, D)``.
        prototype: ``(..., N, D)``.
        scale: How much the softmax over the classes makes of a difference. With 1, a query that points at its own
            prototype and at right angles to four others has a probability of only 0.40.

    Returns:
        ``(..., M, N)``.
    """
    return scale * (1 - functional.normalize(query, dim=-1) @ functional.normalize(prototype, dim=-1).mT)


def prototypical_loss(distance: Tensor) -> Tensor:
    """Cross-entropy of the softmax over negative distances, ``−log p(y = k | z)`` with ``p ∝ exp(−d(z, c_k))`` (eq. 2),
    averaged over the queries.

    Args:
        distance: ``(E, N, Q, N)``: of each of the Q queries of each of the N classes to the N prototypes, in each of
            E episodes.

    Returns:
        The mean, a scalar.
    """
    return -(-distance).log_softmax(-1).diagonal(dim1=1, dim2=3).mean()


def episode_accuracy(distance: Tensor) -> Tensor:
    """The share of an episode's queries whose own prototype is the nearest.

    Args:
        distance: ``(E, N, Q, N)``, as for :func:`prototypical_loss`.

    Returns:
        ``(E,)``.
    """
    own = torch.arange(distance.shape[1], device=distance.device)[:, None]
    return (distance.argmin(-1) == own).float().mean((1, 2))
