"""Image-sized maps that stand for a class."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

LabelEncoding: TypeAlias = Literal["one_hot", "embedding", "pattern"]


class ConstantMaps(nn.Module):
    """Spread a vector per class over the image: one constant map for each of its components.

    The vector is the class's one-hot code, or a learned embedding if ``embedding_dim`` is given.

    Shapes: ``(N,)`` int64 to ``(N, num_classes or embedding_dim, image_size, image_size)``.
    """

    one_hot: Tensor

    def __init__(self, num_classes: int, image_size: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        self.image_size = image_size
        self.embedding = None if embedding_dim is None else nn.Embedding(num_classes, embedding_dim)
        if embedding_dim is None:
            self.register_buffer("one_hot", torch.eye(num_classes), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        vector = self.one_hot[label] if self.embedding is None else self.embedding(label)
        return vector[:, :, None, None].expand(-1, -1, self.image_size, self.image_size)


class LearnedPattern(nn.Sequential):
    """Turn a class into one image-sized map with a learned pattern, by an embedding and a linear layer.

    Shapes: ``(N,)`` int64 to ``(N, 1, image_size, image_size)``.
    """

    def __init__(self, num_classes: int, image_size: int, embedding_dim: int) -> None:
        super().__init__(
            nn.Embedding(num_classes, embedding_dim),
            nn.Linear(embedding_dim, image_size**2),
            nn.Unflatten(1, (1, image_size, image_size)),
        )


def label_maps(encoding: LabelEncoding, num_classes: int, image_size: int, embedding_dim: int) -> tuple[nn.Module, int]:
    """Build the network that turns a class into image-sized maps.

    Returns:
        The network, and the number of maps that it makes.
    """
    if encoding == "one_hot":
        return ConstantMaps(num_classes, image_size), num_classes
    if encoding == "embedding":
        return ConstantMaps(num_classes, image_size, embedding_dim), embedding_dim
    return LearnedPattern(num_classes, image_size, embedding_dim), 1
