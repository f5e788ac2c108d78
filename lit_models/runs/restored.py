"""What a checkpoint overrides when a run goes on: optimizers and schedules, and the place in the epoch."""

import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, EarlyStopping
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from datamodules import ImageDataModule
from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import size_of
from lit_models.adversarial import AdversarialModule
from lit_models.errors import ModelError, RunError, RunWarning
from lit_models.runs.reading import flattened
from lit_models.runs.settings import as_typed, differences
from lit_models.support.checks import averages_weights, lack_of_validation
from lit_models.support.lightning_internals import (
    callbacks_of,
    data_of,
    goes_on_within_epoch,
    last_schedule_step,
    limit_batch_size_finders,
    resume_after_epoch,
    set_batches_done,
    training_loaders,
)
from lit_models.support.yaml_loader import LOADER

PROGRESS = {
    *("last_epoch", "_step_count", "_last_lr", "last_lr", "_get_lr_called_within_step", "_is_initial", "verbose"),
    *("best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i", "lr_lambdas"),
}
"""What a schedule's state holds besides its settings."""

LENGTH = ("trainer.callbacks", "trainer.max_", "trainer.min_")
"""Beginnings of the settings that decide when a training ends."""

SAME_ROWS = ("batch_size", "eval_batch_size", "episodes_per_batch", "on_device", "root")
"""Settings of data that change neither the rows nor their order."""


class Difference(NamedTuple):
    """A setting that a checkpoint has otherwise than the configuration.

    Attributes:
        name: Of what, and which.
        saved: Its value in the checkpoint.
        now: What the configuration makes it.
    """

    name: str
    saved: Any
    now: Any


class RestoredSettings(Callback):
    """Compares, before a checkpoint's optimizers and schedules replace those just made, the settings of both.

    What the checkpoint would override silently is refused if the user has changed a setting of the model, and otherwise
    said, such as a schedule that was planned for fewer epochs. A loader whose batches have another size by now sets
    Lightning's count of batches; with other data or another seed, the epoch starts over. A training that was ended
    early, such as by EarlyStopping, stays so unless what ends a training has changed.

    Args:
        config: The resolved configuration, as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config
        self._checkpoint: dict[str, Any] | None = None
        self._other_order: list[str] = []
        self._patience: list[tuple[EarlyStopping, int]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._patience = [(one, one.patience) for one in callbacks_of(trainer) if isinstance(one, EarlyStopping)]
        datamodule = data_of(trainer)
        finders = [one for one in callbacks_of(trainer) if isinstance(one, BatchSizeFinder)]
        if stage == "fit" and finders and isinstance(datamodule, ImageDataModule):
            rows = size_of(datamodule.train_batches()) or len(datamodule.train_set)
            limit_batch_size_finders(trainer, rows // trainer.world_size)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["optimizer_classes"] = class_names(trainer)
        checkpoint["should_stop"] = trainer.should_stop

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit":
            self._checkpoint = checkpoint
            resume_after_epoch(trainer, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _require_metric_of_schedules(trainer, pl_module)
        if isinstance(datamodule := data_of(trainer), ImageDataModule):
            datamodule.train_batches()  # refuses too large batches now, not after the sanity check
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        _require_callbacks_of_averages(trainer, checkpoint)
        for callback, patience in self._patience:
            callback.patience = patience  # a setting, which Lightning takes from the checkpoint
        before, now = checkpoint.get("config"), yaml.load(self.config, LOADER)
        before = before if isinstance(before, dict) else {}
        settings = differences(before, now) if before else {}
        trainer.should_stop = bool(checkpoint.get("should_stop")) and not any(map(_is_of_length, settings))
        _tell_kept_rates(trainer, checkpoint, before, now)
        known = flattened(before)  # later versions have more settings
        self._other_order = [
            name
            for name in sorted(settings.keys() & known.keys())
            if name == "seed_everything" or (name.startswith("data.") and name.rpartition(".")[2] not in SAME_ROWS)
        ]
        changed = [after for name, (_, after) in settings.items() if name.startswith("model.")]
        found = list(compared(trainer, checkpoint, changed))
        scaling = Difference("lr_scaling", before.get("lr_scaling") or "none", (now or {}).get("lr_scaling") or "none")
        if before and scaling.saved != scaling.now:
            changed.append(scaling.now)
            found.append(scaling)
        if not found:
            return
        told = "; ".join(f"{one.name} is {one.saved} there and {one.now} here" for one in found[:3])
        if changed or any(one.name.endswith(("optimizer", "schedule", "optimizers", "schedules")) for one in found):
            raise RunError(
                "Optimizers and schedules go on from the checkpoint, so these settings can't change on the way: "
                f"{told}. Give them as they were, or start a new run."
            )
        rank_zero_warn(f"Optimizers and schedules go on as in the checkpoint: {told}.", category=RunWarning)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = [loader for loader in training_loaders(trainer) if isinstance(loader, BatchLoader)]
        reason = "the batches or the data have another size than in the checkpoint"
        if self._other_order and goes_on_within_epoch(trainer):
            reason = f"{', '.join(map(as_typed, self._other_order))} may change the order of the images"
            for loader in loaders:
                loader.start_over()
        changes = [loader for loader in loaders if loader.change is not None]
        if changes and goes_on_within_epoch(trainer):
            done = max(loader.batches_seen for loader in loaders)
            set_batches_done(trainer, done)
            if trainer.is_global_zero:
                print(f"relit: note: {reason}: epoch {trainer.current_epoch + 1} {changes[0].change}.", file=sys.stderr)
        _require_schedules_to_last(trainer, pl_module)
        _require_validation_for_schedules(trainer)


def _is_of_length(setting: str) -> bool:
    return setting.startswith(LENGTH)


def _require_callbacks_of_averages(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Refuses a run that would go on from an average as if it were the trained weights, or in the middle of Lightning's
    stochastic weight averaging, which restores neither its learning rates nor its place in an epoch."""
    if "averaging_state" in checkpoint and not averages_weights(trainer):
        raise RunError(
            "The checkpoint's weights are an average that a callback of the run has taken: add that callback "
            "(--trainer.callbacks+=EMAWeightAveraging, as before), or start a new run from the average by --weights."
        )
    if "SWALR" in (checkpoint.get("optimizer_classes") or {}).get("schedules", ()):
        raise RunError(
            "A run can't go on once StochasticWeightAveraging has begun to average: start a new run. One with "
            "EMAWeightAveraging can."
        )


