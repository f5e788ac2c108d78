"""Options and settings that don't exist: the sentence that names the one that was most likely meant."""

from collections.abc import Iterable

from lit_models.cli.commands import GROUPS, OPTIONS
from lit_models.support import sources
from lit_models.support.spelling import closest, did_you_mean

TRAINERS = {
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "n_epochs", "max_epoch"), "max_epochs"),
    **dict.fromkeys(("steps", "iterations", "max_iter"), "max_steps"),
    **dict.fromkeys(("gpus", "gpu", "num_gpus", "ngpus", "nproc", "nproc_per_node", "world_size"), "devices"),
    **dict.fromkeys(("val_every", "eval_every", "val_interval", "eval_interval"), "check_val_every_n_epoch"),
    **dict.fromkeys(("cpu", "no_cuda"), "accelerator cpu"),
    **dict.fromkeys(("cuda", "use_gpu"), "accelerator gpu"),
    "device": "accelerator",
    **dict.fromkeys(("ddp", "distributed"), "strategy ddp"),
    **dict.fromkeys(("early_stopping", "early_stop", "patience"), "callbacks+ EarlyStopping"),
    **dict.fromkeys(("sample_interval", "sample_every", "save_samples_every"), "callbacks.every_n_epochs"),
    **dict.fromkeys(("quiet", "silent", "no_progress"), "enable_progress_bar false"),
    **dict.fromkeys(("fp16", "amp", "half"), "precision 16-mixed"),
    "bf16": "precision bf16-mixed",
    "dtype": "precision",
    **dict.fromkeys(("clip", "grad_clip", "gradient_clip"), "gradient_clip_val"),
    **dict.fromkeys(("grad_accum", "accumulate"), "accumulate_grad_batches"),
    **dict.fromkeys(("dry_run", "dev_run"), "fast_dev_run"),
    **dict.fromkeys(("nodes", "nnodes"), "num_nodes"),
    "callback": "callbacks",
    "loggers": "logger",
}
OTHERS = {
    **dict.fromkeys(("seed", "random_seed", "manual_seed"), "seed_everything"),
    **dict.fromkeys(("resume", "checkpoint_path", "ckpt", "resume_from_checkpoint", "load", "from"), "ckpt_path"),
    **dict.fromkeys(("default_root_dir", "root_dir", "output", "output_dir", "out", "save_dir", "logdir"), "run.root"),
    **dict.fromkeys(("name", "experiment", "exp", "exp_name", "run_name"), "run.experiment"),
    **dict.fromkeys(("id", "run_id", "version_id"), "run.id"),
    **dict.fromkeys(("arch", "network", "net", "method", "model_name"), "model"),
    **dict.fromkeys(("dataset", "datamodule", "data_set"), "data"),
    **dict.fromkeys(("data_dir", "dataroot", "data_root", "data_path"), "data.root"),
    **dict.fromkeys(("bs", "batch", "batchsize", "batch-size"), "data.batch_size"),
    **dict.fromkeys(("cfg", "conf", "config_file", "yaml", "configuration", "c"), "config"),
    **dict.fromkeys(("monitor", "save_top_k"), "checkpoint.monitor"),
    **dict.fromkeys(("project", "tags", "wandb_project"), "wandb.project"),
    **dict.fromkeys(("latent_size", "z_dim", "nz", "latent"), "model.latent_dim"),
    **dict.fromkeys(("width", "channels_base", "ngf", "ndf"), "model.feature_maps"),
    **dict.fromkeys(("img_size", "resolution", "size"), "data.image_size"),
    **dict.fromkeys(("torch_compile", "torchcompile"), "compile"),
    **dict.fromkeys(("pretrained", "weight"), "weights"),
    **dict.fromkeys(("save_every", "save_interval", "save_freq", "checkpoint_every"), "checkpoint.every_n_steps"),
    **dict.fromkeys(("tensorboard", "tb", "use_tensorboard"), "config logger/tensorboard"),
    **dict.fromkeys(("mlflow", "use_mlflow"), "config logger/mlflow"),
    "use_wandb": "wandb.enabled",
    "grid": "predictions.grid",
}
"""Names that people try, each with the option that does it."""
OF_PREDICT = {
    **dict.fromkeys(("label", "labels", "classes", "digit", "digits"), "class"),
    **dict.fromkeys(("n", "num", "number", "num_samples", "n_samples", "num_images", "samples"), "count"),
    **dict.fromkeys(("output", "output_dir", "out", "folder", "save_dir"), "predictions.folder"),
}
"""The same, of ``relit predict``."""
OPTIMIZER_ARGUMENTS = ("beta1", "beta2", "betas", "eps", "momentum", "weight_decay")
RATES = ("lr", "learning_rate", "learning-rate", "lrate", "base_lr")
SCHEDULES = ("lr_scheduler", "scheduler", "schedule", "lr_schedule")


