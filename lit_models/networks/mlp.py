"""A multilayer perceptron for images, and the decoders with which its layers are pretrained."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Module):
    """The classifier: contrast normalization, layers of ReLU units with dropout, and a linear layer on top.

    Shapes: images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``.

    Args:
        inputs: Components of an image, C · H · W.
        widths: Units of each layer.
        num_classes: Number of classes.
        dropout: Part of the units of each layer that is dropped in training.
        contrast_normalization: Bring each image to mean 0 and variance 1.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], num_classes: int, dropout: float, contrast_normalization: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(below, width) for below, width in pairwise([inputs, *widths]))
        self.head = nn.Linear(widths[-1], num_classes)
        self.dropout = dropout
        self.contrast_normalization = contrast_normalization

    def forward(self, image: Tensor) -> Tensor:
        code = self.input(image)
        for layer in self.layers:
            code = functional.dropout(functional.relu(layer(code)), self.dropout, self.training)
        return self.head(code)

    def encode(self, image: Tensor, layers: int) -> Tensor:
        """The code after the first ``layers`` layers, ``(N, D)``, without dropout; after none it is the input."""
        code = self.input(image)
        for layer in self.layers[:layers]:
            code = functional.relu(layer(code))
        return code

    def input(self, image: Tensor) -> Tensor:
        """What the first layer gets, ``(N, C · H · W)``."""
        if self.contrast_normalization:
            # The constant is 10 for pixels in 0..255, as in Coates et al. 2011; it keeps flat images from exploding.
            image = functional.layer_norm(image, image.shape[1:], eps=10 / 255**2)
        return image.flatten(1)


class Decoder(nn.Module):
    """The way back from a layer's code to what the layer was given, W'_k h_k + b'_k.

    W'_k starts as the transpose of W_k. With a random decoder, the first steps tend to
    switch every unit off, and a narrow layer may never recover.

    Args:
        layer: The layer, ``below`` components to ``width`` units.
        tied_weights: W'_k stays the transpose of W_k.
    """

    def __init__(self, layer: nn.Linear, tied_weights: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(layer.in_features))
        self.weight = None if tied_weights else nn.Parameter(layer.weight.detach().T.clone())

    def forward(self, code: Tensor, layer: nn.Linear) -> Tensor:
        """``(N, width)`` to ``(N, below)``."""
        return functional.linear(code, layer.weight.T if self.weight is None else self.weight, self.bias)
