"""What the decoder's variance and the KL term of a VAE do: reconstructions and samples of several, a row each.

    python scripts/analyses/vae_variances.py --figure variances.png \\
        --checkpoints runs/vae_lfw/LOW runs/vae_lfw/OPTIMAL runs/vae_lfw/HIGH runs/vae_lfw/WITHOUT_KL

A checkpoint is a file, or a run's or an experiment's folder. The first row are the test images of the first one's data
module; all models draw the same latent vectors from the prior.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import datamodules
from lit_models import VAE
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.pretrained import find_pretrained


def test_images(checkpoint: Path, count: int) -> Tensor:
    """The first test images of the data module that a checkpoint's configuration names, ``(count, C, H, W)``."""
    data = read_checkpoint(checkpoint)["config"]["data"]
    module = getattr(datamodules, data["class_path"].rpartition(".")[2])(**data["init_args"])
    module.prepare_data()
    module.setup("test")
    batch = module.transform(module.test_set.__getitems__(torch.arange(count)), training=False)
    return batch.image


def described(model: VAE) -> str:
    """The variance and the weight of the KL term."""
    variance = f"s² = {float(model.log_s2.exp() if model.variance == 'learned' else model.s2):.2g}"
    kl = "" if model.kl_weight == 1 else f"\nβ = {model.kl_weight:g}"
    return f"{model.variance}, {variance}{kl}"


@torch.no_grad()
def rows_of(models: list[VAE], images: Tensor, samples: int) -> list[tuple[str, Tensor]]:
    """The name and the images of each row: the test images, then each model's reconstructions and samples."""
    blank = torch.ones(samples, *images.shape[1:])
    rows = [("test images", torch.cat((images, blank)))]
    for model in models:
        drawn = model.sample(samples, generator=torch.Generator().manual_seed(0))
        rows.append((described(model), torch.cat((model.reconstruct(images), drawn))))
    return rows


def draw(rows: list[tuple[str, Tensor]], path: Path) -> None:
    """A row of images for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 0.8 * len(rows[0][1]), 0.9 * len(rows)), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axes.imshow(torch.cat(list(images.permute(0, 2, 3, 1)), dim=1).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", nargs="+", required=True, metavar="CHECKPOINT")
    parser.add_argument("--reconstructions", type=int, default=4, help="test images (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="images from the prior (default: %(default)s)")
    parser.add_argument("--figure", type=Path, default=Path("variances.png"), metavar="FILE")
    given = parser.parse_args()
    paths = [find_pretrained(checkpoint) for checkpoint in given.checkpoints]
    models = [VAE.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval() for path in paths]
    draw(rows_of(models, test_images(paths[0], given.reconstructions), given.samples), given.figure)


if __name__ == "__main__":
    main()
