"""The lock of a run's folder, on file systems with and without locks, on one host and on two."""

import errno
import json
import multiprocessing
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_models.errors import RunError
from lit_models.runs import ownership
from lit_models.runs.ownership import LOCK, Ownership
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import wait_until
from tests.support.tiny import TINY

NO_LOCKS = ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL")
OTHER = {"host": "elsewhere", "process": 1, "since": "yesterday"}


def failing(number: int) -> Callable[..., None]:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture
def lockless(monkeypatch: Patch) -> None:
    monkeypatch.setattr("fcntl.flock", failing(errno.ENOLCK))


@pytest.fixture(autouse=True)
def soon(monkeypatch: Patch) -> None:
    for name, seconds in (("HEARTBEAT", 0.05), ("WATCH", 0.5), ("SETTLE", 0.3), ("GLANCE", 0.0)):
        monkeypatch.setattr(ownership, name, seconds)


def on(host: str, run: Path, monkeypatch: Patch) -> Ownership:
    """The lock, taken by this process as if it ran on another host."""
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: host)
        return Ownership(run)


def leave(run: Path, owner: dict[str, Any], seconds_ago: float = 0.0) -> None:
    """The lock of a process that has ended."""
    (run / LOCK).write_text(json.dumps(owner))
    os.utime(run / LOCK, (time.time() - seconds_ago,) * 2)


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_two_hosts_still_have_one_owner(
    tmp_path: Path, monkeypatch: Patch, number: str, capsys: Output
) -> None:
    monkeypatch.setattr("fcntl.flock", failing(getattr(errno, number)))
    first = on("a", tmp_path, monkeypatch)
    with pytest.raises(RunError, match=rf"is being trained by process {os.getpid()} on a .*remove .*/\.lock"):
        on("b", tmp_path, monkeypatch)
    first._ended.set()  # it is killed
    for thread in threading.enumerate():
        if thread.name == "relit's lock":
            thread.join()
    second = on("b", tmp_path, monkeypatch)
    assert f"process {os.getpid()} on a" in (said := capsys.readouterr().err)
    assert "has ended without finishing the run" in said
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "b"
    second.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("lockless")
def test_without_locks_a_process_of_this_host_is_asked(tmp_path: Path) -> None:
    leave(tmp_path, {"host": socket.gethostname(), "process": os.getppid(), "locked": False})
    with pytest.raises(RunError, match=f"is being trained by process {os.getppid()}"):
        Ownership(tmp_path)
    leave(tmp_path, {"host": socket.gethostname(), "process": ended()})
    started = time.monotonic()
    Ownership(tmp_path).release()
    assert time.monotonic() - started < ownership.SETTLE + ownership.WATCH, "without watching its lock"


