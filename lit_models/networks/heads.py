"""Layers on top of an encoder: its features become embeddings or classes."""

from typing import Literal

from torch import nn

Head = Literal["linear", "mlp"]


def embedding_head(features: int, head: Head, embedding_dim: int | None) -> tuple[nn.Module, int]:
    """A head on top of ``features`` features, and the size of its embeddings.

    Args:
        features: Size of the encoder's features.
        head: "linear", one layer; or "mlp", a layer of 1,024 outputs, batch normalization, ReLU and a layer (Hermans et
            al. 2017, https://arxiv.org/abs/1703.07737).
        embedding_dim: Size of the embeddings; if None, "linear" is no layer at all, and "mlp" has 128.
    """
    if head == "mlp":
        size = embedding_dim or 128
        layers = nn.Linear(features, 1024), nn.BatchNorm1d(1024), nn.ReLU(inplace=True), nn.Linear(1024, size)
        return nn.Sequential(*layers), size
    return (nn.Linear(features, embedding_dim), embedding_dim) if embedding_dim else (nn.Identity(), features)


def classification_head(features: int, head: Head, num_classes: int, hidden: int, dropout: float) -> nn.Module:
    """A head from ``features`` features to logits.

    Args:
        features: Size of the encoder's features.
        head: "linear", one layer; or "mlp", a hidden layer of ReLU units with dropout in between.
        num_classes: Number of classes.
        hidden: Units of the hidden layer.
        dropout: Part of these units that is dropped in training.
    """
    if head == "linear":
        return nn.Linear(features, num_classes)
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes))
