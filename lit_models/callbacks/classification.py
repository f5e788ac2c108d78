"""How good a classifier is at each class."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import ImageDataModule
from datamodules.loading.folders import figure_text
from lit_models.errors import RunError
from lit_models.support.checks import facts_of
from lit_models.support.lightning_internals import data_of
from lit_models.support.logging import log_confusion, log_figure, log_table
from lit_models.support.ranks import gather


class ClassificationReport(Callback):
    """Says after a test which classes are recognized, and what they are taken for.

    Writes into ``figures/`` in the run folder (and the figures to W&B): ``class_accuracy.csv`` and ``.png``,
    ``confusion_matrix.csv`` and ``.png``, with the true classes as rows, ``confused_pairs.csv`` and ``.png``, the pairs
    of classes that are taken for each other most often, and ``classification_report.csv``: precision, recall, F1 and
    support of each class and their means. For any model whose ``test_step`` returns the logits ``(B, num_classes)`` of
    a batch with a ``label``.

    Args:
        confused_pairs: Pairs to show.
        table: Print the classification report, too.
        train: Report on the training split as well (without augmentation, by calling the model on its images), in
            ``confusion_matrix_train.png`` and so on.
    """

    def __init__(self, confused_pairs: int = 20, table: bool = False, train: bool = False) -> None:
        if confused_pairs < 1:
            raise RunError(f"ClassificationReport: confused_pairs is {confused_pairs}; it must be at least 1.")
        self.confused_pairs = confused_pairs
        self.table = table
        self.train = train
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
        splits = {"test": self._counts}
        if self.train:
            splits["train"] = count_training_split(trainer, pl_module)
        for split, own_counts in splits.items():
            counts = torch.stack(gather(trainer, own_counts.cpu())).sum(0)
            if trainer.is_global_zero:
                self._report(trainer, counts, split)

    def _report(self, trainer: Trainer, counts: Tensor, split: str) -> None:
        given = facts_of(data_of(trainer)).class_names
        names = list(given) if len(given) == len(counts) else [str(label) for label in range(len(counts))]
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        suffix = "" if split == "test" else f"_{split}"
        report = classification_report(counts, names)
        write_report(report, folder / f"classification_report{suffix}.csv")
        write_class_accuracy(counts, names, folder / f"class_accuracy{suffix}.csv")
        write_confusion(counts, names, folder / f"confusion_matrix{suffix}.csv")
        draw_class_accuracy(counts, names, folder / f"class_accuracy{suffix}.png", f"accuracy on {split} images / %")
        draw_confusion(counts, names, folder / f"confusion_matrix{suffix}.png")
        pictures = [f"class_accuracy{suffix}", f"confusion_matrix{suffix}"]
        if pairs := most_confused(counts, self.confused_pairs):
            write_confused_pairs(pairs, names, folder / f"confused_pairs{suffix}.csv")
            draw_confused_pairs(pairs, names, folder / f"confused_pairs{suffix}.png", split)
            pictures.append(f"confused_pairs{suffix}")
        for name in pictures:
            log_figure(trainer, folder / f"{name}.png")
            log_table(trainer, folder / f"{name}.csv")
        log_confusion(trainer, f"confusion_matrix{suffix}", counts, names)
        log_table(trainer, folder / f"classification_report{suffix}.csv")
        if self.table:
            print(f"\n{counts.sum()} {split} images\n{as_table(report)}")


def confusion_counts(logits: Tensor, label: Tensor) -> Tensor:
    """How often each class (row) was taken for each class (column).

    Args:
        logits: ``(B, num_classes)``.
        label: ``(B,)``, int64.

    Returns:
        ``(num_classes, num_classes)``, int64.
    """
    classes = logits.shape[1]
    cell = label * classes + logits.argmax(1)
    # `bincount` would wait for the device, to ask for the largest value.
    return cell.new_zeros(classes**2).scatter_add_(0, cell, torch.ones_like(cell)).view(classes, classes)


@torch.no_grad()
def count_training_split(trainer: Trainer, module: LightningModule) -> Tensor:
    """:func:`confusion_counts` of this rank's share of the training split, without augmentation."""
    datamodule = data_of(trainer)
    if not isinstance(datamodule, ImageDataModule):
        raise RunError("ClassificationReport: train is true, but there is no data module with a training split.")
    total: Tensor | None = None
    for batch in datamodule.eval_dataloader(datamodule.train_set):
        batch = datamodule.transform(module.transfer_batch_to_device(batch, module.device, 0), training=False)
        batch = trainer.precision_plugin.convert_input(batch)
        with trainer.precision_plugin.forward_context():
            counts = confusion_counts(module(batch.image), batch.label)
        total = counts if total is None else total + counts
    assert total is not None, "no data module has an empty split"
    return total


