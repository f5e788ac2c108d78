"""Extractors by name or from a classifier's checkpoint."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lit_models.errors import ModelError, RunError
from lit_models.metrics.extractors import Extractor, Inception, digit_classifier
from lit_models.networks.convnet import ConvNet
from lit_models.registry import METHODS
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.weights import build_model


def load_extractor(which: str) -> Extractor | Inception:
    """The extractor of that name.

    Args:
        which: ``digits`` (the classifier of MNIST's digits that comes with relit), ``inception``, or the checkpoint of
            any classifier of relit.

    Raises:
        RunError: There is none.
        ExtractorUnavailableError: Its weights can't be downloaded now.
    """
    if which == "digits":
        return Extractor(digit_classifier(), (1, 32, 32))
    if which == "inception":
        return Inception()
    path = Path(which)
    if not path.is_file():
        raise RunError(f"There is no extractor {which}: it is `digits`, `inception`, or a classifier's checkpoint.")
    classifier = load_classifier(path)
    return Extractor(classifier, classifier.image_shape)


def load_classifier(path: Path) -> Any:
    """A classifier of relit from its checkpoint, in evaluation mode on the CPU.

    Raises:
        RunError: The file is no checkpoint of a classifier of relit.
    """
    checkpoint = read_checkpoint(path)
    class_path = str(((checkpoint.get("config") or {}).get("model") or {}).get("class_path"))
    if class_path.rpartition(".")[2] not in METHODS or "num_classes" not in checkpoint.get("hyper_parameters", {}):
        raise RunError(f"{path} is a checkpoint of {class_path}, which is no classifier of relit.")
    return build_model(checkpoint, path)


def export_digit_classifier(checkpoint: Path, path: Path, card: dict[str, str], scale: float = 1.0) -> None:
    """Writes a trained :class:`lit_models.DigitClassifier` as the file that :func:`digit_classifier` reads.

    Args:
        checkpoint: The classifier's checkpoint.
        path: The file to write.
        card: What to note about it.
        scale: Factor of its logits.
    """
    module = load_classifier(checkpoint)
    if not isinstance(getattr(module, "network", None), ConvNet):
        raise ModelError(f"{checkpoint} holds a {type(module).__name__}, not a DigitClassifier.")
    tensors = {
        name: (value * scale if name.startswith("head.") else value).contiguous()
        for name, value in module.network.state_dict().items()
    }
    save_file(tensors, path, {"widths": json.dumps(list(module.hparams["widths"])), **card})
