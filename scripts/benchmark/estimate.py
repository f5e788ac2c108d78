"""How long a training step takes on paper, on one device and on many.

An operation takes as long as its arithmetic, its memory traffic or its start, whichever is longest (the roofline model,
Williams, Waterman & Patterson 2009, https://doi.org/10.1145/1498765.1498785):

    step = loop + Σ max(FLOPs / peak, bytes / bandwidth, start)

DDP sends all gradients in each backward pass. By a ring, each of n processes sends 2 (n − 1) / n times the gradients'
bytes (Patarasuk & Yuan 2009), in buckets of 25 MiB (Li et al. 2020, https://arxiv.org/abs/2006.15704), of which each
costs its latency, too. Communication comes after the step at worst, and within half of the step at best.
"""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmark.sides import Observer
from datamodules import Episodes, SearchBatch
from lit_models.cli.doctor import peak

MEBI = 1 << 20
OVERLAP = 0.5
"""Part of a step in which gradients can be sent already."""


class Work(NamedTuple):
    """An operation.

    Attributes:
        flops: Floating-point operations of convolutions and matrix products.
        batch_bytes: Bytes read and written of tensors that grow with the batch.
        fixed_bytes: Bytes of tensors of a parameter's shape.
    """

    flops: int
    batch_bytes: int
    fixed_bytes: int


class Machine(NamedTuple):
    """A device, and what connects it with others.

    Attributes:
        flops: Floating-point operations a second.
        bandwidth: Bytes of memory a second.
        start: Seconds that an operation takes at least.
        loop: Seconds of a step outside of its operations.
    """

    flops: float
    bandwidth: float
    start: float
    loop: float = 0.0


class Network(NamedTuple):
    """What connects processes.

    Attributes:
        bandwidth: Bytes a second that each process sends.
        latency: Seconds of an all-reduce of nothing.
    """

    bandwidth: float
    latency: float


def step_seconds(work: Iterable[Work], machine: Machine, batches: float = 1.0) -> float:
    """Time of a step.

    Args:
        work: Its operations, as counted.
        machine: Where it runs.
        batches: Images of its batch over those of the counted one.

    Example:
        >>> work = [Work(flops=8_000, batch_bytes=10, fixed_bytes=0), Work(0, 100, 200), Work(0, 0, 4)]
        >>> step_seconds(work, Machine(flops=1_000, bandwidth=100, start=1), batches=2)
        21.0
    """
    return machine.loop + sum(
        max(
            one.flops * batches / machine.flops,
            (one.batch_bytes * batches + one.fixed_bytes) / machine.bandwidth,
            machine.start,
        )
        for one in work
    )


def buckets_of(gradients: int) -> int:
    """Buckets in which DDP sends so many bytes: the first is of 1 MiB, so that its all-reduce can begin early."""
    return 1 + math.ceil(max(0, gradients - MEBI) / (25 * MEBI))


def exchange_seconds(gradients: int, passes: int, processes: int, network: Network) -> float:
    """Time that a step's all-reduces take.

    Args:
        gradients: Bytes of all gradients.
        passes: Backward passes of a step.
        processes: Processes.
        network: What connects them.

    Example:
        >>> exchange_seconds(MEBI, passes=2, processes=4, network=Network(bandwidth=3 * MEBI, latency=0.25))
        1.5
    """
    sent = 2 * (processes - 1) / processes * gradients
    return passes * (sent / network.bandwidth + buckets_of(gradients) * network.latency)


def efficiencies(step: float, exchange: float) -> tuple[float, float]:
    """The part of the time in which devices compute, without and with overlap.

    Example:
        >>> efficiencies(1.0, 1.0), efficiencies(2.0, 1.0)
        ((0.5, 0.6666666666666666), (0.6666666666666666, 1.0))
    """
    return step / (step + exchange), step / (step + max(0.0, exchange - OVERLAP * step))


