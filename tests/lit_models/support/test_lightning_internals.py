"""Lightning's private names that relit uses are still there and still do what relit takes them to do."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lit_models.runs.loggers import MetricsCSV
from lit_models.runs.reading import read_logged
from lit_models.support.lightning_internals import (
    OVERRIDDEN,
    UNTYPED,
    USED,
    ExperimentWriter,
    accumulates,
    awaits_row,
    callbacks_of,
    data_of,
    ends_epoch,
    is_trial,
    leave_signals_alone,
    logs_this_batch,
    overfits,
    validation_follows,
)
from tests.methods import ALL_MODELS
from tests.support.fixtures import Patch
from tests.support.small_fits import small_fit

NAMES = [(path, name) for path, names in (*USED.items(), *OVERRIDDEN.items()) for name in names]


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_the_names_are_there(path: str, name: str) -> None:
    module, _, kind = path.rpartition(".")
    found = getattr(import_module(module), kind)
    known = {*dir(found), *(key for base in found.__mro__ for key in getattr(base, "__dataclass_fields__", ()))}
    for base in found.__mro__[:-1]:  # what their constructors set
        known |= set(getattr(base.__init__, "__code__", compile("", "", "exec")).co_names)
    assert name in known


def test_a_trainer_has_what_its_class_doesnt_declare(tmp_path: Path) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "default_root_dir": tmp_path, "accelerator": "cpu"}
    asked = Asking()
    trainer = Trainer(fast_dev_run=True, callbacks=[asked], **quiet)
    assert set(UNTYPED) <= vars(trainer).keys()
    assert is_trial(trainer)
    assert not is_trial(Trainer(**quiet))
    assert asked in callbacks_of(trainer)
    assert not overfits(trainer)
    assert overfits(Trainer(overfit_batches=2, **quiet))
    assert data_of(trainer) is None
    data = LightningDataModule.from_datasets(torch.zeros(2, 1))  # type: ignore[arg-type]
    trainer.fit(Counting(), data)
    assert data_of(trainer) is data


def test_the_writer_has_the_hooks_that_are_overridden(tmp_path: Path) -> None:
    called = []

    class Writer(ExperimentWriter):
        def _check_log_dir_exists(self) -> None:
            called.append("check")

        def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
            called.append("rewrite")
            super()._rewrite_with_new_header(fieldnames)

    writer = Writer(str(tmp_path))
    for metrics in ({"a": 1.0}, {"a": 2.0, "b": 3.0}):
        writer.log_metrics(metrics, step=0)
        writer.save()
    assert called == ["check", "rewrite"]


class Counting(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).sum()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Asking(Callback):
    def __init__(self) -> None:
        self.logs: list[bool] = []
        self.accumulates: list[bool] = []
        self.validates: list[bool] = []
        self.ends: list[bool] = []
        self.awaits: list[bool] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_signals_alone(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.logs.append(logs_this_batch(trainer))
        self.accumulates.append(accumulates(trainer))
        self.validates.append(validation_follows(trainer))
        self.ends.append(ends_epoch(trainer))
        self.awaits.append(awaits_row(trainer))

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.awaits.append(awaits_row(trainer))


def test_the_trainer_answers(tmp_path: Path, monkeypatch: Patch) -> None:
    signals: list[int] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: signals.append(number))
    asking = Asking()
    batches = torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=1)
    trainer = Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        val_check_interval=3,
        log_every_n_steps=2,
        logger=CSVLogger(tmp_path),
        callbacks=[asking],
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Counting(), batches, batches)
    assert asking.accumulates == [True, False, True, False, True, False]
    assert asking.validates == [False, False, True, False, False, True]
    assert asking.logs == [False, False, True, True, False, False], "the batches of every second step"
    assert asking.ends == [False] * 5 + [True]
    assert asking.awaits == [False, False, False, True, False, False, False], "where the optimizer steps, too"
    rows = list(read_logged(tmp_path / "lightning_logs" / "version_0" / "metrics.csv"))
    assert [row.step for row in rows] == [1]
    assert not signals


class LookingForRows(Callback):
    """Notes how many rows there are in the hook that follows a promise."""

    def __init__(self, logger: MetricsCSV) -> None:
        self.logger = logger
        self.promised: list[int] = []
        self.logged: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._look()

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self._look()

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._look()

    def _look(self) -> None:
        if len(self.logged) < len(self.promised):
            self.logged.append(self.logger.rows)


class PromisingRows(Checkpoint):
    """Comes after all other callbacks, as those that save do, and at an epoch's end after the module's hook."""

    def __init__(self, looking: LookingForRows) -> None:
        self.looking = looking

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not ends_epoch(trainer):
            self._promise(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._promise(trainer)

    def _promise(self, trainer: Trainer) -> None:
        self.looking.promised.append(self.looking.logger.rows + awaits_row(trainer))


@pytest.mark.parametrize("title", ALL_MODELS)
def test_the_rows_of_every_method_are_known_before_they_come(title: str, tmp_path: Path) -> None:
    """A method that logs its epochs only has no row of a batch."""
    logger = MetricsCSV(tmp_path)
    looking = LookingForRows(logger)
    callbacks = [looking, PromisingRows(looking)]
    given = {"logger": logger, "callbacks": callbacks, "enable_checkpointing": True, "log_every_n_steps": 1}
    model, data, trainer = small_fit(title, tmp_path, **given)
    trainer.fit(model, datamodule=data)
    assert looking.promised == looking.logged
    assert len(looking.promised) >= 2
    assert logger.rows_written == logger.rows, "the trainer's are written at once"
