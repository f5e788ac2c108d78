"""Ways from one digit to another through several models' latent spaces, in one figure, and how many of the images on
the way relit's digit classifier is sure of (in the figure: sure that they show one of both digits).

    python scripts/analyses/compare_interpolations.py --digits 3 8 --figure interpolations.png \
        --checkpoints runs/autoencoder_mnist runs/vae_mnist runs/latent_gan_mnist

A checkpoint is a file, or a run's or an experiment's folder. Each model gets a row; the first row fades the pixels. The
number is over the first images of any two digits in the test set.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lit_models
from datamodules import MNIST, Digits, LabeledImages
from lit_models.callbacks.interpolations import Sureness, paired_rows, pixel_interpolation, share_sure
from lit_models.metrics.extractors import digit_classifier
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.pretrained import find_pretrained


def load(checkpoint: str) -> Any:
    """The model of a checkpoint of relit, in evaluation mode."""
    path = find_pretrained(checkpoint)
    name = read_checkpoint(path)["config"]["model"]["class_path"].rsplit(".", 1)[-1]
    return getattr(lit_models, name).load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


def first_test_images(root: str | None, data: str, count: int) -> LabeledImages:
    """The first test images, as floats."""
    module = {"MNIST": MNIST, "Digits": Digits}[data](root=root)
    module.prepare_data()
    module.setup("test")
    return module.transform(
        module.test_set.__getitems__(torch.arange(min(count, len(module.test_set)))), training=False
    )


def draw(rows: list[tuple[str, Tensor, Sureness]], path: Path) -> None:
    """A row of images for each way, with its name and its share of sure images."""
    from matplotlib.figure import Figure

    steps = rows[0][1].shape[0]
    figure = Figure(figsize=(2.6 + 0.75 * steps, 0.85 * len(rows)), layout="constrained")
    for axes, (name, images, share) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axes.imshow(torch.cat(list(images[:, 0]), dim=1).cpu().numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel(
            f"{name}\n{100 * float(share.of_either):.0f} % sure", rotation=0, ha="right", va="center", fontsize=9
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")


@torch.no_grad()
def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", required=True, metavar="CHECKPOINT")
    parser.add_argument("--digits", nargs=2, type=int, default=[3, 8], metavar=("A", "B"), help="digits of the figure")
    parser.add_argument("--paths", nargs="+", choices=["lerp", "slerp"], default=["lerp", "slerp"])
    parser.add_argument("--steps", type=int, default=10, help="images on a way, both ends included (default: 10)")
    parser.add_argument("--per_pair", type=int, default=10, help="image pairs of any two digits for the number")
    parser.add_argument("--sure_above", type=float, default=0.9, help="probability that counts as sure (default: 0.9)")
    parser.add_argument("--data", choices=["MNIST", "Digits"], default="MNIST")
    parser.add_argument("--root", help="folder of all data sets (default: $RELIT_DATA)")
    parser.add_argument("--figure", type=Path, default=Path("interpolations.png"), metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures to this file, too")
    args = parser.parse_args()

    batch = first_test_images(args.root, args.data, 500)
    start, end = paired_rows(batch.label, args.per_pair)
    ends = batch.image[start], batch.image[end]
    wanted = tuple(sorted(args.digits))
    shown = list(zip(batch.label[start].tolist(), batch.label[end].tolist(), strict=True)).index(wanted)
    classifier = digit_classifier()
    logits = classifier(batch.image)
    right = float((logits.argmax(1) == batch.label).float().mean())

    ways = [("pixels", pixel_interpolation(*ends, args.steps))]
    for checkpoint in args.checkpoints:
        model = load(checkpoint)
        ways += [(f"{type(model).__name__}, {path}", model.interpolate(*ends, args.steps, path)) for path in args.paths]
    classes = batch.label[start], batch.label[end]
    rows = [(name, images[shown], share_sure(images, *classes, classifier, args.sure_above)) for name, images in ways]
    draw(rows, args.figure)

    count = len(start) * (args.steps - 2)
    print(
        f"Of {count:,} images between two digits, the classifier (right about {100 * right:.1f} % of the test images)"
    )
    print(f"is sure (p > {args.sure_above}) that they show a digit / one of both digits:")
    for name, _, share in rows:
        print(f"  {name:28} {100 * float(share.between):5.1f} % / {100 * float(share.of_either):5.1f} %")
    if args.csv:
        table = [(name, *(f"{float(value):.4f}" for value in share)) for name, _, share in rows]
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("way", "share_sure", "share_sure_of_either"), *table])


if __name__ == "__main__":
    main()
