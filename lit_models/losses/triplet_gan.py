"""Losses of the siamese-triplet GAN, on embeddings of real and generated images."""

import torch
from torch import Tensor

from lit_models.losses.precision import at_least_float32


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """``‖a − b‖²`` of each pair of embeddings, ``(N, D)`` and ``(N, D)`` to ``(N,)``, in float32."""
    return (at_least_float32(a) - at_least_float32(b)).square().sum(1)


def discriminator_triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, hinge: bool = True
) -> Tensor:
    """``L_D = E[max(0, ‖f(x) − f(y)‖² − ‖f(x) − f(G(z))‖² + α)]``: two real images shall be nearer to each other than a
    real and a generated one, by the margin α. (The triplet loss of Schroff, Kalenichenko & Philbin 2015, eq. 3, of an
    anchor and a positive that are real and a negative that is generated.)

    Args:
        anchor: ``(N, D)``, f(x).
        positive: ``(N, D)``, f(y).
        negative: ``(N, D)``, f(G(z)).
        margin: α.
        hinge: Whether a triplet that keeps the margin counts 0. Without, it counts what it is, which has no minimum.

    Returns:
        The mean, a scalar.
    """
    excess = squared_distance(anchor, positive) - squared_distance(anchor, negative) + margin
    return (torch.relu(excess) if hinge else excess).mean()


def generator_distance(anchor: Tensor, negative: Tensor) -> Tensor:
    """``L_G = E[‖f(x) − f(G(z))‖²]``: generated images shall be where real ones are.

    Args:
        anchor: ``(N, D)``, f(x).
        negative: ``(N, D)``, f(G(z)).

    Returns:
        The mean, a scalar.
    """
    return squared_distance(anchor, negative).mean()


def generator_norm(negative: Tensor) -> Tensor:
    """``E[‖f(G(z))‖²]``: how far from the origin, not from real images, generated ones are embedded.

    Args:
        negative: ``(N, D)``, f(G(z)).

    Returns:
        The mean, a scalar.
    """
    return at_least_float32(negative).square().sum(1).mean()
