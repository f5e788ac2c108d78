"""Pictures of what a network makes of test images, in two dimensions."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.loading.folders import figure_text
from lit_models.errors import RunError
from lit_models.metrics.retrieval import first_of_each_class
from lit_models.module import Embedding
from lit_models.support.abilities import require_ability
from lit_models.support.checks import facts_of
from lit_models.support.lightning_internals import data_of
from lit_models.support.logging import log_figure, log_table
from lit_models.support.ranks import gather_rows


class EmbeddingPlot(Callback):
    """Draws after a test where the embeddings of test images lie: t-SNE (van der Maaten & Hinton 2008) and the first
    two principal components.

    Writes ``figures/embedding.png`` in the run folder, the points in ``figures/embedding.csv``, and both to W&B, for
    any model with ``embed(image) -> (B, D)``. t-SNE takes about half a minute for 5,000 points.

    Args:
        per_class: Images of each class: the first ones in the order of the test set.
        max_classes: Draw the first so many classes only; more colors can't be distinguished.
        perplexity: About how many neighbors count for a point in t-SNE; at most a third of the points.
        seed: Seed of t-SNE.
    """

    def __init__(self, per_class: int = 500, max_classes: int = 20, perplexity: float = 30.0, seed: int = 0) -> None:
        if per_class < 1 or max_classes < 1 or perplexity <= 0:
            raise RunError("EmbeddingPlot: per_class and max_classes must be at least 1, perplexity greater than 0.")
        self.per_class = per_class
        self.max_classes = max_classes
        self.perplexity = perplexity
        self.seed = seed
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._embeddings, self._labels = [], []

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
            embedding = require_ability(self, pl_module, Embedding).embed(batch.image)
        self._embeddings.append(embedding.float())
        self._labels.append(batch.label)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._labels:
            return
        embedding, label = (gather_rows(trainer, torch.cat(rows)) for rows in (self._embeddings, self._labels))
        self._embeddings, self._labels = [], []
        if not trainer.is_global_zero:
            return
        chosen = first_of_each_class(label, self.per_class)
        chosen = chosen[torch.isin(label[chosen], label.unique()[: self.max_classes])]
        if len(chosen) < 4 or embedding.shape[1] < 2:
            size = f"{len(chosen)} test images with {embedding.shape[1]}-dimensional embeddings"
            warnings.warn(f"{size} are too few to draw figures/embedding.png.", stacklevel=1)
            return
        names = facts_of(data_of(trainer)).class_names
        path = Path(trainer.default_root_dir) / "figures" / "embedding.png"
        draw_embedding(embedding[chosen], label[chosen], names, path, self.perplexity, self.seed)
        log_figure(trainer, path)
        log_table(trainer, path.with_suffix(".csv"))


def draw_embedding(
    embedding: Tensor, label: Tensor, names: Sequence[str], path: Path, perplexity: float, seed: int
) -> None:
    """Draws points in two dimensions, by t-SNE and by PCA, in a color for each class; writes them to a table.

    Args:
        embedding: ``(N, D)``: at least 4 points of at least 2 dimensions.
        label: ``(N,)``.
        names: The classes' names by label; the labels themselves if empty.
        path: The PNG file to write; the table has its name with ``.csv``.
        perplexity: That of t-SNE.
        seed: Seed of t-SNE.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = embedding.cpu().numpy()
    tsne = TSNE(init="pca", perplexity=min(perplexity, (len(points) - 1) / 3), random_state=seed)
    pca = PCA(2, random_state=seed)
    panels = {f"t-SNE (perplexity {tsne.perplexity:g})": tsne.fit_transform(points)}
    projected = pca.fit_transform(points)
    panels[f"PCA ({100 * pca.explained_variance_ratio_.sum():.0f} % of the variance)"] = projected

    classes = label.unique().tolist()
    colors = colormaps["tab10" if len(classes) <= 10 else "tab20" if len(classes) <= 20 else "turbo"]
    palette = colors(np.arange(len(classes)) if len(classes) <= 20 else np.linspace(0, 1, len(classes)))
    size = min(max(20_000 / len(points), 5), 20)
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    for axes, (title, places) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for color, one in zip(palette, classes, strict=True):
            member = (label == one).numpy()
            axes.scatter(*places[member].T, s=size, alpha=0.6, linewidths=0, color=color)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    handles = [Line2D([], [], marker="o", linestyle="", color=color) for color in palette]
    figure.legend(
        handles,
        [figure_text(names[one]) if names else str(one) for one in classes],
        loc="outside right center",
        frameon=False,
    )
    figure.suptitle(f"{points.shape[1]}-dimensional embeddings of {len(points):,} test images")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "tsne_1", "tsne_2", "pca_1", "pca_2"])
        for one, *place in zip(label.tolist(), *np.hstack(list(panels.values())).T.tolist(), strict=True):
            writer.writerow([names[one] if names else one, *(f"{coordinate:.4f}" for coordinate in place)])
