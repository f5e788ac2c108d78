"""Encoders by name: relit's own, those of torchvision and timm (:mod:`lit_models.networks.backbones`), and user-defined
ones (:mod:`lit_models.networks.user_network`)."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_models.errors import ModelError
from lit_models.networks.backbones import Backbone, fitting_weights, is_backbone
from lit_models.networks.conv4 import Conv4
from lit_models.networks.lenet import LeNet
from lit_models.networks.resnet import IMAGENET, ResNet18, load_weights, weights_in_file
from lit_models.networks.user_network import UserNetwork, is_user_encoder, require_registered

Encoder: TypeAlias = Conv4 | ResNet18 | LeNet | Backbone | UserNetwork

OWN = ("conv4", "resnet18")
SMALLEST_FOR_CONV4 = 16


def require_encoder(
    encoder: str, image_size: int, channels: int, pretrained: str | None, frozen: bool, others: tuple[str, ...] = ()
) -> None:
    """Refuses an encoder that doesn't exist, or can't be built or frozen as it is asked for.

    Args:
        encoder: Its name.
        image_size: Height and width of the images.
        channels: Channels of the images.
        pretrained: Weights that it starts from.
        frozen: Whether it stays as it is.
        others: Further encoders of the method.

    Raises:
        ModelError: It is one of these.
    """
    if is_user_encoder(encoder):
        require_registered(encoder)
    elif not is_backbone(encoder) and encoder not in (*others, *OWN):
        names = ", ".join(dict.fromkeys((*others, *OWN)))
        raise ModelError(
            f"encoder is {encoder}; it must be {names}, torchvision:NAME, timm:NAME, or MODULE.NAME of your network."
        )
    if is_backbone(encoder) and channels not in (1, 3):
        raise ModelError(f"channels is {channels}, but the encoder {encoder} takes images of 1 or 3 channels.")
    if encoder == "conv4" and image_size < SMALLEST_FOR_CONV4:
        raise ModelError(f"image_size is {image_size}; four halvings need at least {SMALLEST_FOR_CONV4}.")
    if (encoder == "conv4" or is_user_encoder(encoder)) and pretrained == IMAGENET:
        raise ModelError(f"{encoder} has no weights of ImageNet: set --model.pretrained to a file.")
    if encoder == "lenet" and (pretrained is not None or image_size < 8):
        raise ModelError("The encoder lenet has no pretrained weights, and needs an image_size of at least 8.")
    if frozen and encoder != "autoencoder" and pretrained is None:
        weights = f"{IMAGENET}, or to a file of {encoder}" if is_backbone(encoder) else "a file with weights of it"
        raise ModelError(f"A frozen encoder needs weights: set --model.pretrained to {weights}.")


def build_encoder(
    encoder: str,
    image_size: int,
    channels: int,
    feature_maps: int,
    frozen: bool = False,
    stem: Literal["3x3", "7x7"] = "3x3",
) -> Encoder:
    """An encoder with random weights.

    Args:
        encoder: "conv4", "resnet18", "lenet", ``torchvision:NAME``, ``timm:NAME``, or ``MODULE.NAME`` of a user-defined
            network.
        image_size: Height and width of the images.
        channels: Channels of the images.
        feature_maps: Width of relit's own: of each block of "conv4", of the first stage of the others.
        frozen: Its parameters don't learn.
        stem: See :class:`lit_models.networks.resnet.ResNet18`.
    """
    if is_backbone(encoder):
        return Backbone(encoder, image_size, frozen)
    network: Encoder
    if encoder == "conv4":
        network = Conv4(channels, feature_maps, image_size)
    elif encoder == "lenet":
        network = LeNet(channels, feature_maps, image_size)
    elif is_user_encoder(encoder):
        network = UserNetwork(encoder, image_size, channels)
    else:
        network = ResNet18(channels, feature_maps, stem)
    return network.requires_grad_(not frozen)


def load_encoder(encoder: nn.Module, source: str, normalizes: bool = False) -> None:
    """Gives an encoder weights; warns of a stem that stays untrained.

    Args:
        encoder: As :func:`build_encoder` makes it.
        source: "imagenet" for weights of torchvision or timm; or a file: ``.safetensors``, a checkpoint of relit's, or
            anything that ``torch.save`` wrote, with the encoder's names of parameters.
        normalizes: Whether the method normalizes the images of relit's own encoders.

    Raises:
        ModelError: The weights are of another network, or of images in another range.
        RunError: The file can't be read.
    """
    if isinstance(encoder, Backbone):
        encoder.load_pretrained(source)
        return
    if not normalizes:
        _require_plain_images(source)
    if isinstance(encoder, ResNet18):
        untrained = load_weights(encoder, source)
        if untrained and not normalizes:
            raise ModelError(f"{source} is of a ResNet18 with another stem: train one with --model.stem 3x3.")
        if untrained:
            rank_zero_warn(f"The stem isn't that of {source}, and starts untrained: {', '.join(untrained)}.")
        return
    network, name = (encoder.network, "the encoder") if isinstance(encoder, UserNetwork) else (encoder, "conv4")
    network.load_state_dict(fitting_weights(network, weights_in_file(source), source, name), strict=False)


def _require_plain_images(source: str) -> None:
    """Refuses weights of an encoder that learned from normalized images."""
    if source == IMAGENET:
        raise ModelError(
            "ImageNet's weights take normalized images: set --model.encoder torchvision:resnet18, which normalizes."
        )
    given: Mapping[str, Tensor] = weights_in_file(source)
    mean, std = given.get("mean"), given.get("std")
    if mean is not None and std is not None and (mean.any() or (std != 1).any()):
        zeros, ones = (f"'{[number] * len(mean)}'" for number in (0, 1))
        raise ModelError(
            f"The encoder in {source} learned from normalized images: train it with --model.mean {zeros} --model.std "
            f"{ones}, as this method takes images in [0, 1]."
        )


def train_unless_frozen(encoder: nn.Module, frozen: bool, mode: bool) -> None:
    """Keeps the statistics of batch normalization of a frozen encoder as they are."""
    encoder.train(mode and not frozen)
