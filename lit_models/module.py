"""The contract between a method, which derives from :class:`Method`, and everything that runs it.

Abilities beyond training are protocols: ``isinstance(model, Generative)`` finds models that draw.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.nn import functional

from lit_models.support.checks import DataFacts, facts_of, require_one_training
from lit_models.support.interpolation import Path as Way
from lit_models.support.lightning_internals import data_of
from lit_models.support.ranks import batch_weight


class Export(NamedTuple):
    """A network that can be used without the rest, such as a generator or an encoder; see :mod:`lit_models.cli.export`.

    Attributes:
        name: The name of its file, such as "encoder".
        method: The module's method that computes it.
        inputs: Kinds of its arguments: "image", "source", "latent", "code" or "label".
        output: Kind of its result: "image", "logits" or "embedding".
    """

    name: str
    method: str
    inputs: tuple[str, ...]
    output: str


@runtime_checkable
class Generative(Protocol):
    """Draws images ``(n, C, H, W)`` in [0, 1]; ``labels`` are classes, for a conditional model."""

    def sample(self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor: ...


@runtime_checkable
class Embedding(Protocol):
    """Turns images ``(N, C, H, W)`` in [0, 1] into vectors ``(N, D)``."""

    def embed(self, image: Tensor) -> Tensor: ...


@runtime_checkable
class Decoding(Protocol):
    """Turns vectors ``(N, D)`` into images ``(N, C, H, W)`` in [0, 1]."""

    def decode(self, latent: Tensor, /) -> Tensor: ...


@runtime_checkable
class Reconstructing(Protocol):
    """Returns what it makes of images ``(N, C, H, W)`` in [0, 1]."""

    def reconstruct(self, image: Tensor) -> Tensor: ...


@runtime_checkable
class Translating(Protocol):
    """Turns images of one kind into images of another, both ``(N, C, H, W)`` in [0, 1]."""

    def translate(self, source: Tensor) -> Tensor: ...


@runtime_checkable
class Interpolating(Protocol):
    """Returns ``(N, steps, C, H, W)``: images on the way from the ``start`` to the ``end`` images, both included."""

    def interpolate(self, start: Tensor, end: Tensor, steps: int, path: Way) -> Tensor: ...


class Method(LightningModule):
    """Base of all methods."""

    image_shape: tuple[int, int, int]
    """``(channels, height, width)`` of its images; ``setup`` compares it with the data."""
    num_classes: int = 0
    """Classes that it distinguishes or draws; 0 for none."""
    latent_dim: int = 0
    """Components of the vectors that it draws images from, or has for images; 0 for none."""
    class_names: Sequence[str] = ()
    """Names of the classes that it has learned, by label, kept in checkpoints; empty if the data have none."""

    needs_find_unused_parameters: ClassVar[bool] = False
    """Whether a step reaches some of the parameters only, which DDP must then look for."""
    why_not_float16: ClassVar[str] = ""
    """Why it can't be trained in float16; empty if it can."""
    later_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics that it doesn't log in every epoch, so that a checkpoint's monitor waits for them."""
    training_callbacks: ClassVar[tuple[str, ...]] = ()
    """Classes of ``lit_models.callbacks`` that each of its trainings has, with their defaults."""
    exports: ClassVar[tuple[Export, ...]] = ()
    """Its networks that ``relit export --format onnx`` writes."""
    compilation: ClassVar[str] = "half a minute or more"
    """How long ``--compile`` takes to start on one core of a CPU."""
    training_only: ClassVar[frozenset[str]] = frozenset()
    """Keys that it adds to a checkpoint for resuming only: no weight card has them."""
    older_arguments: ClassVar[Mapping[str, Any]] = {}
    """Values of arguments that older checkpoints and cards lack, where the default is another one today."""

    @property
    def planned_epochs(self) -> int | None:
        """Epochs that its arguments ask for; ``trainer.max_epochs`` if it isn't given."""
        return None

    @property
    def phase(self) -> str:
        """What the current epoch trains, for the progress bar; empty for a method without phases."""
        return ""

    @property
    def not_compiled(self) -> tuple[str, ...]:
        """Children that ``--compile`` leaves out."""
        return ()

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        """Arguments that have no effect on a resumed run, since the checkpoint holds what they made."""
        return ()

    @property
    def data(self) -> LightningDataModule | None:
        """The trainer's data module; None for plain loaders."""
        return data_of(self.trainer)

    @property
    def facts(self) -> DataFacts:
        """The facts of :attr:`data`."""
        return facts_of(self.data)

    def log_means(self, stage: str, values: Mapping[str, Tensor], size: int, prog_bar: bool = False) -> None:
        """Log ``stage/name`` ("val" or "test") as the mean over all images of the split, exact over ranks.

        Args:
            values: Means over a batch, by name.
            size: Images in the batch.
        """
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, batch_size=batch_weight(size), sync_dist=True, prog_bar=prog_bar)

    def log_classification(self, logits: Tensor, label: Tensor, stage: str) -> Tensor:
        """Log the cross-entropy and the accuracy of a held-out batch; return the logits ``(B, num_classes)``."""
        accuracy = (logits.argmax(1) == label).float().mean()
        values = {"loss": functional.cross_entropy(logits, label), "accuracy": accuracy}
        self.log_means(stage, values, len(label), prog_bar=stage == "val")
        return logits

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Name the parts of a plain loader's batch, and refuse what isn't an image in [0, 1]."""
        from lit_models.support.plain_batches import with_named_parts

        return with_named_parts(self, batch)

    def configure_callbacks(self) -> Any:
        """Add the method's; refuse Lightning's averages of weights where they would average more than one training."""
        require_one_training(self)
        self.trainer.precision_plugin.convert_module(self)  # Lightning does after loading a checkpoint
        return [getattr(import_module("lit_models.callbacks"), name)() for name in self.training_callbacks]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the method, as which the weights load without the command's configuration."""
        checkpoint["method"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the checkpoint's values of the arguments that it restores, so that the next one has them, too."""
        theirs = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        self.hparams.update({name: theirs[name] for name in self.restored_arguments if name in theirs})

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint as Lightning does, with arguments under their earlier names, too, and all as plain data."""
        from lit_models.support.weights import renamed_arguments

        kwargs = {**renamed_arguments(cls, checkpoint_path), **kwargs, "_instantiator": None}  # no parser of a CLI's
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Return a trained model in evaluation mode on the CPU. Call ``train()`` before you train it further.

        Args:
            source: A ``.safetensors`` file with its card, or a checkpoint; the folder of a run or experiment;
                ``hf:owner/name`` on the Hugging Face Hub (extra ``relit[hub]``); or the name of shipped weights.

        Raises:
            RunError: There are no such weights, or they can't be read.
            ModelError: They are of another method.
        """
        from lit_models.support.checkpoint_files import read_source
        from lit_models.support.weights import model_of

        return model_of(cls, *read_source(source), source)