def class_names(trainer: Trainer) -> dict[str, list[str]]:
    """The names of the classes of a trainer's optimizers and schedules."""
    return {
        "optimizers": [type(optimizer).__name__ for optimizer in trainer.optimizers],
        "schedules": [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs],
    }


def compared(trainer: Trainer, checkpoint: dict[str, Any], changed: list[Any]) -> Iterator[Difference]:
    """The settings of optimizers and schedules that a checkpoint has otherwise than the trainer.

    Args:
        trainer: With optimizers and schedules as the configuration makes them.
        checkpoint: Of which nothing has been restored yet.
        changed: The values of the settings that the user has changed. A learning rate, which a method may change by
            itself, counts as different only if it is one of them.
    """
    names, saved_names = class_names(trainer), checkpoint.get("optimizer_classes") or {}
    states = {"optimizers": checkpoint.get("optimizer_states", []), "schedules": checkpoint.get("lr_schedulers", [])}
    for kind, made in names.items():
        if len(states[kind]) != len(made):
            yield Difference(f"the number of {kind}", len(states[kind]), len(made))
            return
        for number, (saved, now) in enumerate(zip(saved_names.get(kind, made), made, strict=True), start=1):
            if saved != now:
                yield Difference(f"the {_ordinal(number, len(made))}{kind[:-1]}", saved, now)
                return
    for number, (optimizer, state) in enumerate(zip(trainer.optimizers, states["optimizers"], strict=True), start=1):
        which = f"the {_ordinal(number, len(trainer.optimizers))}optimizer"
        groups = optimizer.state_dict()["param_groups"]
        if len(groups) != len(state["param_groups"]):
            yield Difference(f"the number of groups of {which}", len(state["param_groups"]), len(groups))
            return
        for group, saved in zip(groups, state["param_groups"], strict=True):
            if group.keys() - saved.keys() and saved.keys() - group.keys():
                yield Difference(which, "of another class", type(optimizer).__name__)
                return
            cycles = "max_momentum" in saved
            for name in sorted(group.keys() & saved.keys() - {"params"}):
                moves = name == "lr" and not any(_is_number(value) and _equal(group[name], value) for value in changed)
                if not moves and not (cycles and name in ("betas", "momentum")):
                    yield from _difference(f"{which}'s {name}", saved[name], group[name])
    for number, (config, state) in enumerate(
        zip(trainer.lr_scheduler_configs, states["schedules"], strict=True), start=1
    ):
        which = f"the {_ordinal(number, len(trainer.lr_scheduler_configs))}schedule"
        yield from _schedule_differences(which, state, config.scheduler.state_dict())


