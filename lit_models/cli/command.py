"""The ``relit`` command: LightningCLI with this project's fixes, and nothing of any one method."""

import os
import signal
import sys
import traceback
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

import datamodules
import lit_models
import lit_models.callbacks
from lit_models.callbacks import LearningRateScaling, PredictionWriter
from lit_models.cli.attribution import with_its_file
from lit_models.cli.from_checkpoint import with_model_and_data, with_training_settings
from lit_models.cli.messages import sentence_of
from lit_models.cli.needs import USES_WEIGHTS, two_to_load, unnamed_experiment, without_data, without_model
from lit_models.cli.options import add_options
from lit_models.cli.output import announce_end, place_of_interruption, quieten, reasons_to_stop, shown_path
from lit_models.cli.progress import progress_callbacks
from lit_models.cli.refusals import (
    require_fitting_trainer,
    require_numbers,
    require_same_method,
    require_sizes,
    require_something_to_load,
    slurm_environment,
    warn_of_slow_bf16,
)
from lit_models.cli.rehearsal import clips_mixed, rehearse, steps_of_schedules
from lit_models.cli.swaps import (
    class_of,
    draws_from_nothing,
    expand_paths,
    experiment_name,
    note_swaps,
    typed,
    warn_of_ignored_batch_size,
)
from lit_models.cli.trainer import RelitTrainer, compile_networks
from lit_models.cli.typed_modules import find_typed_modules
from lit_models.errors import RunError, RunWarning
from lit_models.module import Method
from lit_models.networks.user_network import import_encoder, is_user_encoder
from lit_models.runs.checkpoints import Checkpoints
from lit_models.runs.claim import Claim
from lit_models.runs.curves import LossCurves
from lit_models.runs.folder import (
    RunOptions,
    announce_to_child_ranks,
    checkpoint_before_restart,
    find_checkpoint,
    has_begun,
    remember_for_restart,
    run_of,
)
from lit_models.runs.loggers import WandbOptions, as_list, finish_wandb
from lit_models.runs.memory import keep_freed_memory, within_memory
from lit_models.runs.preemption import Preemption
from lit_models.runs.record import RunRecord
from lit_models.runs.restored import RestoredSettings
from lit_models.runs.resume import ExactResume
from lit_models.runs.settings import as_typed, changes
from lit_models.runs.starting_weights import StartingWeights, state_of_source
from lit_models.runs.takeover import OneOwner
from lit_models.runs.trackers import run_loggers
from lit_models.support.arguments import modules_named
from lit_models.support.checkpoint_files import AtomicCheckpointIO, read_or_fall_back
from lit_models.support.checkpoint_paths import WEIGHTS
from lit_models.support.checks import facts_of, require_precision
from lit_models.support.lightning_internals import find_unused_parameters
from lit_models.support.weight_sources import find_weights
from lit_models.support.weights import digest_of
from lit_models.support.yaml_loader import LOADER

# Short class names (`--model DCGAN`) are looked up among the classes that are imported.
for _package in (lit_models, lit_models.callbacks, datamodules):
    for _name in _package.__all__:
        getattr(_package, _name)


