"""Losses of the two players of a generative adversarial network, on the discriminator's logits."""

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_bce(
    real_logits: Tensor,
    fake_logits: Tensor,
    data_label: float = 1.0,
    label_noise: float = 0.0,
) -> Tensor:
    """Cross-entropy of telling real from fake images (Goodfellow et al. 2014, eq. 1, as a loss to be minimised).

    With ``y`` the label of real images and ``σ`` the sigmoid,
    ``L_D = E_x[BCE(σ(D(x)), y)] + E_z[BCE(σ(D(G(z))), 1 − y)]``.

    Args:
        real_logits: The discriminator's outputs for real images, of any shape.
        fake_logits: The discriminator's outputs for generated images, of any shape.
        data_label: The label that means "real", 1 or 0.
        label_noise: Half-width ε of the uniform noise on every label ("fuzzy" labels in [y ± ε]); 0 for none.

    Returns:
        The sum of both means, a scalar.
    """
    return _bce(real_logits, data_label, label_noise) + _bce(fake_logits, 1 - data_label, label_noise)


def generator_bce(fake_logits: Tensor, data_label: float = 1.0) -> Tensor:
    """The generator's non-saturating loss ``−E_z[log σ(D(G(z)))]`` (Goodfellow et al. 2014, section 3), for
    ``data_label`` 1; with ``data_label`` 0 the same with the discriminator's two answers exchanged.

    Args:
        fake_logits: The discriminator's outputs for generated images, of any shape.
        data_label: The label that means "real", 1 or 0.

    Returns:
        The mean, a scalar.
    """
    return _bce(fake_logits, data_label, 0.0)


def _bce(logits: Tensor, label: float, noise: float) -> Tensor:
    labels = torch.full_like(logits, label)
    if noise:
        labels = labels + torch.empty_like(logits).uniform_(-noise, noise)
    return functional.binary_cross_entropy_with_logits(logits, labels)