Report = list[tuple[str, float, float, float, int]]
"""Rows of a classification report: name, precision, recall, F1, support."""


def classification_report(counts: Tensor, names: Sequence[str]) -> Report:
    """Precision, recall, F1 (harmonic mean of both) and support (number of images) of each class, by scikit-learn; then
    their means over the classes ("macro average") and over the images ("weighted average").

    An undefined value, such as the precision of a class that nothing was taken for, counts as 0.

    Args:
        counts: ``(num_classes, num_classes)``: how often each class (row) was taken for each (column).
        names: The classes' names.
    """
    from sklearn.metrics import precision_recall_fscore_support

    # Each cell of the matrix is an example with the cell's count as its weight.
    true, taken_for = torch.cartesian_prod(*[torch.arange(len(counts))] * 2).T.numpy()
    arguments = {"sample_weight": counts.flatten().numpy(), "labels": range(len(counts)), "zero_division": 0}
    columns = precision_recall_fscore_support(true, taken_for, **arguments)
    total = int(counts.sum())
    rows = [
        (name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    ]
    for mean in ("macro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(true, taken_for, average=mean, **arguments)
        rows.append((f"{mean} average", float(precision), float(recall), float(f1), total))
    return rows


def write_report(report: Report, path: Path) -> None:
    """Writes a classification report as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "precision", "recall", "f1", "support"])
        writer.writerows([name, *(f"{value:.4f}" for value in scores), support] for name, *scores, support in report)


def as_table(report: Report) -> str:
    """A classification report for the terminal."""
    width = max(len(row[0]) for row in report)
    lines = [f"{'':{width}}  precision  recall      f1  support"]
    for name, precision, recall, f1, support in report:
        lines.append(f"{name:{width}}  {precision:9.3f}  {recall:6.3f}  {f1:6.3f}  {support:7}")
    return "\n".join(lines)


class ConfusedPair(NamedTuple):
    """Two classes, of which the one is taken for the other.

    Attributes:
        first: The class of the two that is taken for the other more often, or the one with the lower label.
        second: The other class.
        mistakes: Images of the first that were taken for the second, and the other way round.
        images: Images of the first, and of the second.
    """

    first: int
    second: int
    mistakes: tuple[int, int]
    images: tuple[int, int]

    @property
    def share(self) -> float:
        """The part of both classes' images that was taken for the other class."""
        return sum(self.mistakes) / sum(self.images)


def most_confused(counts: Tensor, limit: int) -> list[ConfusedPair]:
    """The pairs of classes with the largest share of images that were taken for the other class of the pair, most
    confused first; at most ``limit``, and none without a mistake.

    Args:
        counts: ``(num_classes, num_classes)``, as of :func:`confusion_counts`.
        limit: How many.
    """
    totals = counts.sum(1)
    mistakes = (counts + counts.T).triu(1)
    share = mistakes / (totals[:, None] + totals).clamp(min=1)
    order = share.flatten().argsort(descending=True, stable=True)[:limit]
    pairs = []
    for first, second in zip(*(part.tolist() for part in torch.unravel_index(order, share.shape)), strict=True):
        if not mistakes[first, second]:
            break
        if counts[second, first] > counts[first, second]:
            first, second = second, first
        numbers = (int(counts[first, second]), int(counts[second, first]))
        pairs.append(ConfusedPair(first, second, numbers, (int(totals[first]), int(totals[second]))))
    return pairs


def write_class_accuracy(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """A table with a row for each class and one for all; the accuracy of a class without images is left empty."""
    correct, images = counts.diagonal().tolist(), counts.sum(1).tolist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "images", "correct", "accuracy"])
        for name, total, right in zip([*names, "all"], [*images, sum(images)], [*correct, sum(correct)], strict=True):
            writer.writerow([name, total, right, f"{right / total:.4f}" if total else ""])


def write_confusion(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """The confusion matrix as counts; rows are the true classes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *names])
        writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))


def write_confused_pairs(pairs: Sequence[ConfusedPair], names: Sequence[str], path: Path) -> None:
    """A row for each pair: how many images of the first class were taken for the second, the other way round, and the
    part of both classes' images that these are."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "taken for", "times", "of images", "the other way", "of images", "share of both"])
        for pair in pairs:
            (there, back), (images, others) = pair.mistakes, pair.images
            first, second = names[pair.first], names[pair.second]
            writer.writerow([first, second, there, images, back, others, f"{pair.share:.4f}"])


def draw_confused_pairs(pairs: Sequence[ConfusedPair], names: Sequence[str], path: Path, split: str = "test") -> None:
    """Two bars for each pair: the part of one class's images that was taken for the other, and the other way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.36 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    labels = ("first class taken for the second", "second class taken for the first")
    for side, (label, color) in enumerate(zip(labels, ("tab:blue", "tab:orange"), strict=True)):
        percent = [100 * pair.mistakes[side] / max(1, pair.images[side]) for pair in pairs]
        places = [row + 0.4 * side - 0.2 for row in range(len(pairs))]
        bars = axes.barh(places, percent, 0.4, color=color, alpha=0.8, label=label)
        axes.bar_label(bars, [str(pair.mistakes[side]) for pair in pairs], padding=3, fontsize=7)
    axes.set_yticks(range(len(pairs)), [figure_text(f"{names[pair.first]} – {names[pair.second]}") for pair in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlabel(f"% of the class's {split} images (at the bar: their number)")
    axes.margins(x=0.08)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    figure.savefig(path, dpi=120)


def draw_class_accuracy(
    counts: Tensor, names: Sequence[str], path: Path, quantity: str = "accuracy on test images / %"
) -> None:
    """A bar for each class, with its number of images, and a line for all; more than 40 classes are sorted, best first,
    in columns of 50."""
    from matplotlib.figure import Figure

    accuracy = (100 * counts.diagonal() / counts.sum(1)).nan_to_num()
    overall = 100 * float(counts.diagonal().sum() / counts.sum())
    labels = [f"{name} ({int(size):,})" for name, size in zip(names, counts.sum(1), strict=True)]
    many = len(names) > 40
    order = accuracy.argsort(descending=True, stable=True) if many else torch.arange(len(names))
    columns = order.split(50 if many else len(names))
    rows = len(columns[0])
    figure = Figure(figsize=(max(8, 4.5 * len(columns)), 1.5 + (0.2 if many else 0.32) * rows), layout="constrained")
    size = {"fontsize": 8} if many else {}
    for axes, classes in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        bars = axes.barh(range(len(classes)), accuracy[classes].tolist(), color="#5a9bc8")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0 if many else 1}
        axes.bar_label(bars, fmt="%.0f" if many else "%.1f", padding=3, bbox=box, **size)
        line = axes.axvline(overall, color="tab:red", linestyle="--", zorder=0)
        axes.set_yticks(range(len(classes)), [figure_text(labels[label]) for label in classes.tolist()], **size)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, 110 if many else 105)
        axes.set_xlabel(quantity)
    figure.axes[0].set_ylabel("class (images)")
    figure.legend([line], [f"all {int(counts.sum()):,}: {overall:.1f} %"], loc="outside upper center")
    figure.savefig(path, dpi=120)


def draw_confusion(counts: Tensor, names: Sequence[str], path: Path) -> None:
    """A square for each pair of classes, as dark as the share of the true class's images; up to 20 classes also get
    the number in percent. With many classes the picture grows and the names shrink."""
    from matplotlib.figure import Figure

    percent = (100 * counts / counts.sum(1, keepdim=True)).nan_to_num()
    size = 2.5 + 0.5 * min(len(names), 20) + 0.07 * max(0, len(names) - 20)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(names) <= 20:
        for row, column in torch.cartesian_prod(*[torch.arange(len(names))] * 2).tolist():
            value = percent[row, column].item()
            if value >= 0.5:
                color = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    font: dict[str, Any] = {"fontsize": max(5, 10 - len(names) // 20)}
    turn: dict[str, Any] = {"rotation": 45 if len(names) <= 40 else 90, "ha": "right", "rotation_mode": "anchor"}
    shown = [figure_text(name) for name in names]
    axes.set_xticks(range(len(names)), shown, **turn, **font, va="top" if len(names) <= 40 else "center")
    axes.set_yticks(range(len(names)), shown, **font)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    figure.colorbar(picture, ax=axes, label="% of the true class's images", shrink=0.8, aspect=max(20, len(names) // 4))
    figure.savefig(path, dpi=120)
