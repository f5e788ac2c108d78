"""What the command refuses before anything is written."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from torch import nn

from lit_models.errors import ModelError, RunError
from lit_models.networks.normalization import BatchStatisticsNorm2d
from lit_models.registry import METHODS
from lit_models.support.weights import WEIGHTS


def require_fitting_trainer(model: LightningModule, trainer: dict[str, Any], callbacks: list[Callback]) -> None:
    """Refuses arguments of the Trainer that Lightning would refuse, for this model, only after everything is loaded.

    Raises:
        ModelError: The model steps its optimizers itself, or has none whose learning rate could be searched.
    """
    name = type(model).__name__
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
    for finder in callbacks:
        if isinstance(finder, LearningRateFinder):
            attribute = finder._attr_name or "lr"
            if not model.automatic_optimization or not hasattr(model, attribute):
                raise ModelError(
                    f"LearningRateFinder can't search for {name}, which has no attribute {attribute!r} for its only "
                    "learning rate: leave it out, and compare runs with several learning rates."
                )
    if trainer["sync_batchnorm"]:
        _require_batch_norm(model)
    if trainer["precision"] in ("16-true", "bf16-true"):
        raise RunError(
            f"--trainer.precision {trainer['precision']} keeps the weights themselves in 16 bits, in which an "
            f"optimizer's small steps are lost: set {trainer['precision'].replace('true', 'mixed')}, 32-true or "
            "64-true."
        )


def require_same_method(checkpoint: dict[str, Any], path: Path, model_class: type) -> None:
    """Refuses a checkpoint of another method than the configuration's.

    Raises:
        ModelError: It is one.
    """
    class_path = ((checkpoint.get("config") or {}).get("model") or {}).get("class_path")
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


def lacks_bf16() -> bool:
    """Whether this processor is known to compute in bfloat16 only by way of float32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text())


def weights_in_place_of(checkpoint: str | None, weights: str) -> str:
    """The file that ``--weights`` names.

    Raises:
        RunError: A checkpoint is given, too, or it is no file of weights.
    """
    if checkpoint is not None:
        raise RunError("--weights and --ckpt_path name two things to load: leave one of them out.")
    if Path(weights).suffix != WEIGHTS:
        raise RunError(f"--weights takes a {WEIGHTS} file that `relit export` wrote, not {weights}; try --ckpt_path.")
    return weights


def require_something_to_load(command: str, config: Any) -> None:
    """Refuses to measure or use an untrained network, unless ``--ckpt_path none`` asks for it.

    Raises:
        RunError: Neither a checkpoint nor weights are given.
    """
    if config.ckpt_path is None and config.get("weights") is None:
        raise RunError(
            f"`relit {command}` needs a trained model: add --ckpt_path last, --ckpt_path FILE or --weights FILE "
            "(--ckpt_path none takes the untrained network)."
        )


def _require_batch_norm(model: LightningModule) -> None:
    """Refuses ``--trainer.sync_batchnorm`` where it would fail in the first step, do nothing, or spoil evaluation."""
    if not torch.cuda.is_available():
        raise RunError("--trainer.sync_batchnorm works on GPUs only: leave it out.")
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        name = type(model).__name__
        raise ModelError(f"{name} has no batch normalisation that --trainer.sync_batchnorm knows: leave it out.")
    if any(isinstance(module, BatchStatisticsNorm2d) for module in model.modules()):
        raise ModelError(
            f"{type(model).__name__} normalises each image by itself in evaluation, which --trainer.sync_batchnorm "
            "would undo: leave it out."
        )
