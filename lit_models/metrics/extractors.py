"""Networks whose features generated images are judged by.

``digits``, ``imagenet`` and ``inception`` by name, any classifier of torchvision or timm, or a checkpoint of relit's.
Each has a name for its features, which is printed with every score: scores over other features can't be compared.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast
from urllib.error import URLError

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
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
    """A classifier as a feature extractor: the embedding of an image is the input of its last linear layer.

    Images of another size or number of channels are resized (antialiased), or turned into gray or into color.

    Attributes:
        features: Name of the embedding, for tables and figures.
        classifier_name: Name of the classifier, which the Inception Score and the label accuracy go by.

    Args:
        classifier: From images ``(N, *image_shape)`` in [0, 1] to logits ``(N, classes)``.
        image_shape: ``(channels, height, width)`` of the images that it takes.
        name: Name of the classifier.
        mean: Of the channels, subtracted first.
        std: Of the channels, divided by next.
        resize: Interpolation of images of another size.
    """

    def __init__(
        self,
        classifier: nn.Module,
        image_shape: tuple[int, int, int],
        name: str = "classifier",
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        resize: str = "bilinear",
    ) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)
        self.image_shape = image_shape
        self.features = self.classifier_name = name
        self.resize = resize
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._embedding: Tensor | None = None
        linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise RunError(f"The classifier {name} doesn't end in a linear layer, whose input its features would be.")
        for module in linear:
            module.register_forward_pre_hook(self._keep_input)

    def _keep_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._embedding = inputs[0]

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        """Features of images ``(N, C, H, W)`` in [0, 1]."""
        return _in_parts(self._seen, image, max(1, CACHED_VALUES // math.prod(self.image_shape)))

    def _seen(self, image: Tensor) -> Features:
        logits = self.classifier((resized_to(image, self.image_shape, self.resize) - self.mean) / self.std)
        assert self._embedding is not None, "every classifier has a linear layer"
        embedding, self._embedding = self._embedding.flatten(1), None
        return Features(embedding, logits)


class DigitFeatures(nn.Module):
    """The second block of a :class:`lit_models.networks.convnet.ConvNet` as features: 2x2 averages of its maps.

    Of the shipped classifier they are 128 numbers that vary within a class as digits do. The classifier's embedding,
    one block later, hardly varies: over it, ten training images repeated have a better FID than a good GAN's.

    Attributes:
        features: Name of the embedding, for tables and figures.
        classifier_name: Name of the classifier, which the Inception Score and the label accuracy go by.

    Args:
        network: The classifier; at least two blocks.
        image_shape: ``(channels, height, width)`` of the images that it takes.
        name: Name of the classifier.
    """

    def __init__(self, network: ConvNet, image_shape: tuple[int, int, int], name: str) -> None:
        super().__init__()
        network = network.eval().requires_grad_(False)
        ends = [place for place, layer in enumerate(network.blocks) if isinstance(layer, nn.MaxPool2d)]
        # Normalization is merged into the convolutions, and the pixels' channels lie together: a third of the time.
        layers = _merged(network.blocks[: ends[1] + 1]), _merged(network.blocks[ends[1] + 1 :])
        self.first, self.rest = (part.to(memory_format=torch.channels_last) for part in layers)
        self.head = network.head
        self.image_shape = image_shape
        self.classifier_name = name
        self.features = f"{name}, block 2"

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        """Features of images ``(N, C, H, W)`` in [0, 1]."""
        image = resized_to(image, self.image_shape).contiguous(memory_format=torch.channels_last)
        return _in_parts(self._seen, image, CACHED_IMAGES)

    def _seen(self, image: Tensor) -> Features:
        maps = self.first(image)
        return Features(functional.adaptive_avg_pool2d(maps, 2).flatten(1), self.head(self.rest(maps).mean((2, 3))))


CACHED_IMAGES = 50
"""Digits at once on a processor."""

CACHED_VALUES = 16 * 3 * 224 * 224
"""Values of images at once on a processor: 250 color images of 224x224 take twice as long and 3.8 GB more."""


def _in_parts(seen: Callable[[Tensor], Features], image: Tensor, count: int) -> Features:
    """The features of a batch; on a processor of ``count`` images at a time, whose activations stay in its cache."""
    parts = [seen(part) for part in image.split(len(image) if image.is_cuda else count)]
    return Features(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _merged(blocks: nn.Sequential) -> nn.Sequential:
    """The layers in evaluation mode, each batch normalization merged into the convolution before it."""
    layers: list[nn.Module] = []
    for layer in blocks:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, layers[-1]), layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval().requires_grad_(False)


class Inception(nn.Module):
    """The Inception v3 of published FID, KID and Inception Scores, with the weights of the original TensorFlow code
    (Szegedy et al. 2016, arXiv:1512.00567; ported by torch-fidelity), which are downloaded once (92 MB)."""

    features = classifier_name = "Inception"

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
        return _in_parts(self._seen, image, CACHED_VALUES // (3 * 299 * 299))

    def _seen(self, image: Tensor) -> Features:
        image = resized_to(image, (3, *image.shape[2:]))
        return Features(*self.network((image * 255).round().byte()))


AnyExtractor = Extractor | DigitFeatures | Inception


class ExtractorUnavailableError(RunError):
    """The extractor is right, but can't be had now."""


def digit_classifier() -> ConvNet:
    """The classifier of MNIST's digits that comes with relit: gray images ``(N, 1, 32, 32)`` in [0, 1] to logits
    ``(N, 10)``, in evaluation mode on the CPU."""
    with safe_open(DIGIT_CLASSIFIER, "pt") as file:
        with torch.device("meta"):  # first weights would take random numbers from the training that it judges
            network = ConvNet(1, 10, json.loads(file.metadata()["widths"]))
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, assign=True)  # noqa: SIM118
    return network.eval().requires_grad_(False)


def digit_classifier_card() -> dict[str, str]:
    """What is known about :func:`digit_classifier`: ``widths``, ``test_accuracy``, ``data``, ``command``."""
    with safe_open(DIGIT_CLASSIFIER, "pt") as file:
        return dict(file.metadata())


def resized_to(image: Tensor, image_shape: tuple[int, int, int], resize: str = "bilinear") -> Tensor:
    """Images ``(N, C, H, W)`` with one or three channels, resized and turned into gray or color as needed.

    Raises:
        RunError: They have other channels than the network takes.
    """
    channels, *size = image_shape
    if image.shape[1] == 3 and channels == 1:
        image = rgb_to_grayscale(image)
    elif image.shape[1] == 1 and channels == 3:
        image = image.expand(-1, 3, -1, -1)
    elif image.shape[1] != channels:
        raise RunError(
            f"The extractor takes images of {channels} channel{'s' if channels > 1 else ''}, which can't be made of "
            f"{image.shape[1]}: set another extractor."
        )
    if list(image.shape[2:]) != size:
        image = functional.interpolate(image, size=size, mode=resize, align_corners=False, antialias=True).clamp(0, 1)
    return image