def _schedule_differences(which: str, saved: dict[str, Any], now: dict[str, Any]) -> Iterator[Difference]:
    for name in sorted(saved.keys() & now.keys() - PROGRESS):
        if name == "_schedulers":
            for one, other in zip(saved[name], now[name], strict=False):
                yield from _schedule_differences(which, one, other)
        else:
            yield from _difference(f"{which}'s {name}", saved[name], now[name])


def _difference(name: str, saved: Any, now: Any) -> Iterator[Difference]:
    if isinstance(saved, (list, tuple)) and isinstance(now, (list, tuple)) and len(saved) == len(now):
        for one, other in zip(saved, now, strict=True):
            if differing := list(_difference(name, one, other)):
                yield differing[0]
                return
    elif not _equal(saved, now):
        yield Difference(name, saved, now)


def _is_number(value: Any) -> bool:
    """Whether a setting is a number, also one that YAML takes for a text, such as 1e-3."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None or isinstance(one, (str, dict)):
        return one == other
    try:
        return one == other or abs(float(one) - float(other)) <= 1e-9 * max(abs(float(one)), abs(float(other)))
    except (TypeError, ValueError):
        return True  # a function or an object, which can't be compared


def _ordinal(number: int, count: int) -> str:
    names = ("first", "second", "third")
    return "" if count == 1 else f"{names[number - 1]} " if number <= len(names) else f"{number}th "


def _tell_kept_rates(trainer: Trainer, checkpoint: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> None:
    """Says that learning rates which were scaled to the batches of a step stay, though these are others by now."""
    accumulated = (before.get("trainer") or {}).get("accumulate_grad_batches") or 1
    batches = len(checkpoint.get("random_states") or []) * accumulated  # one state of each process
    batches_now = trainer.world_size * trainer.accumulate_grad_batches
    if batches and batches != batches_now and (now or {}).get("lr_scaling", "none") != "none":
        rank_zero_warn(
            f"The learning rates stay as they were scaled for {batches} batches a step, though a step has "
            f"{batches_now} of them now.",
            category=RunWarning,
        )


def _require_schedules_to_last(trainer: Trainer, model: LightningModule) -> None:
    """Refuses a training that goes on behind the end of a one-cycle schedule, which torch would stop there, and warns
    of one that goes on behind the end of a cosine."""
    for config in trainer.lr_scheduler_configs:
        schedule = config.scheduler
        interval = config.interval if model.automatic_optimization else _own_interval(model)
        if not isinstance(schedule, (OneCycleLR, CosineAnnealingLR)):
            continue
        last = last_schedule_step(trainer, interval, schedule.last_epoch) if config.frequency == 1 else None
        if last is None:
            continue
        length = f"--trainer.max_epochs {trainer.max_epochs} (max_steps {trainer.max_steps}) comes to {last}"
        if isinstance(schedule, OneCycleLR) and last > schedule.total_steps:
            raise RunError(
                f"The one-cycle schedule ends after {schedule.total_steps} {interval}s, but {length}: train for as "
                "long as it was planned, or start a new training, which --weights may give the weights of this one."
            )
        if isinstance(schedule, CosineAnnealingLR) and last > schedule.T_max:
            rank_zero_warn(
                f"The cosine schedule reaches its lowest learning rate after {schedule.T_max} {interval}s, but "
                f"{length}: behind that the learning rate rises again.",
                category=RunWarning,
            )


def _own_interval(model: LightningModule) -> str:
    """When the schedules advance of a model that steps its optimizers itself."""
    return model.schedule_interval if isinstance(model, AdversarialModule) else "epoch"


def _require_metric_of_schedules(trainer: Trainer, model: LightningModule) -> None:
    for config in trainer.lr_scheduler_configs:
        if not isinstance(config.scheduler, ReduceLROnPlateau):
            continue
        if not hasattr(config.scheduler, "monitor"):
            raise ModelError(
                "ReduceLROnPlateau needs the name of a metric: choose lightning.pytorch.cli.ReduceLROnPlateau, and set "
                "its monitor, such as val/loss."
            )
        if not model.automatic_optimization and _own_interval(model) == "step":
            raise ModelError(
                "ReduceLROnPlateau goes by a metric of an epoch, not of a step: set --model.schedule_interval epoch."
            )


def _require_validation_for_schedules(trainer: Trainer) -> None:
    """Refuses a schedule that waits for a metric of validation in a training that has none."""
    fault = lack_of_validation(trainer)
    for config in trainer.lr_scheduler_configs if fault else ():
        monitor = vars(config.scheduler).get("monitor")
        if str(monitor).startswith("val/"):
            raise ModelError(
                f"ReduceLROnPlateau's monitor is {monitor!r}, but {fault}, or set the monitor to a training metric."
            )
