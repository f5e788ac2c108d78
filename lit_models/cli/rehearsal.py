"""Tries optimizers and schedules on a few numbers before a training begins: some arguments fail only after an epoch."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from torch import Tensor
from torch.optim import SGD, Optimizer, lr_scheduler

from lit_models.cli.swaps import class_of
from lit_models.errors import ModelError

TRIED = ("torch.optim.", "lit_models.", "lightning.pytorch.cli.")
"""Modules whose classes are tried; a class of the user's may need the model's own parameters."""
AT_LEAST = {
    **dict.fromkeys(("step_size", "step_size_up", "step_size_down", "T_max", "T_0", "T_mult"), 1),
    **dict.fromkeys(("total_steps", "epochs", "steps_per_epoch"), 1),
    **dict.fromkeys(("total_iters", "patience", "cooldown", "gamma", "factor", "eta_min", "min_lr", "threshold"), 0),
    **dict.fromkeys(("lr", "eps", "weight_decay", "lr_decay", "base_lr", "max_lr", "base_momentum"), 0),
}
FROM_0_TO_1 = ("beta1", "beta2", "betas", "alpha", "rho", "momentum", "dampening", "max_momentum")
"""Arguments that must be at least 0 and less than 1, or at most 1 where they are in :data:`MAY_BE_1`."""
MAY_BE_1 = ("rho", "momentum", "dampening", "max_momentum", "alpha")
MOST_EPOCHS = 10_000
MIXED = ("16", "16-mixed", "bf16", "bf16-mixed")


def rehearse(arguments: Namespace, epochs: int, clips_mixed: bool = False) -> None:
    """Refuses optimizers and schedules of a model that would fail, or make a learning rate that is none.

    Args:
        arguments: The model's.
        epochs: Steps of each schedule.
        clips_mixed: Whether the Trainer clips gradients in mixed precision.

    Raises:
        ModelError: One does; the message names its option.
    """
    given = {name: value for name, value in vars(arguments).items() if _is_tried(value)}
    for name, value in given.items():
        if name.endswith(("optimizer", "scheduler")):
            _require_sensible(name, value)
    for name, value in given.items():
        if name.endswith("optimizer"):
            _try_optimizer(name, value, clips_mixed)
    for name, value in given.items():
        if name.endswith("scheduler"):
            optimizer = given.get("optimizer" if name == "lr_scheduler" else name.replace("scheduler", "optimizer"))
            made = _made(optimizer, _parameters()) if optimizer is not None else SGD(_parameters(), lr=0.1)
            _try_schedule(name, value, made, min(epochs, MOST_EPOCHS))


def steps_of_schedules(config: Namespace) -> int:
    """How often a schedule will be stepped, if it is stepped after each epoch and their number is given; else once.

    Args:
        config: A training's settings.
    """
    trainer, arguments = config.trainer, config.model.init_args
    known = trainer.max_epochs is not None and trainer.max_steps in (None, -1) and trainer.max_time is None
    by_epoch = arguments.get("schedule_interval", "epoch") == "epoch"
    return max(1, trainer.max_epochs) if known and by_epoch else 1


def clips_mixed(config: Namespace) -> bool:
    """Whether the Trainer clips gradients in mixed precision, which Lightning can't with fused optimizers of torch's.

    A method that overrides Lightning's clipping, such as DARTSRetrain, always clips.

    Args:
        config: A training's settings.
    """
    if str(config.trainer.precision) not in MIXED:
        return False
    method: Any = class_of(config.model.class_path)
    overrides = method.configure_gradient_clipping is not LightningModule.configure_gradient_clipping
    return overrides or bool(config.trainer.gradient_clip_val)


def _is_tried(value: Any) -> bool:
    return isinstance(value, Namespace) and str(value.get("class_path")).startswith(TRIED)


def _arguments(value: Namespace) -> dict[str, Any]:
    return vars(value.get("init_args") or Namespace())


def _require_sensible(name: str, value: Namespace) -> None:
    for argument, given in _arguments(value).items():
        numbers = [one for one in (given if isinstance(given, (list, tuple)) else [given]) if _is_number(one)]
        option = f"--model.{name}.{argument}"
        if argument in AT_LEAST and not all(AT_LEAST[argument] <= one < math.inf for one in numbers):
            finite = "" if all(map(math.isfinite, numbers)) else "finite and "
            raise ModelError(f"{option} is {given}; it must be {finite}at least {AT_LEAST[argument]}.")
        if argument in FROM_0_TO_1 and not all(0 <= one < 1 or (one == 1 and argument in MAY_BE_1) for one in numbers):
            most = "at most 1" if argument in MAY_BE_1 else "less than 1"
            raise ModelError(f"{option} is {given}; it must be at least 0 and {most}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parameters() -> list[Tensor]:
    """A bias, a matrix and kernels, each with a gradient."""
    parameters = [torch.ones(shape, requires_grad=True) for shape in ((2,), (2, 2), (2, 2, 3, 3))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.01)
    return parameters


def _made(value: Namespace, first: Any) -> Any:
    return instantiate_class((first,), {"class_path": value.class_path, "init_args": _arguments(value)})


def _try_optimizer(name: str, value: Namespace, clips_mixed: bool) -> None:
    parameters = _parameters()
    with _told_by(name, value):
        optimizer: Optimizer = _made(value, parameters)
        if clips_mixed and vars(optimizer).get("_step_supports_amp_scaling"):
            raise ModelError(
                f"{_described(name, value)} can't have its gradients clipped in mixed precision: leave its fused out, "
                "choose FusedAdam, or set --trainer.precision 32-true."
            )
        # A step asks CUDA for its state, and so would start it in this process; a capturable one needs it.
        if _arguments(value).get("capturable") or torch.cuda.is_available():
            return
        for _ in range(3):
            optimizer.step(lambda: 0.0)
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise ModelError(f"{_described(name, value)} can't work: three steps leave weights that aren't finite.")


def _try_schedule(name: str, value: Namespace, optimizer: Optimizer, epochs: int) -> None:
    with _told_by(name, value), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer isn't stepped
        schedule = _made(value, optimizer)
        for epoch in range(epochs):
            if isinstance(schedule, (ReduceLROnPlateau, lr_scheduler.ReduceLROnPlateau)):
                schedule.step(1.0)
            else:
                schedule.step()
            rate = next((one for one in _rates(optimizer) if not 0 <= one < math.inf), None)
            if rate is not None:
                raise ModelError(
                    f"{_described(name, value)} can't work: after epoch {epoch + 1} the learning rate is {rate:g}."
                )


def _rates(optimizer: Optimizer) -> Iterator[float]:
    return (float(group["lr"]) for group in optimizer.param_groups)


@contextmanager
def _told_by(name: str, value: Namespace) -> Iterator[None]:
    """Within the block, an error of torch's becomes one that names the option."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # whatever the class raises
        reason = "it divides by zero" if isinstance(error, ZeroDivisionError) else " ".join(str(error).split())
        raise ModelError(f"{_described(name, value)} can't work: {reason.rstrip('.')}.") from error


def _described(name: str, value: Namespace) -> str:
    """The option with its class and what isn't a default: ``--model.lr_scheduler StepLR (step_size 5)``."""
    module, _, kind = str(value.class_path).rpartition(".")
    defaults = {one.name: one.default for one in signature(getattr(import_module(module), kind)).parameters.values()}
    given = ", ".join(f"{key} {one}" for key, one in _arguments(value).items() if one != defaults.get(key))
    return f"--model.{name} {kind}" + (f" ({given})" if given else "")
