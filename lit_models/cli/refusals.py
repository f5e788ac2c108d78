"""What the command refuses, or warns of, before anything is written."""

import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_models.cli.needs import untrained
from lit_models.errors import ModelError, RunError, RunWarning
from lit_models.networks.normalization import BatchStatisticsNorm2d
from lit_models.registry import METHODS
from lit_models.support.lightning_internals import attribute_of

SIZES = (
    *("image_size", "channels", "latent_dim", "feature_maps", "discriminator_feature_maps", "embedding_dim"),
    *("code_dim", "init_channels", "layers", "blocks"),
)
"""Arguments of models that count pixels, channels or units."""
REQUIRED_SIZES = ("image_size", "channels", "latent_dim", "feature_maps", "num_classes")
"""Those that no model may lack."""

SMALLEST = {"check_val_every_n_epoch": 1, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0}
"""The smallest values of arguments of the Trainer that Lightning doesn't check."""


def require_fitting_trainer(model: LightningModule, trainer: dict[str, Any], callbacks: list[Callback]) -> None:
    """Refuses arguments of the Trainer that Lightning would refuse, for this model, only after everything is loaded.

    Raises:
        ModelError: The model steps its optimizers itself, or has none whose learning rate could be searched.
        RunError: The strategy, its devices or the precision can't work with any method.
    """
    name = type(model).__name__
    for argument, least in SMALLEST.items():
        if (value := trainer.get(argument)) is not None and value < least:
            raise RunError(f"--trainer.{argument} is {value}; it must be at least {least}.")
    if trainer.get("val_check_interval") == 0:
        raise RunError("--trainer.val_check_interval is 0; it must be a share above 0.0, or a whole number of batches.")
    if not model.automatic_optimization:
        own = "use --model.gradient_clip_norm in place of --trainer.gradient_clip_val."
        if trainer["gradient_clip_val"] is not None:
            remedy = own if "gradient_clip_norm" in model.hparams else "leave --trainer.gradient_clip_val out."
            raise ModelError(f"{name} steps its optimizers itself, so the Trainer can't clip their gradients: {remedy}")
        if trainer["accumulate_grad_batches"] != 1:
            raise ModelError(
                f"{name} steps its optimizers itself, so the Trainer can't accumulate gradients: use a larger "
                "--data.batch_size in place of --trainer.accumulate_grad_batches."
            )
    for stopping in callbacks:
        if isinstance(stopping, EarlyStopping) and not stopping.patience >= 0:
            raise RunError(f"--trainer.callbacks.patience is {stopping.patience}; it must be at least 0.")
    for finder in callbacks:
        if isinstance(finder, LearningRateFinder):
            attribute = attribute_of(finder)
            if not model.automatic_optimization or not hasattr(model, attribute):
                raise ModelError(
                    f"LearningRateFinder can't search for {name}, which has no attribute {attribute!r} for its only "
                    "learning rate: leave it out, and compare runs with several learning rates."
                )
    if str(trainer["strategy"]).startswith("ddp_spawn"):
        raise RunError(
            f"--trainer.strategy {trainer['strategy']} hands everything to new processes as copies, which optimizers "
            f"and open files can't be: set {str(trainer['strategy']).replace('_spawn', '', 1)}."
        )
    _require_use_of_devices(trainer)
    if trainer["sync_batchnorm"]:
        _require_batch_norm(model)
    if trainer["precision"] in ("16-true", "bf16-true"):
        raise RunError(
            f"--trainer.precision {trainer['precision']} keeps the weights themselves in 16 bits, in which an "
            f"optimizer's small steps are lost: set {trainer['precision'].replace('true', 'mixed')}, 32-true or "
            "64-true."
        )


def require_sizes(model: Any) -> None:
    """Refuses a model without any unit, channel or pixel, before torch says so in its own way.

    Raises:
        RunError: A size is less than 1, or null where there is no default to take its place.
    """
    for name, value in (model.get("init_args") or {}).items():
        if name in SIZES and isinstance(value, int) and value < 1:
            raise RunError(f"{name} is {value}; it must be at least 1.")
        if name in REQUIRED_SIZES and value is None:
            raise RunError(f"{name} is null; it must be a whole number of at least 1.")


def require_numbers(option: str, value: Any) -> None:
    """Refuses nan, which passes every comparison with a smallest or largest value.

    Args:
        option: Name of an option, such as ``--model``.
        value: Its value, or its settings by name.

    Raises:
        RunError: It is nan, or one of its settings is.
    """
    if isinstance(value, float) and math.isnan(value):
        raise RunError(f"{option.replace('.init_args', '')} is nan; it must be a number.")
    for name, setting in value.items() if isinstance(value, dict | Namespace) else ():
        require_numbers(f"{option}.{name}", setting)


