"""Networks that turn images into features, by name."""

from typing import Literal, TypeAlias

from lightning.pytorch.utilities import rank_zero_warn

from lit_models.errors import ModelError
from lit_models.networks.backbones import Backbone, is_backbone, require_backbone
from lit_models.networks.lenet import LeNet
from lit_models.networks.resnet import ResNet18, load_weights

Encoder: TypeAlias = ResNet18 | LeNet | Backbone


def make_encoder(
    name: str,
    image_size: int,
    channels: int,
    feature_maps: int,
    stem: Literal["3x3", "7x7"],
    frozen: bool,
    pretrained: str | None,
) -> Encoder:
    """Build an encoder, without its weights yet.

    Args:
        name: "resnet18", "lenet", ``torchvision:NAME`` or ``timm:NAME``.
        image_size: Height and width of the images.
        channels: Channels of the images.
        feature_maps: Channels of the first stage.
        stem: See :class:`lit_models.networks.resnet.ResNet18`.
        frozen: Whether it stays as it is.
        pretrained: The weights that it will get, for the checks.

    Raises:
        ModelError: There is no such encoder, or it can't be had so.
    """
    require_backbone(name, ("resnet18", "lenet"), channels)
    if frozen and (not is_backbone(name) or pretrained is None):
        raise ModelError("A frozen encoder needs weights: set --model.encoder torchvision:NAME and --model.pretrained.")
    if name == "lenet" and (pretrained is not None or image_size < 8):
        raise ModelError("The encoder lenet has no pretrained weights, and needs an image_size of at least 8.")
    if is_backbone(name):
        return Backbone(name, image_size, frozen)
    return LeNet(channels, feature_maps, image_size) if name == "lenet" else ResNet18(channels, feature_maps, stem)


def load_encoder(encoder: Encoder, source: str) -> None:
    """Give an encoder the weights "imagenet", or those of a file; warn of what stays untrained."""
    if isinstance(encoder, Backbone):
        encoder.load_pretrained(source)
        return
    assert isinstance(encoder, ResNet18)  # the others have no weights to start from
    if untrained := load_weights(encoder, source):
        rank_zero_warn(f"The stem isn't that of {source}, and starts untrained: {', '.join(untrained)}.")
