"""Turns errors of any kind into a sentence or two for the person at the keyboard."""

import errno
import re
from argparse import ArgumentError

from lit_models.support import sources
from lit_models.support.arguments import error_of_ours, sentence_of_refusal
from lit_models.support.spelling import did_you_mean

STRATEGIES = ("auto", "ddp", "ddp_fork", "ddp_notebook", "ddp_find_unused_parameters_true", "fsdp", "deepspeed")
OF_THE_TRAINER = {
    r"invalid accelerator name: `accelerator='(.*?)'`. Available names are: ([\w, ]+)": (
        "--trainer.accelerator is {0}; it must be one of {1}, gpu."
    ),
    r"No supported gpu backend found|No `?CUDA`? .*(?:found|available)|CUDAAccelerator. can not run on your system": (
        "--trainer.accelerator asks for a GPU, but torch finds none on this machine: leave the option (or "
        "--config trainer/gpu) out."
    ),
    r"`(\w+)Accelerator` can not run on your system": (
        "--trainer.accelerator asks for {0}, which torch doesn't find on this machine: leave the option out."
    ),
    r"The strategy `(\w+)` requires a GPU": (
        "--trainer.strategy {0} needs a GPU: leave the option out. No model of relit is too large for one device."
    ),
    r"To use the `DeepSpeedStrategy`, you must have": (
        "--trainer.strategy deepspeed needs the package deepspeed: leave the option out, or pip install deepspeed."
    ),
    r"`devices` selected with|`Trainer\(devices=": "--trainer.devices must be a whole number of at least 1, or auto.",
    r"You requested gpu: (\[.*?\])\s+But your machine only has: (\[.*?\])": (
        "--trainer.devices asks for the GPUs {0}, but this machine has {1}."
    ),
    r"invalid value (\S+) for (limit_\w+|overfit_batches|val_check_interval)": (
        "--trainer.{1} is {0}; it must be a share from 0.0 to 1.0, or a whole number of batches."
    ),
    r"Timer\(duration='(.*?)'\)` is not a valid duration": (
        "--trainer.max_time is {0}; it must have the form DD:HH:MM:SS, such as 00:02:00:00 for two hours."
    ),
    r"`gradient_clip_algorithm` (\S+) is invalid": (
        "--trainer.gradient_clip_algorithm is {0}; it must be value or norm."
    ),
    r"`num_nodes` must be a positive integer, but got (\S+?)\.": "--trainer.num_nodes is {0}; it must be at least 1.",
    r"`(max_\w+|min_\w+)` must be a non-negative integer or -1(?: \(.*?\))?. You passed in (\S+?)\.$": (
        "--trainer.{0} is {1}; it must be at least 0, or -1 for no limit."
    ),
    r"^(-?\d+) is not in bounds, numpy accepts from 0 to (\d+)": (
        "--seed_everything is {0}; it must be a whole number from 0 to {1}."
    ),
    r"torch_xla": "--trainer.accelerator tpu needs the package torch_xla: leave the option out.",
    r"`mode` can be min, max, got (\w+)": "--trainer.callbacks.mode is {0}; it must be min or max.",
    r"^Invalid learning rate: (\S+)$": "The optimizer's lr is {0}; it must not be negative.",
    r"^Invalid epsilon value: (\S+)$": "The optimizer's eps is {0}; it must not be negative.",
    r"^Invalid (weight_decay|momentum) value: (\S+)$": "The optimizer's {0} is {1}; it must not be negative.",
    r"^Invalid beta parameter at index [01]: (\S+)$": (
        "A beta of the optimizer is {0}; it must be at least 0 and less than 1."
    ),
    r"must include a monitor when a `ReduceLROnPlateau` scheduler is used": (
        "ReduceLROnPlateau needs the name of a metric: choose lightning.pytorch.cli.ReduceLROnPlateau, and set its "
        "monitor, such as val/loss."
    ),
    r"ReduceLROnPlateau conditioned on metric (\S+) which is not available. Available metrics are: \[(.*?)\]": (
        "ReduceLROnPlateau's monitor is {0}, which isn't logged. There are {1}."
    ),
    r"You requested to check (\S+) of the `(\w+?)_dataloader` but \S+ \* (\d+) < 1": (
        "--trainer.limit_{1}_batches is {0}, which is less than one of {2} batches: give a larger share, or a whole "
        "number of batches."
    ),
    r"`enable_progress_bar=False` but found `(\w+)`": (
        "--trainer.enable_progress_bar is false, but {0} is among the callbacks: leave one of them out."
    ),
    r"added multiple progress bar callbacks": "Two progress bars are given: leave one of them out.",
    r"filesystem tracking backend \(e\.g\., '\./mlruns'\) is in maintenance mode": (
        "MLFlowLogger needs --trainer.logger.tracking_uri, such as sqlite:///mlflow.db; --config logger/mlflow needs "
        "none, and keeps its store in the run's folder."
    ),
    r"No working C\+\+ compiler found|Compiler: \S+ is not found": (
        "--compile needs a C++ compiler, such as g++, for networks on a CPU: install one, or leave --compile out."
    ),
    r"Cannot find a working triton installation": (
        "--compile needs the package triton for networks on a GPU: pip install triton, or leave --compile out."
    ),
    r"CUDA out of memory|MPS backend out of memory": (
        "The GPU's memory is full: lower --data.batch_size, set --trainer.precision bf16-mixed, or narrow the model."
    ),
}
"""What Lightning, or a logger of it, says of the Trainer's arguments, each with a sentence that names the option."""


