"""The one door to Lightning's private names: whatever relit uses of them is used here, or named here where a class of
relit's overrides it. ``tests/lit_models/support/test_lightning_internals.py`` holds each against the installed version.
"""

import math
from typing import Any, cast

from lightning.fabric.loggers.csv_logs import _ExperimentWriter as ExperimentWriter
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_models.errors import ModelError

__all__ = [
    "OVERRIDDEN",
    "SEEN_IN",
    "UNTYPED",
    "USED",
    "ExperimentWriter",
    "accumulates",
    "attribute_of",
    "awaits_row",
    "callbacks_of",
    "data_of",
    "ends_epoch",
    "epochs_done",
    "find_unused_parameters",
    "goes_on_within_epoch",
    "is_attached",
    "is_trial",
    "last_schedule_step",
    "leave_signals_alone",
    "limit_batch_size_finders",
    "logs_this_batch",
    "optimizers_of",
    "overfits",
    "plain_training_loader",
    "resume_after_epoch",
    "set_batches_done",
    "step_schedules",
    "training_loaders",
    "validation_follows",
]

SEEN_IN = "2.6.6"
"""The version of Lightning in which all of these names were seen."""

USED = {
    "lightning.pytorch.callbacks.BatchSizeFinder": ("_init_val", "_max_trials"),
    "lightning.pytorch.callbacks.LearningRateFinder": ("_attr_name",),
    "lightning.pytorch.core.module.LightningModule": ("_trainer",),
    "lightning.pytorch.trainer.connectors.logger_connector.logger_connector._LoggerConnector": ("should_update_logs",),
    "lightning.pytorch.trainer.connectors.signal_connector._SignalConnector": ("register_signal_handlers",),
    "lightning.pytorch.loops.fit_loop._FitLoop": (
        "_can_stop_early",
        "_combined_loader",
        "_data_source",
        "_iteration_based_training",
        "_should_accumulate",
        "restarted_mid_epoch",
    ),
    "lightning.pytorch.loops.training_epoch_loop._TrainingEpochLoop": (
        "_broadcast_sigterm_tensor",
        "_is_training_done",
        "_should_check_val_fx",
        "restarted_on_train_batch_end",
    ),
    "lightning.pytorch.loops.progress._ProcessedTracker": ("completed", "processed"),
}
"""What the functions of this file use, by class. (Of an instance they use ``Trainer._logger_connector``,
``Trainer._results``, ``Trainer._signal_connector``, ``DDPStrategy._ddp_kwargs`` and ``_FitLoop._data_fetcher``,
too.)"""

OVERRIDDEN = {
    "lightning.pytorch.cli.LightningCLI": (
        "_get",
        "_parse_ckpt_path",
        "_parser",
        "_prepare_subcommand_kwargs",
        "_prepare_subcommand_parser",
        "_run_subcommand",
    ),
    "lightning.fabric.loggers.csv_logs._ExperimentWriter": ("_check_log_dir_exists", "_rewrite_with_new_header"),
    "lightning.pytorch.loggers.CSVLogger": ("_experiment",),
}
"""What subclasses override or call on themselves: the command (``cli/command.py``) and ``metrics.csv``
(``runs/loggers.py``)."""


UNTYPED = ("callbacks", "fast_dev_run", "overfit_batches")
"""Public attributes of a Trainer that its class doesn't declare, so type checkers don't know them; ``datamodule`` is
one, too, once there is a data module."""


def data_of(trainer: Trainer) -> LightningDataModule | None:
    """The trainer's data module; None for plain loaders."""
    return vars(trainer).get("datamodule")


def is_attached(module: LightningModule) -> bool:
    """Whether the module belongs to a trainer."""
    return module._trainer is not None


def plain_training_loader(trainer: Trainer) -> Any:
    """A fresh loader of the training data that ``fit`` was given without a data module; None if it was given none."""
    source = trainer.fit_loop._data_source
    return source.dataloader() if source.is_defined() else None


