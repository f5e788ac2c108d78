"""A CUDA device without a GPU: fake tensors, which have a device, a shape and a type, but no values.

An operation that mixes devices raises, and so does one whose result's shape or Python value depends on the values of a
tensor (``item``, ``nonzero``, boolean indexing). :class:`Device` also refuses copies back to the CPU and, as Apple's
GPUs do, float64. Autograd on a CUDA device needs a driver, so no graph is recorded, and every gradient is zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten


class ReadBackError(Exception):
    """Values of the device are copied to the CPU, so that the host waits for it."""


class DoublePrecisionError(Exception):
    """A float64 tensor is made on the device."""


class Device(TorchDispatchMode):
    """Refuses what a GPU makes slow, or what Apple's GPUs can't do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs))
        if func is aten.nonzero.default and not any(value.is_cuda for value in given):
            (value,) = given  # a CPU may look at its own values: let all be nonzero
            return value.new_zeros(value.numel(), value.ndim, dtype=torch.int64)
        results = func(*args, **(kwargs or {}))
        made = _tensors(results)
        if any(value.is_cuda for value in given) and any(not value.is_cuda for value in made):
            raise ReadBackError(f"{func} copies from the device to the CPU")
        if any(value.is_cuda and value.dtype == torch.float64 for value in made):
            raise DoublePrecisionError(f"{func} makes float64 on the device")
        return results


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(value) for value in ([inputs] if isinstance(inputs, Tensor) else inputs))


@contextmanager
def _no_graph() -> Iterator[None]:
    """Not by ``torch.no_grad``, which goes through ``torch.set_grad_enabled``."""
    enabled = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)
    try:
        yield
    finally:
        torch._C._set_grad_enabled(enabled)


@contextmanager
def fake_cuda(bf16: bool = False) -> Iterator[None]:
    """Within the block, every new tensor is fake, and so are CUDA's."""
    with (
        patch("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda *_: True),
        patch("torch.autograd.grad", _gradients),
        patch("torch.set_grad_enabled", lambda _: nullcontext()),
        patch("torch.enable_grad", nullcontext),
        _no_graph(),
        FakeTensorMode(),
        Device(),
        torch.autocast("cuda", torch.bfloat16, enabled=bf16),
    ):
        yield


def moved(model: Any) -> Any:
    """Moves a model, in place, as ``model.to`` would: its other tensors stay on the CPU."""
    known: dict[int, Tensor] = {}  # shared tensors stay shared

    def placed(value: Tensor) -> Tensor:
        if id(value) not in known:
            fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
            known[id(value)] = nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake
        return known[id(value)]

    for module in model.modules():
        for values in (module._parameters, module._buffers):
            values.update({name: placed(value) for name, value in values.items() if value is not None})
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                of_metric = isinstance(module, Metric) and name in module._defaults
                vars(module)[name] = torch.empty(value.shape, dtype=value.dtype, device=CUDA if of_metric else "cpu")
        if isinstance(module, Metric):
            module._device = CUDA
    model._device = CUDA
    return model


class StandIn:
    """As much of a trainer as the steps ask for, on one device, within training or evaluation.

    Attributes:
        logged: What the model has logged, by name.
    """

    world_size, global_rank, is_global_zero = 1, 0, True
    current_epoch, global_step, max_epochs, max_steps = 0, 0, 10, -1
    sanity_checking = False
    precision = "32-true"
    progress_bar_callback = train_dataloader = val_dataloaders = None

    def __init__(self, model: LightningModule, datamodule: Any, training: bool) -> None:
        self.training = training
        self.datamodule = datamodule
        self.state = SimpleNamespace(fn=TrainerFn.FITTING)
        self.fit_loop = SimpleNamespace(total_batch_idx=0)
        self.strategy = SimpleNamespace(
            root_device=CUDA,
            optimizer_step=lambda optimizer, closure, model: optimizer.step(),
            all_gather=lambda values, *_, **__: values,
        )
        self.precision_plugin = SimpleNamespace(forward_context=nullcontext, convert_input=lambda batch: batch)
        self._logger_connector = SimpleNamespace(should_update_logs=True)
        self.logged: dict[str, Any] = {}
        self.model = model
        configured = model.configure_optimizers()
        if isinstance(configured, dict):
            configured = configured["optimizer"]
        if isinstance(configured, tuple):
            configured = configured[0]
        self.optimizers = configured if isinstance(configured, list) else [configured]

    def log(self, name: str, value: Any, **options: Any) -> None:
        """As Lightning does: a tensor has one element; one that the ranks reduce lies on the device."""
        if isinstance(value, Tensor):
            assert value.numel() == 1, name
            assert value.is_cuda or not options.get("sync_dist"), f"{name} lies on {value.device}, where NCCL can't sum"
        self.logged[name] = value

    def log_dict(self, values: dict[str, Any], **options: Any) -> None:
        for name, value in values.items():
            self.log(name, value, **options)


def attach(model: LightningModule, datamodule: Any, training: bool) -> StandIn:
    """Gives a model a trainer's stand-in."""
    trainer = StandIn.__new__(StandIn)
    model._trainer = cast(Any, trainer)
    replaced = cast(Any, model)
    StandIn.__init__(trainer, model, datamodule, training)
    optimizers = [LightningLike(optimizer) for optimizer in trainer.optimizers]
    replaced.optimizers = lambda: optimizers if len(optimizers) > 1 else optimizers[0]
    replaced.lr_schedulers = lambda: None
    replaced.log = trainer.log
    replaced.log_dict = lambda values, **options: [
        trainer.log(name, value, **options) for name, value in values.items()
    ]
    replaced.manual_backward = backward
    model.train(training)
    return trainer


def backward(loss: Tensor) -> None:
    """In place of the backward pass: a loss that could have one."""
    assert loss.is_cuda
    assert loss.ndim == 0


class LightningLike:
    """An optimizer as Lightning hands it to a step, with a gradient for each parameter."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        take_step(self.optimizer)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """A step by gradients of nothing."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