class RelitCLI(LightningCLI):
    """One command from YAML to a run folder.

    Beyond LightningCLI: run folders, checkpoints found by name, a model rebuilt from its checkpoint alone, the CSV
    logger always and W&B on demand, exact resume, and the DDP strategy that the method needs.
    """

    def __init__(self, args: list[str]) -> None:
        self.claim = Claim()
        self.checkpoint: dict[str, Any] | None = None
        self.typed = args
        self.starting_weights: tuple[Path, dict[str, Any]] | None = None
        try:
            self._run(args)
        except BaseException:
            self.claim.remove_if_empty_handed()
            raise
        finally:
            self.claim.release()

    def _run(self, args: list[str]) -> None:
        parser_kwargs = {"exit_on_error": False, "allow_abbrev": False, "parser_mode": "relit"}
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
        add_options(parser)

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
        chosen = next(iter(self.typed), None)
        if chosen in self.subcommands() and chosen != subcommand:
            return self.init_parser(**kwargs)  # collecting its arguments would take 40 ms, to no end
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in (*USES_WEIGHTS, "fit"):
            parser.add_argument(
                "--weights",
                type=str | None,
                default=None,
                help="Weights to start a new training from (fit), or in place of a checkpoint: a .safetensors file "
                "that `relit export` wrote, with its card; a checkpoint; a run's folder; hf:OWNER/NAME on the Hugging "
                "Face Hub; or the name of shipped weights, such as dcgan_mnist.",
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        find_typed_modules(self.typed)
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint and its run, and takes from it what wasn't given.

        LightningCLI's own version silently overrides the user's arguments with the checkpoint's.
        """
        config = self._settings
        command = self.config.subcommand
        expand_paths(config)
        _import_encoder_of(config.model)
        if command == "prepare":
            return
        if command in USES_WEIGHTS:
            require_something_to_load(command, config)
        if config.ckpt_path == "none":
            config.ckpt_path = None
        if config.get("weights") is not None:
            self._take_weights(config)
        if command == "fit":
            warn_of_ignored_batch_size(self.typed, config)
        swapped = note_swaps(self.typed, config, [Path(str(path)) for path in config.config or ()])
        if config.run.experiment is None or (swapped and not typed(self.typed, "run.experiment")):
            config.run.experiment = experiment_name(config)
        if config.ckpt_path in ("last", "best") and config.run.experiment is None:
            raise RunError(unnamed_experiment(config.ckpt_path))
        if command == "fit" and config.run.experiment is not None:
            config.ckpt_path = self._checkpoint_before_restart() or config.ckpt_path
        if config.ckpt_path is not None:
            path = find_checkpoint(config.ckpt_path, _run_options(config))
            if command not in USES_WEIGHTS and path.suffix == WEIGHTS:
                raise RunError(
                    f"{path} holds weights only, from which training can't go on: take a checkpoint (.ckpt), or start "
                    "a new training with --weights."
                )
            path, self.checkpoint = read_or_fall_back(path)
            config.ckpt_path = str(path)
            self.claim.folder = run_of(path)
            self._complete_from_checkpoint(self.checkpoint.get("config", {}))
        elif self.starting_weights is not None:
            self._complete_from_checkpoint(self.starting_weights[1].get("config") or {})
        config = self._settings
        if config.model is None:
            raise RunError(without_model(command))
        require_sizes(config.model)
        for name in ("model", "data", "trainer"):
            require_numbers(f"--{name}", config.get(name))
        if command == "fit" and config.model.get("init_args") is not None:
            rehearse(config.model.init_args, steps_of_schedules(config), clips_mixed(config))
        if self.checkpoint is not None:
            require_same_method(self.checkpoint, Path(config.ckpt_path), class_of(config.model.class_path))
        if command == "predict" and (config.data is None or draws_from_nothing(self.typed, config)):
            config.data = None
            samples = {self.config.subcommand: {"data": {"class_path": "datamodules.Samples"}}}
            self.config = self.parser.parse_object(samples, self.config)
        if self._settings.data is None:
            raise RunError(without_data(command))
        if self._settings.run.experiment is None:
            self._settings.run.experiment = experiment_name(self._settings)

    def _take_weights(self, config: Namespace) -> None:
        """Finds the weights that a training starts from, or that the other commands use in place of a checkpoint."""
        if config.ckpt_path is not None:
            raise RunError(two_to_load())
        path = find_weights(config.weights)
        if self.config.subcommand == "fit":
            self.starting_weights = read_or_fall_back(path)
        else:
            config.ckpt_path = str(path)

    def _checkpoint_before_restart(self) -> str | None:
        """Where a requeued job goes on, whatever it began with; one that was changed in the meantime is refused."""
        goes_on = self._settings.ckpt_path is not None
        path = checkpoint_before_restart(_run_options(self._settings), goes_on)
        if path is None or goes_on:  # what differs from the run that it went on with isn't a change
            return None if path is None else str(path)
        changed = changes(path.parents[1], yaml.load(self._dumped_config(), LOADER))
        if changed:
            key, (before, now) = next(iter(changed.items()))
            raise RunError(
                f"This job began the run {shown_path(path.parents[1])} with {as_typed(key)} = {before}, and now has "
                f"{now}: give each run of a job its own --run.id, or go on with the run by `--ckpt_path last`."
            )
        return str(path)

    @property
    def _settings(self) -> Namespace:
        return self.config[self.config.subcommand]

    def _complete_from_checkpoint(self, known: Any) -> None:
        """Takes model and data from the checkpoint where they weren't given, and to go on with the run also the
        training's settings: as data, from which nothing is run."""
        known = known if isinstance(known, dict) else {}
        named = modules_named(self._settings)
        if self.config.subcommand == "fit" and self.checkpoint is not None and self._settings.model is None:
            defaults = self._parser("fit").get_defaults()
            self.config = with_training_settings(self.parser, self.config, known, self.typed, defaults)
        self.config = with_model_and_data(self.parser, self.config, known, named)

    def _dumped_config(self) -> str:
        parser = self._parser(self.config.subcommand)
        config = self._settings.clone()
        config.pop("config", None)
        config.pop("weights", None)  # `ckpt_path` names them
        goes_on = config.ckpt_path is not None and run_of(Path(config.ckpt_path)) is not None
        if self.config.subcommand == "fit" and goes_on:
            config.ckpt_path = None  # the run itself, which starts from nothing when it is started again
        return parser.dump(config, skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._settings
        arguments = {**self._get(self.config_init, "trainer"), **kwargs}
        if self.subcommand == "prepare":
            return self.trainer_class(accelerator="cpu", logger=False, enable_checkpointing=False)
        fits = self.subcommand == "fit"
        plugins, callbacks = as_list(arguments["plugins"]), as_list(arguments["callbacks"])
        arguments["plugins"] = [*plugins, *slurm_environment(plugins), AtomicCheckpointIO()]
        require_fitting_trainer(self.model, arguments, callbacks)
        if fits and isinstance(self.model, Method):
            require_precision(self.model, self.model.why_not_float16, arguments["precision"])
        is_trial = bool(arguments["fast_dev_run"])
        where = (_run_options(config), fits, self.checkpoint is not None, arguments["num_nodes"])
        folder = self.claim.take_for_trial() if is_trial else self.claim.take(*where)
        if arguments["max_epochs"] is None:
            arguments["max_epochs"] = self.model.planned_epochs if isinstance(self.model, Method) else None
        if arguments["num_sanity_val_steps"] is None:
            # One batch shows that validation works; a resumed run has validated before.
            arguments["num_sanity_val_steps"] = int(config.ckpt_path is None)
        arguments["default_root_dir"] = folder
        step = (self.checkpoint or {}).get("global_step") if fits else None
        wandb = WandbOptions(**config.wandb.as_dict())
        # The values of `validate` are printed: among those of the training they would stand at step 0.
        has_rows = self.subcommand != "validate"
        arguments["logger"] = run_loggers(arguments["logger"], wandb, folder, config.run.experiment, step, has_rows)
        arguments["enable_autolog_hparams"] = False  # RunRecord logs the whole configuration.
        saves = arguments["enable_checkpointing"] is not False
        dumped = self._dumped_config()
        arguments["callbacks"] = [
            RunRecord(
                dumped,
                (self.checkpoint or {}).get("global_step"),
                digest_of(self.checkpoint["state_dict"]) if self.checkpoint and self.subcommand == "test" else None,
                config.wandb.checkpoints,
                begin=self._remember_run if fits and not is_trial else lambda: None,
            ),
            *([OneOwner(self.claim.ownership)] if self.claim.ownership is not None else []),
            ExactResume(),
            LearningRateScaling(config.lr_scaling),
            *self._starting_weights(),
            RestoredSettings(dumped),
            *progress_callbacks(arguments, callbacks, shown_path(folder), self.subcommand != "predict"),
            *callbacks,
            *([self._get(self.config_init, "checkpoint")] if saves else []),
            *([Preemption()] if saves and not is_trial else []),
            self._get(self.config_init, "predictions"),
            LossCurves(),
        ]
        # The loaders of relit's own data modules share out their batches by themselves.
        arguments["use_distributed_sampler"] = not facts_of(self.datamodule).shares_out_batches
        trainer = self.trainer_class(**arguments)
        if isinstance(self.model, Method) and self.model.needs_find_unused_parameters:
            find_unused_parameters(trainer)
        warn_of_slow_bf16(trainer)
        if config.compile and trainer.strategy.root_device.type == "cpu":
            takes = self.model.compilation if isinstance(self.model, Method) else Method.compilation
            rank_zero_warn(
                f"--compile takes {takes} to start and gains nothing on a CPU: leave it out.", category=RunWarning
            )
        return trainer

    def _remember_run(self) -> None:
        assert self.claim.folder is not None
        remember_for_restart(_run_options(self._settings), self.claim.folder)

    def _starting_weights(self) -> list[StartingWeights]:
        if self.starting_weights is None or self.checkpoint is not None:  # a restarted job goes on
            return []
        path, content = self.starting_weights
        return [StartingWeights(path, state_of_source(content), content.get("hyper_parameters"))]

    def instantiate_classes(self) -> None:
        with within_memory():
            super().instantiate_classes()

    def after_instantiate_classes(self) -> None:
        config = self._settings
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if config.compile:
            compile_networks(self.model)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand != "prepare":
            kwargs["ckpt_path"] = self._settings.ckpt_path
            kwargs["weights_only"] = True
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        announce_to_child_ranks(self.claim.folder)
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as exit_:
            if not isinstance(exit_.__context__, KeyboardInterrupt):
                raise
            # Lightning turns Ctrl-C into sys.exit(1), and has this process ignore the next.
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt(self._where_interrupted()) from exit_
        finally:
            announce_to_child_ranks(None)
            finish_wandb(exit_code=1)
            is_trial = self._settings.trainer.fast_dev_run and self.claim.folder is not None
            if is_trial:
                self.claim.remove_trial()
        if self.trainer.is_global_zero:
            for reason in reasons_to_stop(self.trainer):
                print(f"relit: {reason}", file=sys.stderr)
            self.claim.remove_if_empty_handed()  # no batch was trained, or the predictions are elsewhere
            announce_end(subcommand, self.claim.folder, is_trial)

    def _where_interrupted(self) -> str:
        """The place of a training that Ctrl-C has ended; empty if nothing of it is kept."""
        folder = self.claim.folder
        if self.subcommand != "fit" or folder is None or (self.claim.is_new and not has_begun(folder)):
            return ""
        return place_of_interruption(folder, self.trainer.current_epoch + 1)


def run(args: list[str]) -> int:
    """Runs the command in this process and returns its exit code; errors are one or two sentences on stderr."""
    debug = "--debug" in args or os.environ.get("RELIT_DEBUG", "") not in ("", "0")
    quieten()
    keep_freed_memory()
    try:
        RelitCLI([argument for argument in args if argument != "--debug"])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt as interrupt:
        print(f"\nrelit: interrupted{f' {interrupt}' if str(interrupt) else '.'}", file=sys.stderr)
        return 130
    except (Exception, ArgumentError) as error:
        if debug:
            traceback.print_exc()
        told = with_its_file(sentence_of(error), args)
        print(f"relit: {told}", file=sys.stderr)
        if not debug and told.startswith(f"{type(error).__name__}:"):  # no sentence of relit's
            print("relit: add --debug for the whole traceback.", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    return 0


def _import_encoder_of(model: Namespace | None) -> None:
    """Imports the user-defined encoder that the command line or a file named on it gives to a method."""
    if model is None or not str(model.get("class_path")).startswith("lit_models."):
        return
    name = (model.get("init_args") or {}).get("encoder")
    if isinstance(name, str) and is_user_encoder(name):
        import_encoder(name)


def _run_options(config: Namespace) -> RunOptions:
    return RunOptions(**config.run.as_dict())