def unknown_setting(name: str, command: str = "fit", dashes: str = "--", method: str | None = None) -> str:
    """A sentence on an option or setting that doesn't exist, with the one that was most likely meant.

    Args:
        name: The name without dashes.
        command: The command.
        dashes: What stands before names of options.
        method: The method that is trained, if it is known.
    """
    whole = f"There is no {'option' if dashes else 'setting'} {dashes}{name}"
    first = name.split(".")[0]
    if name in RATES or (name.split(".")[-1] in RATES and first == "optimizer"):
        return f"{whole}: the learning rate belongs to the optimizer. {rate_options(method, dashes)}"
    if name in OPTIMIZER_ARGUMENTS:
        of_adam = {"momentum": "beta1", "betas": "beta1"}.get(name, name)
        return f"{whole}: it belongs to the optimizer. {rate_options(method, dashes, of_adam)}"
    if first in ("optimizer", "optim", "optimizers"):
        return f"{whole}: a method has its own. {_optimizer_options(method, dashes)}"
    if first in SCHEDULES:
        return f"{whole}: {_schedule_options(method, dashes)}"
    if command == "predict" and name in OF_PREDICT:
        return f"{whole}: use {dashes}{OF_PREDICT[name]}."
    if name in OTHERS:
        return f"{whole}: use {dashes}{OTHERS[name]}."
    if name in ("class", "count") or OF_PREDICT.get(name) in ("class", "count"):
        return f"{whole} of `relit {command}`: `relit predict` has --class and --count."
    if (known := name.replace("-", "_")) in TRAINERS:
        return f"{whole}: use {dashes}trainer.{TRAINERS[known]}."
    if name in trainer_arguments():
        return f"{whole}: use {dashes}trainer.{name}."
    if name in ("shuffle", "data.shuffle"):
        return f"{whole}: training images are always shuffled."
    if name in ("workers", "num_workers"):
        return f"{whole}: relit's data sets load without worker processes."
    last = name.replace("-", "_")
    if last in OPTIONS and last != name:
        return f"{whole}: use {dashes}{last}."
    for group in ("model", "data"):
        if last in _arguments_by_group(group, method):
            return f"{whole}: use {dashes}{group}.{last}."
    own = ("class", "count", "grid") if command == "predict" else ()
    known_names = [*OPTIONS, *own, *(f"{first}.{own}" for own in own_options(first))]
    meant = closest(name, known_names, cutoff=0.7)
    if meant is None and "." in name and (near := closest(first, GROUPS, cutoff=0.6)):
        meant = f"{near}.{name.partition('.')[2]}"
    if meant is None and (leaf := closest(last, trainer_arguments(), cutoff=0.8)):
        meant = f"trainer.{leaf}"
    if meant is None:
        for group in ("model", "data"):
            if leaf := closest(last, _arguments_by_group(group, method), cutoff=0.8):
                meant = f"{group}.{leaf}"
                break
    lists = f"`relit {command} --help` lists them" + (f", `relit help {method}` those of {method}" if method else "")
    guess = f"Did you mean {dashes}{meant}?" if meant else f"{lists}."
    return f"{whole}. {guess}"


