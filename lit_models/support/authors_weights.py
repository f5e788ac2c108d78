"""The published weights of pix2pix and CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix) for relit's networks.

A file of theirs, such as ``latest_net_G.pth``, holds the tensors of one network by name. Only generators are published;
their training writes discriminators, too (``latest_net_D.pth``), which have relit's layers in relit's order. Their
U-Net of nested blocks puts the encoder's features before the decoder's where relit's puts them after, so that half of
the inputs of a transposed convolution change places.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.networks.patch_discriminator import PatchDiscriminator
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
        ModelError: The file's weights are of another network.
        RunError: The file can't be read.
    """
    if not Path(path).expanduser().is_file():
        raise ModelError(f"There is no file {path}: --model.pretrained… names a file of the authors' weights.")
    content = load_safely(Path(path).expanduser())
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no weights by name: take a file of the authors' such as latest_net_G.pth.")
    given = {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    names, what, arguments = _layers(network)
    if "net.5.weight" in given:  # their discriminator of pixels, whose last layer has no bias after batch normalization
        given.setdefault("net.5.bias", torch.zeros(1))
    state = {}
    for ours, value in network.state_dict().items():
        layer, _, kind = ours.rpartition(".")
        theirs = f"{names[layer]}.{kind}"
        if theirs not in given or given[theirs].shape != value.shape:
            has = f"has it as {tuple(given[theirs].shape)}" if theirs in given else "hasn't"
            raise ModelError(
                f"{path} isn't of this {what}: the network has {theirs} as {tuple(value.shape)}, the file {has}. "
                f"Choose another file, or the file's --model.{arguments}."
            )
        state[ours] = given.pop(theirs)
        if isinstance(network, UNet) and _takes_both_halves(layer):
            state[ours] = state[ours].roll(len(value) // 2, 0) if kind == "weight" else state[ours]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    if left := [name for name in given if not name.endswith(statistics)]:
        raise ModelError(f"{path} isn't of this {what}, which has no {left[0]}: choose another file.")
    network.load_state_dict(state)


def _layers(network: UNet | ResNetGenerator | PatchDiscriminator) -> tuple[dict[str, str], str, str]:
    """Their names of its layers by relit's, what it is, and the arguments that decide which layers it has."""
    if isinstance(network, PatchDiscriminator):
        theirs = "net" if network.patch_size == 1 else "model"
        names = {f"layers.{i}": f"{theirs}.{i}" for i in range(len(network.layers))}
        return names, "discriminator", "patch_size, discriminator_feature_maps and conditional"
    names = dict(_unet_names(network) if isinstance(network, UNet) else _resnet_names(network))
    return names, "generator", "generator, image_size, feature_maps, blocks and dropout"


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
