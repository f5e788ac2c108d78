"""Where a run's metrics go: ``metrics.csv`` always; W&B, TensorBoard, MLflow and other loggers on request."""

import csv
import io
import os
import platform
import re
import secrets
import shlex
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment

from lit_models.errors import RunError
from lit_models.runs.reading import flattened
from lit_models.support.checkpoint_paths import BEST, CHECKPOINTS, LAST
from lit_models.support.files import locked, write_atomically
from lit_models.support.lightning_internals import ExperimentWriter


@dataclass
class WandbOptions:
    """Logging to Weights & Biases (needs the extra ``pip install 'relit[wandb]'``).

    Args:
        enabled: Log to W&B.
        project: Project's name. If null, ``$WANDB_PROJECT``, else ``relit``.
        entity: User or team that owns the project. If null, ``$WANDB_ENTITY``, else the key's default.
        group: Name that several runs of one experiment share. If null, ``$WANDB_RUN_GROUP``, else the experiment's.
        tags: Tags of the run. If empty, those of ``$WANDB_TAGS``, which commas separate.
        notes: A note of any length about the run. If null, ``$WANDB_NOTES``.
        mode: ``online`` or ``offline``. If null, ``$WANDB_MODE``, else online where an API key is found, else offline.
            Offline runs lie in the run folder's ``wandb/`` and are sent with ``wandb sync``.
        checkpoints: Upload ``last.ckpt`` and ``best.ckpt`` as versions of the artifact ``checkpoint-<W&B id>`` when
            training has ended; with ``offline``, when the run is sent.
    """

    enabled: bool = False
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: Literal["online", "offline"] | None = None
    checkpoints: bool = False


class MetricsCSV(CSVLogger):
    """Lightning's CSV logger, writing ``<run>/metrics.csv``, whose file a resumed run continues."""

    def __init__(self, run_folder: Path) -> None:
        # What a callback logs is written with the trainer's next row: what it logs when an epoch starts, not before the
        # rows of a killed run are removed in the first batch.
        super().__init__(save_dir=run_folder, name="", version="", flush_logs_every_n_steps=sys.maxsize)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir)
        return self._experiment

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if metrics.keys() - {"epoch"}:
            super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the whole configuration is in ``config.yaml``."""

    @property
    def rows(self) -> int:
        """How many have been logged."""
        return self.experiment.rows

    def drop_from(self, step: int, kept: int = 0) -> None:
        """Removes the rows that a killed run logged at or after ``step``, which are logged again; but not the first
        ``kept`` ones, among which a GAN's critic may have further steps. For older checkpoints, which don't
        count an epoch's last row."""
        self.experiment.drop_from(step, kept)

    @property
    def rows_written(self) -> int:
        """How many are in the file. The trainer has each of its rows written at once; those that callbacks log wait for
        the next one of the trainer's."""
        return self.experiment.rows_written

    def drop_behind(self, kept: int) -> None:
        """Removes the rows that a killed run logged after its first ``kept`` ones, but for those of a test."""
        self.experiment.drop_behind(kept)


class _ContinuedWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Takes over the columns of an existing file, where the original would delete it."""
        self.metrics_keys = self._header()

    def save(self) -> None:
        """Also while another process writes into the same file: a test of a run that is still training."""
        if self.metrics:
            with locked(Path(self.metrics_file_path)):
                self.metrics_keys = self._header() or self.metrics_keys
                if self._ends_within_a_row():
                    self._write_whole(list(csv.DictReader(self._lines())))
                super().save()

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Nothing: see :meth:`MetricsCSV.log_hyperparams`."""

    @property
    def rows(self) -> int:
        return self.rows_written + len(self.metrics)

    @property
    def rows_written(self) -> int:
        return max(0, len(self._lines()) - 1)

    def drop_from(self, step: int, kept: int) -> None:
        if not Path(self.metrics_file_path).exists():
            return
        rows = [row for row in csv.DictReader(self._lines()) if row["step"]]
        self._write_whole([row for n, row in enumerate(rows) if n < kept or int(float(row["step"])) < step])

    def drop_behind(self, kept: int) -> None:
        if not Path(self.metrics_file_path).exists():
            return
        rows = list(csv.DictReader(self._lines()))
        tests = [row for row in rows[kept:] if any(value and name.startswith("test/") for name, value in row.items())]
        self._write_whole([*rows[:kept], *tests])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """As the original, but so that a process killed in between leaves the old file whole."""
        self._write_whole(list(csv.DictReader(self._lines())))

    def _header(self) -> list[str]:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader([line for line in [file.readline()] if line.endswith("\n")]), [])

    def _ends_within_a_row(self) -> bool:
        path = Path(self.metrics_file_path)
        if not path.is_file() or not path.stat().st_size:
            return False
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def _lines(self) -> list[str]:
        """The lines of the file, without one that was cut off by a kill or a full disk; none if there is no file."""
        path = Path(self.metrics_file_path)
        lines = path.read_bytes().decode().splitlines(keepends=True) if path.is_file() else []
        return [line for line in lines if line.endswith("\n")]

    def _write_whole(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys)
        if self.metrics_keys:
            writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(self.metrics_file_path), text.getvalue())


