"""Run folders: everything that one run leaves lies in ``runs/<experiment>/<run id>/``.

config.yaml  run.json  metrics.csv  checkpoints/{last,previous,best}.ckpt  samples/  figures/  predictions/  wandb/
"""

import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lit_models.errors import RunError
from lit_models.support.checkpoint_paths import CHECKPOINTS, checkpoint_of, last_checkpoint
from lit_models.support.files import write_atomically

if TYPE_CHECKING:
    from torch.distributed import TCPStore

WORTH_KEEPING = (CHECKPOINTS, "metrics.csv", "tests.json", "samples", "figures", "predictions")
"""What makes a run's folder worth keeping, whatever became of the run."""
_AGREED_RUN = "RELIT_RUN_FOLDER"


@dataclass
class RunOptions:
    """Where a run's folder lies: ``<root>/<experiment>/<id>/``.

    Args:
        experiment: Name of the experiment; if null, the names of model and data set.
        id: Name of the run. If null, the time for a new run, and the newest run of the experiment where an earlier one
            is asked for; within a Slurm job ``slurm-`` and the job's number for both, so that a requeued job goes on in
            its folder and a script may train and then test. (A sweep's agent starts many runs in a job: W&B's name of
            the run comes behind.)
        root: Folder of all experiments.
    """

    experiment: str | None = None
    id: str | None = None
    root: str = "runs"


def new_run_folder(options: RunOptions, for_training: bool = True) -> Path:
    """A folder that no other run has, made now; the ranks of one run get the same.

    Args:
        options: Where.
        for_training: Whether a named run that has a checkpoint is refused; in a test or prediction it is joined.

    Raises:
        RunError: The run has begun already, or the folder can't be made.
    """
    if agreed := os.environ.get(_AGREED_RUN):
        return Path(agreed)
    folder = _experiment_folder(options)
    if options.id is not None:
        run = folder / checked_name(options.id, "--run.id")
        if for_training and not is_restarted() and last_checkpoint(run) is not None:
            raise RunError(
                f"There is a run {run} already: go on with it by --ckpt_path last, or choose another --run.id."
            )
        return _made(run)
    if name := _name_in_job():
        run = folder / name
        if not is_restarted() and last_checkpoint(run) is not None:
            raise RunError(
                f"The Slurm job {slurm_job()} has a run in {run} already: give this one another name by --run.id."
            )
        return _made(run)
    if _has_torchruns_store():
        return _agreed_over_torchrun(folder)
    return _unused(folder)


def require_agreement(options: RunOptions) -> None:
    """Refuses a run of several nodes for which each would make another folder.

    Raises:
        RunError: It has no name, and neither Slurm nor torchrun passes one on.
    """
    if options.id is None and _AGREED_RUN not in os.environ and not (_name_in_job() or _has_torchruns_store()):
        raise RunError(
            "Without Slurm or torchrun, several nodes (--trainer.num_nodes) need the same --run.id NAME, by which they "
            "find the run's folder: add it on each node."
        )


def slurm_job() -> str | None:
    """What Slurm's commands call the batch job that this process belongs to, None if it belongs to none.

    Interactive sessions don't count: one may hold many runs.
    """
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    # The number of an array's last task is also that of the whole array.
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def is_restarted() -> bool:
    """Whether Slurm has requeued this job, or torchrun has restarted its processes."""
    return any(int(os.environ.get(f"{starter}_RESTART_COUNT") or 0) for starter in ("SLURM", "TORCHELASTIC"))


def checkpoint_before_restart(options: RunOptions, began_by_going_on: bool) -> Path | None:
    """The checkpoint that a restarted job goes on from; None for a new job, or if it had none yet.

    Args:
        options: Where the run lies.
        began_by_going_on: Whether the job was given a checkpoint, so that its run may be another one's.
    """
    if not is_restarted():
        return None
    folder = _experiment_folder(options)
    if options.id is not None:
        return last_checkpoint(folder / checked_name(options.id, "--run.id"))
    if name := _name_in_job():
        note = folder / f".{name}"
        return last_checkpoint(
            Path(note.read_text(encoding="utf-8")) if began_by_going_on and note.is_file() else folder / name
        )
    if _has_torchruns_store():
        store, key = _torchruns_store(), _torchruns_key(folder)
        return last_checkpoint(Path(store.get(key).decode())) if store.check([key]) else None
    return None


def remember_for_restart(options: RunOptions, run: Path) -> None:
    """Notes which run this job trains, if that isn't the one that it would make: one that it goes on with, which need
    not be the newest one any more when the job is restarted."""
    if options.id is not None:
        return
    folder = _experiment_folder(options)
    if name := _name_in_job():
        if os.environ.get("SLURM_PROCID", "0") == "0" and run.absolute() != (folder / name).absolute():
            _made(folder)
            write_atomically(folder / f".{name}", str(run.absolute()))
    elif _has_torchruns_store() and os.environ["RANK"] == "0":
        _torchruns_store().set(_torchruns_key(folder), str(run.absolute()))


