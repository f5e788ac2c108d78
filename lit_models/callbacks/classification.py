"""How good a classifier is at each class."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from lit_models.callbacks.logging import log_image
from lit_models.callbacks.ranks import gather


class ClassificationReport(Callback):
    """Says after a test which classes are recognised, and what they are taken for.

    Writes into ``figures/`` in the run folder (and the figures to W&B): ``class_accuracy.csv`` and ``.png``, and
    ``confusion_matrix.csv`` and ``.png``, with the true classes as rows. For any model whose ``test_step`` returns the
    logits ``(B, num_classes)`` of a batch with a ``label``.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._counts = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        counts = confusion_counts(outputs, batch.label)
        self._counts = counts if self._counts is None else self._counts + counts

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._counts is None:
            return
        counts = torch.stack(gather(trainer, self._counts.cpu())).sum(0)
        if not trainer.is_global_zero:
            return
        given = getattr(getattr(trainer, "datamodule", None), "class_names", ())
        names = list(given) if len(given) == len(counts) else [str(label) for label in range(len(counts))]
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        write_class_accuracy(counts, names, folder / "class_accuracy.csv")
        write_confusion(counts, names, folder / "confusion_matrix.csv")
        draw_class_accuracy(counts, names, folder / "class_accuracy.png")
        draw_confusion(counts, names, folder / "confusion_matrix.png")
        for name in ("class_accuracy", "confusion_matrix"):
            log_image(trainer, f"figures/{name}", to_tensor(Image.open(folder / f"{name}.png").convert("RGB")))


def confusion_counts(logits: Tensor, label: Tensor) -> Tensor:
    """How often each class (row) was taken for each class (column).

    Args:
        logits: ``(B, num_classes)``.
        label: ``(B,)``, int64.

    Returns:
        ``(num_classes, num_classes)``, int64.
    """
    classes = logits.shape[1]
    return torch.bincount(label * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)


def write_class_accuracy(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """A table with a row for each class and one for all; the accuracy of a class without images is left empty."""
    correct, images = counts.diagonal().tolist(), counts.sum(1).tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "images", "correct", "accuracy"])
        for name, total, right in zip([*names, "all"], [*images, sum(images)], [*correct, sum(correct)], strict=True):
            writer.writerow([name, total, right, f"{right / total:.4f}" if total else ""])


def write_confusion(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """The confusion matrix as counts; rows are the true classes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *names])
        writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))


def draw_class_accuracy(
    counts: Tensor, names: Sequence[str], path: Path, quantity: str = "accuracy on test images / %"
) -> None:
    """A bar for each class, with its number of images, and a line for all."""
    from matplotlib.figure import Figure

    accuracy = (100 * counts.diagonal() / counts.sum(1)).nan_to_num().tolist()
    overall = 100 * float(counts.diagonal().sum() / counts.sum())
    figure = Figure(figsize=(8, 1.5 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), accuracy, color="#5a9bc8")
    axes.bar_label(bars, fmt="%.1f", padding=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(
        overall, color="tab:red", linestyle="--", zorder=0, label=f"all {int(counts.sum()):,}: {overall:.1f} %"
    )
    axes.set_yticks(
        range(len(names)), [f"{name} ({int(size):,})" for name, size in zip(names, counts.sum(1), strict=True)]
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel(quantity)
    axes.set_ylabel("class (images)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, dpi=120)


def draw_confusion(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """A square for each pair of classes, as dark as the share of the true class's images; up to 20 classes also get
    the number in percent."""
    from matplotlib.figure import Figure

    percent = (100 * counts / counts.sum(1, keepdim=True)).nan_to_num()
    size = 2.5 + 0.5 * min(len(names), 20)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(names) <= 20:
        for row, column in torch.cartesian_prod(*[torch.arange(len(names))] * 2).tolist():
            value = percent[row, column].item()
            if value >= 0.5:
                colour = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    figure.colorbar(picture, ax=axes, label="% of the true class's images", shrink=0.8)
    figure.savefig(path, dpi=120)
