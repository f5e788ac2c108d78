"""The published weights of pix2pix and CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix) for relit's networks.

A file of theirs, such as ``latest_net_G.pth``, holds the tensors of one network by name. Only generators are published;
their training writes discriminators, too (``latest_net_D.pth``), which have relit's layers in relit's order. Their
U-Net of nested blocks puts the encoder's features before the decoder's where relit's puts them after, so that half of
the inputs of a transposed convolution change places.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.networks.patch_discriminator import HALVINGS, PatchDiscriminator
from lit_models.networks.resnet_generator import ResidualBlock, ResNetGenerator
from lit_models.networks.unet import UNet
from lit_models.support.checkpoint_files import load_safely


def load_authors_weights(network: UNet | ResNetGenerator | PatchDiscriminator, path: str) -> None:
    """Gives a network the weights of a file that the authors' code wrote.

    Running means are left out: relit normalizes each image by its own statistics, as the authors' test does by default.

    Args:
        network: "unet_128" and "unet_256" with batch normalization, or a ResNet with any number of blocks; or a
            discriminator of patches or pixels.
        path: A file of ``torch.save`` that holds tensors and plain values only.

    Raises:
        ModelError: The file's weights are of another network, or aren't finite.
        RunError: The file can't be read.
    """
    if not Path(path).expanduser().is_file():
        raise ModelError(f"There is no file {path}: --model.pretrained… names a file of the authors' weights.")
    content = load_safely(Path(path).expanduser())
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no weights by name: take a file of the authors' such as latest_net_G.pth.")
    given = {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    names = _layers(network)
    if "net.5.weight" in given:  # their discriminator of pixels, whose last layer has no bias after batch normalization
        given.setdefault("net.5.bias", torch.zeros(1))
    needed = {}
    for ours in network.state_dict():
        layer, _, kind = ours.rpartition(".")
        needed[ours] = f"{names[layer]}.{kind}"
    _require_same(path, given, {needed[ours]: value for ours, value in network.state_dict().items()})
    state = {ours: given[theirs] for ours, theirs in needed.items()}
    for ours, value in state.items():
        layer, _, kind = ours.rpartition(".")
        if isinstance(network, UNet) and kind == "weight" and _takes_both_halves(layer):
            state[ours] = value.roll(len(value) // 2, 0)
    network.load_state_dict(state)


def _require_same(path: str, given: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    """Refuses a file of other tensors than the network has, running means aside, or with values that aren't finite."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    more = [name for name in given if name not in needed and not name.endswith(statistics)]
    other = [name for name, value in needed.items() if name not in given or given[name].shape != value.shape]
    theirs, ours = description(given), description(needed)
    if (other or more) and theirs is not None and theirs != ours:
        raise ModelError(
            f"{path} is of another network: it holds a {theirs}, but the model has a {ours}. Set the model's arguments "
            "to the file's, or choose another file."
        )
    if other:
        shape = tuple(needed[other[0]].shape)
        raise ModelError(f"{path} is of another network than {ours}: it has no {other[0]} of {shape}. Choose another.")
    if more:
        raise ModelError(f"{path} is of another network than {ours}, which has no {more[0]}. Choose another file.")
    if wrong := [name for name in needed if not given[name].isfinite().all()]:
        raise ModelError(f"{path} holds values that aren't finite, in {wrong[0]}: choose another file.")


def description(tensors: Mapping[str, Tensor]) -> str | None:
    """What network the tensors make, by relit's arguments for it; None if it is none of theirs.

    Args:
        tensors: By the authors' names.
    """
    kernels = {name: value.shape for name, value in tensors.items() if value.ndim == 4}
    scaled = any(value.ndim == 1 and name.endswith(".weight") for name, value in tensors.items())
    norm = "batch normalization" if scaled else "instance normalization"
    if "model.model.0.weight" in kernels and "model.model.3.weight" in kernels:
        width, source_channels = kernels["model.model.0.weight"][:2]
        channels = kernels["model.model.3.weight"][1]
        size = 2 ** (1 + sum(name.endswith("model.1.weight") for name in kernels))
        parts = f"image_size {size}, feature_maps {width}, source_channels {source_channels} and channels {channels}"
        return f"U-Net with {parts}"
    if "model.1.weight" in kernels and any(".conv_block." in name for name in kernels):
        width, source_channels = kernels["model.1.weight"][:2]
        outer = {int(name.split(".")[1]): shape[0] for name, shape in kernels.items() if name.count(".") == 2}
        blocks = sum(name.endswith("conv_block.1.weight") for name in kernels)
        dropout = "dropout" if any(name.endswith("conv_block.6.weight") for name in kernels) else "no dropout"
        parts = f"{norm}, {dropout}, blocks {blocks}, feature_maps {width}, source_channels {source_channels}"
        return f"ResNet with {parts} and channels {outer[max(outer)]}"
    pixels = "net.0.weight" in kernels
    if pixels or "model.0.weight" in kernels:
        width, seen = kernels["net.0.weight" if pixels else "model.0.weight"][:2]
        halvings = 0 if pixels else len(kernels) - 2
        patch_size = next((size for size, number in HALVINGS.items() if number == halvings), "unknown")
        parts = f"{norm}, patch_size {patch_size}, discriminator_feature_maps {width}"
        return f"discriminator with {parts}, for images of {seen} channels"
    return None


def _layers(network: UNet | ResNetGenerator | PatchDiscriminator) -> dict[str, str]:
    """Their names of its layers by relit's."""
    if isinstance(network, PatchDiscriminator):
        theirs = "net" if network.patch_size == 1 else "model"
        return {f"layers.{i}": f"{theirs}.{i}" for i in range(len(network.layers))}
    return dict(_unet_names(network) if isinstance(network, UNet) else _resnet_names(network))


def _takes_both_halves(layer: str) -> bool:
    """Whether a layer of the U-Net is a transposed convolution of an encoder's and a decoder's features."""
    return layer == "head.1" or (layer.startswith("decoder.") and layer.endswith(".1") and layer != "decoder.0.1")


def _unet_names(network: UNet) -> Iterator[tuple[str, str]]:
    """Layers that have parameters, by relit's name and the authors'."""
    depth = len(network.encoder)
    yield "encoder.0", "model.model.0"
    yield "head.1", "model.model.3"
    block = "model.model.1.model"
    for i in range(1, depth):
        innermost = i == depth - 1
        yield f"encoder.{i}.1", f"{block}.1"
        yield f"encoder.{i}.2", f"{block}.2"
        yield f"decoder.{depth - 1 - i}.1", f"{block}.{3 if innermost else 5}"
        yield f"decoder.{depth - 1 - i}.2", f"{block}.{4 if innermost else 6}"
        block += ".3.model"


def _resnet_names(network: ResNetGenerator) -> Iterator[tuple[str, str]]:
    """Layers by relit's name and the authors', whose paddings are layers by themselves."""
    last = len(network.layers) - 2
    for i, layer in enumerate(network.layers):
        if isinstance(layer, ResidualBlock):
            for j in range(len(layer.layers)):
                yield f"layers.{i}.layers.{j}", f"model.{i + 1}.conv_block.{j + (1 if j < 2 else 2)}"
        else:
            yield f"layers.{i}", f"model.{i + (2 if i == last else 1)}"
