"""The convolutions of a network as torch's kernels get them, and how far each kernel is from float64.

A call is recorded with its shapes, memory order and types while a network runs on fake tensors, which takes neither
memory nor time; :func:`check` repeats each call on random numbers in a separate process, so that a crash of a kernel
is an error like any other.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
FORWARD, BACKWARD = aten.convolution.default, aten.convolution_backward.default
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Largest relative error of a result, in the Euclidean norm."""


class Recorder(TorchDispatchMode):
    """Notes each convolution, forwards and backwards, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (FORWARD, BACKWARD):
            name = "forward" if func is FORWARD else "backward"
            self.calls.add(json.dumps([name, [described(argument) for argument in args]]))
        return func(*args, **(kwargs or {}))


def described(argument: Any) -> Any:
    """A tensor as its shape, strides and type; anything else as it is."""
    if isinstance(argument, Tensor):
        return {"shape": [*argument.shape], "stride": [*argument.stride()], "dtype": str(argument.dtype)[6:]}
    return argument


def recorded(network: nn.Module, run: Callable[[Any], Tensor], bf16: bool) -> set[str]:
    """The calls of a network's forward and backward pass.

    Args:
        network: The network. Its tensors become fake.
        run: Makes a tensor by the network, from inputs that it makes.
        bf16: Whether to run within autocast of bfloat16.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in network.modules():
            for name, value in module._parameters.items():
                if value is not None and not isinstance(value, FakeTensor):
                    module._parameters[name] = nn.Parameter(mode.from_tensor(value.detach()), value.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None and not isinstance(buffer, FakeTensor):
                    module._buffers[name] = mode.from_tensor(buffer)
        with Recorder() as recorder:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                result = run(network)
            result.float().sum().backward()
    return recorder.calls


def check(calls: set[str]) -> list[str]:
    """What is wrong with these calls on this machine; nothing if all is right."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calls.json")
        path.write_text(json.dumps(sorted(calls)))
        command = [sys.executable, "-m", "tests.support.kernels", str(path)]
        result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    faults = [line.removeprefix("fault: ") for line in result.stdout.splitlines() if line.startswith("fault: ")]
    if result.returncode:
        last = [line for line in result.stdout.splitlines() if line.startswith("call: ")][-1:]
        faults.append(f"process ended with {result.returncode} at {''.join(last)}\n{result.stderr[-2000:]}")
    return faults


def error_of(call: str) -> float:
    """The largest relative error of a call's results."""
    name, described_arguments = json.loads(call)
    function = {"forward": FORWARD, "backward": BACKWARD}[name]
    arguments = [made(argument) for argument in described_arguments]
    exact = [value.double().contiguous() if isinstance(value, Tensor) else value for value in arguments]
    found, expected = function(*arguments), function(*exact)
    if name == "forward":
        found, expected = (found,), (expected,)
    errors = []
    for one, other in zip(found, expected, strict=True):
        if one is not None and one.numel():
            error = float((one.double() - other).norm() / other.norm())
            tolerance = TOLERANCES[one.dtype]
            errors.append(error / tolerance if error == error else float("inf"))
    return max(errors)


def made(argument: Any) -> Any:
    """Random numbers in place of a described tensor."""
    if not isinstance(argument, dict):
        return argument
    shape, stride = argument["shape"], argument["stride"]
    extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return torch.randn(extent).to(getattr(torch, argument["dtype"])).as_strided(shape, stride)


def main() -> None:
    """Checks the calls of a file."""
    torch.manual_seed(0)
    for call in json.loads(Path(sys.argv[1]).read_text()):
        print(f"call: {call}", flush=True)
        if (error := error_of(call)) > 1:
            print(f"fault: {error:.3g} times the tolerance at {call}", flush=True)


if __name__ == "__main__":
    main()
