"""Locks of files between processes, also where there is no `flock`."""

import errno
import threading
from pathlib import Path

import pytest

from datamodules.loading.paths import locked
from tests.support.data_modules import sizes
from tests.support.fixtures import Patch
from tests.support.folders import make, prepared

pytestmark = pytest.mark.usefixtures("default_root")


@pytest.fixture
def no_flock(monkeypatch: Patch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_file_is_the_lock(tmp_path: Path) -> None:
    """Some network file systems have no ``flock``; two processes must still not write at once."""
    folder = make(tmp_path / "data", a=4)
    data = prepared(folder, root=str(tmp_path / "root"))
    assert sum(sizes(data)) == 4
    lock = tmp_path / "root" / "lock"
    events: list[str] = []

    def other() -> None:
        with locked(lock):
            events.append("other")

    with locked(lock):
        assert (tmp_path / "root" / "lock.held").exists()
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        events.append("first")
    waiting.join(20)
    assert events == ["first", "other"]
    assert not (tmp_path / "root" / "lock.held").exists()


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_process_says_for_what_it_waits(
    tmp_path: Path,
    monkeypatch: Patch,
    request: pytest.FixtureRequest,
    recwarn: pytest.WarningsRecorder,
    has_locks: bool,
) -> None:
    if not has_locks:
        request.getfixturevalue("no_flock")
    monkeypatch.setattr("datamodules.loading.paths.PATIENCE", 0.05)

    def wait() -> None:
        with locked(tmp_path / "lock"):
            pass

    with locked(tmp_path / "lock"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(20)
    (said,) = (str(one.message) for one in recwarn)
    assert said.startswith(f"Waiting for another process, which holds {tmp_path / 'lock'}")
    assert said.endswith("If there is none, remove that file.") != has_locks


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: Patch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock"):
        pass
