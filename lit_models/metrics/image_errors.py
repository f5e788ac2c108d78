"""How near translated images come to the true ones, pixel by pixel; L1 and PSNR are computed by torchmetrics.

Images are ``(N, C, H, W)`` in [0, 1]. The metrics see what an 8-bit file would hold, so that they are those of the PNGs
that ``relit predict`` writes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MeanMetric, Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.image import PeakSignalNoiseRatio

from lit_models.losses.precision import in_float64

MAP_COLORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "water": ((177, 207, 255),),
    "park": ((203, 223, 174),),
    "road": ((255, 255, 254),),
    "motorway": (
        (250, 159, 37),
        (255, 195, 70),  # slip roads
        (255, 225, 103),  # highways
        (255, 225, 154),  # … in another style
    ),
    "ground": (
        (232, 229, 222),
        (243, 241, 235),  # buildings
        (222, 219, 214),  # industry, estates
        (233, 222, 189),  # schools
        (237, 227, 208),  # shops
        (236, 209, 207),  # hospitals
    ),
}
"""What the colors of a map of the data set ``Maps`` mean.

Found by taking every second pixel, in both directions, of the maps of every second training pair (1 to 299; JPEG, so
that each color is spread), and the commonest values, smoothed over 5 levels, among the bluish, greenish, reddish and
grayish ones; what they stand for was seen by looking at the maps.
"""


def nearest_colors(image: Tensor) -> Tensor:
    """For each pixel the place in :data:`MAP_COLORS` of the kind that has the nearest color, by Euclidean distance
    in RGB.

    Args:
        image: ``(N, 3, H, W)`` in [0, 1].

    Returns:
        ``(N, H, W)``, int64.
    """
    kinds, colors = _palette(image.device)
    pixels = eight_bit(image).movedim(1, -1)
    # |p − c|² without |p|², which is the same for all colors c; whole numbers below 2²⁴ are exact in float32.
    distance = colors.square().sum(1) - 2 * pixels @ colors.T
    return kinds[distance.argmin(-1)]


def painted(kind: Tensor) -> Tensor:
    """The map in which each pixel has the first color of its kind.

    Args:
        kind: ``(N, H, W)``, int64 places in :data:`MAP_COLORS`.

    Returns:
        ``(N, 3, H, W)`` in [0, 1].
    """
    first = torch.tensor([colors[0] for colors in MAP_COLORS.values()], device=kind.device) / 255
    return first[kind].movedim(-1, 1)


def eight_bit(image: Tensor) -> Tensor:
    """Images in [0, 1] as the whole numbers from 0 to 255 that a file would hold, in float32."""
    return (image.float() * 255).round().clamp(0, 255)


def structural_similarity(image: Tensor, other: Tensor) -> Tensor:
    """SSIM (Wang, Bovik, Sheikh & Simoncelli 2004) of each pair of images, a mean over windows and channels.

    Windows are Gaussian, 11x11 pixels with σ = 1.5, and lie within the image completely, as in the authors' code and in
    scikit-image. (torchmetrics mirrors the borders, which gives other values.) K₁ = 0.01 and K₂ = 0.03.

    Args:
        image: ``(N, C, H, W)`` in [0, 1], of at least 11x11 pixels.
        other: The images to compare with, of the same shape.

    Returns:
        ``(N,)``, at most 1.
    """
    place = torch.arange(11, device=image.device) - 5.0
    window = (-place.square() / (2 * 1.5**2)).exp()
    window = window / window.sum()
    first, second = image.flatten(0, 1), other.flatten(0, 1)
    products = torch.stack([first, second, first * first, second * second, first * second], 1)
    kernel = window.expand(5, 1, 1, 11)
    means = functional.conv2d(functional.conv2d(products, kernel, groups=5), kernel.mT, groups=5)
    mean, other_mean, square, other_square, product = means.unbind(1)
    variances = square - mean.square() + other_square - other_mean.square()
    covariance = product - mean * other_mean
    value = (2 * mean * other_mean + 0.01**2) * (2 * covariance + 0.03**2)
    value = value / ((mean.square() + other_mean.square() + 0.01**2) * (variances + 0.03**2))
    channel_means: Tensor = value.mean((1, 2)).unflatten(0, image.shape[:2])
    return channel_means.mean(1)


class TranslationMetrics:
    """Gathers the metrics of a set of images, over all ranks.

    ``l1`` is the mean absolute difference in [0, 1]; ``psnr`` in decibels and ``ssim`` (:func:`structural_similarity`)
    are means over the images. ``map_accuracy`` is the share of pixels that are of the right kind by
    :func:`nearest_colors`; for each kind, ``map_recall_<kind>`` is the share of its true pixels that were painted so,
    and ``map_precision_<kind>`` the share of the pixels painted so that are right: low where a model invents it. They
    are nan where there are no such pixels.

    Args:
        map_colors: Whether the images are maps of :data:`MAP_COLORS`.
        device: Where the images will be.
    """

    def __init__(self, map_colors: bool = True, device: torch.device | str = "cpu") -> None:
        self.metrics: dict[str, Metric] = {
            "l1": MeanAbsoluteError(),
            "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
            "ssim": MeanMetric(nan_strategy="disable"),
        }
        if map_colors:
            self.metrics["confusion"] = MulticlassConfusionMatrix(len(MAP_COLORS), validate_args=False)
        for metric in self.metrics.values():
            metric.to(device)

    def reset(self) -> None:
        """Forgets all images."""
        for metric in self.metrics.values():
            metric.reset()

    def update(self, generated: Tensor, target: Tensor) -> None:
        """Takes in ``(N, C, H, W)`` images."""
        # Contiguous, as torchmetrics asks for, also where a network gives channels-last images.
        generated, target = ((eight_bit(images) / 255).contiguous() for images in (generated, target))
        for name, metric in self.metrics.items():
            if name == "confusion":
                metric.update(nearest_colors(generated), nearest_colors(target))
            elif name == "ssim":
                metric.update(structural_similarity(generated, target))
            else:
                metric.update(generated, target)

    def confusion(self) -> Tensor:
        """Counts of pixels, ``(kinds, kinds)``: true kinds by row, painted ones by column."""
        counts: Tensor = self.metrics["confusion"].compute()
        return counts.cpu()

    def compute(self) -> dict[str, float]:
        """The metrics, by name. All ranks must call this."""
        values: dict[str, Any] = {
            name: metric.compute() for name, metric in self.metrics.items() if name != "confusion"
        }
        if "confusion" in self.metrics:
            values |= map_scores(self.confusion())
        return {name: float(value) for name, value in values.items()}


def map_scores(confusion: Tensor) -> dict[str, Tensor]:
    """``map_accuracy``, and by kind ``map_recall_…`` and ``map_precision_…``, of counts as
    :meth:`TranslationMetrics.confusion` returns them."""
    confusion = in_float64(confusion)
    right = confusion.diagonal()
    recall, precision = right / confusion.sum(1), right / confusion.sum(0)
    return {
        "map_accuracy": right.sum() / confusion.sum(),
        **{f"map_recall_{kind}": recall[i] for i, kind in enumerate(MAP_COLORS)},
        **{f"map_precision_{kind}": precision[i] for i, kind in enumerate(MAP_COLORS)},
    }


def _palette(device: torch.device) -> tuple[Tensor, Tensor]:
    """The kind of each color, int64, and the colors, ``(n, 3)`` in 0..255."""
    kinds = [kind for kind, colors in enumerate(MAP_COLORS.values()) for _ in colors]
    colors = [color for group in MAP_COLORS.values() for color in group]
    return torch.tensor(kinds, device=device), torch.tensor(colors, dtype=torch.float32, device=device)
