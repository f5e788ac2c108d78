"""Networks that start from weights of another training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from lit_models.errors import ModelError, RunError
from lit_models.module import Method
from lit_models.networks.convolutional import Decoder, Encoder
from lit_models.support.checkpoint_files import read_or_fall_back
from lit_models.support.checkpoint_paths import checkpoint_in


class StartsFromWeights(Method):
    """Base of methods of which a network starts from the weights of another training.

    They are loaded once, before the first use of the network, in or outside a Trainer; not into a model that has been
    given weights by ``load_state_dict``, as every checkpoint gives them.
    """

    trained_for: ClassVar[tuple[str, ...]] = ()
    """Stages that take more than these weights, and refuse a model that was neither trained nor restored."""
    pretrained: str | None = None
    """The argument ``pretrained`` of most: a file, or "imagenet"."""
    has_weights = False
    """Whether they are loaded, or replaced by others."""

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("pretrained",)

    def load_starting_weights(self) -> None:
        """Loads the weights that the arguments name, if they name some."""
        raise NotImplementedError

    def start_from_weights(self) -> None:
        """To be called before the network is used."""
        if not self.has_weights:
            self.load_starting_weights()
            self.has_weights = True

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.start_from_weights()

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._require_training("validate")

    def on_test_start(self) -> None:
        super().on_test_start()
        self._require_training("test")

    def on_predict_start(self) -> None:
        super().on_predict_start()
        self._require_training("predict")

    def _require_training(self, stage: str) -> None:
        if stage in self.trained_for and self.pretrained is not None and not self.has_weights:
            raise ModelError(
                f"{type(self).__name__} starts from --model.pretrained in training, and this one has had none: add "
                "--ckpt_path."
            )

    def load_state_dict(self, *args: Any, **named: Any) -> Any:
        self.has_weights = True
        return super().load_state_dict(*args, **named)


def load_pretrained(
    network: Encoder | Decoder,
    part: Literal["encoder", "decoder"],
    checkpoint: str,
    image_size: int,
    channels: int,
    code_dim: int,
    feature_maps: int,
) -> None:
    """Gives ``network``, an encoder or decoder, the weights of that part of an autoencoder's checkpoint.

    Args:
        network: The encoder or the decoder.
        part: Which of both.
        checkpoint: A checkpoint's file, or a run's or an experiment's folder (see :func:`find_pretrained`).
        image_size: That of the network; the autoencoder must have the same.
        channels: That of the network; the autoencoder must have the same.
        code_dim: That of the network, which is the autoencoder's ``latent_dim``.
        feature_maps: That of the network; the autoencoder must have the same.

    Raises:
        RunError: There is no such checkpoint, or it can't be read.
        ModelError: It is of another kind of model, or of one that was built with other arguments.
    """
    path, content = read_or_fall_back(find_pretrained(checkpoint))
    state = {
        name.removeprefix(f"{part}."): value
        for name, value in content["state_dict"].items()
        if name.startswith(f"{part}.")
    }
    needed = network.state_dict()
    if not needed.keys() <= state.keys():
        raise ModelError(
            f"{path} holds no {part} of an autoencoder: name the checkpoint of a DenoisingAutoencoder or a VAE."
        )
    arguments = {"image_size": image_size, "channels": channels, "code_dim": code_dim, "feature_maps": feature_maps}
    theirs = content.get("hyper_parameters", {})
    _require_same(path, part, {**theirs, "code_dim": theirs.get("latent_dim")}, arguments)
    # A VAE's encoder also has `log_variance`, which isn't needed here.
    weights: dict[str, Tensor] = {name: state[name] for name in needed}
    if any(weights[name].shape != value.shape for name, value in needed.items()):
        raise ModelError(f"The {part} in {path} doesn't have the shapes that {_arguments_text(arguments)} make.")
    network.load_state_dict(weights)


def require_fitting_weights(encoder: str, encoder_checkpoint: str | None, pretrained: str | None, frozen: bool) -> None:
    """Refuse weights that another kind of encoder starts from, and a frozen autoencoder's encoder without any.

    Raises:
        ModelError: They are such.
    """
    if encoder != "autoencoder":
        if encoder_checkpoint is not None:
            raise ModelError(
                f"encoder_checkpoint is an autoencoder's: name weights of {encoder} by --model.pretrained."
            )
    elif pretrained is not None:
        raise ModelError("pretrained is for other encoders than an autoencoder's: set --model.encoder_checkpoint.")
    elif encoder_checkpoint is None and frozen:
        raise ModelError(
            "A frozen encoder must have learnt before: name an autoencoder's checkpoint with "
            "--model.encoder_checkpoint, or train it along with --model.freeze_encoder false."
        )


def find_pretrained(checkpoint: str) -> Path:
    """The checkpoint's file that a name means: the file itself; of a run's folder its ``best.ckpt``, or ``last.ckpt``
    if it has no best; of an experiment's folder that of its newest run.

    Raises:
        RunError: There is none.
    """
    path = Path(checkpoint).expanduser()
    if found := checkpoint_in(path):
        return found
    if not path.is_file():
        raise RunError(
            f"There is no checkpoint of an autoencoder in {checkpoint}: train one "
            "(`relit fit --config configs/autoencoder_mnist.yaml`), or name a checkpoint, a run or an experiment."
        )
    return path


def _require_same(path: Path, part: str, theirs: Mapping[str, Any], ours: Mapping[str, int]) -> None:
    for name, value in ours.items():
        if theirs.get(name) not in (value, None):
            raise ModelError(
                f"{name} is {value}, but the {part} in {path} was trained with {theirs[name]}: set --model.{name} "
                f"{theirs[name]}, or choose another checkpoint."
            )


def _arguments_text(arguments: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())
