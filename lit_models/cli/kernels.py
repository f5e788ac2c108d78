"""Kernels and layers that the methods use, compared with float64, each in a process that may crash.

A wrong kernel returns numbers of the right shape, so a network that uses it trains badly without any message.
"""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.darts.network import DepthwiseConv
from lit_models.networks.few_pixels import DoublingConv2d, HalvingConv2d
from lit_models.networks.resnet import Shortcut

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.005}
"""Largest relative error of a result in the Euclidean norm."""
SECONDS = 60
"""Patience for one kernel."""


@dataclass(frozen=True)
class Kernel:
    """A layer and the images that it gets.

    Attributes:
        name: What it is, and in which method it is used.
        layer: Makes the layer.
        shape: Shape of its input.
        channels_last: Memory order of the input and the weights.
        avoided: How relit computes the same without this kernel; empty if relit uses it.
    """

    name: str
    layer: Callable[[], nn.Module]
    shape: tuple[int, ...]
    channels_last: bool = True
    avoided: str = ""


_conv, _transposed = partial(nn.Conv2d, bias=False), partial(nn.ConvTranspose2d, bias=False)
_halving = partial(_conv, kernel_size=4, stride=2, padding=1)
_doubling = partial(_transposed, kernel_size=4, stride=2, padding=1)
_GRIDS = "relit convolves four grids of every other pixel"

KERNELS = (
    Kernel("Convolution 3x3, 64 to 64 (ResNet18, ProtoNet)", partial(_conv, 64, 64, 3, padding=1), (4, 64, 32, 32)),
    Kernel("Convolution 3x3 of stride 2, 64 to 128 (ResNet18)", partial(_conv, 64, 128, 3, 2, 1), (4, 64, 32, 32)),
    Kernel("Convolution 1x1 of stride 2, 64 to 128 (ResNet18)", partial(_conv, 64, 128, 1, 2), (4, 64, 64, 64)),
    Kernel(
        "Convolution 1x1 of stride 2, 8 to 16 (narrow ResNet18)",
        partial(_conv, 8, 16, 1, 2),
        (4, 8, 64, 64),
        avoided="relit subsamples the image first",
    ),
    Kernel("Subsampling and convolution 1x1, 8 to 16 (narrow ResNet18)", partial(Shortcut, 8, 16, 2), (4, 8, 64, 64)),
    Kernel("Convolution 4x4 of stride 2, 64 to 128 (GANs, VAE)", partial(_halving, 64, 128), (4, 64, 32, 32)),
    Kernel("Convolution 4x4 of stride 2, contiguous (pix2pix)", partial(_halving, 256, 512), (1, 256, 16, 16), False),
    Kernel(
        "Convolution 4x4 as a matrix product (pix2pix)", partial(HalvingConv2d, 512, 512, False), (1, 512, 8, 8), False
    ),
    Kernel("Transposed convolution, 128 to 64 (GANs, VAE)", partial(_doubling, 128, 64), (4, 128, 16, 16)),
    Kernel("Transposed convolution, 64 to 3 (GANs, VAE)", partial(_doubling, 64, 3), (4, 64, 32, 32)),
    Kernel("Transposed convolution, contiguous (pix2pix)", partial(_doubling, 512, 256), (1, 512, 8, 8), False),
    Kernel(
        "Transposed convolution as a matrix product (pix2pix)",
        partial(DoublingConv2d, 1024, 512, False),
        (1, 1024, 4, 4),
        False,
    ),
    Kernel("Convolution 7x7, 3 to 64 (CycleGAN)", partial(_conv, 3, 64, 7, padding=3), (1, 3, 64, 64)),
    Kernel(
        "Convolution 32x32, 8 to 16 (derivative of a gradient penalty of 8 images)",
        partial(_conv, 8, 16, 32, padding=1),
        (3, 8, 32, 32),
        avoided="relit computes penalties of fewer than 16 images in float32",
    ),
    Kernel(
        "Convolution 32x32, 16 to 16 (derivative of a gradient penalty of 16 images)",
        partial(_conv, 16, 16, 32, padding=1),
        (3, 16, 32, 32),
    ),
    Kernel("Depthwise convolution 3x3 (DARTS)", partial(_conv, 16, 16, 3, padding=1, groups=16), (8, 16, 32, 32)),
    Kernel(
        "Depthwise convolution 3x3, dilated, 32x32 (DARTS)",
        partial(_conv, 8, 8, 3, padding=2, dilation=2, groups=8),
        (8, 8, 32, 32),
        avoided=_GRIDS,
    ),
    Kernel(
        "Depthwise convolution 5x5, dilated, 32x32 (DARTS)",
        partial(_conv, 16, 16, 5, padding=4, dilation=2, groups=16),
        (8, 16, 32, 32),
        avoided=_GRIDS,
    ),
    Kernel("Depthwise convolution 3x3 on four grids (DARTS)", partial(DepthwiseConv, 8, 3, 1, 2), (8, 8, 32, 32)),
    Kernel("Depthwise convolution 5x5 on four grids (DARTS)", partial(DepthwiseConv, 16, 5, 1, 2), (8, 16, 32, 32)),
    Kernel("Depthwise convolution 5x5 of stride 2 (DARTS)", partial(DepthwiseConv, 16, 5, 2, 1), (8, 16, 32, 32)),
    Kernel("Batch normalization (all)", partial(nn.BatchNorm2d, 64), (8, 64, 32, 32)),
    Kernel("Linear layer, 784 to 256 (MLPs, classifiers)", partial(nn.Linear, 784, 256), (64, 784), False),
)


