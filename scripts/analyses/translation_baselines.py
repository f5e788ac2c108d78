"""What maps come to that need no network, by the metrics of the methods' tests.

    python scripts/analyses/translation_baselines.py --image_size 64                       # whole photographs, resized
    python scripts/analyses/translation_baselines.py --image_size 128 --load_size 286      # windows of larger ones

Measured on the test pairs of the data set ``Maps``, photographs to maps; with ``--load_size``, on the tiles of
photographs of that size, as ``pix2pix_maps_128`` and ``pix2pix_maps_128_small`` are tested. ``--record`` adds the
metrics to a file, from which docs/methods/pix2pix.md takes them; give them their digest by
``scripts/results_table.py --seal``.

- mean map: for every photograph the same picture, of each pixel the mean over all training maps at that place.
- nearest color of the photograph: each pixel of the photograph painted in the main color of maps
  (``lit_models.metrics.image_errors.MAP_COLORS``) that is nearest to it in RGB. Nothing is learnt.
- color lookup: each pixel of the photograph replaced by the mean color that maps have where training photographs
  have that color, in 16 levels of red, green and blue: all that a pixel tells without its surroundings.
"""

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from datamodules import ImagePair, Maps
from lit_models.metrics.image_errors import TranslationMetrics, nearest_colors, painted
from lit_models.runs.loggers import git_commit
from lit_models.support.files import write_atomically

LEVELS = 16
"""Of each color, in the lookup."""
SHOWN = ("l1", "psnr", "ssim", "map_accuracy")
"""The metrics in the table."""


def baseline_scores(data: Maps) -> dict[str, dict[str, float]]:
    """The metrics of each baseline on the test pairs, by its name."""
    data.prepare_data()
    data.setup("test")
    train = whole(data, "train")
    source, target = whole(data, "test")
    mean, table = train.target.mean(0, keepdim=True), lookup_table(train)
    painters = {
        "mean map": lambda rows: mean.expand(len(rows), -1, -1, -1),
        "nearest color of the photograph": lambda rows: painted(nearest_colors(source[rows])),
        "color lookup": lambda rows: looked_up(source[rows], table),
    }
    scores = {}
    for name, paint in painters.items():
        metrics = TranslationMetrics()
        for rows in torch.arange(len(target)).split(10):
            metrics.update(paint(rows), target[rows])
        scores[name] = metrics.compute()
    return scores


def whole(data: Maps, split: str) -> ImagePair:
    """All pairs of a split, as floats of ``image_size``; of the larger training images the middle."""
    pairs = getattr(data, f"{split}_set")
    size = data.image_shape[-1]
    parts = []
    for rows in torch.arange(len(pairs)).split(100):
        part = data.transform(pairs.__getitems__(rows), training=False)
        margin = (part.source.shape[-1] - size) // 2
        parts.append([images[..., margin : margin + size, margin : margin + size].clone() for images in part])
    return ImagePair(*map(torch.cat, zip(*parts, strict=True)))


def lookup_table(train: ImagePair) -> Tensor:
    """The mean target color of training pixels by the bin of their source color; where there were none, that of all."""
    place = bins(train.source).flatten()
    colors = train.target.movedim(1, -1).reshape(-1, 3).double()
    total = torch.zeros(LEVELS**3, 3, dtype=torch.float64).index_add_(0, place, colors)
    count = torch.bincount(place, minlength=LEVELS**3)[:, None]
    return torch.where(count > 0, total / count, colors.mean(0))


def looked_up(source: Tensor, table: Tensor) -> Tensor:
    """The colors that the table has for the pixels of photographs, ``(N, 3, H, W)``."""
    return table[bins(source)].movedim(-1, 1).float()


def bins(image: Tensor) -> Tensor:
    """The place of each pixel's color among all of ``LEVELS`` levels, ``(N, H, W)``."""
    red, green, blue = (image * 255).round().long().mul(LEVELS).div(256, rounding_mode="floor").unbind(1)
    return (red * LEVELS + green) * LEVELS + blue


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=128, help="height and width (default: 128)")
    parser.add_argument("--load_size", type=int, help="side of the photographs that tiles are cut from (default: none)")
    parser.add_argument("--root", help="folder of all data sets (default: $RELIT_DATA)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all metrics to this file")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="add all metrics, with the commit, to this JSON file"
    )
    args = parser.parse_args()
    evaluation: Literal["tiles"] | None = "tiles" if args.load_size else None
    data = Maps(root=args.root, image_size=args.image_size, load_size=args.load_size, evaluation=evaluation)
    scores = baseline_scores(data)
    print(f"| test pairs, {args.image_size}x{args.image_size} | {' | '.join(SHOWN)} |\n| --- |{' ---: |' * len(SHOWN)}")
    for name, values in scores.items():
        print(f"| {name} | {' | '.join(f'{values[metric]:.3f}' for metric in SHOWN)} |")
    if args.record:
        known = json.loads(args.record.read_text(encoding="utf-8")) if args.record.is_file() else {}
        counts = {"train_images": len(data.train_set), "test_images": len(data.test_set) // data.tiles_of_an_image}
        finite = {name: {m: v for m, v in values.items() if math.isfinite(v)} for name, values in scores.items()}
        side = f"{args.image_size} of {args.load_size}" if args.load_size else str(args.image_size)
        name = f"{side}, {counts['test_images']} test pairs"
        known[name] = {"commit": git_commit(), **counts, "baselines": finite}
        write_atomically(args.record, json.dumps(known, indent=1, allow_nan=False) + "\n")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            names = list(next(iter(scores.values())))
            rows = [[name, *(values[metric] for metric in names)] for name, values in scores.items()]
            csv.writer(file).writerows([["baseline", *names], *rows])


if __name__ == "__main__":
    main()