def announce_to_child_ranks(folder: Path | None) -> None:
    """Passes the run's folder on to the processes that Lightning starts for the other ranks."""
    if folder is None:
        os.environ.pop(_AGREED_RUN, None)
    else:
        os.environ[_AGREED_RUN] = str(folder.absolute())


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, or None if it lies elsewhere."""
    folder = checkpoint.absolute().parent.parent
    inside = checkpoint.parent.name == CHECKPOINTS and (folder / "config.yaml").is_file()
    return folder if inside else None


def find_checkpoint(which: str, options: RunOptions) -> Path:
    """The file that ``--ckpt_path`` means.

    Args:
        which: ``last`` or ``best`` of the experiment's newest run (or of the run ``options.id``), a file, or the folder
            of a run or experiment, of which the last one is meant.
        options: Where to look.

    Raises:
        RunError: There is no such file.
    """
    if which not in ("last", "best"):
        path = Path(which).expanduser()
        if path.is_dir() and (found := [last for run in (path, *path.glob("*")) if (last := last_checkpoint(run))]):
            return max(found, key=lambda one: one.stat().st_mtime)
        if not path.is_file():
            raise RunError(
                f"There is no checkpoint {which}: --ckpt_path takes a file, a run's folder, `last` or `best`."
            )
        return path
    folder = _experiment_folder(options)
    runs = [folder / options.id] if options.id is not None else sorted(folder.glob("*"))
    if options.id is None and (own := folder / str(_name_in_job())).is_dir():
        runs = [own]
    if agreed := os.environ.get(_AGREED_RUN):  # by now another run may be newer
        runs = [Path(agreed)]
    found = list(filter(None, (checkpoint_of(run, which) for run in runs)))
    if not found:
        where = f"The run {folder / options.id}" if options.id is not None else f"No run in {folder}"
        has = "has no" if options.id is not None else "has a"
        remedy = (
            "name another run by --run.id, or a file by --ckpt_path; `relit fit` without --ckpt_path starts a new run"
            if which == "last"
            else "take `--ckpt_path last`, or train with --checkpoint.monitor naming a metric, so that the best is kept"
        )
        raise RunError(f"{where} {has} {CHECKPOINTS}/{which}.ckpt: {remedy}.")
    return max(found, key=lambda path: path.stat().st_mtime)


def has_begun(run: Path) -> bool:
    """Whether a run's folder holds anything worth keeping."""
    return any((run / kept).exists() for kept in WORTH_KEEPING)


def remove_if_empty_handed(folder: Path) -> None:
    """Removes the folder of a run that failed before it had anything to show, and its parents if they are empty."""
    if not has_begun(folder):
        shutil.rmtree(folder, ignore_errors=True)
        remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Removes a run's folder, and its parents, as far as they are empty."""
    for one in (folder, folder.parent, folder.parent.parent):
        with suppress(OSError):  # it isn't empty, or is gone
            one.rmdir()


def require_writable(folder: Path) -> None:
    """Refuses a run folder that nothing can be written into.

    Raises:
        RunError: It is read-only, or its disk is full.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable") as file:
            file.write(bytes(4096))
    except OSError as error:
        raise RunError(
            f"The run folder {folder} can't be written into ({error.strerror}): make it writable or make room; or copy "
            "the checkpoint elsewhere and name it by --ckpt_path, which starts a separate run below --run.root."
        ) from error


def _name_in_job() -> str | None:
    """What the run of a Slurm job is called, None outside of one."""
    job = slurm_job()
    if job is None:
        return None
    of_a_sweep = "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ
    return f"slurm-{job}-{os.environ['WANDB_RUN_ID']}" if of_a_sweep else f"slurm-{job}"


def _experiment_folder(options: RunOptions) -> Path:
    assert options.experiment is not None, "the command fills in the experiment's name"
    return Path(options.root).expanduser() / checked_name(options.experiment, "--run.experiment")


def checked_name(name: str, option: str) -> str:
    """The name of a run or an experiment.

    Raises:
        RunError: It can't name a folder.
    """
    if not re.fullmatch(r"[\w.+=@-]+", name) or name.strip(".") == "":
        raise RunError(f"{option} is {name!r}, which can't name a folder: use letters, digits and . _ - + = @ only.")
    return name


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"The run folder {folder} can't be made ({error.strerror}): choose another place with --run.root."
        ) from error
    return folder


def _unused(folder: Path) -> Path:
    """A new folder named after the time; `mkdir` makes sure that of two runs started at once each gets its own."""
    _made(folder)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for count in range(1000):
        run = folder / (f"{stamp}-{count}" if count else stamp)
        try:
            run.mkdir()
            return run
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(
                f"The run folder {run} can't be made ({error.strerror}): choose another place with --run.root."
            ) from error
    raise RunError(f"There are a thousand runs named {stamp} in {folder}: choose another --run.id.")


def _agreed_over_torchrun(folder: Path) -> Path:
    """Under torchrun rank 0 chooses; the others read it from torchrun's own store (also after a restart)."""
    store, key = _torchruns_store(), _torchruns_key(folder)
    if os.environ["RANK"] == "0" and not store.check([key]):
        store.set(key, str(_unused(folder).absolute()))
    return Path(store.get(key).decode())


def _has_torchruns_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _torchruns_store() -> "TCPStore":
    from torch.distributed import TCPStore

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _torchruns_key(folder: Path) -> str:
    return f"relit/run_folder/{folder}"
