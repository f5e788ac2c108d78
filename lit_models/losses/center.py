"""Center loss (Wen, Zhang, Li & Qiao 2016, "A Discriminative Feature Learning Approach for Deep Face Recognition",
https://ydwen.github.io/papers/WenECCV16.pdf): features are drawn to their class's center, which follows them."""

from typing import Literal

import torch
from torch import Tensor

from lit_models.errors import ModelError

CenterRule = Literal["paper", "sgd"]


def require_center(weight: float, rate: float, rule: CenterRule) -> None:
    """Refuses a weight and a rate that make no sense.

    Raises:
        ModelError: The weight is negative, or the rate isn't positive or by the paper's rule above 1.
    """
    if weight < 0 or rate <= 0 or (rule == "paper" and rate > 1):
        raise ModelError(
            f"center_weight is {weight} and center_rate {rate}; the weight must be at least 0, and the rate greater "
            "than 0, by the paper's rule at most 1."
        )


def center_loss(embedding: Tensor, label: Tensor, center: Tensor) -> Tensor:
    """``L_C = ½ ‖x_i − c_{y_i}‖²`` (eq. 2), as a mean over the batch, like the cross-entropy that it is added to.

    Args:
        embedding: ``(B, D)``.
        label: ``(B,)``, int64.
        center: ``(num_classes, D)``.
    """
    return 0.5 * (embedding - center.index_select(0, label)).square().sum(1).mean()


def moved_by_equation_4(embedding: Tensor, label: Tensor, center: Tensor, rate: float) -> Tensor:
    """The centers after a batch by the paper's rule: ``c_j − α Σ_{y_i = j} (c_j − x_i) / (1 + n_j)`` (eq. 4), n_j being
    the images of class j.

    Args:
        embedding: ``(B, D)``.
        label: ``(B,)``, int64.
        center: ``(num_classes, D)``.
        rate: α, in [0, 1].
    """
    total, count = _sums_and_counts(embedding, label, len(center))
    return center - rate * (count * center - total) / (1 + count)


def moved_by_sgd(embedding: Tensor, label: Tensor, center: Tensor, rate: float) -> Tensor:
    """The centers after a step of gradient descent on :func:`center_loss`, for arguments as above."""
    total, count = _sums_and_counts(embedding, label, len(center))
    return center - rate * (count * center - total) / len(label)


RULES = {"paper": moved_by_equation_4, "sgd": moved_by_sgd}
"""How centers follow their features, by name."""


def _sums_and_counts(embedding: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The sum of each class's embeddings, ``(classes, D)``, and their number, ``(classes, 1)``."""
    # A matrix product: unlike `index_add_` it adds in the same order in every run, and unlike `bincount` it doesn't
    # make the host wait for a GPU.
    member = (torch.arange(classes, device=label.device)[:, None] == label).to(embedding.dtype)
    return member @ embedding, member.sum(1, keepdim=True)
