"""Networks whose features tell how real generated images look: ``digits``, ``inception``, or any classifier of ours."""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import rgb_to_grayscale

from lit_models.errors import RunError
from lit_models.networks.convnet import ConvNet

DIGIT_CLASSIFIER = Path(__file__).with_name("digit_classifier.safetensors")
"""Weights for MNIST at 32x32, made by the commands in ``configs/digit_classifier_mnist.yaml``."""


class Features(NamedTuple):
    """What an extractor sees in a batch of images.

    Attributes:
        embedding: ``(N, D)``.
        logits: ``(N, classes)``.
    """

    embedding: Tensor
    logits: Tensor


class Extractor(nn.Module):
    """A classifier as a feature extractor: the embedding of an image is what its last linear layer gets to see.

    Images of another size or number of channels are resized (bilinear, antialiased), or turned into grey or into
    colour.

    Args:
        classifier: From images ``(N, *image_shape)`` in [0, 1] to logits ``(N, classes)``.
        image_shape: ``(channels, height, width)`` of the images that it takes.
    """

    def __init__(self, classifier: nn.Module, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)
        self.image_shape = image_shape
        self._embedding: Tensor | None = None
        for module in classifier.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self._keep_input)

    def _keep_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._embedding = inputs[0]

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        """Features of images ``(N, C, H, W)`` in [0, 1]."""
        logits = self.classifier(fitted(image, self.image_shape))
        assert self._embedding is not None, "every classifier ends in a linear layer"
        embedding, self._embedding = self._embedding.flatten(1), None
        return Features(embedding, logits)


class Inception(nn.Module):
    """The Inception v3 of published FID, KID and Inception Scores, with the weights of the original TensorFlow code
    (Szegedy et al. 2016, arXiv:1512.00567; ported by torch-fidelity), which are downloaded once (92 MB)."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ModuleNotFoundError as error:
            raise RunError("The extractor `inception` needs torch-fidelity: pip install 'relit[inception]'.") from error
        try:
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except (URLError, OSError) as error:
            raise ExtractorUnavailableError(f"Inception's weights can't be downloaded ({error})") from error

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        """Features of images ``(N, C, H, W)`` in [0, 1]; the network resizes them itself."""
        image = fitted(image, (3, *image.shape[2:]))
        return Features(*self.network((image * 255).round().byte()))


class ExtractorUnavailableError(RunError):
    """The extractor is right, but can't be had now."""


def digit_classifier() -> ConvNet:
    """The classifier of MNIST's digits that comes with relit: grey images ``(N, 1, 32, 32)`` in [0, 1] to logits
    ``(N, 10)``, in evaluation mode on the CPU."""
    with safe_open(DIGIT_CLASSIFIER, "pt") as file:
        network = ConvNet(1, 10, json.loads(file.metadata()["widths"]))
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return network.eval().requires_grad_(False)


def digit_classifier_card() -> dict[str, str]:
    """What is known about :func:`digit_classifier`: ``widths``, ``test_accuracy``, ``data``, ``command``."""
    with safe_open(DIGIT_CLASSIFIER, "pt") as file:
        return dict(file.metadata())


def fitted(image: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Images ``(N, C, H, W)`` with one or three channels, resized and turned into grey or colour as needed."""
    channels, *size = image_shape
    if image.shape[1] == 3 and channels == 1:
        image = rgb_to_grayscale(image)
    elif image.shape[1] == 1 and channels == 3:
        image = image.expand(-1, 3, -1, -1)
    if list(image.shape[2:]) != size:
        resize = partial(functional.interpolate, size=size, mode="bilinear", align_corners=False, antialias=True)
        image = resize(image).clamp(0, 1)
    return image