def require_same_method(checkpoint: dict[str, Any], path: Path, model_class: type) -> None:
    """Refuses a checkpoint of another method than the configuration's.

    Raises:
        ModelError: It is one.
    """
    model = (checkpoint.get("config") or {}).get("model")
    class_path = model.get("class_path") if isinstance(model, dict) else model
    name = str(class_path).rpartition(".")[2]
    if name in METHODS and name not in (base.__name__ for base in model_class.__mro__):
        raise ModelError(
            f"{path} is a checkpoint of {name}, but the configuration's model is {model_class.__name__}: choose "
            "another checkpoint, or leave --config and --model out to take the model from the checkpoint."
        )


def slurm_environment(plugins: list[Any]) -> list[SLURMEnvironment]:
    """For a job of Slurm's an environment without Lightning's own requeue, which saves from within the signal and may
    wait for ever; :class:`lit_models.runs.preemption.Preemption` requeues in its place.

    Raises:
        RunError: The other processes of the job will never come.
    """
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins) or TorchElasticEnvironment.detect()
    if chosen or not SLURMEnvironment.detect():
        return []
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks > 1 and "SLURM_STEP_ID" not in os.environ:
        raise RunError(
            f"This Slurm job has {tasks} tasks, but relit was started as one process, which would wait for the others "
            "for ever: put `srun` before `relit`."
        )
    return [SLURMEnvironment(auto_requeue=False)]


def warn_of_slow_bf16(trainer: Trainer) -> None:
    """Warns if this processor is known to compute in bfloat16 only by way of float32."""
    if not trainer.precision.startswith("bf16") or trainer.strategy.root_device.type != "cpu":
        return
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text(encoding="utf-8")):
        rank_zero_warn(
            "This processor has no instructions for bfloat16, which is slower than fp32 on it: leave "
            "--trainer.precision out.",
            category=RunWarning,
        )


def require_something_to_load(command: str, config: Any) -> None:
    """Refuses to measure or use an untrained network, unless ``--ckpt_path none`` asks for it, or the model itself is
    given weights (``--model.pretrained``).

    Raises:
        RunError: Neither a checkpoint nor weights are given.
    """
    arguments = (config.model.get("init_args") if config.model is not None else None) or {}
    if config.ckpt_path is None and config.get("weights") is None and not arguments.get("pretrained"):
        raise RunError(untrained(command, (Path(str(path)).stem for path in config.config or ())))


def _require_batch_norm(model: LightningModule) -> None:
    """Refuses ``--trainer.sync_batchnorm`` where it would fail in the first step, do nothing, or spoil evaluation."""
    if not torch.cuda.is_available():
        raise RunError("--trainer.sync_batchnorm works on GPUs only: leave it out.")
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        name = type(model).__name__
        raise ModelError(f"{name} has no batch normalization that --trainer.sync_batchnorm replaces: leave it out.")
    if any(isinstance(module, BatchStatisticsNorm2d) for module in model.modules()):
        raise ModelError(
            f"{type(model).__name__} normalizes each image by itself in evaluation, which --trainer.sync_batchnorm "
            "would undo: leave it out."
        )


def _require_use_of_devices(trainer: dict[str, Any]) -> None:
    """Refuses several devices or nodes with a strategy of one device, which ignores the others silently."""
    strategy = trainer["strategy"]
    if strategy != SingleDeviceStrategy.strategy_name and not isinstance(strategy, SingleDeviceStrategy):
        return
    counts = {"devices": _devices_named_by(trainer["devices"]), "num_nodes": trainer["num_nodes"]}
    for name, count in counts.items():
        if count > 1:
            raise RunError(
                f"--trainer.strategy {SingleDeviceStrategy.strategy_name} uses one device only, in spite of "
                f"--trainer.{name} {trainer[name]}: leave --trainer.strategy out, or set --trainer.{name} to one."
            )


def _devices_named_by(devices: list[int] | str | int) -> int:
    """The number of devices that ``--trainer.devices`` asks for: a number, a list of indices, or -1 for all GPUs; 1 for
    ``auto``, which suits any strategy."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices).strip()
    if "," in text:  # "0,1", or "1," for the second one
        return sum(bool(index.strip()) for index in text.split(","))
    if text == "-1":
        return torch.cuda.device_count()
    return int(text) if text.isdecimal() else 1
