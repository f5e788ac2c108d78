"""What every method has in addition to its paper: parts that can be exported, and weights that load by name."""

from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging

from lit_models.errors import ModelError


class Part(NamedTuple):
    """A method of a module that computes tensors from tensors, such as a generator or an encoder.

    A module lists its parts in a class attribute ``exports``; :mod:`lit_models.cli.export` knows the shapes and the
    meaning of the kinds of tensors.

    Attributes:
        name: What it is called, such as "encoder".
        method: Name of the module's method.
        inputs: Kinds of its arguments: "image", "source", "latent", "code" or "label".
        output: Kind of its result: "image", "logits" or "embedding".
    """

    name: str
    method: str
    inputs: tuple[str, ...]
    output: str


class Method(LightningModule):
    """A LightningModule whose trained weights load by name."""

    def configure_callbacks(self) -> Any:
        """Adds none; refuses Lightning's averages of weights where they would average more than one training.

        Raises:
            ModelError: The method takes its optimizers' steps itself.
        """
        averages = [one for one in cast(Any, self.trainer).callbacks if isinstance(one, WeightAveraging)]
        if averages and not self.automatic_optimization:
            name = type(self).__name__
            remedy = "use --model.ema_decay" if "ema_decay" in self.hparams else "leave it out"
            raise ModelError(
                f"{type(averages[0]).__name__} would average all networks of {name}, which have several optimizers or "
                f"phases: {remedy}."
            )
        return []

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:
        """As Lightning's, but the arguments in the checkpoint are data: Lightning's parser, which ``LightningCLI``
        writes into its checkpoints as the function to make the model with, would read texts among them as YAML and
        import the classes that they name.

        Raises:
            ModelError: The checkpoint needs that parser.
        """
        try:
            return super().load_from_checkpoint(*args, **{**kwargs, "_instantiator": None})
        except TypeError as error:
            if "_class_path" not in str(error):
                raise
            raise ModelError(
                f"This checkpoint leaves it to LightningCLI's parser to make the model, which could run code: make the "
                f"{cls.__name__} yourself, and give its load_state_dict the checkpoint's."
            ) from error

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """A trained model in evaluation mode on the CPU. Call ``train()`` before you train it further.

        Args:
            source: A ``.safetensors`` file with its card, or a checkpoint; the folder of a run or experiment;
                ``hf:owner/name`` on the Hugging Face Hub (extra ``relit[hub]``); or the name of shipped weights, such
                as ``dcgan_mnist``.

        Raises:
            RunError: There are no such weights, or they can't be read.
            ModelError: They are of another method.
        """
        # Only now, as building a model from its arguments needs none of it.
        from lit_models.support.weight_sources import read_source
        from lit_models.support.weights import build_model, method_of

        path, checkpoint = read_source(source)
        method = method_of(checkpoint, path)
        if method != cls.__name__:
            raise ModelError(f"{source} holds a {method}, not a {cls.__name__}: call {method}.from_pretrained.")
        model = build_model(checkpoint, path)
        assert isinstance(model, cls)
        return model