def rows_of(trainer: Trainer) -> MetricsCSV | None:
    """The trainer's ``metrics.csv``; None on ranks other than 0, and in a trainer without one."""
    found = (logger for logger in trainer.loggers if isinstance(logger, MetricsCSV))
    return next(found, None) if trainer.is_global_zero else None


class LateWandbLogger(WandbLogger):
    """Lightning's W&B logger, which opens its W&B run with the first values: a command that is refused leaves none."""

    _has_begun = False
    run_folder: Path

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        return super().experiment if self._has_begun else DummyExperiment()

    def begin(self) -> None:
        """Opens the W&B run when it is needed next, and keeps its id in the run's folder."""
        self._has_begun = True
        path = self.run_folder / "wandb_id"
        if not path.is_file():
            write_atomically(path, cast(str, self._id))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.begin()
        super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        self.begin()
        super().log_hyperparams(params)


def wandb_logger(options: WandbOptions, run_folder: Path, experiment: str) -> WandbLogger:
    """The W&B logger of a run: never asks for a key, and keeps one W&B run for one run folder.

    Raises:
        RunError: The package ``wandb`` isn't installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise RunError("W&B is switched on, but not installed: pip install 'relit[wandb]'.") from error
    mode = options.mode or os.environ.get("WANDB_MODE") or ("online" if _has_key(wandb) else "offline")
    logger = LateWandbLogger(
        name=os.environ.get("WANDB_NAME") or f"{experiment}/{run_folder.name}",
        id=wandb_id(run_folder),
        save_dir=os.environ.get("WANDB_DIR") or run_folder.absolute(),
        project=options.project or os.environ.get("WANDB_PROJECT") or "relit",
        entity=options.entity or os.environ.get("WANDB_ENTITY"),
        group=options.group or os.environ.get("WANDB_RUN_GROUP") or experiment,
        tags=options.tags or list(filter(None, os.environ.get("WANDB_TAGS", "").split(","))),
        notes=options.notes or os.environ.get("WANDB_NOTES"),
        mode=mode,
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    logger.run_folder = run_folder
    return logger


def wandb_id(run_folder: Path) -> str:
    """The id of a run folder's W&B run: kept in its file ``wandb_id``, so that every process that works in this folder
    goes on with the same one. A W&B agent chooses it for the runs that it starts."""
    path = run_folder / "wandb_id"
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(5)


def log_configuration(logger: Logger, config: dict[str, Any], run_folder: Path) -> None:
    """Gives a logger the whole configuration of a run; not ``metrics.csv``, which lies next to ``config.yaml``.

    Args:
        logger: Any logger of Lightning's.
        config: The configuration, and ``environment``.
        run_folder: The run's folder.
    """
    if isinstance(logger, CSVLogger):
        return
    if not isinstance(logger, MLFlowLogger):
        logger.log_hyperparams(config)
        return
    # MLflow's parameters never change: a resumed run adds new ones only, and its configuration lies with the artifacts.
    known = logger.experiment.get_run(logger.run_id).data.params
    logger.log_hyperparams({name: value for name, value in flattened(config).items() if name not in known})
    logger.experiment.log_artifact(logger.run_id, str(run_folder / "config.yaml"))


def log_checkpoints(logger: WandbLogger, run_folder: Path, step: int) -> None:
    """Makes W&B artifacts of a run's checkpoints, with the aliases ``last`` (of ``step``) and ``best``."""
    import wandb

    for name in (BEST, LAST):  # in this order, as W&B calls the newest version `latest`
        path = run_folder / CHECKPOINTS / name
        if path.is_file():
            artifact = wandb.Artifact(f"checkpoint-{logger.experiment.id}", "model", metadata={"last_step": step})
            artifact.add_file(str(path))
            logger.experiment.log_artifact(artifact, aliases=[path.stem])


def finish_wandb(exit_code: int = 0, seconds: float | None = None) -> None:
    """Closes the W&B run of this process if one is open; waits for the network for so many seconds, or for ever."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    if seconds is None:
        wandb.finish(exit_code=exit_code)
        return
    finishing = threading.Thread(target=wandb.finish, kwargs={"exit_code": exit_code}, daemon=True)
    finishing.start()
    finishing.join(seconds)


def _has_key(wandb: Any) -> bool:
    return bool(os.environ.get("WANDB_API_KEY")) or bool(wandb.setup().settings.api_key) or _key_in_netrc()


def _key_in_netrc() -> bool:
    import netrc

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def environment(trainer: Trainer) -> dict[str, Any]:
    """What a run runs on and by which command: processor or accelerator, processes, version of torch, commit."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else []
    device = trainer.strategy.root_device
    others = None if device.type == "cpu" else device.type  # such as mps, Apple's GPU
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else others,
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "torch": torch.__version__,
        "git_commit": git_commit(),
        "command": shlex.join(["relit", *sys.argv[1:]]),
    }


def git_commit() -> str | None:
    """The commit of the source tree that relit runs from, with ``+changes`` if files differ; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def as_list(value: Any) -> list[Any]:
    """An argument of the Trainer that may be None, one object or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