def attribute_of(finder: LearningRateFinder) -> str:
    """The attribute of the model in which Lightning's finder looks for the learning rate."""
    return finder._attr_name or "lr"


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks."""
    return vars(trainer)["callbacks"]


def is_trial(trainer: Trainer) -> bool:
    """Whether the trainer only tries a few batches (``fast_dev_run``)."""
    return bool(vars(trainer).get("fast_dev_run"))


def overfits(trainer: Trainer) -> bool:
    """Whether the trainer sees the same few batches in every epoch (``overfit_batches``)."""
    return bool(vars(trainer)["overfit_batches"])


def optimizers_of(module: LightningModule) -> list[LightningOptimizer]:
    """All optimizers, for manual optimization."""
    optimizers = module.optimizers()
    return optimizers if isinstance(optimizers, list) else [optimizers]


def step_schedules(module: LightningModule) -> None:
    """Advance all learning-rate schedules, for manual optimization.

    A ``lightning.pytorch.cli.ReduceLROnPlateau`` goes by the value of the metric that it monitors, and rests in epochs
    without a validation if that is one of validation.

    Raises:
        ModelError: The model logs no such metric, or the schedule is torch's, which names none.
    """
    schedules: Any = module.lr_schedulers() or []  # their `step` methods have no common signature
    for schedule in schedules if isinstance(schedules, list) else [schedules]:
        if not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()
            continue
        monitor, logged = vars(schedule).get("monitor"), module.trainer.callback_metrics
        if str(monitor).startswith("val/") and not module.trainer.fit_loop.epoch_loop._should_check_val_epoch():
            continue  # check_val_every_n_epoch leaves this epoch without a value
        if monitor not in logged:
            raise ModelError(
                f"ReduceLROnPlateau's monitor is {monitor!r}, which {type(module).__name__} doesn't log; it logs "
                f"{', '.join(sorted(logged))}."
            )
        schedule.step(logged[monitor])


def logs_this_batch(trainer: Trainer) -> bool:
    """Whether the loggers take this training batch's values, by Lightning's own rule.

    Skipping ``self.log`` on other batches saves about 0.5 ms per CPU step.
    """
    return trainer._logger_connector.should_update_logs


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation comes right after this training batch."""
    fit_loop = trainer.fit_loop
    assert fit_loop._data_fetcher is not None
    return fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher)


def ends_epoch(trainer: Trainer) -> bool:
    """Whether this training batch is the last of its epoch: of its data, of ``max_steps``, or as the training is to
    stop."""
    stops = trainer.should_stop and trainer.fit_loop._can_stop_early
    return trainer.is_last_batch or trainer.fit_loop.epoch_loop._is_training_done or stops


def epochs_done(trainer: Trainer) -> int:
    """How many epochs have come to their end, also in a training that a checkpoint has left nothing of."""
    return cast(Any, trainer.fit_loop.epoch_progress.current).processed


def accumulates(trainer: Trainer) -> bool:
    """Whether the optimizer hasn't taken its step after this training batch, as gradients are still accumulated."""
    return trainer.fit_loop._should_accumulate()


def leave_signals_alone(trainer: Trainer) -> None:
    """Keeps Lightning from setting its handlers of signals, and from asking rank 0 before each batch whether it has got
    one."""
    cast(Any, trainer._signal_connector).register_signal_handlers = lambda: None
    cast(Any, trainer.fit_loop.epoch_loop)._broadcast_sigterm_tensor = lambda: None


