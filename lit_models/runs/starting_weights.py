"""``relit fit --weights``: a new run that begins with the weights of another one."""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.support.files import write_atomically
from lit_models.support.weights import sha256


@dataclass(frozen=True)
class Taken:
    """Which layers of a model have got weights.

    Attributes:
        taken: Names of the layers that have.
        fresh: Names of those that start untrained.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]


class StartingWeights(Callback):
    """Gives the model weights at step 0; optimizers, schedules and the random state are those of a new run.

    A layer takes its weights if all of its tensors are there by name and shape; the others stay as they were drawn.
    ``weights.json`` in the run's folder keeps which file it was and which layers took part.

    Args:
        path: The file that the weights were read from.
        state: The weights by name.
        arguments: Those of the model that they were trained in, for errors.
    """

    def __init__(self, path: Path, state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.state = state
        self.arguments = arguments or {}
        self._layers: Taken | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        others = other_sizes(pl_module.hparams, self.arguments)
        # Refuses before any training.
        fitting(pl_module.state_dict(), self.state, self.path, type(pl_module).__name__, others)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Now, as methods that load parts of their networks themselves have done so.
        self._layers = take_weights(pl_module, self.state, self.path)
        if trainer.is_global_zero:
            print(f"relit: {told(self._layers, self.path)}", file=sys.stderr)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        layers, self._layers = self._layers, None
        if layers is None or not trainer.is_global_zero:
            return
        content = {
            "file": str(self.path),
            "sha256": sha256(self.path),
            "taken": layers.taken,
            "fresh": layers.fresh,
        }
        write_atomically(Path(trainer.default_root_dir) / "weights.json", json.dumps(content, indent=2) + "\n")


def take_weights(model: LightningModule, state: Mapping[str, Tensor], path: Path) -> Taken:
    """Copies the weights that fit into a model.

    Raises:
        ModelError: None does.
    """
    own = model.state_dict()
    layers = fitting(own, state, path, type(model).__name__)
    with torch.no_grad():
        for name, tensor in own.items():
            if layer_of(name) in layers.taken:
                tensor.copy_(state[name])
    return layers


def fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, method: str, others: str = "") -> Taken:
    """Which layers of a model all of whose tensors are in ``state`` by name and shape.

    Args:
        own: The model's tensors by name.
        state: Those of the file.
        path: The file, for errors.
        method: The model's, for errors.
        others: How the arguments differ, for errors.

    Raises:
        ModelError: There is no such layer.
    """
    layers: dict[str, list[bool]] = defaultdict(list)
    for name, tensor in own.items():
        layers[layer_of(name)].append(name in state and state[name].shape == tensor.shape)
    taken = tuple(layer for layer, fits in layers.items() if all(fits))
    if not any(own[name].is_floating_point() and own[name].dim() > 0 for name in own if layer_of(name) in taken):
        raise ModelError(
            f"No layer of this {method} fits the weights in {path} by name and shape: choose weights of a {method} "
            f"with the same arguments{f' ({others})' if others else ''}."
        )
    return Taken(taken, tuple(layer for layer in layers if layer not in taken))


def other_sizes(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The whole numbers among a model's arguments that differ from those of another.

    Example:
        >>> other_sizes({"feature_maps": 64, "latent_dim": 8, "loss": "bce"}, {"feature_maps": 16, "latent_dim": 8})
        'feature_maps is 64 here, and 16 there'
    """
    return ", ".join(
        f"{name} is {value} here, and {theirs[name]} there"
        for name, value in own.items()
        if type(value) is int and type(theirs.get(name)) is int and theirs[name] != value
    )


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to.

    Example:
        >>> layer_of("generator.layers.0.weight"), layer_of("centroid")
        ('generator.layers.0', 'centroid')
    """
    return name.rpartition(".")[0] or name


def told(layers: Taken, path: Path) -> str:
    """A sentence about what was taken."""
    count = len(layers.taken)
    if not layers.fresh:
        return f"starting from all weights in {path}, with new optimizers."
    shown = ", ".join(layers.fresh[:6]) + (f" and {len(layers.fresh) - 6} more" if len(layers.fresh) > 6 else "")
    return (
        f"starting from {path} with {count} of {count + len(layers.fresh)} layers, and new optimizers; these don't fit "
        f"and start untrained: {shown}."
    )


def state_of_source(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that has been read; a GAN's averaged generator is its generator if it had none."""
    state = {name: value for name, value in checkpoint["state_dict"].items() if isinstance(value, Tensor)}
    generator = {name.partition(".")[2]: value for name, value in state.items() if name.startswith("generator.")}
    return {**{f"generator_average.{name}": value for name, value in generator.items()}, **state}
