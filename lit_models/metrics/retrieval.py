"""How well embeddings separate classes, by Euclidean distance: nearest neighbors, nearest centroids, and retrieval.

Retrieval ranks all references by their distance to a query; those of its class are relevant, R of them. Mean average
precision (mAP) averages the precision at each relevant place over R; MAP@R (Musgrave, Belongie & Lim 2020,
https://arxiv.org/abs/2003.08505) does so over the first R places only. Recall@k is the share of queries with a relevant
reference among the first k, which person re-identification calls the cumulative matching characteristic (CMC) at k.
Queries without any relevant reference don't count. Distances are taken in blocks: no N x N matrix is held.
"""

import torch
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.losses.prototypical import squared_euclidean

BLOCK = 1 << 25
"""Distances that are held at once."""
RECALLS = (1, 5, 10)


def retrieval(
    query: Tensor,
    query_label: Tensor,
    reference: Tensor,
    reference_label: Tensor,
    itself: Tensor | None = None,
    r: int | None = None,
) -> dict[str, Tensor]:
    """Values of each query, ``(Q,)``; nan for a query without a relevant reference.

    Args:
        query: ``(Q, D)``.
        query_label: ``(Q,)``, int64.
        reference: ``(R, D)``.
        reference_label: ``(R,)``, int64.
        itself: ``(Q,)``, int64: the row of ``reference`` that is the query itself, and doesn't count.
        r: R of MAP@R and R-precision; by default each query's number of relevant references.

    Returns:
        "map_at_r", "mean_average_precision", "r_precision" and "recall_at_1", "recall_at_5", "recall_at_10".

    Raises:
        ModelError: ``r`` is larger than a class.
    """
    counts = reference_label.bincount(minlength=int(query_label.max()) + 1 if len(query_label) else 0)
    relevant = counts[query_label] - int(itself is not None)
    if r is not None and (small := (relevant < r) & (relevant > 0)).any():
        label, count = int(query_label[small][0]), int(relevant[small][0])
        raise ModelError(f"r is {r}, but class {label} has {count} images to be found: set r to at most {count}.")
    found: dict[str, list[Tensor]] = {}
    rows = max(1, BLOCK // 4 // max(1, len(reference)))
    for start in range(0, len(query), rows):
        part = slice(start, start + rows)
        distance = squared_euclidean(query[part], reference)
        if itself is not None:
            distance.scatter_(1, itself[part, None], torch.inf)
        order = distance.argsort(1)[:, : len(reference) - (itself is not None)]
        match = reference_label[order] == query_label[part, None]
        place = torch.arange(1, order.shape[1] + 1, device=order.device)
        precision = match * match.cumsum(1) / place
        total = relevant[part, None].float().masked_fill(relevant[part, None] == 0, torch.nan)
        first = total if r is None else torch.full_like(total, r).masked_fill(total.isnan(), torch.nan)
        values = {
            "map_at_r": precision.where(place <= first, 0.0).sum(1, keepdim=True) / first,
            "mean_average_precision": precision.sum(1, keepdim=True) / total,
            "r_precision": (match & (place <= first)).sum(1, keepdim=True) / first,
            **{
                f"recall_at_{k}": match[:, :k].any(1, keepdim=True).float().where(total > 0, torch.nan) for k in RECALLS
            },
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value[:, 0].float())
    return {name: torch.cat(blocks) for name, blocks in found.items()}


def nearest(query: Tensor, reference: Tensor, k: int, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query, nearest first.

    Args:
        query: ``(Q, D)``.
        reference: ``(R, D)``.
        k: How many, at most R (R - 1 with ``itself``).
        itself: ``(Q,)``, int64: the row of ``reference`` that is the query itself, and doesn't count.

    Returns:
        Their squared distances and their rows, ``(Q, k)`` each.
    """
    rows = max(1, BLOCK // max(1, len(reference)))
    found = []
    for start in range(0, len(query), rows):
        distance = squared_euclidean(query[start : start + rows], reference)
        if itself is not None:
            distance.scatter_(1, itself[start : start + rows, None], torch.inf)
        found.append(distance.topk(k, largest=False))
    if not found:
        return query.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=query.device)
    return torch.cat([block.values for block in found]), torch.cat([block.indices for block in found])


def neighbor_votes(square: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """k-nearest-neighbor classification: each neighbor votes for its class with the weight 1 / distance.

    Args:
        square: ``(Q, k)``: the squared distances of the neighbors.
        label: ``(Q, k)``, int64: their classes.
        num_classes: Number of classes.

    Returns:
        Shares of the votes, ``(Q, num_classes)``.
    """
    weight = square.clamp(min=torch.finfo(square.dtype).tiny).rsqrt()
    weight = weight / weight.amax(1, keepdim=True)  # neighbors at distance 0 have all the votes, and no overflow
    votes = weight.new_zeros(len(square), num_classes).scatter_add_(1, label, weight)
    return votes / votes.sum(1, keepdim=True)


def class_centroids(embedding: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """The mean embedding of each class, ``(num_classes, D)``; nan for a class without embeddings.

    Args:
        embedding: ``(N, D)``.
        label: ``(N,)``, int64.
        num_classes: Number of classes.
    """
    total = embedding.new_zeros(num_classes, embedding.shape[1]).index_add_(0, label, embedding)
    count = embedding.new_zeros(num_classes).index_add_(0, label, torch.ones_like(label, dtype=embedding.dtype))
    return total / count[:, None]


def centroid_scores(embedding: Tensor, centroid: Tensor) -> Tensor:
    """Minus the squared distance of each embedding ``(N, D)`` to each centroid, ``(N, num_classes)``; minus infinity
    for a class without one."""
    unknown = centroid.isnan().any(1)
    distance = squared_euclidean(embedding, centroid.masked_fill(unknown[:, None], 0.0))
    return (-distance).masked_fill(unknown, -torch.inf)


def best_sharpness(score: Tensor, label: Tensor, steps: int = 30) -> Tensor:
    """The factor β > 0 for which the probabilities ``softmax(β · score)`` make the labels likeliest (temperature
    scaling; Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    The likelihood is concave in β; Newton's steps are limited to half and twice the value before.

    Args:
        score: ``(N, num_classes)``, at most 0; minus infinity for classes that don't count.
        label: ``(N,)``, int64.
        steps: Steps to take.

    Returns:
        A scalar.
    """
    possible = score.isfinite()
    score = score.masked_fill(~possible, 0.0)
    own = score.gather(1, label[:, None])
    sharpness = 1 / -own.mean().clamp(max=-torch.finfo(score.dtype).tiny)
    for _ in range(steps):
        probability = (sharpness * score).masked_fill(~possible, -torch.inf).softmax(1)
        mean = (probability * score).sum(1, keepdim=True)
        slope = (own - mean).mean()
        curvature = (probability * (score - mean).square()).sum(1).mean()
        step = slope / curvature.clamp(min=torch.finfo(score.dtype).tiny)
        sharpness = torch.clamp(sharpness + step, sharpness / 2, sharpness * 2)
    return sharpness


def share_of_hits(ranked: Tensor, label: Tensor) -> Tensor:
    """The share of rows that have their label among the ranked ones: Recall@k of neighbors' labels, top-k accuracy of
    classes by descending score.

    Args:
        ranked: ``(N, k)``, int64.
        label: ``(N,)``, int64.
    """
    return (ranked == label[:, None]).any(1).float().mean()


def first_of_each_class(label: Tensor, count: int) -> Tensor:
    """The rows, in order, of the first ``count`` images of each class; of all where there are fewer.

    Args:
        label: ``(N,)``, int64.
        count: How many of each class.
    """
    order = label.argsort(stable=True)
    _, sizes = label.unique(return_counts=True)
    starts = sizes.cumsum(0) - sizes
    place_in_class = torch.arange(len(label), device=label.device) - starts.repeat_interleave(sizes)
    return order[place_in_class < count].sort().values
