"""ResNet18 (He, Zhang, Ren & Sun 2016, https://arxiv.org/abs/1512.03385) as an encoder of small or large images."""

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock

from lit_models.errors import ModelError
from lit_models.networks.weight_files import load_tensors

IMAGENET = "imagenet"


class ResNet18(nn.Module):
    """Four stages of two basic blocks each, and a mean over what is left of the image's rows and columns.

    Shapes: normalized images ``(B, channels, H, W)`` to features ``(B, 8 * feature_maps)``, at least float32
    and not negative.

    The parameters have torchvision's names and initialization; its weights can be loaded (:func:`load_weights`).

    Args:
        channels: Channels of the images.
        feature_maps: Channels of the first stage, 64 in the paper; the other stages have 2, 4 and 8 times as many.
        stem: "3x3", a convolution that keeps the size, for images of 32 or 64 pixels; "7x7", the paper's convolution
            and max-pooling, which leave the first stage a sixteenth of the pixels.
    """

    def __init__(self, channels: int = 3, feature_maps: int = 64, stem: Literal["3x3", "7x7"] = "3x3") -> None:
        super().__init__()
        if stem == "3x3":
            self.conv1 = nn.Conv2d(channels, feature_maps, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, feature_maps, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(feature_maps)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "3x3" else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(feature_maps, feature_maps, stride=1)
        self.layer2 = stage(feature_maps, 2 * feature_maps, stride=2)
        self.layer3 = stage(2 * feature_maps, 4 * feature_maps, stride=2)
        self.layer4 = stage(4 * feature_maps, 8 * feature_maps, stride=2)
        self.out_features = 8 * feature_maps
        self.stride = 8 if stem == "3x3" else 32
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3), dtype=torch.promote_types(x.dtype, torch.float32))

    def size_after_last_stage(self, image_size: int) -> int:
        """Rows and columns of the last stage's features for images of that many rows and columns."""
        return math.ceil(image_size / self.stride)


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Two of torchvision's basic blocks, the first of which changes the width and, by ``stride``, the size."""
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(Shortcut(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs))


class Shortcut(nn.Conv2d):
    """A pointwise convolution of every pixel, or of every other row's and column's.

    Narrow inputs are subsampled first, which gives the same values and gradients: with less than 16 channels at 64x64
    in channels-last order, oneDNN's gradients of the strided convolution (torch 2.14.1, AVX-512) corrupt the heap.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= 16:
            return super().forward(x)
        return functional.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)


def load_weights(encoder: ResNet18, source: str) -> list[str]:
    """Gives an encoder the weights of a file.

    Args:
        encoder: Takes them; names of parameters may have the prefix that wrappers add (``module.``, ``encoder.`` …).
        source: "imagenet" for torchvision's weights, which are downloaded once; or a ``.safetensors`` file, or any file
            of ``torch.save`` (a checkpoint, too) that is made of tensors and plain values only, of any ResNet18 with
            torchvision's names.

    Returns:
        The names of the parameters and buffers that keep what they had: those of the stem, if the file's stem is
        another one. What only the file has (a classifier, say) is left out.

    Raises:
        ModelError: The file's weights are of another network.
        RunError: The file can't be read.
    """
    given = weights_in_file(source)
    prefix = next(
        (name.removesuffix("layer1.0.conv1.weight") for name in given if name.endswith("layer1.0.conv1.weight")), ""
    )
    given = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    # Weights of old versions of torch don't count the batches that their statistics are of, which nothing here reads.
    wanted = {
        name: value
        for name, value in encoder.state_dict().items()
        if name in given or not name.endswith("num_batches_tracked")
    }
    if wanted["conv1.weight"].shape != _shape(given.get("conv1.weight")):
        given = {name: value for name, value in given.items() if not name.startswith(("conv1.", "bn1."))}
    kept = [name for name in wanted if name not in given and name.startswith(("conv1.", "bn1."))]
    for name, value in wanted.items():
        if name not in kept and value.shape != _shape(given.get(name)):
            has = f"has it as {_shape_text(given[name])}" if name in given else "hasn't"
            raise ModelError(
                f"{source} isn't of a ResNet18 of {wanted['layer1.0.conv1.weight'].shape[0]} feature maps: the network "
                f"has {name} as {_shape_text(value)}, the file {has}. Choose other weights or --model.feature_maps."
            )
    encoder.load_state_dict({name: given[name] for name in wanted if name not in kept}, strict=False)
    return kept


def weights_in_file(source: str) -> dict[str, Tensor]:
    """The tensors by name of a file or of torchvision; see :func:`load_weights`."""
    if source == IMAGENET:
        try:
            return dict(
                ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
            )
        except OSError as error:
            raise ModelError(
                f"torchvision's weights can't be downloaded ({error}): put a file of them on this machine and name it "
                "by --model.pretrained."
            ) from error
    path = Path(source).expanduser()
    if not path.is_file():
        raise ModelError(f"There is no file {path}: set --model.pretrained to one with weights, or to {IMAGENET}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = load_tensors(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise ModelError(f"{path} holds no weights by name: save a network's `state_dict()`.")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ModelError(f"Reading {path} needs one more package: pip install safetensors.") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} can't be read as safetensors ({error}): get it again.") from error


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _shape_text(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
