"""Spectral normalization (Miyato et al. 2018, https://arxiv.org/abs/1802.05957) of a whole network."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList

Network = TypeVar("Network", bound=nn.Module)
NORMALIZED = (nn.Conv2d, nn.Linear, nn.Embedding)


def spectrally_normalized(network: Network) -> Network:
    """Divides the weights of every layer by their largest singular value, ``W / σ(W)`` (eq. 8), from now on.

    A convolution's weight counts as the matrix ``(out, in · height · width)``. In training mode each use of a weight
    takes one step of the power iteration that follows σ; its vectors u and v are buffers and depend on the weights
    only, so that they are the same in every process of a distributed run.

    Draw the initial weights before: they are out of reach behind the division.

    Args:
        network: Its :class:`Conv2d`, :class:`Linear` and :class:`Embedding` layers are changed in place.

    Returns:
        The same network.
    """
    for layer in list(network.modules()):
        if isinstance(layer, NORMALIZED):
            spectral_norm(layer)
            (parametrizations,) = layer.parametrizations.values()  # type: ignore[operator]
            assert isinstance(parametrizations, ParametrizationList)
            parametrizations[0] = _InFloat32(parametrizations[0])
    return network


class _InFloat32(nn.Module):
    """Keeps autocast out of a parametrization: on a GPU the power iteration would run in half precision."""

    def __init__(self, parametrization: nn.Module) -> None:
        super().__init__()
        self.parametrization = parametrization

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self.parametrization(weight)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value
