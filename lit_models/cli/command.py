"""The ``relit`` command: LightningCLI with this project's fixes, and nothing of any one method."""

import logging
import os
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from argparse import ArgumentError
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

import datamodules
import lit_models
import lit_models.callbacks
from datamodules import DataWarning, ImageDataModule, Samples
from datamodules.loading.preview import draw_training_batch
from lit_models.adversarial import AdversarialModule
from lit_models.callbacks import LearningRateScaling, PredictionWriter
from lit_models.callbacks.learning_rate import Rule
from lit_models.cli.messages import explain
from lit_models.errors import ModelError, RunError, RunWarning
from lit_models.networks.normalization import BatchStatisticsNorm2d
from lit_models.runs.checkpoints import Checkpoints
from lit_models.runs.curves import LossCurves
from lit_models.runs.folder import (
    RunOptions,
    announce_to_child_ranks,
    checkpoint_before_restart,
    find_checkpoint,
    new_run_folder,
    remember_for_restart,
    remove_if_empty_handed,
    require_writable,
    run_of,
)
from lit_models.runs.loggers import MetricsCSV, WandbOptions, finish_wandb, wandb_logger
from lit_models.runs.memory import keep_freed_memory
from lit_models.runs.preemption import Preemption
from lit_models.runs.record import RunRecord
from lit_models.runs.resume import ExactResume
from lit_models.runs.settings import changes, tell_changes
from lit_models.support.arguments import told_by_us
from lit_models.support.checkpoint_files import AtomicCheckpointIO, read_or_fall_back, would_run_code
from lit_models.support.weights import WEIGHTS

# Short class names (`--model DCGAN`) are looked up among the classes that are imported.
for _package in (lit_models, lit_models.callbacks, datamodules):
    for _name in _package.__all__:
        getattr(_package, _name)


USES_WEIGHTS = ("validate", "test", "predict")
"""The commands that need no more of a checkpoint than its weights."""


class RelitTrainer(Trainer):
    """Lightning's Trainer with a method for ``relit prepare``."""

    def prepare(
        self,
        model: LightningModule | None = None,
        datamodule: LightningDataModule | None = None,
        picture: str | None = None,
    ) -> None:
        """Downloads and prepares a data set, without training (on a cluster's login node, say).

        Args:
            model: Not used.
            datamodule: The data set.
            picture: PNG file in which to draw a training batch with its labels; none if null.
        """
        if datamodule is None:
            raise RunError("There is nothing to prepare: name a data set with --data or --config.")
        datamodule.prepare_data()
        if picture is not None:
            draw_training_batch(cast(ImageDataModule, datamodule), Path(picture))
        print(f"{type(datamodule).__name__} is prepared.")


