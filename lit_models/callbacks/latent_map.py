"""Pictures of a latent space of two dimensions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from datamodules.loading.folders import figure_text
from lit_models.errors import RunError
from lit_models.module import Decoding, Embedding
from lit_models.support.abilities import latent_dim_of, require_ability
from lit_models.support.checks import facts_of
from lit_models.support.lightning_internals import data_of
from lit_models.support.logging import log_figure
from lit_models.support.ranks import gather_rows


class LatentMap(Callback):
    """Draws after a test what a model with two latent dimensions decodes over the plane, and where test images lie.

    Writes into ``figures/`` in the run folder and to W&B: ``latent_map.png``, decoded points of the plane at equal
    steps of the normal prior's probability, from the 1st to the 99th percentile (Kingma & Welling 2013, figure 4); and
    ``latent_plane.png``, the test images' latent vectors in their classes' colors. For any model with
    ``embed(image) -> (N, 2)`` and ``decode(latent)``.

    Args:
        columns: Images in a row and rows of the map.
    """

    def __init__(self, columns: int = 20) -> None:
        if columns < 2:
            raise RunError(f"LatentMap: columns is {columns}; it must be at least 2.")
        self.columns = columns
        self._latents: list[Tensor] = []
        self._labels: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        latent_dim = latent_dim_of(pl_module)
        if latent_dim != 2:
            raise RunError(
                f"LatentMap draws a plane, but the latent vectors have {latent_dim} components: set "
                "--model.latent_dim 2, or leave the callback out."
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latents, self._labels = [], []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with trainer.precision_plugin.forward_context():
            self._latents.append(require_ability(self, pl_module, Embedding).embed(batch.image).float())
        self._labels.append(batch.label)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        latent, label = (gather_rows(trainer, torch.cat(parts)) for parts in (self._latents, self._labels))
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        image = require_ability(self, pl_module, Decoding).decode(plane(self.columns).to(pl_module.device))
        save_image(make_grid(image.float().cpu(), nrow=self.columns, padding=0), folder / "latent_map.png")
        names = facts_of(data_of(trainer)).class_names
        draw_plane(latent, label, names, folder / "latent_plane.png")
        for name in ("latent_map", "latent_plane"):
            log_figure(trainer, folder / f"{name}.png")


def plane(columns: int) -> Tensor:
    """Points ``(columns², 2)`` of the plane at equal steps of the standard normal distribution, row by row from the top
    left: the first component rises to the right, the second upwards."""
    quantile = torch.special.ndtri(torch.linspace(0.01, 0.99, columns))
    return torch.cartesian_prod(quantile.flip(0), quantile).flip(1)


def draw_plane(latent: Tensor, label: Tensor, names: Sequence[str], path: Path) -> None:
    """Draws points ``(N, 2)`` in a color for each class; the circle holds 95 % of the prior."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    classes = label.unique().tolist()
    colors = colormaps["tab10" if len(classes) <= 10 else "turbo"]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(classes):
        first, second = latent[label == one].T.numpy()
        color = colors(number if len(classes) <= 10 else number / len(classes))
        axes.scatter(
            first,
            second,
            s=4,
            alpha=0.5,
            linewidths=0,
            color=color,
            label=figure_text(names[one]) if names else str(one),
        )
    axes.add_patch(Circle((0, 0), 2.448, fill=False, linestyle="--", color="gray"))
    axes.set_aspect("equal")
    axes.set_xlabel("first component of μ")
    axes.set_ylabel("second component of μ")
    if len(classes) <= 20:
        figure.legend(loc="outside right center", frameon=False, markerscale=4)
    figure.savefig(path, dpi=110)
