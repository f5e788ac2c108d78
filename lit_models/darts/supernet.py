"""The network of DARTS's search, in which every edge of a cell is a weighted mean of all candidate operations (Liu et
al. 2019, eq. 2), computed in wide operations.

Written edge by edge, a cell is hundreds of small operations, and most of the time goes into starting them and into
moving the same values again and again. But all edges that leave one state have the same input. So what they do to it
alike is done once (ReLU, the two poolings and their normalization), and their convolutions of one kind are one
convolution, over the channels of all these edges side by side. Batch normalization goes by channel, so that nothing
changes there, and as it ends with a factor for each channel, that factor can be the operation's weight on the edge. The
outcome is the same function of the same weights: tests compare both forms, gradients included.

Two more identities save time. A convolution of dilation 2 sees only every other pixel: on images that are rearranged
into their four grids of every other pixel it is an ordinary convolution (which libraries do several times as fast), and
with stride 2 it needs only one of the grids. And the factorized reduction of a skip connection (pixel (0, 0) of each
2x2 block through one matrix, pixel (1, 1) through another) is one 2x2 convolution of stride 2.

Images and weights are kept in channels-last order, in which depthwise convolutions are far faster on a CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_models.darts.batch_norm import batch_norm
from lit_models.darts.genotype import CELLS, EDGES, NODES, OPERATIONS
from lit_models.networks.depthwise import depthwise_conv2d, from_grids, to_grids

Statistics = Literal["batch", "running"]

STEM_MULTIPLIER = 3
"""Channels of the stem, in those of a node of the first cell."""


def edges_leaving(state: int) -> list[int]:
    """The rows of α whose edges start at a state of the cell.

    Example:
        >>> edges_leaving(0), edges_leaving(5)
        ([0, 2, 5, 9], [])
    """
    return [row for row, (_, start) in enumerate(EDGES) if start == state]


def reduction_layers(layers: int) -> set[int]:
    """The cells (from 0) that are reduction cells: those at a third and at two thirds of the depth."""
    return {layers // 3, 2 * layers // 3}


class BatchNorm(nn.Module):
    """Batch normalization whose factors come from outside, if at all; it has no bias.

    Args:
        channels: Channels of its input.

    Attributes:
        eval_statistics: Statistics in evaluation: of the "batch", as in the paper (appendix A.1.1), or the "running"
            means of the training passes, which are kept either way.
        updates: Whether training passes move the running means.
        twice_differentiable: Whether passes are for :func:`lit_models.darts.hypergradient.exact_product`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eval_statistics: Statistics = "batch"
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.updates, self.twice_differentiable = True, False

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` to the same; ``factor``, ``(C,)``, multiplies the normalized channels."""
        by_batch = self.training or self.eval_statistics == "batch"
        if by_batch and self.twice_differentiable:
            return batch_norm(x, factor)
        updates = self.training and self.updates
        mean, var = (self.running_mean, self.running_var) if updates or not by_batch else (None, None)
        return functional.batch_norm(x, mean, var, factor, None, training=by_batch)


@contextmanager
def statistics_kept(network: nn.Module, twice_differentiable: bool = False) -> Iterator[None]:
    """Within the block, training passes leave the running means of batch normalization as they are.

    Args:
        network: A supernet.
        twice_differentiable: Whether the passes are for :func:`lit_models.darts.hypergradient.exact_product`.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    before = [(norm.updates, norm.twice_differentiable) for norm in norms]
    for norm in norms:
        norm.updates, norm.twice_differentiable = False, twice_differentiable
    try:
        yield
    finally:
        for norm, modes in zip(norms, before, strict=True):
            norm.updates, norm.twice_differentiable = modes


class Conv(nn.Module):
    """A convolution without bias that keeps the size, or halves it.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        stride: 1 or 2.
        groups: Groups of channels; with one channel in each, the convolution may be dilated.
    """

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        shape = (out_channels, channels // groups, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape).to(memory_format=torch.channels_last))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # PyTorch's own default
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor, dilation: int = 1) -> Tensor:
        if self.groups == len(self.weight):
            return depthwise_conv2d(x, self.weight, self.stride, dilation)
        return functional.conv2d(x, self.weight, None, self.stride, self.weight.shape[-1] // 2, 1, self.groups)


class FactorizedReduction(nn.Module):
    """Halves height and width, which must be even: of each 2x2 block, one pixel gives half of the output's channels,
    and the opposite pixel the other half.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output, for each of ``edges``.
        edges: Edges that are computed side by side.
    """

    def __init__(self, channels: int, out_channels: int, edges: int = 1) -> None:
        super().__init__()
        half = out_channels // 2
        self.first = nn.Parameter(torch.empty(edges, half, channels))
        self.second = nn.Parameter(torch.empty(edges, out_channels - half, channels))
        for weight in self.parameters():
            nn.init.uniform_(weight, -(channels**-0.5), channels**-0.5)  # PyTorch's default for such convolutions
        self.norm = BatchNorm(edges * out_channels)

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """Takes the input after its ReLU; ``factor`` is :class:`BatchNorm`'s."""
        first = functional.pad(self.first[..., None, None], (0, 1, 0, 1))
        second = functional.pad(self.second[..., None, None], (1, 0, 1, 0))
        return self.norm(functional.conv2d(x, torch.cat((first, second), 1).flatten(0, 1), stride=2), factor)


class WideSeparable(nn.Module):
    """For each of several edges: a depthwise convolution, a pointwise one, and batch normalization.

    Args:
        channels: Channels of an edge.
        edges: Number of edges.
        kernel_size: Side of the depthwise kernels.
        stride: That of the depthwise convolutions.
    """

    def __init__(self, channels: int, edges: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        wide = edges * channels
        self.depthwise = Conv(wide, wide, kernel_size, stride, groups=wide)
        self.pointwise = Conv(wide, wide, 1, groups=edges)
        self.norm = BatchNorm(wide)

    def forward(self, x: Tensor, factor: Tensor | None = None, dilation: int = 1) -> Tensor:
        """``(B, edges * channels, H, W)`` to the same, or half of the size; ``factor`` is :class:`BatchNorm`'s."""
        return self.norm(self.pointwise(self.depthwise(x, dilation)), factor)


class WideOperations(nn.Module):
    """All operations on all edges that leave one state of a cell.

    Args:
        channels: Channels of the state, and of each edge.
        edges: Number of edges.
        stride: 2 if these edges halve the size.
    """

    def __init__(self, channels: int, edges: int, stride: int) -> None:
        super().__init__()
        self.channels, self.edges, self.stride = channels, edges, stride
        self.norm_max, self.norm_avg = BatchNorm(channels), BatchNorm(channels)
        self.skip = None if stride == 1 else FactorizedReduction(channels, channels, edges)
        self.sep_3x3 = nn.ModuleList([WideSeparable(channels, edges, 3, s) for s in (stride, 1)])
        self.sep_5x5 = nn.ModuleList([WideSeparable(channels, edges, 5, s) for s in (stride, 1)])
        self.dil_3x3, self.dil_5x5 = WideSeparable(channels, edges, 3), WideSeparable(channels, edges, 5)

    def forward(self, x: Tensor, mixture: Tensor) -> Tensor:
        """The edges' weighted sums of operations, side by side.

        Args:
            x: ``(B, C, H, W)``: the state.
            mixture: ``(edges, 8)``: the weight of each operation on each edge.

        Returns:
            ``(B, edges * C, H, W)``, or half of the size.
        """
        # Rows, not columns: torch 2.14 gets the gradient of batch normalization in channels-last order wrong, without a
        # word, if the factors aren't contiguous.
        factor = dict(zip(OPERATIONS, mixture.T.repeat_interleave(self.channels, 1), strict=True))
        positive = functional.relu(x)
        wide = torch.cat([positive] * self.edges, 1)
        total = self._parameterless(x, positive, mixture, factor)
        for kind, (first, second) in (("sep_conv_3x3", self.sep_3x3), ("sep_conv_5x5", self.sep_5x5)):
            total += second(functional.relu(first(wide)), factor[kind])
        total += self._dilated(positive, wide, factor)
        return total

    def _parameterless(self, x: Tensor, positive: Tensor, mixture: Tensor, factor: dict[str, Tensor]) -> Tensor:
        """The poolings and the skip connections, which all edges share (but for those that reduce)."""
        # On a CPU, torch's poolings of few channels, and the normalization of their results, are slow in bfloat16.
        pooled = x.float() if x.device.type == "cpu" and x.dtype == torch.bfloat16 else x
        shared = [
            self.norm_max(functional.max_pool2d(pooled, 3, self.stride, 1)),
            self.norm_avg(functional.avg_pool2d(pooled, 3, self.stride, 1, count_include_pad=False)),
        ]
        if self.skip is None:
            shared.append(x)
        # Each edge's weighted sum of a few images is a pointwise convolution.
        columns = mixture[:, 1 : 1 + len(shared)]
        matrix = torch.kron(columns, torch.eye(self.channels, dtype=columns.dtype, device=columns.device))
        total = functional.conv2d(torch.cat(shared, 1), matrix[..., None, None])
        return total if self.skip is None else total + self.skip(positive, factor["skip_connect"])

    def _dilated(self, positive: Tensor, wide: Tensor, factor: dict[str, Tensor]) -> Tensor:
        on_grids = self.stride == 1 and wide.shape[-2] % 2 == 0 and wide.shape[-1] % 2 == 0
        if self.stride == 2:
            wide = torch.cat([positive[..., ::2, ::2].contiguous(memory_format=torch.channels_last)] * self.edges, 1)
        elif on_grids:
            wide = torch.cat([to_grids(positive)] * self.edges, 1)
        dilation = 1 if on_grids or self.stride == 2 else 2
        total = self.dil_3x3(wide, factor["dil_conv_3x3"], dilation)
        total = total + self.dil_5x5(wide, factor["dil_conv_5x5"], dilation)
        return from_grids(total) if on_grids else total


class WideCell(nn.Module):
    """A cell of the supernet.

    Args:
        channels_before: Channels of the outputs of the last cell but one and of the last cell.
        channels: Channels of each node.
        reduction: Whether the edges from the two inputs halve the size.
        reduction_before: Whether the last cell did, so that the output of the one before it is too large.
    """

    def __init__(
        self, channels_before: tuple[int, int], channels: int, reduction: bool, reduction_before: bool
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kind = CELLS[reduction]
        self.reduce = FactorizedReduction(channels_before[0], channels) if reduction_before else None
        self.pointwise = nn.ModuleList(
            Conv(before, channels, 1) for before in channels_before[1 if reduction_before else 0 :]
        )
        self.norms = nn.ModuleList(BatchNorm(channels) for _ in self.pointwise)
        self.states = nn.ModuleList(
            WideOperations(channels, len(edges_leaving(state)), stride=2 if reduction and state < 2 else 1)
            for state in range(1 + NODES)
        )

    def forward(self, before_last: Tensor, last: Tensor, mixtures: tuple[Tensor, ...]) -> Tensor:
        """Makes ``(B, 4 * channels, H, W)``, or half of the size.

        Args:
            before_last: Output of the last cell but one.
            last: Output of the last cell.
            mixtures: For each state that edges leave, ``(edges, 8)``: the weights of the operations on them.
        """
        inputs = [functional.relu(before_last), functional.relu(last)]
        states = [] if self.reduce is None else [self.reduce(inputs.pop(0))]
        states += [norm(pointwise(x)) for x, pointwise, norm in zip(inputs, self.pointwise, self.norms, strict=True)]
        first, second, *others = self.states
        # The sums for all nodes side by side. A state's edges lead to all later nodes, which are the last channels.
        arriving = first(states[0], mixtures[0]) + second(states[1], mixtures[1])
        for operations, mixture in zip(others, mixtures[2:], strict=True):
            node, arriving = arriving.split([self.channels, arriving.shape[1] - self.channels], 1)
            states.append(node.contiguous(memory_format=torch.channels_last))
            arriving = arriving + operations(states[-1], mixture)
        return torch.cat([*states[2:], arriving], 1)


class Supernet(nn.Module):
    """A stem, cells that hold all candidate operations, and a linear classifier.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        channels: Channels of each node in the first cells; each reduction doubles them.
        layers: Number of cells, at least 3.
        eval_statistics: Statistics of batch normalization in evaluation; see :class:`BatchNorm`.
    """

    by_state: Tensor

    def __init__(
        self, in_channels: int, num_classes: int, channels: int, layers: int, eval_statistics: Statistics = "batch"
    ) -> None:
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem, self.stem_norm = Conv(in_channels, stem, 3), BatchNorm(stem)
        # Only here does normalization learn factors and biases, as in the authors' network.
        self.stem_scale, self.stem_bias = nn.Parameter(torch.ones(stem)), nn.Parameter(torch.zeros(stem))
        self.cells = nn.ModuleList()
        before, reduction_before = (stem, stem), False
        for layer in range(layers):
            reduction = layer in reduction_layers(layers)
            channels *= 2 if reduction else 1
            self.cells.append(WideCell(before, channels, reduction, reduction_before))
            before, reduction_before = (before[1], NODES * channels), reduction
        self.classifier = nn.Linear(before[1], num_classes)
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.eval_statistics = eval_statistics
        self.leaving = [edges_leaving(state) for state in range(1 + NODES)]
        self.register_buffer("by_state", torch.tensor([row for rows in self.leaving for row in rows]), persistent=False)

    def forward(self, image: Tensor, normal: Tensor, reduction: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``.

        Args:
            image: ``(B, in_channels, H, W)``; height and width must be divisible by 4.
            normal: ``(14, 8)``: α of the normal cells, before the softmax.
            reduction: ``(14, 8)``: α of the reduction cells.
        """
        mixtures = {
            kind: alpha.softmax(1).index_select(0, self.by_state).split([len(rows) for rows in self.leaving])
            for kind, alpha in zip(CELLS, (normal, reduction), strict=True)
        }
        stem = self.stem(image.contiguous(memory_format=torch.channels_last))
        last = self.stem_norm(stem) * self.stem_scale[:, None, None] + self.stem_bias[:, None, None]
        before_last = last
        for cell in self.cells:
            before_last, last = last, cell(before_last, last, mixtures[cast(WideCell, cell).kind])
        return self.classifier(last.mean((2, 3)))
