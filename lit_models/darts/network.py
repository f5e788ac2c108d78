"""The network that is built of a genotype and trained from scratch (Liu et al. 2019, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.darts.genotype import NODES, Cell, Genotype
from lit_models.darts.supernet import STEM_MULTIPLIER, reduction_layers
from lit_models.networks.depthwise import depthwise_conv2d


def relu_conv_norm(channels: int, out_channels: int) -> nn.Sequential:
    """ReLU, pointwise convolution, batch normalization."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class FactorizedReduction(nn.Module):
    """Halves height and width, which must be even: of each 2x2 block, one pixel gives half of the output's channels,
    and the opposite pixel the other half.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.first = nn.Conv2d(channels, half, 1, bias=False)
        self.second = nn.Conv2d(channels, out_channels - half, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # Not by convolutions of stride 2: torch 2.14 on a CPU writes past the end of their gradients if there are less
        # than 8 channels in channels-last order.
        x = functional.relu(x)
        return self.norm(torch.cat((self.first(x[..., ::2, ::2]), self.second(x[..., 1::2, 1::2])), 1))


class DepthwiseConv(nn.Conv2d):
    """A depthwise convolution that keeps the size, or halves it. Its gradients are those of
    :mod:`lit_models.networks.depthwise`, because torch 2.14's of a dilated kernel are wrong on some CPUs.

    Args:
        channels: Channels of the input and of the output.
        kernel_size: Side of the kernel.
        stride: 1 or 2.
        dilation: 1 or 2.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.stride[0], self.dilation[0])


def separable(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution, batch normalization."""
    return [
        nn.ReLU(),
        DepthwiseConv(channels, kernel_size, stride, dilation),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def make_operation(name: str, channels: int, stride: int) -> nn.Module:
    """An operation that a genotype names, ``(B, C, H, W)`` to the same, or with stride 2 to half of the size."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kernel_size = int(name[-1])
    if name.startswith("dil_conv"):
        return nn.Sequential(*separable(channels, kernel_size, stride, dilation=2))
    return nn.Sequential(*separable(channels, kernel_size, stride), *separable(channels, kernel_size, 1))


class DerivedCell(nn.Module):
    """A cell of the final network.

    Args:
        cell: Its operations.
        channels_before: Channels of the outputs of the last cell but one and of the last cell.
        channels: Channels of each node.
        reduction: Whether the edges from the two inputs halve the size.
        reduction_before: Whether the last cell did.
    """

    def __init__(
        self, cell: Cell, channels_before: tuple[int, int], channels: int, reduction: bool, reduction_before: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduction if reduction_before else relu_conv_norm
        self.inputs = nn.ModuleList([first(channels_before[0], channels), relu_conv_norm(channels_before[1], channels)])
        self.sources = [state for _, state in cell]
        self.operations = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and state < 2 else 1) for name, state in cell
        )

    def forward(self, before_last: Tensor, last: Tensor, drop_path: Tensor | None) -> Tensor:
        """Makes ``(B, 4 * channels, H, W)``, or half of the size.

        Args:
            before_last: Output of the last cell but one.
            last: Output of the last cell.
            drop_path: Probability of leaving out each operation, but for the identity; none if None.
        """
        states = [self.inputs[0](before_last), self.inputs[1](last)]
        results = []
        for number, (source, operation) in enumerate(zip(self.sources, self.operations, strict=True)):
            result = operation(states[source])
            if drop_path is not None and not isinstance(operation, nn.Identity):
                result = drop(result, drop_path)
            results.append(result)
            if number % 2:
                states.append(results[-2] + results[-1])
        return torch.cat(states[-NODES:], 1)


def drop(x: Tensor, probability: Tensor) -> Tensor:
    """Sets random images of a batch to 0, each with the given probability, and makes up for it in the others."""
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


class AuxiliaryHead(nn.Sequential):
    """The classifier at two thirds of the depth, for feature maps of 8x8 or more.

    Args:
        channels: Channels of the feature maps.
        num_classes: Number of classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(768, num_classes),
        )


class DerivedNetwork(nn.Module):
    """A stem, cells of a genotype, and a linear classifier.

    Args:
        genotype: The cells.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        channels: Channels of each node in the first cells; each reduction doubles them.
        layers: Number of cells, at least 3.
        auxiliary: Whether there is an auxiliary classifier.
    """

    def __init__(
        self, genotype: Genotype, in_channels: int, num_classes: int, channels: int, layers: int, auxiliary: bool
    ) -> None:
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        self.auxiliary_layer = max(reduction_layers(layers)) if auxiliary else None
        self.auxiliary: nn.Module | None = None
        before, reduction_before = (stem, stem), False
        for layer in range(layers):
            reduction = layer in reduction_layers(layers)
            channels *= 2 if reduction else 1
            cell = genotype.reduction if reduction else genotype.normal
            self.cells.append(DerivedCell(cell, before, channels, reduction, reduction_before))
            before, reduction_before = (before[1], NODES * channels), reduction
            if layer == self.auxiliary_layer:
                self.auxiliary = AuxiliaryHead(before[1], num_classes)
        self.classifier = nn.Linear(before[1], num_classes)

    def forward(self, image: Tensor, drop_path: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits ``(B, num_classes)`` of the classifier and, in training, of the auxiliary one.

        Args:
            image: ``(B, in_channels, H, W)``; height and width must be divisible by 4.
            drop_path: Probability of leaving out each operation, a scalar; none if None.
        """
        before_last = last = self.stem(image)
        auxiliary_logits = None
        for layer, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, drop_path)
            if layer == self.auxiliary_layer and self.auxiliary is not None and self.training:
                auxiliary_logits = self.auxiliary(last)
        return self.classifier(last.mean((2, 3))), auxiliary_logits