def test_locks_that_each_host_keeps_to_itself(tmp_path: Path, monkeypatch: Patch) -> None:
    """Lustre with ``localflock``: every host can lock the file."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    first = on("a", tmp_path, monkeypatch)
    with pytest.raises(RunError, match=f"is being trained by process {os.getpid()} on a"):
        on("b", tmp_path, monkeypatch)
    first.release()
    on("b", tmp_path, monkeypatch).release()


def test_an_owner_without_locks_is_seen_from_a_host_that_has_them(tmp_path: Path, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", failing(errno.ENOLCK))
        first = on("a", tmp_path, monkeypatch)
    with pytest.raises(RunError, match="on a "):
        on("b", tmp_path, monkeypatch)
    first.release()


@pytest.mark.parametrize(
    ("owner", "seconds_ago", "watched"), [(OTHER, 0, True), (OTHER, 3600, False), ({}, 0, False)], ids=str
)
def test_a_lock_that_was_left_is_taken_over(
    tmp_path: Path, owner: dict[str, Any], seconds_ago: float, watched: bool, capsys: Output
) -> None:
    leave(tmp_path, owner, seconds_ago)
    Ownership(tmp_path).release()
    said = capsys.readouterr().err
    assert ("may still be training" in said) == watched
    assert ("process 1 on elsewhere (since yesterday) has ended without finishing the run" in said) == bool(owner)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.long
def test_one_that_stood_still_ends_when_it_was_replaced(tmp_path: Path, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", failing(errno.ENOLCK))
        patch.setattr(ownership, "HEARTBEAT", 2.0)
        first = on("a", tmp_path, patch)
        second = on("b", tmp_path, patch)
        first.require()
        wait_until(lambda: first.taken_by, seconds=10)
    with pytest.raises(RunError, match=f"stood still so long that the run .* by process {os.getpid()} on b"):
        first.require()
    second.require()
    first.release()
    assert (tmp_path / LOCK).is_file(), "the second one's"
    second.release()


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize("left", [False, True], ids=["new", "left"])
def test_of_several_at_the_same_moment_one_owns_the_run(tmp_path: Path, left: bool) -> None:
    context = multiprocessing.get_context("fork")
    barrier, end, result = context.Barrier(4), context.Event(), context.Queue()

    def take() -> None:
        barrier.wait()
        try:
            Ownership(tmp_path)
        except RunError:
            result.put("refused")
            return
        result.put("owner")
        end.wait(60)

    if left:
        leave(tmp_path, {**OTHER, "host": socket.gethostname(), "process": ended()})
    processes = [context.Process(target=take) for _ in range(4)]
    for process in processes:
        process.start()
    results = [result.get(timeout=60) for _ in processes]
    end.set()
    for process in processes:
        process.join()
    assert sorted(results) == ["owner", "refused", "refused", "refused"]


def test_a_reader_that_looks_at_the_lock_delays_it_only(tmp_path: Path, monkeypatch: Patch) -> None:
    """As `relit report` does, which locks the file for a moment."""
    import fcntl

    monkeypatch.setattr(ownership, "GLANCE", 5.0)
    flock, calls = fcntl.flock, iter([True, True])

    def busy(file: int, operation: int) -> None:
        if next(calls, False):
            raise BlockingIOError
        flock(file, operation)

    monkeypatch.setattr("fcntl.flock", busy)
    Ownership(tmp_path).release()


def test_what_else_fails_is_a_sentence(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("fcntl.flock", failing(errno.EIO))
    with pytest.raises(RunError, match=r"\.lock can't be locked \(Input/output error\)"):
        Ownership(tmp_path)
    monkeypatch.setattr("os.open", failing(errno.EACCES))
    with pytest.raises(RunError, match=r"can't be opened \(Permission denied\), so another user may be training"):
        Ownership(tmp_path)


@pytest.mark.usefixtures("lockless")
def test_a_training_without_locks(relit: Relit, capsys: Output) -> None:
    fit = ("fit", *TINY, "--run.id=one", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    assert relit(*fit) == 0
    run = Path("runs/dcgan_digits/one")
    assert not (run / LOCK).exists()
    leave(run, {**OTHER, "host": socket.gethostname(), "process": os.getppid()})
    before = (run / "config.yaml").read_bytes()
    assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=2") == 1
    assert re.search(rf"is being trained by process {os.getppid()} on ", capsys.readouterr().err)
    assert (run / "config.yaml").read_bytes() == before


def test_a_refused_start_leaves_alone_what_another_process_began_at_that_moment(
    relit: Relit, monkeypatch: Patch, capsys: Output
) -> None:
    """It has made its lock after this one found the folder empty, or has even saved a checkpoint."""
    folder = Path("runs/dcgan_digits/one")
    taken: list[Ownership] = []

    def begin(run: Path) -> None:
        taken.append(Ownership(run))

    monkeypatch.setattr("lit_models.runs.claim.require_writable", begin)
    assert relit("fit", *TINY, "--run.id=one") == 1
    assert "is being trained by process" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [LOCK]
    taken[0].release()

    def end(run: Path) -> None:
        (run / "checkpoints").mkdir()
        (run / "checkpoints/last.ckpt").write_text("a checkpoint")

    monkeypatch.setattr("lit_models.runs.claim.require_writable", end)
    assert relit("fit", *TINY, "--run.id=one") == 1
    assert "has just got a checkpoint from another process" in capsys.readouterr().err
    assert [path.name for path in folder.rglob("*")] == ["checkpoints", "last.ckpt"]
