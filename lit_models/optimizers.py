"""Optimisers in the form that configuration files and sweeps like best."""

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Adam


class FusedAdam(Adam):
    """Adam (Kingma & Ba 2015) with one kernel for all parameters, and each β as an argument of its own.

    Args:
        params: The parameters.
        lr: Learning rate.
        beta1: Decay of the running mean of the gradient.
        beta2: Decay of the running mean of the squared gradient.
        eps: Added to the denominator.
        weight_decay: Factor of the L2 penalty.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
