"""Runs that are told to stop: Slurm's warnings, ``kill``, ``scancel``."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_models.runs.checkpoints import checkpoints_of
from lit_models.runs.folder import slurm_job
from lit_models.runs.loggers import finish_wandb
from lit_models.support.checkpoint_paths import CHECKPOINTS, LAST
from lit_models.support.lightning_internals import accumulates, leave_signals_alone, validation_follows

WARNING: signal.Signals | None = getattr(signal, "SIGUSR1", None)
"""Slurm's warning; None on Windows."""
SIGNALS = (*([] if WARNING is None else [WARNING]), signal.SIGTERM)
AGREE_EVERY = 1.0
"""Seconds after which the ranks ask each other whether one has got a signal; a batch, if that takes longer."""
WANDB_SECONDS = 60
"""As long at most W&B's network is waited for, of the time until Slurm kills the job."""
MOST_BATCHES = 50
"""As many batches at most, since some may take longer than those before."""


class Preemption(Checkpoint):
    """Saves ``last.ckpt`` and ends the run when the process gets SIGUSR1 or SIGTERM; under Slurm, requeues the job.

    The signal is only noted where it arrives. At the end of a batch, of training or of validation, all ranks agree that
    one of them has it, and save a checkpoint together; saving from within the signal, as Lightning's own requeue does,
    waits for ever if the ranks are at different places. A run that is interrupted in validation goes on with the whole
    validation. Then the process ends with the exit code that a shell gives to a process that was killed by the signal,
    128 + its number: 138 or 143, never 0, so that nothing takes the run for finished.

    SIGUSR1 is the warning that ``#SBATCH --signal=USR1@180`` asks for: the job is put back into the queue, where it
    waits for its next turn and goes on in the same run folder. SIGTERM comes with ``scancel``, with the time limit, and
    with preemption: without a SIGUSR1 before it, the job is requeued only if Slurm says that it makes room for another
    one.

    Lightning calls it, as it does all that save checkpoints, after other callbacks: when it ends the run, they have
    done their part.
    """

    def __init__(self) -> None:
        self._received: set[signal.Signals] = set()
        self._agreed: set[signal.Signals] = set()
        self._is_saved = False
        self._is_resumed = False
        self._interrupts_validation = False
        self._batches = 0
        self._next_agreement = 0
        self._last_agreement = (0, 0.0)
        self._validation_batches = 0
        self._handlers_before: dict[signal.Signals, Any] = {}

    # --- the signal ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handler of SIGTERM, set later, waits for the other ranks from within the signal; and before
        # each batch all ranks would wait for what rank 0 has got.
        leave_signals_alone(trainer)
        # A test has nothing to save, and may yet finish in the time that is left.
        handlers: dict[signal.Signals, Any] = dict.fromkeys(SIGNALS, self._note) if stage == "fit" else {}
        if stage != "fit" and WARNING is not None:
            handlers[WARNING] = signal.SIG_IGN
        for number, handler in handlers.items():
            self._handlers_before[number] = signal.signal(number, handler)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self._handlers_before = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.add(signal.Signals(number))

    # --- where it is acted upon ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_counting()
        self._is_resumed = trainer.ckpt_path is not None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._ranks_agree(trainer) or accumulates(trainer):
            return
        # What comes after an epoch's last batch, or before a validation, belongs to the checkpoint.
        if not trainer.is_last_batch and not validation_follows(trainer):
            checkpoints_of(trainer).save(trainer, pl_module, LAST)
            self._is_saved = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Only now, as the metrics of the batch before are logged after its end. An epoch before this one has left its
        # own checkpoint.
        place = f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1} of {trainer.num_training_batches}"
        if self._is_saved or (self._agreed and batch_idx == 0):
            self._leave(trainer, f"before {place}")
        if self._is_resumed and trainer.is_global_zero and (trainer.current_epoch, batch_idx) != (0, 0):
            print(f"relit: going on with {place}.", file=sys.stderr)
        self._is_resumed = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._start_counting()
        # Ranks may have different numbers of validation batches; they agree in those that all have.
        own = torch.tensor(int(min(trainer.num_val_batches)), device=trainer.strategy.root_device)
        self._validation_batches = int(trainer.strategy.reduce(own, reduce_op="min"))
        if self._agreed and not accumulates(trainer):
            self._leave_validation(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        agree = batch_idx < self._validation_batches and self._ranks_agree(trainer)
        if agree and not accumulates(trainer):
            self._leave_validation(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._interrupts_validation:
            # What Lightning reads as "in the first validation batch"; at the place where it really is, it would go on
            # with the next batch and without the sums of those before.
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress.update(total=begun, current=dict(begun))

    def _start_counting(self) -> None:
        """Batches of another kind begin, whose pace isn't known."""
        self._next_agreement = 0
        self._last_agreement = (self._batches, time.monotonic())

    def _ranks_agree(self, trainer: Trainer) -> bool:
        """Whether a signal has come to any rank; all ranks get the same answer after the same batch."""
        if trainer.world_size == 1:
            self._agreed = set(self._received)
        if self._agreed or trainer.world_size == 1:
            return bool(self._agreed)
        self._batches += 1
        if self._batches < self._next_agreement:
            return False
        batches, moment = self._last_agreement
        pace = (time.monotonic() - moment) / (self._batches - batches)
        received = [float(one in self._received) for one in SIGNALS]
        own = torch.tensor([*received, pace], dtype=torch.float32, device=trainer.strategy.root_device)
        *received, pace = cast(torch.Tensor, trainer.strategy.reduce(own, reduce_op="max")).tolist()
        self._last_agreement = (self._batches, time.monotonic())
        self._next_agreement = self._batches + min(MOST_BATCHES, max(1, int(AGREE_EVERY / pace)))
        self._agreed = {one for one, got in zip(SIGNALS, received, strict=True) if got}
        return bool(self._agreed)

    def _leave_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interrupts_validation = True
        checkpoints_of(trainer).save(trainer, pl_module, LAST)
        self._leave(trainer, f"in the validation of epoch {trainer.current_epoch + 1}")

    def _leave(self, trainer: Trainer, place: str) -> None:
        number = max(self._agreed)
        checkpoints = checkpoints_of(trainer)
        checkpoints.put_in_place(trainer)
        if trainer.is_global_zero:
            finish_wandb(exit_code=128 + number, seconds=WANDB_SECONDS)
            path = Path(trainer.default_root_dir) / CHECKPOINTS / LAST
            saved = f"all is in {path}"
            if checkpoints.saved_step != trainer.global_step:
                saved = f"as the training has diverged, {path} is of step {checkpoints.saved_step}"
            told = _requeue(is_asked_for=WARNING in self._agreed)
            print(f"relit: stopped by {number.name} {place}; {saved}. {told}", file=sys.stderr)
        # Where one task's end ends the others, rank 0 would have no time to requeue the job.
        trainer.strategy.barrier("preemption")
        raise SystemExit(128 + number)


def _requeue(is_asked_for: bool) -> str:
    """Puts the Slurm job back into the queue if that is asked for, or if the job makes room for another one; says what
    becomes of the run."""
    by_hand = "`--ckpt_path last` goes on from there."
    job = slurm_job()
    if job is None:
        return by_hand
    if not is_asked_for and not _makes_room(job):
        return f"Slurm's job {job} isn't requeued; {by_hand}"
    try:
        _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired) else None
        reason = said or error
        return f"Slurm's job {job} couldn't be requeued ({str(reason).strip()}); {by_hand}"
    return f"Slurm's job {job} is requeued, and goes on from there."


def _makes_room(job: str) -> bool:
    """Whether Slurm ends this job because another one needs its place."""
    try:
        found = re.search(r"PreemptTime=(\S+)", _scontrol("show", "job", job))
    except (OSError, subprocess.SubprocessError):
        return False
    return found is not None and found[1] != "None"


def _scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout
