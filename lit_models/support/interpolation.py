"""Paths between latent vectors."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Path: TypeAlias = Literal["lerp", "slerp"]
"""How to go from one vector to another: in a straight line, or along a great circle."""


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """(1 − t) a + t b.

    Args:
        start: a, ``(N, D)``.
        end: b, ``(N, D)``.
        share: t, ``(T,)``.

    Returns:
        ``(N, T, D)``.
    """
    return torch.lerp(start[:, None], end[:, None], share[None, :, None])


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """(sin((1 − t) ω) a + sin(t ω) b) / sin ω, with ω the angle between a and b (Shoemake 1985; White 2016,
    arXiv:1609.04468, for latent vectors: in many dimensions nearly all of a normal prior lies about a sphere, which a
    straight line leaves). Where a and b point the same or the opposite way, it is :func:`lerp`.

    Args:
        start: a, ``(N, D)``.
        end: b, ``(N, D)``.
        share: t, ``(T,)``.

    Returns:
        ``(N, T, D)``.
    """
    cosine = torch.cosine_similarity(start, end, dim=1)
    angle = cosine.clamp(-1, 1).acos()[:, None, None]
    sine = angle.sin()
    along = share[None, :, None]
    arc = (((1 - along) * angle).sin() * start[:, None] + (along * angle).sin() * end[:, None]) / sine
    # In float32, the sine of an angle of nearly 0 or π is rounding noise of up to 5e-4.
    return torch.where(sine > 1e-3, arc, lerp(start, end, share))


def decoded_between(decode: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, steps: int, path: Path) -> Tensor:
    """What ``decode`` makes, ``(N, steps, C, H, W)``, of the vectors :func:`between` ``start`` and ``end``."""
    latent = between(start, end, steps, path)
    return decode(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])


def between(start: Tensor, end: Tensor, steps: int, path: Path) -> Tensor:
    """``steps`` vectors at equal distances of t, the first ``start`` and the last ``end``: ``(N, steps, D)``."""
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)
    return {"lerp": lerp, "slerp": slerp}[path](start, end, share)