class RelitCLI(LightningCLI):
    """One command from YAML to a run folder.

    Beyond LightningCLI: run folders, checkpoints found by name, a model rebuilt from its checkpoint alone, the CSV
    logger always and W&B on demand, exact resume, and the DDP strategy that the method needs.
    """

    def __init__(self, args: list[str]) -> None:
        self.run_folder: Path | None = None
        self.run_is_new = False
        self.checkpoint: dict[str, Any] | None = None
        parser_kwargs = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_class=RelitTrainer,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # Modules keep their own arguments (`save_hyperparameters`): a checkpoint can be loaded without a CLI.
            load_from_checkpoint_support=False,
            parser_kwargs={
                **parser_kwargs,
                **{
                    command: {**parser_kwargs, "usage": f"relit {command} [--config FILE ...] [--NAME VALUE ...]"}
                    for command in self.subcommands()
                },
            },
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments of the Trainer's method that relit fills in itself."""
        commands = {command: {*skip, "weights_only"} for command, skip in LightningCLI.subcommands().items()}
        commands["predict"].add("return_predictions")
        return {**commands, "prepare": {"model", "datamodule"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs["dump_header"] = [f"relit=={lit_models.__version__}"]
        return super().init_parser(**kwargs)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_default_arguments_to_parser(parser)
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_argument(
            "--channels_last",
            type=bool,
            default=False,
            help="Keep the weights of convolutions, and so their images, in channels-last order (often faster).",
        )
        parser.add_argument(
            "--compile",
            type=bool,
            default=False,
            help="Compile the networks with torch.compile, for GPUs. On a CPU it takes 24 to 36 s to start and gains "
            "nothing (0.64 to 1.03 times the speed).",
        )
        parser.add_argument(
            "--lr_scaling",
            type=Rule,
            default="none",
            help="Multiply the learning rates by the number of batches in a step, those of all processes (linear), or "
            "by its square root (sqrt).",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(
            RelitTrainer,
            "trainer",
            fail_untyped=False,
            instantiate=False,
            sub_configs=True,
            # relit sets these itself: one folder a run, and loaders that share out their batches.
            skip={
                "default_root_dir",
                "use_distributed_sampler",
                "barebones",
                "model_registry",
                "enable_autolog_hparams",
            },
        )
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in USES_WEIGHTS:
            parser.add_argument(
                "--weights",
                type=str | None,
                default=None,
                help="Weights in place of a checkpoint: a .safetensors file that `relit export` wrote, with its card.",
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint and its run, and takes from it what wasn't given.

        LightningCLI's own version lays the checkpoint's arguments over the user's without a word.
        """
        config = self._given
        command = self.config.subcommand
        if command == "prepare":
            return
        _check_trainer_arguments(config)
        if config.get("weights") is not None:
            config.ckpt_path = _weights_in_place_of(config.ckpt_path, config.weights)
        if config.run.experiment is None:
            config.run.experiment = _experiment_name(config)
        if config.ckpt_path in ("last", "best") and config.run.experiment is None:
            raise RunError(f"`--ckpt_path {config.ckpt_path}` of which experiment? Add --config or --run.experiment.")
        if command == "fit" and config.run.experiment is not None:
            config.ckpt_path = self._checkpoint_before_restart() or config.ckpt_path
        if config.ckpt_path is not None:
            path = find_checkpoint(config.ckpt_path, _run_options(config))
            if command not in USES_WEIGHTS and path.suffix == WEIGHTS:
                raise RunError(
                    f"{path} holds weights only, from which training can't go on: take a checkpoint (.ckpt)."
                )
            path, self.checkpoint = read_or_fall_back(path)
            config.ckpt_path = str(path)
            self.run_folder = run_of(path)
            self._complete_from_checkpoint(self.checkpoint.get("config", {}))
        config = self._given
        if config.model is None:
            raise RunError(f"`relit {command}` needs a model: --config FILE, --model CLASS, or --ckpt_path FILE.")
        if command == "predict" and (config.data is None or _generates_from_scratch(config)):
            self._lay_under({"data": {"class_path": "datamodules.Samples"}}, replace=True)
        if self._given.data is None:
            raise RunError(f"`relit {command}` needs data: --config FILE or --data CLASS.")
        if self._given.run.experiment is None:
            self._given.run.experiment = _experiment_name(self._given)
        if command == "fit" and self.run_folder is not None:
            tell_changes(self.run_folder, yaml.safe_load(self._dumped_config()))

    def _checkpoint_before_restart(self) -> str | None:
        """Where a requeued job goes on, whatever it began with; one that was changed in the meantime is refused."""
        goes_on = self._given.ckpt_path is not None
        path = checkpoint_before_restart(_run_options(self._given), goes_on)
        if path is None or goes_on:  # what differs from the run that it went on with isn't a change
            return None if path is None else str(path)
        changed = changes(path.parents[1], yaml.safe_load(self._dumped_config()))
        if changed:
            key, (before, now) = next(iter(changed.items()))
            raise RunError(
                f"This job began the run {_shown(path.parents[1])} with {key} = {before}, and now has {now}: give each "
                "run of a job its own --run.id, or go on with the run by `--ckpt_path last`."
            )
        return str(path)

    @property
    def _given(self) -> Namespace:
        return self.config[self.config.subcommand]

    def _complete_from_checkpoint(self, known: dict[str, Any]) -> None:
        for key in ("model", "data"):
            if self._given[key] is None and known.get(key) is not None:
                if named := would_run_code(known[key]):
                    raise RunError(
                        f"The checkpoint {self._given.ckpt_path} takes its {key} from {named}, which isn't part of "
                        f"relit and would run code: if you trust that, say it yourself by --config or --{key}."
                    )
                self._lay_under({key: known[key]})
        if self._given.run.experiment is None:
            self._given.run.experiment = known.get("run", {}).get("experiment")

    def _lay_under(self, values: dict[str, Any], replace: bool = False) -> None:
        if replace:
            for key in values:
                self._given[key] = None
        self.config = self.parser.parse_object({self.config.subcommand: values}, self.config)

    def _dumped_config(self) -> str:
        parser = self._parser(self.config.subcommand)
        config = self._given.clone()
        config.pop("config", None)
        config.pop("weights", None)  # `ckpt_path` names them
        goes_on = config.ckpt_path is not None and run_of(Path(config.ckpt_path)) is not None
        if self.config.subcommand == "fit" and goes_on:
            config.ckpt_path = None  # the run itself, which starts from nothing when it is started again
        return parser.dump(config, skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._given
        arguments = {**self._get(self.config_init, "trainer"), **kwargs}
        if self.subcommand == "prepare":
            return self.trainer_class(logger=False, enable_checkpointing=False)
        plugins = _as_list(arguments["plugins"])
        arguments["plugins"] = [*plugins, *_slurm_environment(plugins), AtomicCheckpointIO()]
        if arguments["sync_batchnorm"]:
            _require_batch_norm(self.model)
        if arguments["precision"] in ("16-true", "bf16-true"):
            raise RunError(
                f"--trainer.precision {arguments['precision']} keeps the weights themselves in 16 bits, in which an "
                f"optimizer's small steps are lost: set {arguments['precision'].replace('true', 'mixed')}, 32-true or "
                "64-true."
            )
        if arguments["fast_dev_run"]:
            self.run_folder = Path(tempfile.mkdtemp(prefix="relit-"))
        elif self.run_folder is None:
            self.run_folder = new_run_folder(_run_options(config), for_training=self.subcommand == "fit")
            self.run_is_new = True
        require_writable(self.run_folder)
        if self.subcommand == "fit" and not arguments["fast_dev_run"]:
            remember_for_restart(_run_options(config), self.run_folder)
        if arguments["max_epochs"] is None:
            arguments["max_epochs"] = getattr(self.model, "planned_epochs", None)
        if arguments["num_sanity_val_steps"] is None:
            # One batch shows that validation works; a resumed run has validated before.
            arguments["num_sanity_val_steps"] = int(config.ckpt_path is None)
        arguments["default_root_dir"] = self.run_folder
        arguments["logger"] = self._loggers(arguments["logger"], config)
        arguments["enable_autolog_hparams"] = False  # RunRecord logs the whole configuration.
        arguments["callbacks"] = [
            RunRecord(self._dumped_config(), (self.checkpoint or {}).get("global_step"), config.wandb.checkpoints),
            ExactResume(),
            LearningRateScaling(config.lr_scaling),
            *([] if arguments["enable_progress_bar"] is False else [TQDMProgressBar(refresh_rate=10)]),
            *_as_list(arguments["callbacks"]),
            *([] if arguments["enable_checkpointing"] is False else [self._get(self.config_init, "checkpoint")]),
            *([] if arguments["enable_checkpointing"] is False or arguments["fast_dev_run"] else [Preemption()]),
            self._get(self.config_init, "predictions"),
            LossCurves(),
        ]
        # The loaders share out their batches by themselves.
        arguments["use_distributed_sampler"] = False
        trainer = self.trainer_class(**arguments)
        needs_find_unused = getattr(self.model, "needs_find_unused_parameters", False)
        if needs_find_unused and arguments["strategy"] == "auto" and isinstance(trainer.strategy, DDPStrategy):
            trainer = self.trainer_class(**{**arguments, "strategy": "ddp_find_unused_parameters_true"})
        if config.compile and trainer.strategy.root_device.type == "cpu":
            rank_zero_warn(
                "--compile takes half a minute or more to start and gains nothing on a CPU: leave it out.",
                category=RunWarning,
            )
        if trainer.precision.startswith("bf16") and trainer.strategy.root_device.type == "cpu" and lacks_bf16():
            rank_zero_warn(
                "This processor has no instructions for bfloat16, which is slower than fp32 on it: leave "
                "--trainer.precision out.",
                category=RunWarning,
            )
        return trainer

    def _loggers(self, given: Any, config: Namespace) -> list[Any]:
        assert self.run_folder is not None
        loggers = [MetricsCSV(self.run_folder), *(_as_list(given) if not isinstance(given, bool) else [])]
        if config.wandb.enabled:
            options = WandbOptions(**config.wandb.as_dict())
            loggers.append(wandb_logger(options, self.run_folder, config.run.experiment))
        return loggers

    def after_instantiate_classes(self) -> None:
        config = self._given
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if config.compile:
            compile_networks(self.model)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand != "prepare":
            kwargs["ckpt_path"] = self._given.ckpt_path
            kwargs["weights_only"] = True
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        announce_to_child_ranks(self.run_folder)
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            if self.run_is_new and self.run_folder is not None and self.trainer.is_global_zero:
                remove_if_empty_handed(self.run_folder)
            raise
        finally:
            announce_to_child_ranks(None)
            finish_wandb(exit_code=1)
            if self._given.trainer.fast_dev_run and self.run_folder is not None:
                shutil.rmtree(self.run_folder, ignore_errors=True)
                self.run_folder = None
        if self.run_folder is not None and self.trainer.is_global_zero:
            print(f"The run is in {_shown(self.run_folder)}")


def _slurm_environment(plugins: list[Any]) -> list[SLURMEnvironment]:
    """For a job of Slurm's an environment without Lightning's own requeue, which saves from within the signal and may
    wait for ever; :class:`Preemption` requeues in its place.

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


def compile_networks(model: LightningModule) -> None:
    """Compiles each network of a module in place, except those that the method names in ``not_compiled``; each of those
    that it holds together in one ``ModuleDict``."""
    for name, network in model.named_children():
        if name not in getattr(model, "not_compiled", ()):
            for part in network.values() if isinstance(network, nn.ModuleDict) else [network]:
                part.compile()


def run(args: list[str]) -> int:
    """Runs the command in this process and returns its exit code; errors are one or two sentences on stderr."""
    debug = "--debug" in args or os.environ.get("RELIT_DEBUG", "") not in ("", "0")
    _quieten()
    keep_freed_memory()
    try:
        RelitCLI([argument for argument in args if argument != "--debug"])
    except (KeyboardInterrupt, SystemExit) as exit_:
        # Lightning turns Ctrl-C into sys.exit(1).
        if isinstance(exit_, SystemExit) and not isinstance(exit_.__context__, KeyboardInterrupt):
            return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        print("relit: interrupted; `relit fit … --ckpt_path last` goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except (Exception, ArgumentError) as error:
        if debug:
            traceback.print_exc()
        print(f"relit: {explain(error)}", file=sys.stderr)
        if not debug and not isinstance(error, ArgumentError) and told_by_us(error) is None:
            print("relit: add --debug for the whole traceback.", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    return 0


def _quieten() -> None:
    """Leaves the user what is about the user's run: no hints about products, no advice that relit has already taken."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*srun.* command is available on your system but is not used.*",
        ".*tensorboardX.*",
        ".*smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    # torch and Lightning deprecate each other's functions by UserWarnings, which no user can do anything about.
    warnings.filterwarnings("ignore", message=".*is deprecated.*")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    place = "" if issubclass(category, (DataWarning, RunWarning)) else f" ({Path(filename).name}:{lineno})"
    print(f"relit: note: {message}{place}", file=sys.stderr)


def _check_trainer_arguments(config: Namespace) -> None:
    """Refuses Trainer arguments that Lightning would refuse for a GAN only after everything is loaded."""
    if config.model is None:
        return
    model_class = _class_of(config.model.class_path)
    if issubclass(model_class, AdversarialModule):
        if config.trainer.gradient_clip_val is not None:
            raise ModelError(
                f"{model_class.__name__} has two optimisers, which the Trainer can't clip: use "
                "--model.gradient_clip_norm in place of --trainer.gradient_clip_val."
            )
        if config.trainer.accumulate_grad_batches != 1:
            raise ModelError(
                f"{model_class.__name__} has two optimisers, for which the Trainer can't accumulate gradients: use a "
                "larger --data.batch_size in place of --trainer.accumulate_grad_batches."
            )


def _generates_from_scratch(config: Namespace) -> bool:
    """Whether the model makes images from nothing, so that the data it was trained on don't matter to `predict`."""
    model_class = _class_of(config.model.class_path)
    return hasattr(model_class, "sample") and not issubclass(_class_of(config.data.class_path), Samples)


def _experiment_name(config: Namespace) -> str | None:
    names = [part.class_path.rsplit(".", 1)[-1].lower() for part in (config.model, config.data) if part is not None]
    return "_".join(names) if config.model is not None else None


def _run_options(config: Namespace) -> RunOptions:
    return RunOptions(**config.run.as_dict())


def _class_of(class_path: str) -> type:
    module, name = class_path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _weights_in_place_of(checkpoint: str | None, weights: str) -> str:
    if checkpoint is not None:
        raise RunError("--weights and --ckpt_path name two things to load: leave one of them out.")
    if Path(weights).suffix != WEIGHTS:
        raise RunError(f"--weights takes a {WEIGHTS} file that `relit export` wrote, not {weights}; try --ckpt_path.")
    return weights


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _shown(path: Path) -> Path:
    """The path as a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
