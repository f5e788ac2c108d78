"""Fidelity, variety and memory of generated images, as functions of their features.

* precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991
* density and coverage: Naeem et al. 2020, arXiv:2002.09797
* spread: the distance of two images of a class, as a share of the real one
* memorization: how many images lie closer to a training image than held-out real images do

Distances are Euclidean and taken in blocks that fit into a processor's cache, so that no N x M matrix is ever held.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_models.errors import RunError
from lit_models.losses.precision import in_float64

BLOCK = 1 << 21
"""Distances that are held at once: 8 MiB."""


def precision_recall_density_coverage(real: Tensor, generated: Tensor, neighbors: int = 5) -> dict[str, float]:
    """The four, by name. The ball around an image reaches to its k-th nearest neighbor among images of the same kind.

    * ``precision``: share of generated images in the ball of any real image;
    * ``recall``: share of real images in the ball of any generated image;
    * ``density``: mean number of real images' balls that hold a generated image, divided by k; about 1 at best, may
      exceed 1;
    * ``coverage``: share of real images whose ball holds any generated image.

    Args:
        real: ``(N, D)``, N above ``neighbors``.
        generated: ``(M, D)``, M above ``neighbors``.
        neighbors: k.

    Raises:
        RunError: There are too few images, or features that aren't finite.
    """
    require_features(real, "real", neighbors + 1)
    require_features(generated, "generated", neighbors + 1)
    real, generated = _centered(real, generated)
    real_radius, generated_radius = neighbor_distance(real, neighbors), neighbor_distance(generated, neighbors)
    holding = torch.zeros(len(generated), dtype=torch.int32, device=real.device)
    covered = recalled = 0
    for rows, distance in _squared_distances(real, generated):
        in_real = distance <= real_radius[rows, None]
        holding += in_real.sum(0, dtype=torch.int32)
        covered += int(in_real.any(1).sum())
        recalled += int((distance <= generated_radius).any(1).sum())
    return {
        "precision": float(in_float64(holding > 0).mean()),
        "recall": recalled / len(real),
        "density": float(in_float64(holding).mean()) / neighbors,
        "coverage": covered / len(real),
    }


def neighbor_distance(features: Tensor, neighbors: int) -> Tensor:
    """The squared distance of each row ``(N, D)`` to its k-th nearest other row, ``(N,)``."""
    found = []
    for rows, distance in _squared_distances(features, features):
        distance.diagonal(rows.start).fill_(torch.inf)
        found.append(distance.topk(neighbors, largest=False, sorted=False).values.amax(1))
    return torch.cat(found)


def training_distance(features: Tensor, training: Tensor) -> Tensor:
    """The distance of each row ``(N, D)`` to the nearest training image ``(T, D)``, ``(N,)``.

    Raises:
        RunError: There is no training image, or features aren't finite.
    """
    require_features(features, "compared", 1)
    require_features(training, "training", 1)
    training, features = _centered(training, features)
    return torch.cat([distance.amin(1) for _, distance in _squared_distances(features, training)]).sqrt()


def memorized_share(generated: Tensor, held_out: Tensor, level: float = 0.01) -> float:
    """The share of generated images that are closer to a training image than real images are, but for a few.

    Closer than the ``level`` quantile of the distances of held-out real images, so that held-out real images have
    ``level`` on average; copies of training images have 1. Where more than ``level`` of the held-out images are
    themselves copies, the quantile is 0 and nothing is closer.

    Args:
        generated: ``(M,)``, distances of generated images by :func:`training_distance`.
        held_out: ``(H,)``, distances of real images that weren't trained on, to the same training images.
        level: The share of held-out images that counts as memorized.
    """
    limit = held_out.quantile(level, interpolation="lower")
    return float(in_float64(generated < limit).mean())


def spread_share(
    real: Tensor, real_label: Tensor, generated: Tensor, generated_label: Tensor, num_classes: int
) -> float | None:
    """The distance between two generated images of a class, as a share of the distance between two real ones.

    The distance is the root of the mean square over all pairs of images of the class, thus ``√(2 Tr C)`` with C the
    class's covariance; means over the classes are compared. 0 where each class is one image, 1 where classes vary as
    much as real ones.

    Args:
        real: ``(N, D)``.
        real_label: ``(N,)``, int64.
        generated: ``(M, D)``.
        generated_label: ``(M,)``, int64: the classes asked for.
        num_classes: Number of classes.

    Returns:
        The share; None if no class has two images of both kinds, or real images of a class don't vary.

    Raises:
        RunError: Features aren't finite.
    """
    require_features(real, "real", 1)
    require_features(generated, "generated", 1)
    real_distance, generated_distance = [], []
    for label in range(num_classes):
        one, other = real[real_label == label], generated[generated_label == label]
        if min(len(one), len(other)) > 1:
            real_distance.append(_pair_distance(one))
            generated_distance.append(_pair_distance(other))
    total = sum(real_distance)
    return sum(generated_distance) / total if total > 0 else None


def _centered(reference: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both about the reference's mean, in float32: the products below lose digits where norms are large."""
    reference, other = in_float64(reference), in_float64(other)
    origin = reference.mean(0)
    return (reference - origin).float(), (other - origin).float()


def _squared_distances(query: Tensor, reference: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """``‖q − r‖² = ‖q‖² − 2 q·r + ‖r‖²`` in blocks of queries: their rows, and ``(rows, R)``, not negative."""
    query_norm, reference_norm = query.square().sum(1, keepdim=True), reference.square().sum(1)
    step = max(1, BLOCK // len(reference))
    for start in range(0, len(query), step):
        rows = slice(start, min(start + step, len(query)))
        product = torch.addmm(reference_norm, query[rows], reference.T, alpha=-2)
        yield rows, product.add_(query_norm[rows]).clamp_(min=0)


def _pair_distance(features: Tensor) -> float:
    """The root mean square distance of two different rows."""
    return float((2 * in_float64(features).var(0).sum()).sqrt())


def require_features(features: Tensor, kind: str, least: int) -> None:
    """Refuses too few features, and those that aren't finite.

    Args:
        features: ``(N, D)``.
        kind: Of the images, for the message.
        least: The fewest rows.

    Raises:
        RunError: There are fewer, or some aren't finite.
    """
    if len(features) < least:
        detail = f": neighbors must be at most {len(features) - 1}" if least > 2 and len(features) > 1 else ""
        number = "is 1" if len(features) == 1 else f"are {len(features)}"
        images = "image" if len(features) == 1 else "images"
        raise RunError(f"There {number} {kind} {images}, and scores need at least {least}{detail}.")
    wrong = int((~features.isfinite().all(1)).sum())
    if wrong:
        raise RunError(
            f"The features of {wrong:,} of {len(features):,} {kind} images aren't finite, so they can't be scored: "
            "look for NaN or infinite pixels, or weights of the extractor."
        )
