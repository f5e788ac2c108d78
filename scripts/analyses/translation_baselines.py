"""What maps come to that need no network, by the metrics of the methods' tests.

    python scripts/analyses/translation_baselines.py --image_size 128

Measured on the test pairs of the data set ``Maps``, photographs to maps:

- mean map: for every photograph the same picture, of each pixel the mean over all training maps at that place.
- nearest color of the photograph: each pixel of the photograph painted in the main color of maps
  (``lit_models.metrics.image_errors.MAP_COLORS``) that is nearest to it in RGB. Nothing is learnt.
- color lookup: each pixel of the photograph replaced by the mean color that maps have where training photographs
  have that color, in 16 levels of red, green and blue: all that a pixel tells without its surroundings.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor

from datamodules import ImagePair, Maps
from lit_models.metrics.image_errors import TranslationMetrics, nearest_colors, painted

LEVELS = 16
"""Of each color, in the lookup."""
SHOWN = ("l1", "psnr", "ssim", "map_accuracy")
"""The metrics in the table."""


def baseline_scores(image_size: int, root: str | None = None) -> dict[str, dict[str, float]]:
    """The metrics of each baseline on the test pairs, by its name.

    Args:
        image_size: Height and width of the images.
        root: Folder of all data sets; if None, ``$RELIT_DATA``, else the user's cache folder.
    """
    data = Maps(root=root, image_size=image_size)
    data.prepare_data()
    data.setup("test")
    train = whole(data, "train")
    source, target = whole(data, "test")
    maps = {
        "mean map": train.target.mean(0, keepdim=True).expand_as(target),
        "nearest color of the photograph": painted(nearest_colors(source)),
        "color lookup": looked_up(source, train),
    }
    scores = {}
    for name, generated in maps.items():
        metrics = TranslationMetrics()
        for rows in torch.arange(len(target)).split(10):
            metrics.update(generated[rows], target[rows])
        scores[name] = metrics.compute()
    return scores


def whole(data: Maps, split: str) -> ImagePair:
    """All pairs of a split, as floats of ``image_size``; of the larger training images the middle."""
    rows = getattr(data, f"{split}_set")
    pairs = data.transform(rows.__getitems__(torch.arange(len(rows))), training=False)
    size = data.image_shape[-1]
    margin = (pairs.source.shape[-1] - size) // 2
    return ImagePair(*(images[..., margin : margin + size, margin : margin + size] for images in pairs))


def looked_up(source: Tensor, train: ImagePair) -> Tensor:
    """The mean target color of training pixels with the same source color, ``(N, 3, H, W)``; where there were none,
    that of all."""
    place = bins(train.source).flatten()
    colors = train.target.movedim(1, -1).reshape(-1, 3).double()
    total = torch.zeros(LEVELS**3, 3, dtype=torch.float64).index_add_(0, place, colors)
    count = torch.bincount(place, minlength=LEVELS**3)[:, None]
    table = torch.where(count > 0, total / count, colors.mean(0))
    return table[bins(source)].movedim(-1, 1).float()


def bins(image: Tensor) -> Tensor:
    """The place of each pixel's color among all of ``LEVELS`` levels, ``(N, H, W)``."""
    red, green, blue = (image * 255).round().long().mul(LEVELS).div(256, rounding_mode="floor").unbind(1)
    return (red * LEVELS + green) * LEVELS + blue


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=128, help="height and width (default: 128)")
    parser.add_argument("--root", help="folder of all data sets (default: $RELIT_DATA)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all metrics to this file")
    args = parser.parse_args()
    scores = baseline_scores(args.image_size, args.root)
    print(f"| test pairs, {args.image_size}x{args.image_size} | {' | '.join(SHOWN)} |\n| --- |{' ---: |' * len(SHOWN)}")
    for name, values in scores.items():
        print(f"| {name} | {' | '.join(f'{values[metric]:.3f}' for metric in SHOWN)} |")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            names = list(next(iter(scores.values())))
            rows = [[name, *(values[metric] for metric in names)] for name, values in scores.items()]
            csv.writer(file).writerows([["baseline", *names], *rows])


if __name__ == "__main__":
    main()
