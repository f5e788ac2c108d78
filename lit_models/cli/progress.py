"""What a training shows while it runs: a header, a bar on a terminal, a line an epoch elsewhere."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import convert_inf
from torch import Tensor

from lit_models.cli.output import shown_path
from lit_models.module import Method
from lit_models.runs.checkpoints import Checkpoints
from lit_models.runs.record import split_sizes


def progress_callbacks(
    arguments: dict[str, Any], callbacks: Sequence[Any], folder: Path, has_header: bool
) -> list[Callback]:
    """The header, and a bar or lines unless the user has given a bar.

    Args:
        arguments: Those of the Trainer, of which some are set here.
        callbacks: The user's.
        folder: The run's folder, as it is shown.
        has_header: Whether the header is printed.
    """
    if arguments["enable_model_summary"] is None:
        arguments["enable_model_summary"] = False  # the header has what matters
    if arguments["enable_progress_bar"] is False:
        return []
    shown: list[Callback] = [RunHeader(folder)] if has_header else []
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return shown
    if sys.stdout.isatty():
        return [*shown, EpochBar()]
    arguments["enable_progress_bar"] = False
    return [*shown, EpochLines()]


class RunHeader(Callback):
    """Says what is trained on what and where before the first batch.

    Args:
        shown: The run's folder as a person would type it.
    """

    def __init__(self, shown: Path) -> None:
        self.shown = shown
        self._is_shown = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._show(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not self._is_shown:
            print(header(trainer, pl_module, self.shown), flush=True)
        self._is_shown = True


def header(trainer: Trainer, model: LightningModule, shown: Path) -> str:
    """Method, parameters, data, device, precision, epochs and folder, wrapped to the terminal."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = split_sizes(trainer)
    names = {"train_images": "train", "val_images": "val", "test_images": "test"}
    counts = [f"{sizes[key]:,} {name}" for key, name in names.items() if key in sizes]
    images = f" ({', '.join(counts)} images)" if counts else ""
    device = trainer.strategy.root_device.type
    processes = f"{trainer.world_size} processes" if trainer.world_size > 1 else "1 process"
    trains = trainer.state.fn == "fit"
    lines = [
        f"{type(model).__name__}, {short_number(parameters)} parameters, on {sizes['name']}{images}",
        f"{device}, {trainer.precision}, {processes}" + (f", {_length(trainer)}" if trains else ""),
        *([] if trains else [f"checkpoint: {shown_path(Path(trainer.ckpt_path)) if trainer.ckpt_path else 'none'}"]),
        f"run: {shown}",
    ]
    columns = shutil.get_terminal_size((100, 24)).columns
    return "\n".join(part for line in lines for part in textwrap.wrap(line, columns, break_on_hyphens=False))


class EpochBar(TQDMProgressBar):
    """A bar for each epoch, counted from 1, with the time that is left and the values of validation."""

    BAR_FORMAT = "{desc} {bar:20} {n_fmt}/{total_fmt}{postfix}"

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._clock = _Clock()

    def on_train_start(self, *args: Any) -> None:
        self._clock.start(args[0])
        super().on_train_start(*args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        # In place of Lightning's hook, which draws the bar with an epoch counted from 0 first.
        bar = self.train_progress_bar
        bar.set_description_str(epoch_of(trainer), refresh=False)
        bar.total, bar.initial = convert_inf(self.total_train_batches), 0
        bar.reset()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        left = self._clock.left(trainer)
        self.train_progress_bar.set_description_str(
            f"{epoch_of(trainer)}{f', {left} left' if left else ''}", refresh=False
        )
        super().on_train_batch_end(trainer, *args)

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        for bar in (self._train_progress_bar, self._val_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()  # a message begins on a separate line

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = {**super().get_metrics(trainer, pl_module), **validation_values(trainer)}
        shown.pop("v_num", None)
        room = shutil.get_terminal_size((100, 24)).columns - 56
        found: dict[str, Any] = {}
        # Values of validation first, as the bar may have no room for all.
        for name, value in sorted(shown.items(), key=lambda item: not item[0].startswith("val/")):
            text = f"{value:.3g}" if isinstance(value, (int, float)) else str(value)
            name = name.removeprefix("train/").removesuffix("_step")
            room -= len(name) + len(text) + 3
            if room < 0 and found:
                break
            found[name] = text
        return found


class EpochLines(Callback):
    """A line an epoch, for output that isn't a terminal."""

    def __init__(self) -> None:
        self._clock = _Clock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.start(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {**trainer.progress_bar_metrics, **validation_values(trainer)}
        parts = [
            f"{name.removeprefix('train/').removesuffix('_step')} {float(value):.4g}"
            for name, value in values.items()
            if name != "v_num"
        ]
        left = self._clock.left(trainer, whole_epoch=True)
        took = f"{duration(self._clock.elapsed)} so far" + (f", {left} left" if left else "")
        print("  ".join([epoch_of(trainer), *parts, took]), flush=True)


class _Clock:
    """Time since the training's start, and what is left of it by the share that is done."""

    def start(self, trainer: Trainer) -> None:
        self._started = time.monotonic()
        self._from = self._done(trainer)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def left(self, trainer: Trainer, whole_epoch: bool = False) -> str:
        """How long it takes from here at the pace so far; empty if that isn't known."""
        total, done = self._total(trainer), self._done(trainer, whole_epoch)
        if total is None or done <= self._from or total <= done:
            return ""
        return duration(self.elapsed * (total - done) / (done - self._from))

    def _total(self, trainer: Trainer) -> float | None:
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            return float(trainer.max_epochs)
        return None

    def _done(self, trainer: Trainer, whole_epoch: bool = False) -> float:
        batches = float(trainer.num_training_batches)
        within = trainer.fit_loop.epoch_loop.batch_progress.current.completed / batches if 0 < batches < 1e18 else 0.0
        return trainer.current_epoch + (1.0 if whole_epoch else min(within, 1.0))


def epoch_of(trainer: Trainer) -> str:
    """The epoch's number, counted from 1, how many there are, and the phase of a method that trains in phases."""
    last, model = trainer.max_epochs, trainer.lightning_module
    phase = model.phase if isinstance(model, Method) else ""
    number = f"Epoch {trainer.current_epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")
    return f"{number}, {phase}" if phase else number


def validation_values(trainer: Trainer, most: int = 3) -> dict[str, float]:
    """The monitored value and some more of the last validation, by name."""
    monitor = checkpoints.monitor if isinstance(checkpoints := trainer.checkpoint_callback, Checkpoints) else None
    values = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/") and isinstance(value, Tensor) and value.numel() == 1
    }
    return {name: values[name] for name in sorted(values, key=lambda name: (name != monitor, name))[:most]}


def short_number(number: int) -> str:
    """A count in thousands or millions.

    Example:
        >>> short_number(346_455), short_number(11_200_000), short_number(12)
        ('346 k', '11.2 M', '12')
    """
    if number < 1_000:
        return str(number)
    return f"{number / 1e3:.0f} k" if number < 1_000_000 else f"{number / 1e6:.1f} M"


def duration(seconds: float) -> str:
    """A time span as a person would say it.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _length(trainer: Trainer) -> str:
    first, last = trainer.current_epoch + 1, trainer.max_epochs
    if last is not None and last > 0:
        return f"epochs {first} to {last}" if last != 1 else "1 epoch"
    return f"{trainer.max_steps} steps" if trainer.max_steps > 0 else "no last epoch"