def trainer_arguments() -> dict[str, sources.Argument]:
    """The Trainer's arguments that relit doesn't set itself, by name."""
    own = ("default_root_dir", "use_distributed_sampler", "barebones", "model_registry", "enable_autolog_hparams")
    described = sources.describe("lightning.pytorch.trainer.trainer", "Trainer")
    return {argument.name: argument for argument in described.arguments if argument.name not in own}


def own_options(group: str) -> dict[str, sources.Argument]:
    """The options of a group that belongs to no class of the user's choice, such as ``run``, by name; else none."""
    classes = {
        "run": ("lit_models.runs.folder", "RunOptions"),
        "checkpoint": ("lit_models.runs.checkpoints", "Checkpoints"),
        "predictions": ("lit_models.callbacks.predictions", "PredictionWriter"),
        "wandb": ("lit_models.runs.loggers", "WandbOptions"),
    }
    if group == "trainer":
        return trainer_arguments()
    described = sources.describe(*classes[group]).arguments if group in classes else ()
    return {argument.name: argument for argument in described}


def _arguments_by_group(group: str, method: str | None) -> set[str]:
    """The arguments of the method (of any, if it isn't known), or of any data set."""
    classes = sources.methods() if group == "model" else sources.data_sets()
    chosen = {method: classes[method]} if group == "model" and method in classes else classes
    return {
        argument.name for name, module in chosen.items() for argument in sources.describe(module, str(name)).arguments
    }


def _optimizers_of(method: str | None) -> list[str]:
    return [name for name in sorted(_arguments_by_group("model", method)) if name.endswith("optimizer")]


def rate_options(method: str | None, dashes: str, argument: str = "lr") -> str:
    """Which options set an argument of the optimizer, the learning rate by default."""
    if method is None:
        return f"Set {dashes}model.optimizer.{argument} (of a GAN: {dashes}model.generator_optimizer.{argument})."
    return f"Set {' and '.join(f'{dashes}model.{name}.{argument}' for name in _optimizers_of(method))}."


def _optimizer_options(method: str | None, dashes: str) -> str:
    if method is None:
        return f"Set {dashes}model.optimizer (of a GAN: {dashes}model.generator_optimizer and discriminator_optimizer)."
    return f"Set {' and '.join(f'{dashes}model.{name}' for name in _optimizers_of(method))}."


def _schedule_options(method: str | None, dashes: str) -> str:
    if method is None:
        return (
            f"set {dashes}model.lr_scheduler (VAE) or {dashes}model.generator_scheduler (GANs); others set their own."
        )
    taken = [name for name in sorted(_arguments_by_group("model", method)) if name.endswith("scheduler")]
    if not taken:
        return f"{method} sets its schedule itself (relit help {method})."
    return f"set {' and '.join(f'{dashes}model.{name}' for name in taken)}."


def unknown_in_group(group: str, name: str, known: Iterable[str], dashes: str = "--") -> str:
    """The sentence on an option of a group that has no such option.

    Args:
        group: The group.
        name: The option's name in it.
        known: The names that there are.
        dashes: What stands before names of options; nothing before settings of a file.
    """
    names = [f"{dashes}{group}.{own}" for own in known]
    meant = f"{dashes}{OTHERS[name]}" if OTHERS.get(name, "").startswith(f"{group}.") else None
    guess = f" Did you mean {meant}?" if meant else did_you_mean(f"{dashes}{group}.{name}", names)
    kind = "option" if dashes else "setting"
    return f"There is no {kind} {dashes}{group}.{name}.{guess} There are {', '.join(names)}."


def unknown_trainer_option(leaf: str, shown: str) -> str:
    """The sentence on an option of the Trainer's that doesn't exist.

    Args:
        leaf: Its name in the group.
        shown: The whole option as typed.
    """
    known = trainer_arguments()
    meant = TRAINERS.get(leaf) or closest(leaf, known)
    guess = f" Did you mean --trainer.{meant}?" if meant else ""
    return f"There is no option {shown}.{guess} `relit fit --help=trainer` lists the Trainer's options."
