"""Curves of a finished run, drawn from its ``metrics.csv``."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.support.logging import log_figure

Curve = list[tuple[float, float]]


class LossCurves(Callback):
    """Draws every logged loss against the step at the end of training, in ``figures/losses.png``, and every accuracy in
    ``figures/accuracies.png``; training and evaluation share a plot."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        run = Path(trainer.default_root_dir)
        curves = read_curves(run / "metrics.csv")
        for picture, quantity in (("losses", "loss"), ("accuracies", "accuracy")):
            chosen = {
                name: curve for name, curve in curves.items() if quantity in name and not name.startswith("test/")
            }
            if chosen:
                path = run / "figures" / f"{picture}.png"
                draw_curves(chosen, path)
                log_figure(trainer, path)


def read_curves(path: Path) -> dict[str, Curve]:
    """The curves ``(step, value)`` of every metric in a ``metrics.csv``, by name; none if there is no file."""
    curves: dict[str, Curve] = defaultdict(list)
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value and math.isfinite(float(value)):
                        curves[name].append((float(row["step"]), float(value)))
    return dict(curves)


def draw_curves(curves: dict[str, Curve], path: Path) -> None:
    """Draws curves with a legend; noisy ones pale, with their running mean on top.

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
        for name in sorted(names):
            _draw(axes, curves[name], name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
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


def _draw(axes: Any, curve: Curve, label: str) -> None:
    steps, values = zip(*curve, strict=True)
    window = len(values) // 20
    if window < 2:
        axes.plot(steps, values, label=label, marker="o" if len(values) < 50 else None, markersize=3)
        return
    line = axes.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
    axes.plot(steps, running_mean(values, window), label=label, color=line.get_color())


def running_mean(values: tuple[float, ...], window: int) -> list[float]:
    """The mean of each value and up to ``window`` values before it."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window - 1] if i > window else 0.0)
        means.append(total / min(i + 1, window + 1))
    return means