def sentence_of(error: BaseException) -> str:
    """What went wrong and what to do about it, without a traceback."""
    if isinstance(error, ArgumentError) or error_of_ours(error):
        return sentence_of_refusal(error)
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error):
        return (
            "The checkpoint's weights don't fit the model: build it with the arguments that it was trained with (leave "
            "--config and --model out to take them from the checkpoint), or choose another checkpoint."
        )
    if told := _of_the_trainer(str(error)):
        return told
    if found := re.search(r"gradient (clipping|accumulation) is not supported for manual optimization", str(error)):
        option = "gradient_clip_val" if found[1] == "clipping" else "accumulate_grad_batches"
        return (
            f"This model has an optimizer for each of its parts, so that --trainer.{option} can't work: leave it out."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        what = error.filename or "A file of the run"
        return (
            f"{what} can't be written ({error.strerror}): make room, or make the place writable, and go on from the "
            "last checkpoint with --ckpt_path last."
        )
    return sentence_of_refusal(error)


def _of_the_trainer(message: str) -> str | None:
    for pattern, sentence in OF_THE_TRAINER.items():
        if found := re.search(pattern, message):
            return sentence.format(*found.groups())
    if found := re.search(r"restored a checkpoint with current_epoch=(\d+).*\(max_epochs=(\d+)\)", message):
        return (
            f"Nothing is left to train: the checkpoint has reached epoch {int(found[1]) + 1}, and --trainer.max_epochs "
            f"is {found[2]}. Raise it to train on."
        )
    if found := re.search(r"invalid strategy name: `strategy='(.*?)'`", message):
        guess = did_you_mean(found[1], STRATEGIES)
        return f"--trainer.strategy is {found[1]}; it must be one of {', '.join(STRATEGIES)}.{guess}"
    if found := re.search(
        r"Early stopping conditioned on metric `(.*?)` which is not available.*following: (.*)", message
    ):
        names = sorted(found[2].replace("`", "").split(", "))
        guess = did_you_mean(found[1], names)
        return f"EarlyStopping's monitor is {found[1]}, which isn't logged.{guess} There are {', '.join(names)}."
    if found := re.match(r"`?(?:Trainer\()?`?(\w+)[`=]", message):
        known = [
            argument.name for argument in sources.describe("lightning.pytorch.trainer.trainer", "Trainer").arguments
        ]
        if found[1] in known:
            return f"--trainer.{found[1]}: {' '.join(message.split())[:300]}"
    return None
