import os

# Before torch is imported: runs that are compared bit for bit must compute with the same number of threads, also those
# in other processes; and with anything else on the machine, one thread is faster than two.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"

import gc
import re
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from lit_models.cli import versions
from tests.support.fixtures import Patch, Relit

torch.set_num_threads(1)
# The first backward pass starts autograd's threads, one for each kind of device that is known by then, and after that a
# process can't be forked for a training. An export makes more kinds known; here there is none.
torch.ones((), requires_grad=True).backward()

# It waits for the disk, some milliseconds for each checkpoint, which only a loss of power could show. A closed or wrong
# file remains an error.
os.fsync = lambda file: os.fstat(file if isinstance(file, int) else file.fileno())

if os.name == "nt":
    # What kills, forks or limits processes as only POSIX can; the rest runs in hosted CI.
    _POSIX = re.compile(r"\b(SIGKILL|SIGUSR1|KillAt|killpg|fcntl|resource)\b|os\.fork|start_new_session")
    _TESTS = Path(__file__).parent.rglob("test_*.py")
    collect_ignore = [str(path) for path in _TESTS if _POSIX.search(path.read_text(encoding="utf-8"))]


# Each command compares the versions of the packages, whose metadata take longer to read than most tests.
versions.requires, versions.version = cache(versions.requires), cache(versions.version)

LONGEST = (
    *("test_kernels.py", "test_fake_cuda.py", "test_site.py", "test_compile.py", "test_types.py"),
    *("test_add_a_method.py", "test_configs.py", "test_distributed.py", "test_docs.py", "test_preemption.py"),
    *("test_resume.py", "test_reproduce.py", "test_sweep.py", "test_laptops.py", "test_cuda_on_cpu.py"),
    *("test_every_moment.py", "test_options.py", "test_rows.py", "test_typed_modules.py"),
)
"""Files that take long, more than by the number of their tests."""


def pytest_configure(config: pytest.Config) -> None:
    """Has xdist take the files in the order below."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)  # when the tests to run are known
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each of several processes, starts with the longest files, then those of the most tests: a long file that came
    last would keep one process busy after the others have ended."""
    if hasattr(config, "workerinput"):
        count = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path.name not in LONGEST, -count[item.path], item.path))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Has the processes that a test starts and interrupts hear Ctrl-C, whatever started pytest and whatever a test
    before has left: what a shell puts in the background ignores it, and so does a process in which Lightning has ended
    a training by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@pytest.fixture(scope="module", autouse=True)
def _frozen_imports() -> None:
    """What was imported by now stays. Garbage collections leave it out, which would take up to seconds each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which the digits are prepared."""
    from datamodules import Digits

    root = tmp_path_factory.mktemp("data")
    Digits(root=str(root)).prepare_data()
    return root


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of a run of ``tests.support.tiny.TINY`` that nothing has disturbed."""
    from tests.support.tiny import TINY, finished_run

    return finished_run(tmp_path_factory.mktemp("whole"), *TINY, f"--data.root={digits_root}")


DRAWINGS = ("runs.curves.draw_curves", "callbacks.cells.draw_genotype", "callbacks.cells.draw_search")
"""What draws a picture at the end of each training, or of each epoch of DARTS, in a good part of a short run's time."""


@pytest.fixture
def relit(tmp_path: Path, monkeypatch: Patch, digits_root: Path, request: pytest.FixtureRequest) -> Iterator[Relit]:
    """Runs the command in this process, in an empty folder, with the prepared digits; returns its exit code.

    Curves and cells are pictures of a few pixels, unless the test is marked by `draws`.
    """
    from lit_models.__main__ import main

    if request.node.get_closest_marker("draws") is None:
        for name in DRAWINGS:
            monkeypatch.setattr(f"lit_models.{name}", draw_a_few_pixels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELIT_DATA", str(digits_root))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr("sys.argv", ["relit"])
    with warnings.catch_warnings():
        yield lambda *args: main([str(arg) for arg in args])
    for name in ("PL_GLOBAL_SEED", "RELIT_MODULES"):
        os.environ.pop(name, None)


def draw_a_few_pixels(content: object, path: Path, title: str = "") -> Path:
    """Takes the place of a function that draws a picture."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.fixture
def finished(relit: Relit, uninterrupted: Path) -> Path:
    """The folder of a run of ``tests.support.tiny.TINY`` that has finished, below ``runs/`` in this test's folder."""
    folder = Path("runs/dcgan_digits") / uninterrupted.name
    shutil.copytree(uninterrupted, folder)
    return folder


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A Slurm job, number 17, of one process that was started without srun; returns the file that lists the calls of
    ``scontrol``."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    scontrol = programs / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho "JobId=17 PreemptTime=${{PREEMPT_TIME:-None}}"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    return calls