# --- counted ----------------------------------------------------------------------------------------------------------


def images_in(batch: Any) -> int:
    """How many images a training batch holds, whatever its kind; of pairs the sources, of DARTS's two batches the one
    of the weights."""
    parts = batch if isinstance(batch, Episodes) else batch[0] if isinstance(batch, SearchBatch) else batch[:1]
    images = [part for part in parts if part.is_floating_point()]
    return sum(math.prod(part.shape[:-3]) if part.ndim > 2 else len(part) for part in images)


def flops_of(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Floating-point operations of a convolution or matrix product; 0 for anything else.

    torch's own formula for gradients (2.14) counts those of grouped kernels as if there were no groups.
    """
    if func._overloadpacket is torch.ops.aten.convolution_backward:
        gradient, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
        pixels = math.prod((x if transposed else gradient).shape[2:]) * len(x)
        return 2 * weight.numel() * pixels * (wanted[0] + wanted[1])
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=result)) if formula else 0


class Operations(TorchDispatchMode):
    """Counts the operations on tensors, each of which is a kernel on a GPU (views are none).

    Args:
        parameters: Those of the model.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.work: list[Work] = []
        self._fixed = {parameter.shape for parameter in parameters}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            traffic = [0, 0]
            for value in tree_leaves((args, kwargs, result)):
                if isinstance(value, Tensor):
                    traffic[value.shape in self._fixed] += value.numel() * value.element_size()
            self.work.append(Work(flops_of(func, args, kwargs or {}, result), *traffic))
        return result


class CountedStep(Observer):
    """Counts what the second batch takes (in the first, optimizers make their state), and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.images = self.parameters = self.passes = 0
        self.work: list[Work] = []
        self._counter: Operations | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations of convolutions and matrix products."""
        return sum(one.flops for one in self.work)

    @property
    def counts(self) -> bool:
        """Whether the batch that is counted is running."""
        return self._counter is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        backward = pl_module.manual_backward

        def counted(*arguments: Any, **options: Any) -> None:
            self.passes += self._counter is not None
            backward(*arguments, **options)

        pl_module.manual_backward = counted  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.images = images_in(batch)
            self._counter = Operations(pl_module.parameters())
            self._counter.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.work = self._counter.work
            self.passes = max(self.passes, 1)
            self._counter = None
            trainer.should_stop = True


# --- this machine -----------------------------------------------------------------------------------------------------


def measured_machine(loop: float) -> Machine:
    """This process's threads.

    Args:
        loop: Seconds of a step outside of its operations.
    """
    gflops = peak("cpu", ("float32",), seconds=1.0).values["gflops"]["float32"]
    source = torch.zeros(16 * MEBI)
    target = torch.empty_like(source)
    copying = _quickest(lambda: target.copy_(source))
    # Of small layers, because an operation's start includes Python, autograd and the optimizer.
    layers = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(4, 4), nn.ReLU())))
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    image = torch.ones(1, 4)

    def step() -> None:
        optimizer.zero_grad()
        layers(image).sum().backward()
        optimizer.step()

    with Operations() as counter:
        step()
    start = _quickest(step) / len(counter.work)
    return Machine(1e9 * gflops, 2 * 4 * source.numel() / copying, start, loop)


def _quickest(function: Any, times: int = 10) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def network_of(small: float, large: float, sizes: Sequence[int], processes: int = 2) -> Network:
    """The network in which all-reduces of two sizes took so long.

    Args:
        small: Seconds of the smaller one.
        large: Seconds of the larger one.
        sizes: Their bytes.
        processes: Processes.

    Example:
        >>> network_of(1.0, 3.0, (0, 100))
        Network(bandwidth=50.0, latency=1.0)
    """
    bandwidth = 2 * (processes - 1) / processes * (sizes[1] - sizes[0]) / (large - small)
    return Network(bandwidth, max(0.0, small - sizes[0] / bandwidth))
