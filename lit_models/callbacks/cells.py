"""The cells of DARTS in the run folder, as files and as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.darts.genotype import CELLS, EDGES, NODES, OPERATIONS, Cell, Genotype
from lit_models.darts.retrain import DARTSRetrain
from lit_models.darts.search import DARTSSearch
from lit_models.support.files import write_atomically
from lit_models.support.lightning_internals import is_trial
from lit_models.support.logging import log_figure

COLORS = dict(
    zip(
        OPERATIONS,
        ("white", "#f4a582", "#fddbc7", "#e0e0e0", "#92c5de", "#4393c3", "#b8e186", "#7fbc41"),
        strict=True,
    )
)
"""Fill of each operation's box: poolings reddish, separable convolutions blue, dilated ones green."""
STATES = ("$c_{k-2}$", "$c_{k-1}$", *map(str, range(NODES)))
COLUMN, ROW = 3.0, 1.15
"""Distance of the nodes' columns, and of the upper and lower nodes from the middle."""


class CellFigures(Callback):
    """Writes and draws the cells that a :class:`DARTSSearch` finds, or that a :class:`DARTSRetrain` trains.

    After each epoch of a search: ``genotype.json``, what the search would end with now (also
    ``genotypes/epoch_0001.json`` …), ``figures/cells.png`` with its two cells, and ``figures/search.png`` with the
    development of α, the accuracies and the learning rate. When a training of cells starts: ``genotype.json`` and
    ``figures/cells.png``. W&B gets the pictures, too. Each training of these methods has this callback.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, DARTSRetrain) and trainer.is_global_zero and not is_trial(trainer):
            _write(trainer, pl_module.cells)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning calls it before the module's hook, which resets the means and moves the learning rate.
        if not isinstance(pl_module, DARTSSearch):
            return
        accuracy = {"train": float(pl_module.epoch_accuracy.compute())}
        if "val/accuracy" in trainer.callback_metrics:
            accuracy["val"] = float(trainer.callback_metrics["val/accuracy"])
        alpha = torch.stack([alpha.detach().float().cpu() for alpha in pl_module.alphas])
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append({"alpha": alpha, "learning_rate": rate, "accuracy": accuracy})
        if trainer.is_global_zero and not is_trial(trainer):
            _write(trainer, pl_module.genotype(), trainer.current_epoch + 1)
            log_figure(trainer, draw_search(self.history, Path(trainer.default_root_dir) / "figures" / "search.png"))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if isinstance(pl_module, DARTSSearch):
            checkpoint["history"] = self.history

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint.get("history", []))


def _write(trainer: Trainer, genotype: Genotype, epoch: int | None = None) -> None:
    """Write a genotype, and draw its cells; of a search that has come so far."""
    run = Path(trainer.default_root_dir)
    files = [run / "genotype.json"]
    if epoch is not None:
        files.insert(0, run / "genotypes" / f"epoch_{epoch:04d}.json")
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, genotype.to_json())
    title = "" if epoch is None else f"after epoch {epoch}"
    log_figure(trainer, draw_genotype(genotype, run / "figures" / "cells.png", title))


def draw_genotype(genotype: Genotype, path: Path, title: str = "") -> Path:
    """Draws both cells, from their inputs (the outputs of the two cells before) on the left to their output on the
    right.

    Args:
        genotype: The cells.
        path: The PNG file to write.
        title: What to add to their names.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.6), layout="constrained")
    for axes, kind, cell in zip(figure.subplots(2, 1), CELLS, genotype, strict=True):
        _draw_cell(axes, cell)
        axes.set_title(f"{kind} cell {title}".rstrip(), fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def _draw_cell(axes: Any, cell: Cell) -> None:
    # Not at the height of the upper nodes, so that its edges to the later ones pass below the earlier ones.
    places = [(0.0, 0.35 * ROW), (0.0, -ROW)]
    places += [(COLUMN * (node + 1), ROW * (-1) ** node) for node in range(NODES)]
    output = (COLUMN * (NODES + 1) - 0.9, 0.0)
    for node in range(NODES):
        x, y = places[2 + node]
        _curve(axes, (x, y), output, color="0.75")
        pair = sorted(cell[2 * node : 2 * node + 2], key=lambda edge: -places[edge[1]][1])
        for (operation, state), shift in zip(pair, (0.42, -0.42), strict=True):
            start, box = places[state], (x - 1.25, y + shift)
            _curve(axes, start, (box[0] - 0.4, box[1]), color="0.35")
            _curve(axes, (box[0] + 0.4, box[1]), (x - 0.17, y), color="0.35", arrow=True)
            style = {"boxstyle": "round,pad=0.25", "facecolor": COLORS[operation], "edgecolor": "0.4"}
            axes.text(*box, operation, ha="center", va="center", fontsize=9, bbox=style, zorder=3)
    for place, name in zip((*places, output), (*STATES, "$c_k$"), strict=True):
        style = {"boxstyle": "circle,pad=0.35", "facecolor": "#ffeda0", "edgecolor": "0.2"}
        axes.text(*place, name, ha="center", va="center", fontsize=11, bbox=style, zorder=4)
    axes.set_xlim(-0.6, output[0] + 0.6)
    axes.set_ylim(-2.0, 2.0)
    axes.axis("off")


def _curve(axes: Any, start: tuple[float, float], end: tuple[float, float], color: str, arrow: bool = False) -> None:
    """A line that leaves and arrives horizontally."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    middle = (start[0] + end[0]) / 2
    outline = Outline(
        [start, (middle, start[1]), (middle, end[1]), end],
        [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4],
    )
    style = "-|>,head_width=3,head_length=5" if arrow else "-"
    axes.add_patch(FancyArrowPatch(path=outline, arrowstyle=style, color=color, linewidth=1.3, zorder=1))


def draw_search(history: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draws how the weights of the operations developed, the accuracies, and the learning rate.

    Args:
        history: For each epoch ``alpha``, ``(2, 14, 8)``: α of the normal and of the reduction cells before the
            softmax; ``accuracy``, by stage; ``learning_rate``.
        path: The PNG file to write.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(history) + 1)
    marker = "o" if len(history) < 50 else None
    weight = torch.stack([entry["alpha"] for entry in history]).softmax(-1)  # (epochs, 2, 14, 8)
    figure = Figure(figsize=(14, 13), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 3.6])
    accuracies = figure.add_subplot(grid[0, 0])
    for stage in ("train", "val"):
        known = [epoch for epoch in epochs if stage in history[epoch - 1]["accuracy"]]
        values = [history[epoch - 1]["accuracy"][stage] for epoch in known]
        accuracies.plot(known, values, label=stage, marker=marker, markersize=3)
    accuracies.set_ylabel("accuracy")
    accuracies.legend()
    rates = figure.add_subplot(grid[0, 1])
    rates.plot(epochs, [entry["learning_rate"] for entry in history], marker=marker, markersize=3)
    rates.set_ylabel("learning rate of w")
    for axes in (accuracies, rates):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    largest = float(weight.max())
    for number, kind in enumerate(CELLS):
        axes = figure.add_subplot(grid[1, number])
        # A row for each operation on each edge, edge by edge.
        table = weight[:, number].flatten(1).T.numpy()
        extent = (0.5, len(history) + 0.5, len(table), 0)
        scale: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": largest}
        picture = axes.imshow(table, aspect="auto", interpolation="nearest", extent=extent, **scale)
        size = len(OPERATIONS)
        for row in range(1, len(EDGES)):
            axes.axhline(row * size, color="white", linewidth=1.2)
        names = [f"{STATES[state]} → {node}" for node, state in EDGES]
        axes.set_yticks([size * (row + 0.5) for row in range(len(EDGES))], names)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_title(f"softmax of α, {kind} cells")
    figure.supxlabel(f"rows of each edge, from the top: {', '.join(OPERATIONS)}", fontsize=10)
    figure.colorbar(picture, ax=figure.axes[-2:], shrink=0.4, location="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path
