"""A CUDA device whose tensors are computed by the CPU, for complete runs without a GPU.

Its tensors have values, unlike those of `tests/support/fake_cuda.py`, so files can be written and pictures drawn of
them. An operation that mixes devices raises, and so does a random number drawn by the other device's generator.
Autograd on a CUDA device needs a driver, so no graph is recorded, and every gradient is zero. Parameters change their
device in place, which torch refuses for tensors of its inference mode: leave that off.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, cast
from unittest.mock import patch

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.fake_cuda import CUDA, _gradients, _no_graph

aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations whose indices may lie on the CPU while the rest is on the device."""
COPIES = {aten.copy_.default, aten._to_copy.default}


class OnCUDA(Tensor):
    """A tensor of the device.

    Attributes:
        values: The same on the CPU.
    """

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnCUDA":
        layout: dict[str, Any] = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        made: Any = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=CUDA, **layout)
        made.values = values
        return cast("OnCUDA", made)

    def __init__(self, values: Tensor) -> None:
        super().__init__()

    # Torch has none for subclasses.

    def tolist(self) -> Any:
        return self.values.tolist()

    def __format__(self, form: str) -> str:
        return self.values.__format__(form)

    def __repr__(self, **options: Any) -> str:
        return f"OnCUDA({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """Makes tensors of the device where they are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation by the CPU, whose results lie where a GPU's would."""
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    here = [value for value in given if isinstance(value, OnCUDA)]
    asked = kwargs.get("device")
    on_cuda = bool(here) if asked is None else torch.device(asked).type == "cuda"
    if here and len(here) < len(given):
        require_one_device(func, args, given)
    generator = kwargs.get("generator")
    if generator is not None and (generator.device.type == "cuda") != on_cuda:
        raise RuntimeError(f"{func}: the generator is one of {generator.device.type}")
    if on_cuda and asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    known = {id(value.values): value for value in here} | {id(value): value for value in given}

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:  # of an operation in place
            return known[id(value)]
        return OnCUDA(value) if on_cuda else value

    return tree_map(placed, func(*_values(args), **_values(kwargs)))


def require_one_device(func: Any, args: Any, given: list[Tensor]) -> None:
    """Refuses tensors of both devices, but for what CUDA takes: numbers, indices and copies.

    Raises:
        RuntimeError: They are mixed.
    """
    if func in COPIES:
        return
    if func in INDEXED:
        others = [value for value in args[2:3] if isinstance(value, Tensor)]
        if isinstance(args[0], OnCUDA) and all(isinstance(value, OnCUDA) or not value.ndim for value in others):
            return
    elif all(isinstance(value, OnCUDA) or not value.ndim for value in given):
        return
    raise RuntimeError(f"{func}: expected all tensors to be on one device, found {[str(one.device) for one in given]}")


def _values(values: Any) -> Any:
    return tree_map(lambda value: value.values if isinstance(value, OnCUDA) else value, values)


def zero_gradients(self: LightningModule, loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """In place of the backward pass."""
    assert loss.is_cuda
    assert loss.ndim == 0
    for parameter in self.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


@contextmanager
def cuda_on_cpu() -> Iterator[None]:
    """Within the block, Lightning finds a GPU, which has a gigabyte."""
    save = torch.save

    def save_values(content: Any, *args: Any, **kwargs: Any) -> None:
        save(_values(content), *args, **kwargs)

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    patches: dict[str, Callable[..., Any]] = {
        "torch.save": save_values,
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.max_memory_allocated": lambda *_: 0,
        "torch.cuda.mem_get_info": lambda *_: (2**30, 2**30),
        "torch.cuda.get_device_name": lambda *_: "a GPU",
        "torch.autograd.grad": _gradients,
        "torch.set_grad_enabled": lambda _: nullcontext(),
        "torch.enable_grad": nullcontext,
        "lightning.pytorch.LightningModule.backward": zero_gradients,
    }
    of_accelerator: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "auto_device_count": lambda: 1,
        "parse_devices": lambda devices: [0],
        "setup_device": lambda self, device: None,
        "setup": lambda self, trainer: None,
        "teardown": lambda self: None,
    }
    with ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(patch(name, value))
        for name, value in of_accelerator.items():
            static = name in ("is_available", "auto_device_count", "parse_devices")
            stack.enter_context(patch.object(CUDAAccelerator, name, staticmethod(value) if static else value))
        torch.__future__.set_swap_module_params_on_conversion(True)  # what refers to a parameter still does
        torch._C._ensureCUDADeviceGuardSet()  # as for fake tensors
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_no_graph())
        stack.enter_context(Device())
        yield
