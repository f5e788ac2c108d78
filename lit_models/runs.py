"""Run folders: everything that one run leaves lies in ``runs/<experiment>/<run id>/``.

config.yaml  run.json  metrics.csv  checkpoints/{last,previous,best}.ckpt  samples/  figures/  predictions/  wandb/
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from lit_models.errors import RunError

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_AGREED_RUN = "RELIT_RUN_FOLDER"


@dataclass
class RunOptions:
    """Where a run's folder lies: ``<root>/<experiment>/<id>/``.

    Args:
        experiment: Name of the experiment; if null, the names of model and data set.
        id: Name of the run. If null, the time for a new run, and the newest run of the experiment where an earlier one
            is asked for; within a Slurm job ``slurm-`` and the job's number for both, so that a requeued job goes on in
            its folder and a script may train and then test.
        root: Folder of all experiments.
    """

    experiment: str | None = None
    id: str | None = None
    root: str = "runs"


def new_run_folder(options: RunOptions) -> Path:
    """A folder that no other run has, made now; the ranks of one run get the same."""
    if agreed := os.environ.get(_AGREED_RUN):
        return Path(agreed)
    folder = _experiment_folder(options)
    if options.id is not None:
        return _made(folder / _checked_name(options.id, "--run.id"))
    if job := slurm_job():
        run = folder / f"slurm-{job}"
        if not is_restarted() and _checkpoint(run, "last") is not None:
            raise RunError(
                f"The Slurm job {job} has a run in {run} already: give this one a name of its own, --run.id."
            )
        return _made(run)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _agreed_over_torchrun(folder)
    return _unused(folder)


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


def checkpoint_before_restart(options: RunOptions) -> Path | None:
    """The checkpoint that a restarted job goes on from; None for a new job, or if it had none yet."""
    if not is_restarted() or (options.id is None and slurm_job() is None and "TORCHELASTIC_RUN_ID" not in os.environ):
        return None
    return _checkpoint(new_run_folder(options), "last")


def announce_to_child_ranks(folder: Path | None) -> None:
    """Tells the processes that Lightning starts for the other ranks where the run's folder is."""
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
        which: ``last`` or ``best`` of the experiment's newest run (or of the run ``options.id``), or a file.
        options: Where to look.

    Raises:
        RunError: There is no such file.
    """
    if which not in ("last", "best"):
        path = Path(which)
        if not path.is_file():
            raise RunError(f"There is no checkpoint {which}: --ckpt_path takes a file, or `last` or `best`.")
        return path
    folder = _experiment_folder(options)
    runs = [folder / options.id] if options.id is not None else sorted(folder.glob("*"))
    if options.id is None and (own := folder / f"slurm-{slurm_job()}").is_dir():
        runs = [own]
    found = list(filter(None, (_checkpoint(run, which) for run in runs)))
    if not found:
        what = f"The run {folder / options.id}" if options.id is not None else f"No run in {folder}"
        remedy = (
            "leave --ckpt_path out to start one"
            if which == "last"
            else "take `--ckpt_path last`, or train with --checkpoint.monitor naming a metric, so that the best is kept"
        )
        raise RunError(f"{what} has a {CHECKPOINTS}/{which}.ckpt: {remedy}.")
    return max(found, key=lambda path: path.stat().st_mtime)


def checkpoint_in(folder: Path) -> Path | None:
    """Of a run's folder its ``best.ckpt``, or ``last.ckpt`` if it has no best; of an experiment's folder that of its
    newest run; None if there is none."""
    for name in ("best.ckpt", "last.ckpt"):
        found = [*folder.glob(f"{CHECKPOINTS}/{name}"), *folder.glob(f"*/{CHECKPOINTS}/{name}")]
        if found:
            return max(found, key=lambda file: file.stat().st_mtime)
    return None


def remove_if_empty_handed(folder: Path) -> None:
    """Removes the folder of a run that failed before it had anything to show."""
    if not any((folder / kept).exists() for kept in (CHECKPOINTS, "metrics.csv", "samples", "figures", "predictions")):
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a killed process leaves the old one whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(text.encode())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)


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
            "the checkpoint elsewhere and name it by --ckpt_path, which starts a run of its own below --run.root."
        ) from error


def _checkpoint(run: Path, which: str) -> Path | None:
    """A run's ``last`` or ``best`` checkpoint, None if it has none yet."""
    # A process that is killed just between two renames leaves `previous.ckpt` alone.
    names = (LAST, PREVIOUS) if which == "last" else (BEST,)
    return next(filter(Path.is_file, (run / CHECKPOINTS / name for name in names)), None)


def _experiment_folder(options: RunOptions) -> Path:
    assert options.experiment is not None, "the command fills in the experiment's name"
    return Path(options.root).expanduser() / _checked_name(options.experiment, "--run.experiment")


def _checked_name(name: str, option: str) -> str:
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
    """Under torchrun rank 0 chooses, and tells the others through torchrun's own store (also after a restart)."""
    store = torch.distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"relit/run_folder/{folder}"
    if os.environ["RANK"] == "0" and not store.check([key]):
        store.set(key, str(_unused(folder)))
    return Path(store.get(key).decode())
