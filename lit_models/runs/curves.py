"""Curves of a finished run, drawn from its ``metrics.csv``."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.runs.reading import COLORS, FEWEST_NOISY_POINTS, Curve, color_of, read_steps, smooth
from lit_models.support.logging import log_figure

MOST_WITHIN = 4
"""Curves up to which the legend stands within the plot."""


class LossCurves(Callback):
    """Draws every logged loss against the step at the end of training, in ``figures/losses.png``, and every accuracy in
    ``figures/accuracies.png``; training and evaluation share a plot."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        run = Path(trainer.default_root_dir)
        curves = read_steps(run / "metrics.csv")
        for picture, quantity in (("losses", "loss"), ("accuracies", "accuracy")):
            chosen = {
                name: curve for name, curve in curves.items() if quantity in name and not name.startswith("test/")
            }
            if chosen:
                path = run / "figures" / f"{picture}.png"
                draw_curves(chosen, path)
                log_figure(trainer, path)


def draw_curves(curves: dict[str, Curve], path: Path) -> None:
    """Draws curves with a legend; noisy ones pale, with their smooth course on top.

    What is logged over the same steps shares a plot, such as the losses of the two players of a GAN, for training and
    validation; phases that follow each other have a plot each.

    Args:
        curves: ``(step, value)`` pairs by name, ``<stage>/<quantity>``.
        path: The PNG file to write.
    """
    from matplotlib.figure import Figure

    phases = by_phase(curves)
    columns = min(len(phases), 3)
    rows = math.ceil(len(phases) / columns)
    figure = Figure(figsize=(max(8, 5 * columns), max(4.5, 3.2 * rows)), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in plots[len(phases) :]:
        axes.remove()
    for axes, names in zip(plots, phases, strict=False):
        for number, name in enumerate(sorted(names)):
            _draw(axes, curves[name], name, COLORS[color_of(number)])
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        # A long legend would cover curves.
        axes.legend(**({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(names) > MOST_WITHIN else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def by_phase(curves: dict[str, Curve]) -> list[list[str]]:
    """The names of the curves, in groups whose quantities were logged over overlapping steps.

    Example:
        >>> by_phase({"train/a": [(0, 1.0), (9, 1.0)], "val/a": [(9, 1.0)], "train/b": [(10, 1.0), (19, 1.0)]})
        [['train/a', 'val/a'], ['train/b']]
    """
    quantities: dict[str, list[str]] = defaultdict(list)
    for name in curves:
        quantities[name.rpartition("/")[2]].append(name)
    spans = []
    for names in quantities.values():
        steps = [step for name in names for step, _ in curves[name]]
        spans.append((min(steps), max(steps), names))
    groups: list[list[str]] = []
    reached = -math.inf
    for first, last, names in sorted(spans):
        if first > reached:
            groups.append([])
        groups[-1] += names
        reached = max(reached, last)
    return groups


def _draw(axes: Any, curve: Curve, label: str, color: str) -> None:
    steps, values = zip(*curve, strict=True)
    if len(values) < FEWEST_NOISY_POINTS:
        axes.plot(steps, values, label=label, color=color, marker="o", markersize=3)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(values), label=label, color=color)
