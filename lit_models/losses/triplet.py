"""Triplet losses over all triplets of a batch by one distance matrix (Hermans, Beyer & Leibe 2017, "In Defense of the
Triplet Loss", https://arxiv.org/abs/1703.07737; semi-hard negatives: Schroff, Kalenichenko & Philbin 2015, "FaceNet",
https://arxiv.org/abs/1503.03832).

A triplet is an anchor a, a positive p (another image of its class) and a negative n (an image of another class). Its
loss with D the distance of embeddings is ``[m + D(a, p) − D(a, n)]₊``, or with a soft margin ``ln(1 + exp(D(a, p) −
D(a, n)))``.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lit_models.losses.prototypical import squared_euclidean

Margin = float | Literal["soft"]
Mining = Literal["batch_hard", "semi_hard", "batch_all"]


class TripletLoss(NamedTuple):
    """What a triplet loss returns.

    Attributes:
        loss: The mean over the mined triplets; 0, with gradients of 0, if there are none.
        active: The share of them that are active: ``D(a, p) + m > D(a, n)``, with m = 0 for a soft margin, under which
            every triplet has a loss. 0 if there are none.
    """

    loss: Tensor
    active: Tensor


def distances(embedding: Tensor, squared: bool = False) -> Tensor:
    """The Euclidean distance of each embedding to each.

    Args:
        embedding: ``(B, D)``.
        squared: Return its square.

    Returns:
        ``(B, B)``. Where two embeddings are the same, distance and gradient are 0.
    """
    square = squared_euclidean(embedding, embedding)
    if squared:
        return square
    # The square root's slope has no bound at 0: what is less than the rounding error of the square is taken as 0.
    centered = (embedding - embedding.mean(0)).detach()
    norm = centered.square().sum(1)
    apart = square.detach() > 4 * torch.finfo(square.dtype).eps * (norm[:, None] + norm)
    apart.fill_diagonal_(False)
    return torch.where(apart, square, 1.0).sqrt() * apart


def batch_hard(distance: Tensor, label: Tensor, margin: Margin) -> TripletLoss:
    """Each anchor with its farthest positive and its nearest negative (Hermans et al. 2017, eq. 5).

    Args:
        distance: ``(B, B)``, from each anchor (row) to each image.
        label: ``(B,)``, int64.
        margin: m, or "soft".

    Returns:
        The mean over the anchors that have a positive and a negative.
    """
    positive, negative = _positives_and_negatives(label)
    farthest = distance.masked_fill(~positive, -torch.inf).amax(1)
    nearest = distance.masked_fill(~negative, torch.inf).amin(1)
    return _mean(farthest - nearest, positive.any(1) & negative.any(1), margin)


def semi_hard(distance: Tensor, label: Tensor, margin: Margin) -> TripletLoss:
    """Each anchor and positive with the nearest of those negatives that are farther than the positive (Schroff et al.
    2015, eq. 4).

    Args:
        distance: ``(B, B)``, from each anchor (row) to each image.
        label: ``(B,)``, int64.
        margin: m, or "soft".

    Returns:
        The mean over the pairs that have such a negative.
    """
    positive, negative = _positives_and_negatives(label)
    order = distance.detach().masked_fill(~negative, torch.inf).sort(1)
    place = torch.searchsorted(order.values, distance.detach().contiguous(), right=True)
    found = place < negative.sum(1, keepdim=True)
    nearest = distance.gather(1, order.indices.gather(1, place.clamp(max=len(label) - 1)))
    return _mean(distance - nearest, positive & found, margin)


def batch_all(distance: Tensor, label: Tensor, margin: Margin) -> TripletLoss:
    """All triplets; the mean is over those whose loss isn't 0 (Hermans et al. 2017, eq. 6 and "BA≠0"). Takes memory for
    ``B³`` numbers.

    Args:
        distance: ``(B, B)``, from each anchor (row) to each image.
        label: ``(B,)``, int64.
        margin: m, or "soft".
    """
    positive, negative = _positives_and_negatives(label)
    valid = positive[:, :, None] & negative[:, None, :]
    difference = distance[:, :, None] - distance[:, None, :]
    loss, active = _mean(difference, valid, margin)
    # The mean over all triplets, made one over the active ones. With a soft margin no loss is 0.
    return TripletLoss(loss if margin == "soft" else loss / active.clamp(min=1 / max(valid.numel(), 1)), active)


MININGS: dict[str, Callable[[Tensor, Tensor, Margin], TripletLoss]] = {
    "batch_hard": batch_hard,
    "semi_hard": semi_hard,
    "batch_all": batch_all,
}
"""The ways to choose triplets, by name."""


def _positives_and_negatives(label: Tensor) -> tuple[Tensor, Tensor]:
    """Which images are of the anchor's class, without itself, and which of another, ``(B, B)`` each."""
    same = label[:, None] == label
    return same & ~torch.eye(len(label), dtype=torch.bool, device=label.device), ~same


def _mean(difference: Tensor, valid: Tensor, margin: Margin) -> TripletLoss:
    """The mean loss of the valid triplets with ``difference`` = D(a, p) − D(a, n), and the active ones' share."""
    difference = torch.where(valid, difference, 0.0)
    if margin == "soft":
        loss, active = functional.softplus(difference), difference > 0
    else:
        loss, active = (difference + margin).clamp(min=0), difference + margin > 0
    count = valid.sum().clamp(min=1)
    return TripletLoss((loss * valid).sum() / count, (active & valid).sum() / count)
