"""The record of a run: its configuration, how its training went, and the figures of its tests."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.loggers import WandbLogger

import lit_models
from lit_models.errors import RunError
from lit_models.module import Method
from lit_models.runs.loggers import (
    MetricsCSV,
    environment,
    finish_wandb,
    log_checkpoints,
    log_configuration,
    rows_of,
)
from lit_models.runs.memory import peak_memory
from lit_models.runs.reading import limit_of_tests
from lit_models.runs.settings import tell_changes
from lit_models.support.checks import facts_of
from lit_models.support.files import locked, write_atomically
from lit_models.support.lightning_internals import awaits_row, callbacks_of, data_of, epochs_done
from lit_models.support.ranks import gather
from lit_models.support.yaml_loader import LOADER


class RunRecord(Callback):
    """Keeps the resolved configuration in the run folder, in every checkpoint and in W&B; in ``run.json`` whether
    training has finished, how long it took so far and up to each epoch's end, how much memory at most, on what, and
    how many images there were; in ``tests.json`` the figures of each test; and, if asked, the checkpoints in W&B.

    Args:
        config: The resolved configuration, as YAML.
        step: The step of the checkpoint that is loaded.
        weights: The digest of the weights that are tested.
        upload_checkpoints: Whether W&B gets the checkpoints when training has finished.
        begin: Called on rank 0 when the run's first files are written.
    """

    def __init__(
        self,
        config: str,
        step: int | None = None,
        weights: str | None = None,
        upload_checkpoints: bool = False,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.step = step
        self.weights = weights
        self.upload_checkpoints = upload_checkpoints
        self.begin = begin
        self._has_begun = False
        self._environment: dict[str, Any] = {}
        self._started: float | None = None
        self._before: dict[str, Any] = {}
        self._seconds_after_epoch: list[float | None] = []
        self._rows: int | None = None
        self._older_rows = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._require_agreement(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begin(trainer)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._begin(trainer)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._begin(trainer)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Writes the first files: only now, as what refuses a checkpoint, an argument or the data changes nothing."""
        if self._has_begun or not trainer.is_global_zero:
            return
        self._has_begun = True
        self.begin()
        run = Path(trainer.default_root_dir)
        fits = trainer.state.fn == "fit"
        if fits:
            self._take_found_batch_size(trainer)
        if fits and (run / "config.yaml").is_file() and trainer.ckpt_path is not None:
            model = trainer.lightning_module
            restored = model.restored_arguments if isinstance(model, Method) else ()
            tell_changes(run, yaml.load(self.config, LOADER), restored)
        self._write(run, may_replace=fits)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and fits:
                self._drop_rows(logger, trainer)
            # A test of a trained model leaves the training's configuration in place, here and in the loggers.
            if (run / "config.yaml").read_text(encoding="utf-8") == self.config:
                machine = {**environment(trainer), "folder": str(run.absolute())}
                log_configuration(logger, {**yaml.load(self.config, LOADER), "environment": machine}, run)
        if fits:
            self._write_progress(trainer, finished=False)

    def _drop_rows(self, logger: MetricsCSV, trainer: Trainer) -> None:
        """Removes the rows that a killed run has left and that are logged again."""
        folder = Path(trainer.default_root_dir).absolute()
        if trainer.ckpt_path is None or folder not in Path(trainer.ckpt_path).absolute().parents:
            logger.drop_behind(0)  # a checkpoint from elsewhere counts the rows of another file
        elif self._rows is not None:
            logger.drop_behind(self._rows)
        else:
            logger.drop_from(trainer.global_step, self._older_rows)

    def _take_found_batch_size(self, trainer: Trainer) -> None:
        """Puts the batch size that a BatchSizeFinder has found into the configuration."""
        if not any(isinstance(callback, BatchSizeFinder) for callback in callbacks_of(trainer)):
            return
        config, found = yaml.load(self.config, LOADER), facts_of(data_of(trainer)).batch_size
        given = (config["data"].get("init_args") or {}).get("batch_size")
        if found is not None and found != given:
            config["data"].setdefault("init_args", {})["batch_size"] = found
            self.config = yaml.safe_dump(config, sort_keys=False)
            print(f"relit: BatchSizeFinder has set --data.batch_size to {found} (was {given}).", file=sys.stderr)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # In a forked rank no other code does, and the run's file would stay empty.
        if trainer.is_global_zero:
            finish_wandb()

    def _require_agreement(self, trainer: Trainer) -> None:
        """Processes that looked for the newest run each by itself may have found different ones."""
        if self.step is None:
            return
        own = (Path(trainer.default_root_dir).name, self.step)
        if not trainer.strategy.reduce_boolean_decision(own == trainer.strategy.broadcast(own)):
            raise RunError(
                "The processes have found different checkpoints, as another run of this experiment has just saved one: "
                "start again, and name the run by --run.id."
            )

    def _write(self, run: Path, may_replace: bool) -> None:
        path = run / "config.yaml"
        if path.is_file():
            if not may_replace or path.read_text(encoding="utf-8") == self.config:
                return
            earlier = len(list(run.glob("config_before_resume_*.yaml")))
            shutil.copyfile(path, run / f"config_before_resume_{earlier + 1}.yaml")
        write_atomically(path, self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        threads = _one_if_equal(gather(trainer, torch.get_num_threads()))
        if not trainer.is_global_zero:
            return
        record = Path(trainer.default_root_dir) / "run.json"
        resumed = trainer.ckpt_path is not None and record.is_file()
        self._before = json.loads(record.read_text(encoding="utf-8")) if resumed else {}
        before = self._before.get("threads")
        if before not in (None, threads):
            print(
                f"relit: note: each process computes with {threads} threads (was {before}), so the numbers may differ "
                "in their last digits from those of the run without a pause: set OMP_NUM_THREADS to keep them.",
                file=sys.stderr,
            )
        self._started = time.monotonic()
        self._environment = {**environment(trainer), "threads": threads}
        # Epochs after the checkpoint are trained again; those before this record began have no time.
        done = trainer.current_epoch
        known = [*self._before.get("seconds_after_epoch", [])[:done]]
        if len(known) < done:
            known += [None] * (done - len(known))
            known[-1] = self._seconds_so_far()
        self._seconds_after_epoch = known

    def _seconds_so_far(self) -> float:
        """Training time up to now, without the pauses between a run's processes."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return round(self._before.get("training_seconds", 0.0) + now, 3)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer)  # an epoch whose last batch was saved goes on with its end
        self._write_progress(trainer, finished=False, epoch_ends=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit" and self._has_begun:
            self._write_progress(trainer, finished=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started is None:
            self._tell_nothing_left(trainer)
        self._write_progress(trainer, finished=True)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.upload_checkpoints and trainer.is_global_zero:
                log_checkpoints(logger, Path(trainer.default_root_dir), step=trainer.global_step)

    def _tell_nothing_left(self, trainer: Trainer) -> None:
        """Says that no batch was trained.

        Raises:
            RunError: The run is new, so that there is nothing to keep.
        """
        if trainer.ckpt_path is None:
            return
        done = f"the checkpoint has had {epochs_done(trainer)} epochs and {trainer.global_step} steps"
        limits = f"--trainer.max_epochs is {trainer.max_epochs}, --trainer.max_steps {trainer.max_steps}"
        remedy = "Raise them to train on."
        if trainer.should_stop:
            limits = "then it was ended early, by a callback or --trainer.max_time"
            remedy = "Change what ended it to train on."
        told = f"Nothing is left to train: {done}; {limits}."
        if not (Path(trainer.default_root_dir) / "config.yaml").is_file():
            raise RunError(f"{told} {remedy}")
        if trainer.is_global_zero:
            print(f"relit: {told}", file=sys.stderr)

    def _write_progress(self, trainer: Trainer, finished: bool, epoch_ends: bool = False) -> None:
        path = Path(trainer.default_root_dir) / "run.json"
        if not trainer.is_global_zero:
            return
        if self._started is None:
            if finished and path.is_file():  # resumed when nothing was left to train
                record = {**json.loads(path.read_text(encoding="utf-8")), "finished": True}
                write_atomically(path, _a_line_each(record))
            return
        seconds = self._seconds_so_far()
        if epoch_ends:
            self._seconds_after_epoch[trainer.current_epoch :] = [seconds]
        earlier = self._before.get("peak_memory_bytes", {})
        peak = {
            kind: max(filter(None, (now, earlier.get(kind))), default=None)
            for kind, now in peak_memory(trainer.strategy.root_device).items()
        }
        record = {
            "finished": finished,
            "training_seconds": seconds,
            "seconds_after_epoch": self._seconds_after_epoch,
            "peak_memory_bytes": peak,
            "data": split_sizes(trainer),
            **self._environment,
        }
        write_atomically(path, _a_line_each(record))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the test to ``tests.json``, in place of an earlier one of the same checkpoint on the same data."""
        if not trainer.is_global_zero or self._started is None:
            return
        config = yaml.load(self.config, LOADER)
        test = {
            "experiment": config["run"]["experiment"],
            "checkpoint": config["ckpt_path"] and Path(config["ckpt_path"]).name,
            "step": self.step,
            "weights": self.weights,
            "settings": config["data"],
            "limit_test_batches": limit_of_tests(config),
            "figures": {
                name: float(value)
                for name, value in sorted(trainer.callback_metrics.items())
                if name.startswith("test/")
            },
            "seconds": round(time.monotonic() - self._started, 1),
            "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
            "data": split_sizes(trainer),
            **environment(trainer),
        }
        add_test(Path(trainer.default_root_dir), test)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = yaml.load(self.config, LOADER)
        checkpoint["relit_version"] = lit_models.__version__
        # The row of a batch or an epoch comes after the hooks in which it may be saved.
        awaited = awaits_row(trainer)
        if (rows := rows_of(trainer)) is not None:
            checkpoint["rows_logged"] = rows.rows + awaited

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._rows = checkpoint.get("rows_logged")
        self._older_rows = checkpoint.get("metrics_rows", 0)


def _a_line_each(record: dict[str, Any]) -> str:
    """JSON with a line for each value, however many epochs it lists."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def add_test(run: Path, test: dict[str, Any]) -> None:
    """Adds a test to a run's ``tests.json``, in place of an earlier one of the same checkpoint on the same part of the
    same data. Other processes may do so at the same time."""
    path = run / "tests.json"
    with locked(path):
        tests = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        same = ("experiment", "checkpoint", "settings", "limit_test_batches")
        kept = [other for other in tests if any(other.get(key) != test.get(key) for key in same)]
        write_atomically(path, json.dumps([*kept, test], indent=2) + "\n")


def _one_if_equal(values: list[int]) -> int | list[int]:
    """The value that all ranks have, or each rank's if they differ."""
    return values[0] if len(set(values)) == 1 else values


def split_sizes(trainer: Trainer) -> dict[str, Any]:
    """The name of the trainer's data module, and how many images each of its splits holds."""
    datamodule = data_of(trainer)
    facts = facts_of(datamodule)
    splits = {"train": facts.train_set, "val": facts.val_set, "test": facts.test_set}
    sizes = {f"{split}_images": len(images) for split, images in splits.items() if images is not None}
    return {"name": type(datamodule).__name__, **sizes}
