"""Small runs that many tests share, and callbacks that disturb them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_models.runs.folder import is_restarted
from lit_models.support.files import write_atomically
from tests.support.compare import assert_alike
from tests.support.processes import exit_code_in_a_fork

CONFIGS = Path(__file__).parents[2] / "configs"

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")


def quick_run(config: str, *arguments: str, **parts: dict[str, Any]) -> tuple[str, ...]:
    """The arguments of a command that prints little: a configuration, what it is given, and values of its parts.

    Args:
        config: The configuration's name.
        *arguments: Such as ``--data=Digits``.
        **parts: By "model", "data" or "trainer": values by name.
    """
    values = [f"--{part}.{name}={value}" for part, given in parts.items() for name, value in given.items()]
    return "--config", str(CONFIGS / f"{config}.yaml"), *arguments, *values, *QUIET


TINY = quick_run("dcgan_digits", model={"feature_maps": 2, "latent_dim": 4}, trainer={"max_epochs": 3})
"""20 batches an epoch of a network that takes a few milliseconds a step."""


def assert_refused(relit: Callable[..., int], output: Any, *command: str, sentence: str) -> None:
    """The command fails with a sentence, without a traceback and without a run.

    Args:
        relit: The fixture that runs a command.
        output: The fixture `capsys`.
        *command: The command.
        sentence: A part of what is printed.
    """
    assert relit(*command) != 0
    error = output.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not Path("runs").exists()


class KillAt(Callback):
    """Kills the process with SIGKILL after a training batch, or at an epoch's end (a batch counts from 1)."""

    def __init__(self, batch: int = 0, epoch_end: int = 0) -> None:
        self.batch = batch
        self.epoch_end = epoch_end
        self.seen = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += 1
        if self.seen == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch_end:
            os.kill(os.getpid(), signal.SIGKILL)


class PoisonAt(Callback):
    """Makes a weight NaN before a training batch (which counts from 1)."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


class LimitFilesAt(Callback):
    """From a training batch on (which counts from 1), no file of this process may grow beyond a size in bytes."""

    def __init__(self, batch: int, size: int) -> None:
        self.batch = batch
        self.size = size

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            import resource  # Windows has none

            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


class InterruptAt(Callback):
    """Presses Ctrl-C after a training batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            raise KeyboardInterrupt


class Pace(Callback):
    """Takes its time, until the job is restarted, and tells in the file ``rank<n>`` its process and its last batch."""

    def __init__(self, seconds: float) -> None:
        self.seconds = 0.0 if is_restarted() else seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        batch = trainer.fit_loop.total_batch_idx + 1
        write_atomically(Path(f"rank{trainer.global_rank}"), f"{os.getpid()} {batch}")
        time.sleep(self.seconds)

    @staticmethod
    def read(rank: int, folder: Path) -> tuple[int, int]:
        """The process of a rank, and the batch (from 1) that it has done; zeros before the first."""
        path = folder / f"rank{rank}"
        process, batch = path.read_text().split() if path.is_file() else ("0", "0")
        return int(process), int(batch)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: the bytes of files, None for folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def the_run(root: Path = Path("runs")) -> Path:
    """The only run below ``runs/``."""
    (run,) = root.glob("*/*")
    return run


def finished_run(root: Path, *arguments: str) -> Path:
    """The folder below ``root`` of a run that nothing has disturbed."""
    from lit_models.__main__ import main

    assert main(["fit", *arguments, f"--run.root={root}"]) == 0
    return the_run(root)


def killed_fit(relit: Callable[..., int], *arguments: str) -> None:
    """Runs ``relit fit`` in a forked process, which a callback or another process kills."""
    assert exit_code_in_a_fork(relit, "fit", *arguments) == -signal.SIGKILL


def killer(**moment: int) -> list[str]:
    """The arguments that add :class:`KillAt`."""
    return [f"--trainer.callbacks+={__name__}.KillAt", *(f"--trainer.callbacks.{k}={v}" for k, v in moment.items())]


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, metrics and pictures are equal, bit for bit."""
    assert_alike(weights(run), weights(other), "weights")
    best, expected_best = ((one / "checkpoints" / "best.ckpt") for one in (run, other))
    assert best.is_file() == expected_best.is_file()
    if best.is_file():
        steps = [torch.load(path, weights_only=True)["global_step"] for path in (best, expected_best)]
        assert steps[0] == steps[1]
    assert (run / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    for grid in other.glob("samples/*.png"):
        assert (run / "samples" / grid.name).read_bytes() == grid.read_bytes()


NOT_OF_THE_TRAINING = {"callbacks", "config", "loops"}
"""Of a checkpoint: folders, what killed the run, and batches that were begun before the kill."""


def assert_same_training(run: Path, other: Path) -> None:
    """As `assert_same_run`; and the last checkpoints are equal in optimizers, schedules and what a method adds."""
    assert_same_run(run, other)
    last, expected = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (run, other))
    assert last.keys() == expected.keys()
    for name in expected.keys() - NOT_OF_THE_TRAINING:
        assert_alike(last[name], expected[name], name)
