"""The supernet of DARTS as the paper draws it and the public codes write it: each operation on each edge on its own.

Slow and plain, to test and to measure :mod:`lit_models.darts.supernet` against.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_models.darts.genotype import EDGES, NODES, OPERATIONS
from lit_models.darts.supernet import STEM_MULTIPLIER, Supernet, WideCell, WideOperations, edges_leaving


class ReluConvNorm(nn.Sequential):
    """ReLU, pointwise convolution, batch normalization."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=False),
        )


class SplitReduction(nn.Module):
    """Halves the size by two pointwise convolutions of stride 2, the second of them moved by a pixel."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(channels, out_channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], dim=1))


def separable(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, batch normalization."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=False),
    )


class Zero(nn.Module):
    """Zeros of the output's shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One candidate on one edge."""
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else SplitReduction(channels, channels)
    if name.endswith("pool_3x3"):
        pool: Any = (
            nn.MaxPool2d(3, stride, 1)
            if name == "max_pool_3x3"
            else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))
    kernel_size = int(name[-1])
    if name.startswith("dil"):
        return separable(channels, kernel_size, stride, dilation=2)
    return nn.Sequential(*separable(channels, kernel_size, stride), *separable(channels, kernel_size, 1))


class EdgewiseCell(nn.Module):
    """A cell of 14 edges of 8 operations each."""

    def __init__(self, before: tuple[int, int], channels: int, reduction: bool, reduction_before: bool) -> None:
        super().__init__()
        make = SplitReduction if reduction_before else ReluConvNorm
        self.inputs = nn.ModuleList([make(before[0], channels), ReluConvNorm(before[1], channels)])
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, channels, 2 if reduction and state < 2 else 1) for name in OPERATIONS)
            for _, state in EDGES
        )

    def forward(self, before_last: Tensor, last: Tensor, mixture: Tensor) -> Tensor:
        states = [self.inputs[0](before_last), self.inputs[1](last)]
        for node in range(NODES):
            total: Any = 0
            for row, (receiver, state) in enumerate(EDGES):
                if receiver == node:
                    candidates = zip(mixture[row], cast(nn.ModuleList, self.edges[row]), strict=True)
                    total = total + sum(weight * candidate(states[state]) for weight, candidate in candidates)
            states.append(total)
        return torch.cat(states[2:], dim=1)


class EdgewiseSupernet(nn.Module):
    """The same network as :class:`lit_models.darts.supernet.Supernet`, with the same arguments."""

    def __init__(self, in_channels: int, num_classes: int, channels: int, layers: int) -> None:
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells, self.reductions = nn.ModuleList(), [layers // 3, 2 * layers // 3]
        before, reduction_before = (stem, stem), False
        for layer in range(layers):
            reduction = layer in self.reductions
            channels *= 2 if reduction else 1
            self.cells.append(EdgewiseCell(before, channels, reduction, reduction_before))
            before, reduction_before = (before[1], NODES * channels), reduction
        self.classifier = nn.Linear(before[1], num_classes)

    def forward(self, image: Tensor, normal: Tensor, reduction: Tensor) -> Tensor:
        before_last = last = self.stem(image)
        for layer, cell in enumerate(self.cells):
            alpha = reduction if layer in self.reductions else normal
            before_last, last = last, cell(before_last, last, torch.softmax(alpha, dim=1))
        return self.classifier(torch.nn.functional.adaptive_avg_pool2d(last, 1).flatten(1))


def edgewise_tensors(supernet: Supernet, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of a wide supernet's parameters and buffers (or gradients), cut up and named as the edgewise one's are.

    Args:
        supernet: The wide supernet.
        values: By the names of its ``state_dict``.
    """
    cut: dict[str, Tensor] = {
        "stem.0.weight": values["stem.weight"],
        "stem.1.weight": values["stem_scale"],
        "stem.1.bias": values["stem_bias"],
        **{f"classifier.{name}": values[f"classifier.{name}"] for name in ("weight", "bias")},
    }

    def norm(source: str, target: str, start: int = 0, size: int | None = None) -> None:
        for name in ("running_mean", "running_var"):
            if f"{source}.{name}" in values:
                whole = values[f"{source}.{name}"]
                cut[f"{target}.{name}"] = whole if size is None else whole[start : start + size]

    norm("stem_norm", "stem.1")
    for layer, cell in enumerate(supernet.cells):
        cell, wide, edgewise = cast(WideCell, cell), f"cells.{layer}", f"cells.{layer}"
        if cell.reduce is not None:
            for name in ("first", "second"):
                cut[f"{edgewise}.inputs.0.{name}.weight"] = values[f"{wide}.reduce.{name}"][0, :, :, None, None]
            norm(f"{wide}.reduce.norm", f"{edgewise}.inputs.0.norm")
        for number in range(len(cell.pointwise)):
            target = f"{edgewise}.inputs.{number + (cell.reduce is not None)}"
            cut[f"{target}.1.weight"] = values[f"{wide}.pointwise.{number}.weight"]
            norm(f"{wide}.norms.{number}", f"{target}.2")
        for state, operations in enumerate(cell.states):
            operations, source = cast(WideOperations, operations), f"{wide}.states.{state}"
            for place, row in enumerate(edges_leaving(state)):
                target, size = f"{edgewise}.edges.{row}", operations.channels
                norm(f"{source}.norm_max", f"{target}.1.1")
                norm(f"{source}.norm_avg", f"{target}.2.1")
                if operations.skip is not None:
                    for name in ("first", "second"):
                        cut[f"{target}.3.{name}.weight"] = values[f"{source}.skip.{name}"][place, :, :, None, None]
                    norm(f"{source}.skip.norm", f"{target}.3.norm", place * size, size)
                stages = {
                    "sep_3x3.0": "4.{}",
                    "sep_3x3.1": "4.{}",
                    "sep_5x5.0": "5.{}",
                    "sep_5x5.1": "5.{}",
                    "dil_3x3": "6.{}",
                    "dil_5x5": "7.{}",
                }
                for stage, pattern in stages.items():
                    offset = 4 if stage.endswith(".1") else 0
                    for name, number in (("depthwise", 1), ("pointwise", 2)):
                        weight = values[f"{source}.{stage}.{name}.weight"][place * size : (place + 1) * size]
                        cut[f"{target}.{pattern.format(offset + number)}.weight"] = weight
                    norm(f"{source}.{stage}.norm", f"{target}.{pattern.format(offset + 3)}", place * size, size)
    return cut


def edgewise_twin(
    supernet: Supernet, in_channels: int, num_classes: int, channels: int, layers: int
) -> EdgewiseSupernet:
    """The edgewise supernet with the weights and running means of a wide one."""
    twin = EdgewiseSupernet(in_channels, num_classes, channels, layers).to(supernet.stem.weight.dtype)
    state = edgewise_tensors(supernet, dict(supernet.state_dict()))
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return twin
