"""Networks of torchvision and timm by name, as encoders without their classifiers.

``torchvision:resnet18`` and ``timm:resnet18.a1_in1k`` take images in [0, 1] and normalize them as the library does.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from lit_models.errors import ModelError
from lit_models.networks.resnet import weights_in_file

LIBRARIES = ("torchvision", "timm")
PRETRAINED = "imagenet"
"""The name of the library's own weights."""


class Backbone(nn.Module):
    """A network of a library up to the input of its last linear layer.

    Shapes: ``(N, 1 or 3, H, W)`` in [0, 1] to ``(N, out_features)``. Gray images become three equal channels.

    Args:
        name: ``torchvision:NAME`` or ``timm:NAME``.
        image_size: Height and width of the images, for networks that are built for one size.
        frozen: Leave the weights and the statistics of batch normalization as they are.
    """

    def __init__(self, name: str, image_size: int, frozen: bool = False) -> None:
        super().__init__()
        self.name = name
        self.frozen = frozen
        self.image_size = image_size
        self.network, self.out_features, mean, std = _built(name, image_size)
        # Not in checkpoints: the name says what they are.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(mode and not self.frozen)

    def forward(self, image: Tensor) -> Tensor:
        return self.network((image.expand(-1, 3, -1, -1) - self.mean) / self.std).flatten(1)

    def load_pretrained(self, source: str) -> None:
        """Gives the network weights.

        Args:
            source: "imagenet" for the library's own, which are downloaded once; or a ``.safetensors`` file, or one that
                ``torch.save`` wrote, with the library's names.

        Raises:
            ModelError: The weights are of another network, or can't be downloaded.
            RunError: The file can't be read.
        """
        given = _downloaded(self.name, self.image_size) if source == PRETRAINED else weights_in_file(source)
        self.network.load_state_dict(fitting_weights(self.network, given, source, self.name), strict=False)


def is_backbone(name: str) -> bool:
    """Whether a name is that of a library's network."""
    library, _, model = name.partition(":")
    return library in LIBRARIES and bool(model)


def require_known(library: str, name: str, known: Iterable[str]) -> None:
    """Refuses a name that a library doesn't have, and suggests the nearest.

    Raises:
        ModelError: It doesn't.
    """
    known = list(known)
    if name in known:
        return
    nearest = get_close_matches(name, known, 3, 0.5)
    meant = f": did you mean {' or '.join(nearest)}?" if nearest else f": see {library}'s list of models."
    raise ModelError(f"{library} has no network {name}{meant}")


def require_timm(name: str) -> Any:
    """The package timm, if it has a network of that name.

    Raises:
        ModelError: It isn't installed, or it doesn't.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(f"timm:{name} needs timm: pip install 'relit[timm]'.") from error
    architecture, _, tag = name.partition(".")
    require_known("timm", architecture, timm.list_models())
    if tag:
        require_known("timm", name, timm.list_pretrained(architecture))
    return timm


def _built(name: str, image_size: int) -> tuple[nn.Module, int, Any, Any]:
    library, _, model = name.partition(":")
    if library == "torchvision":
        require_known("torchvision", model, list_models(torchvision.models))
        # The heads that some networks have only for training are left out.
        options = {"aux_logits": False, "init_weights": False} if model in ("googlenet", "inception_v3") else {}
        network = get_model(model, weights=None, **options)
        usual = get_model_weights(model).DEFAULT.transforms()
        return network, _without_classifier(network, name), usual.mean, usual.std
    network = _timms(model, image_size, pretrained=False)
    features = getattr(network, "head_hidden_size", None) or network.num_features  # only some heads have a hidden layer
    from timm.data import resolve_model_data_config

    usual = resolve_model_data_config(network)
    return network, features, usual["mean"], usual["std"]


def _timms(name: str, image_size: int, pretrained: bool) -> Any:
    timm = require_timm(name)
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=3, **fixed)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        if pretrained:
            raise
        raise ModelError(f"timm can't build {name} for images of {image_size} pixels ({error}).") from error


def _without_classifier(network: nn.Module, name: str) -> int:
    """Replaces the last linear layer by nothing; returns the size of its input."""
    linear = [(place, layer) for place, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ModelError(f"{name} doesn't end in a linear layer, whose input its features would be: choose another.")
    place, layer = linear[-1]
    network.set_submodule(place, nn.Identity())
    return layer.in_features


def _downloaded(name: str, image_size: int) -> Mapping[str, Tensor]:
    library, _, model = name.partition(":")
    try:
        if library == "torchvision":
            weights = get_model_weights(model).DEFAULT
            return cast(Mapping[str, Tensor], weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
        return _timms(model, image_size, pretrained=True).state_dict()
    except ModelError:
        raise
    except Exception as error:  # the libraries' hubs raise errors of several packages
        raise ModelError(
            f"The weights of {name} can't be downloaded ({error}): put a file of them on this machine and name it by "
            "--model.pretrained."
        ) from error


def fitting_weights(network: nn.Module, given: Mapping[str, Tensor], source: str, name: str) -> dict[str, Tensor]:
    """The weights of a file by the network's names; what only the file has, such as a classifier, is left out.

    Args:
        network: Takes them.
        given: By the file's names, perhaps with one prefix before all of the network's.
        source: The file, for errors.
        name: The network's, for errors.

    Raises:
        ModelError: One is missing or has another shape.
    """
    # Weights of old versions of torch don't count the batches that their statistics are of, which nothing here reads.
    wanted = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in sorted(given, key=len) if key.endswith(first)]
    prefix = next((one for one in prefixes if all(one + key in given for key in wanted)), (prefixes or [""])[0])
    for key, value in wanted.items():
        found = given.get(prefix + key)
        if found is None or found.shape != value.shape:
            shape = "isn't there" if found is None else f"is {'x'.join(map(str, found.shape))}"
            raise ModelError(
                f"{source} isn't of {name}: {key} must be {'x'.join(map(str, value.shape))}, and {shape}. Choose other "
                "weights, or their --model.encoder."
            )
    return {key: given[prefix + key] for key in wanted}