@dataclass(frozen=True)
class Fault:
    """A kernel that is wrong here.

    Attributes:
        kernel: Its name.
        dtype: In this type.
        problem: Which result is off and how far, or that the process ended.
        avoided: How relit computes the same without it; empty if relit uses it.
    """

    kernel: str
    dtype: str
    problem: str
    avoided: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def faults(device: str, dtypes: tuple[str, ...], kernels: tuple[Kernel, ...] = KERNELS) -> list[Fault]:
    """The kernels that are wrong on a device.

    On a CPU each has a separate process, forked from one that has imported torch: a kernel that corrupts memory may
    end the process only when something else is computed. Where a process takes seconds to start (on a GPU, on Windows),
    it checks kernel after kernel until one ends it.

    Args:
        device: "cpu", "cuda" or "mps".
        dtypes: The types, by name.
        kernels: The kernels.
    """
    size = 1 if device == "cpu" and _forks() else len(kernels) * len(dtypes)
    return check_in_groups(kernels, dtypes, device, size)


def check_in_groups(kernels: tuple[Kernel, ...], dtypes: tuple[str, ...], device: str, size: int) -> list[Fault]:
    """The kernels that are wrong, of which so many share a process."""
    context: Any = multiprocessing.get_context("forkserver" if _forks() else "spawn")
    if _forks():
        context.set_forkserver_preload([__name__])
    waiting = [(kernel, dtype) for kernel in kernels for dtype in dtypes]
    found = []
    while waiting:
        problems = _problems(context, waiting[:size], device)
        for (kernel, dtype), problem in zip(waiting, problems, strict=False):
            if problem:
                found.append(Fault(kernel.name, dtype, problem, kernel.avoided))
        waiting = waiting[len(problems) :]
    return found


def _forks() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def _problems(context: Any, group: list[tuple[Kernel, str]], device: str) -> list[str]:
    """What is wrong with each kernel, up to one that ends or stops the process."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_problems, args=(group, device, sender), daemon=True)
    process.start()
    sender.close()
    problems: list[Any] = []
    try:
        while len(problems) < len(group):
            if not receiver.poll(SECONDS):
                process.kill()
                problems.append(f"no result in {SECONDS} s")
                break
            problems.append(receiver.recv())
    except EOFError:
        process.join()
        problems.append(_ending(process.exitcode))
    process.join()
    return problems


def _ending(code: int) -> str:
    """An exit code in words."""
    with suppress(ValueError):  # not a signal
        return f"crashed with {signal.Signals(-code).name}"
    return f"ended the process with exit code {code}"


def _send_problems(group: list[tuple[Kernel, str]], device: str, sender: Connection) -> None:
    """Work of the process."""
    torch.manual_seed(0)
    for kernel, dtype in group:
        try:
            sender.send(problem_of(kernel, device, dtype))
        except RuntimeError as error:  # such as a type that the device lacks
            sender.send(str(error).splitlines()[0])


def problem_of(kernel: Kernel, device: str, dtype: str) -> str:
    """The results of a kernel that are further from float64 than rounding explains, in words; empty if none is.

    Two rounds with other numbers, because uninitialized memory may hold an earlier result.
    """
    for _ in range(2):
        errors = errors_of(kernel, device, dtype)
        off = {name: error for name, error in errors.items() if not error <= tolerance(device, dtype)}
        if off:
            return ", ".join(f"{name} off by {error:.2g}" for name, error in off.items())
    return ""


def tolerance(device: str, dtype: str) -> float:
    """The largest relative error that rounding explains. CUDA's convolutions in float32 may round as TF32 does."""
    return 2e-3 if (device, dtype) == ("cuda", "float32") else TOLERANCES[dtype]


def errors_of(kernel: Kernel, device: str, dtype: str) -> dict[str, float]:
    """Relative errors of a layer's output and gradients, in the Euclidean norm, against float64 on the CPU."""
    kind = getattr(torch, dtype)
    layer = kernel.layer()
    x = torch.randn(kernel.shape).to(kind)
    # As within autocast, which leaves batch normalization's parameters in float32.
    layer = layer if isinstance(layer, nn.BatchNorm2d) else layer.to(kind)
    exact = deepcopy(layer).double()
    tested = layer.to(device)
    if kernel.channels_last:
        tested = tested.to(memory_format=torch.channels_last)
    gradient: Tensor | None = None
    results = []
    for network, image in ((exact, x.double()), (tested, _placed(x, device, kernel.channels_last))):
        image.requires_grad_()
        output = network(image)
        if gradient is None:
            gradient = torch.randn(output.shape).to(kind)
            output.backward(gradient.double())
        else:
            output.backward(_placed(gradient, device, kernel.channels_last))
        of_weights = {f"gradient of {name}": value.grad for name, value in network.named_parameters()}
        results.append({"output": output.detach(), "gradient of the input": image.grad, **of_weights})
    expected, found = results
    return {
        name: float((found[name].cpu().double() - expected[name]).norm() / expected[name].norm()) for name in expected
    }


def _placed(image: Tensor, device: str, channels_last: bool) -> Tensor:
    order = torch.channels_last if channels_last and image.ndim == 4 else torch.contiguous_format
    return image.to(device, copy=True).contiguous(memory_format=order)
