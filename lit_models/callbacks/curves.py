"""Loss curves of a finished run, drawn from its ``metrics.csv``."""

import csv
import math
from collections import defaultdict
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torchvision.transforms.functional import to_tensor

from lit_models.callbacks.logging import log_image

Curve = list[tuple[float, float]]


class LossCurves(Callback):
    """Draws ``figures/losses.png`` at the end of training: every logged loss against the step, in one plot."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        run = Path(trainer.default_root_dir)
        curves = read_curves(run / "metrics.csv")
        losses = {name: curve for name, curve in curves.items() if name.endswith("loss")}
        if losses:
            path = run / "figures" / "losses.png"
            draw_curves(losses, path, "loss")
            log_image(trainer, "figures/losses", to_tensor(Image.open(path).convert("RGB")))


def read_curves(path: Path) -> dict[str, Curve]:
    """The curves ``(step, value)`` of every metric in a ``metrics.csv``, by name; none if there is no file."""
    curves: dict[str, Curve] = defaultdict(list)
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value and math.isfinite(float(value)):
                        curves[name].append((float(row["step"]), float(value)))
    return dict(curves)


def draw_curves(curves: dict[str, Curve], path: Path, quantity: str) -> None:
    """Draws curves into one plot with a legend; noisy ones pale, with their running mean on top.

    Args:
        curves: ``(step, value)`` pairs by name.
        path: The PNG file to write.
        quantity: Label of the vertical axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in sorted(curves.items()):
        steps, values = zip(*curve, strict=True)
        window = len(values) // 20
        if window < 2:
            axes.plot(steps, values, label=name, marker="o" if len(values) < 50 else None, markersize=3)
            continue
        line = axes.plot(steps, values, alpha=0.25, linewidth=0.8)[0]
        axes.plot(steps, running_mean(values, window), label=name, color=line.get_color())
    axes.set_xlabel("step")
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def running_mean(values: tuple[float, ...], window: int) -> list[float]:
    """The mean of each value and up to ``window`` values before it."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window - 1] if i > window else 0.0)
        means.append(total / min(i + 1, window + 1))
    return means
