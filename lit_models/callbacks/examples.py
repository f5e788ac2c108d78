"""Pictures of test images of one class, with what a classifier takes them for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.loading.folders import figure_text
from lit_models.errors import RunError
from lit_models.support.checks import facts_of
from lit_models.support.lightning_internals import data_of
from lit_models.support.logging import log_figure
from lit_models.support.ranks import gather


class ClassExamples(Callback):
    """Draws after a test the first test images of one class, with what they were taken for and how surely.

    Writes ``figures/examples_<class>.png`` in the run folder, and to W&B. For any model whose ``test_step`` returns the
    logits ``(B, num_classes)`` of a batch with an ``image`` and a ``label``.

    Args:
        class_name: The class, by its name or its label; the first one if null.
        count: How many images.
    """

    def __init__(self, class_name: str | None = None, count: int = 24) -> None:
        if count < 1:
            raise RunError(f"ClassExamples: count is {count}; it must be at least 1.")
        self.class_name = class_name
        self.count = count
        self._label = 0
        self._images: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._places: list[int] = []
        self._rows_seen = 0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images, self._probabilities, self._places = [], [], []
        self._rows_seen = 0
        self._label = chosen_label(self.class_name, class_names(trainer))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        first, self._rows_seen = self._rows_seen, self._rows_seen + len(batch.label)
        if len(self._places) >= self.count:
            return
        rows = (batch.label == self._label).nonzero().flatten()[: self.count - len(self._places)]
        self._images += batch.image[rows].cpu().unbind()
        self._probabilities += outputs[rows].float().softmax(1).cpu().unbind()
        # Ranks take turns with the rows of the data set.
        self._places += [(first + row) * trainer.world_size + trainer.global_rank for row in rows.tolist()]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = list(zip(self._places, self._images, self._probabilities, strict=True))
        found = sorted((one for share in gather(trainer, own) for one in share), key=lambda one: one[0])[: self.count]
        self._images, self._probabilities, self._places = [], [], []
        if not found or not trainer.is_global_zero:
            return
        images, probability = torch.stack([one[1] for one in found]), torch.stack([one[2] for one in found])
        names = class_names(trainer) or [str(label) for label in range(probability.shape[1])]
        safe_name = "".join(letter if letter.isalnum() else "_" for letter in names[self._label])
        path = Path(trainer.default_root_dir) / "figures" / f"examples_{safe_name}.png"
        draw_examples(images, probability, self._label, names, path)
        log_figure(trainer, path)


def class_names(trainer: Trainer) -> list[str]:
    """The names that the trainer's data module has for its classes; none if it has none."""
    return list(facts_of(data_of(trainer)).class_names)


def chosen_label(name: str | None, names: Sequence[str]) -> int:
    """The label of a class, given by its name, or by the label itself where there is no such name.

    Raises:
        RunError: There is no such class.
    """
    if name is None:
        return 0
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and (not names or int(name) < len(names)):
        return int(name)
    raise RunError(f"ClassExamples: there is no class {name!r}; there are {', '.join(names[:10])} …")


def draw_examples(image: Tensor, probability: Tensor, label: int, names: Sequence[str], path: Path) -> None:
    """Draws images in rows of eight, each with its likeliest class and that class's probability; wrong ones in red.

    Args:
        image: ``(N, C, H, W)`` in [0, 1].
        probability: ``(N, num_classes)``.
        label: The class of all of them.
        names: The classes' names by label.
        path: The PNG file to write.
    """
    from matplotlib.figure import Figure

    columns = min(8, len(image))
    rows = -(-len(image) // columns)
    figure = Figure(figsize=(1.6 * columns, 0.6 + 1.9 * rows), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in plots:
        axes.axis("off")
    highest, likeliest = (column.tolist() for column in probability.max(1))
    for axes, picture, value, answer in zip(plots, image, highest, likeliest, strict=False):
        axes.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        name = names[answer]
        title = f"{name if len(name) <= 18 else f'{name[:17]}…'}\n{100 * value:.0f} %"
        axes.set_title(figure_text(title), fontsize=8, color="tab:green" if answer == label else "tab:red")
    right = sum(answer == label for answer in likeliest)
    figure.suptitle(f"{names[label]}: {right} of {len(image)} test images recognized")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