def find_unused_parameters(trainer: Trainer) -> None:
    """Has DDP, if the trainer uses it, look in each step for parameters that the loss doesn't depend on."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs["find_unused_parameters"] = True


def awaits_row(trainer: Trainer) -> bool:
    """Whether this training batch, or the epoch that it ends, logs a row, which comes after the hooks of its end.

    It goes by what has been logged by now: a batch in which a module logs nothing has no row. What the module logs in
    its own hook comes later. Call it on all ranks, as an epoch's values may be means over them.
    """
    connector = trainer._logger_connector
    if not trainer.training or trainer._results is None:
        return False
    if connector._first_loop_iter is not None:  # within an epoch
        batches = cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total)
        if batches.completed == batches.processed or not logs_this_batch(trainer):
            return False
        if accumulates(trainer) and trainer.lightning_module.automatic_optimization:
            return False
    return bool(connector.metrics["log"].keys() - {"step", "epoch"})


def limit_batch_size_finders(trainer: Trainer, most: int) -> None:
    """Has Lightning's BatchSizeFinder stop doubling before a batch of one process has more than ``most`` images, of
    which no loader could be made."""
    for finder in callbacks_of(trainer):
        if isinstance(finder, BatchSizeFinder):
            doublings = max(0, int(math.log2(max(1, most) / finder._init_val)))
            finder._max_trials = min(finder._max_trials, doublings + 1)


def training_loaders(trainer: Trainer) -> list[Any]:
    """The loaders of a training that has begun."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def goes_on_within_epoch(trainer: Trainer) -> bool:
    """Whether a run that was resumed goes on in the middle of an epoch; known when training starts."""
    return trainer.fit_loop.restarted_mid_epoch


def last_schedule_step(trainer: Trainer, interval: str, steps: int) -> int | None:
    """How many steps a schedule will have taken when the training ends; None if that isn't known. Only when training
    starts.

    Args:
        trainer: The trainer.
        interval: "epoch", or "step" for each of the only optimizer's.
        steps: Those that it has taken.
    """
    planned = trainer.max_epochs
    epochs = math.inf if planned is None or planned < 0 else max(0, planned - trainer.current_epoch)
    if interval == "epoch":
        return None if epochs == math.inf else steps + int(epochs)
    module = trainer.lightning_module
    if not module.automatic_optimization:
        return None
    progress = cast(Any, trainer.fit_loop.epoch_loop.batch_progress.current)
    done = progress.processed if goes_on_within_epoch(trainer) else 0
    per_epoch, accumulated = trainer.num_training_batches, trainer.accumulate_grad_batches
    left = epochs * math.ceil(per_epoch / accumulated) - done // accumulated if math.isfinite(per_epoch) else math.inf
    if trainer.max_steps != -1:
        left = min(left, trainer.max_steps - trainer.global_step)
    return None if left == math.inf else steps + int(max(0, left))


def resume_after_epoch(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Has a training that is limited by ``max_steps`` go on with the next epoch where the checkpoint is of an epoch's
    end. Lightning would take that epoch for one that is still going on, and count the next one as done.

    Where ``max_steps`` has ended it within an epoch, that epoch goes on: for Lightning the loader's next epoch would
    have begun, whose images would come in place of the rest.

    Only when the checkpoint is loaded.
    """
    loops = (checkpoint.get("loops") or {}).get("fit_loop") or {}
    batches, epochs = loops.get("epoch_loop.batch_progress") or {}, loops.get("epoch_progress") or {}
    if batches.get("is_last_batch"):
        cast(Any, trainer.fit_loop)._iteration_based_training = lambda: False
    elif trainer.max_steps != -1 and epochs and epochs["current"]["processed"] > epochs["current"]["completed"]:
        # As after a checkpoint in the batch's end, from which Lightning neither validates again nor steps schedules.
        for part in ("current", "total"):
            epochs[part]["processed"] -= 1
            batches[part]["completed"] -= 1
        if batches["current"]["ready"] % trainer.accumulate_grad_batches == 0:
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def set_batches_done(trainer: Trainer, count: int) -> None:
    """Has a run that goes on within an epoch do so after ``count`` batches; only when training starts."""
    loop = trainer.fit_loop.epoch_loop
    progress = cast(Any, loop.batch_progress.current)
    progress.ready = progress.started = progress.processed = count
    # Lightning counts a batch in whose end the checkpoint was saved as completed right after this.
    progress.completed = count - loop.restarted_on_train_batch_end
