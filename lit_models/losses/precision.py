"""The precision that losses, distances and scores are computed in."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices that have no double precision."""


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, whatever a network computes in; double precision (``64-true``) stays.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype, at_least_float32(torch.ones(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return values if values.dtype == torch.float64 else values.float()


def in_float64(values: Tensor) -> Tensor:
    """The values in double precision, on the CPU if their device has none (Apple's GPUs).

    Example:
        >>> in_float64(torch.ones(1)).dtype
        torch.float64
    """
    return (values.cpu() if values.device.type in WITHOUT_FLOAT64 else values).double()
