"""Pictures of features of two dimensions while they are learned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_models.errors import RunError
from lit_models.metrics.retrieval import first_of_each_class
from lit_models.support.abilities import require_ability
from lit_models.support.checks import facts_of
from lit_models.support.lightning_internals import data_of
from lit_models.support.logging import log_figure
from lit_models.support.ranks import gather_rows


@runtime_checkable
class Featuring(Protocol):
    """Turns images ``(B, C, H, W)`` in [0, 1] into what its classifier gets, ``(B, D)``."""

    def features(self, image: Tensor) -> Tensor: ...


class FeaturePlane(Callback):
    """Draws after each validation where the features of validation images lie, a panel an epoch, as figures 2 and 3 of
    the center loss's paper (Wen et al. 2016) do.

    Writes ``figures/feature_plane.png`` in the run folder and to W&B, for any model with ``features(image) -> (B, 2)``.

    Args:
        per_class: Images of each class: the first ones in the order of the validation set.
        panels: Epochs that are drawn at most: the first, the last and others in between.
    """

    def __init__(self, per_class: int = 200, panels: int = 4) -> None:
        if per_class < 1 or panels < 2:
            raise RunError("FeaturePlane: per_class must be at least 1, panels at least 2.")
        self.per_class, self.panels = per_class, panels
        self.epochs: dict[int, tuple[Tensor, Tensor]] = {}
        self._batches: list[tuple[Tensor, Tensor]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with trainer.precision_plugin.forward_context():
            feature = require_ability(self, pl_module, Featuring).features(batch.image).float()
        if feature.shape[1] != 2:
            raise RunError(
                f"FeaturePlane draws a plane, but the features have {feature.shape[1]} components: set "
                "--model.embedding_dim 2, or leave the callback out."
            )
        self._batches.append((feature, batch.label))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self._batches:
            return
        feature, label = (gather_rows(trainer, torch.cat(rows)) for rows in zip(*self._batches, strict=True))
        self._batches = []
        chosen = first_of_each_class(label, self.per_class)
        self.epochs[trainer.current_epoch + 1] = feature[chosen], label[chosen]
        if trainer.is_global_zero:
            names = facts_of(data_of(trainer)).class_names
            path = Path(trainer.default_root_dir) / "figures" / "feature_plane.png"
            draw_planes({epoch: self.epochs[epoch] for epoch in spread(list(self.epochs), self.panels)}, names, path)
            log_figure(trainer, path)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


def spread(values: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the values, evenly spread, with the first and the last.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3)
        [1, 3, 5]
    """
    places = torch.linspace(0, len(values) - 1, min(count, len(values))).round().int()
    return [values[place] for place in places.unique().tolist()]


def draw_planes(epochs: dict[int, tuple[Tensor, Tensor]], names: Sequence[str], path: Path) -> None:
    """Draws points ``(N, 2)`` of each epoch in a panel, in a color for each class; each panel has its own scale.

    Args:
        epochs: The features and their labels, by epoch.
        names: The classes' names by label; the labels themselves if empty.
        path: The PNG file to write.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(epochs) + 1, 4), layout="constrained")
    classes = sorted({int(one) for _, label in epochs.values() for one in label})
    colors = colormaps["tab10" if len(classes) <= 10 else "turbo"]
    panels = figure.subplots(1, len(epochs), squeeze=False)[0]
    for axes, (epoch, (feature, label)) in zip(panels, epochs.items(), strict=True):
        for number, one in enumerate(classes):
            x, y = feature[label == one].T.numpy()
            color = colors(number if len(classes) <= 10 else number / len(classes))
            said = (names[one] if names else str(one)) if axes is panels[0] else None
            axes.scatter(x, y, s=4, alpha=0.6, linewidths=0, color=color, label=said)
        axes.set_title(f"epoch {epoch}")
        axes.set_aspect("equal", adjustable="datalim")
    if len(classes) <= 20:
        figure.legend(loc="outside right center", frameon=False, markerscale=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
