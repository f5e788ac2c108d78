"""Paths as people type them, the user's cache, and locks."""

import errno
import tempfile
import threading
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.base import data_root
from datamodules.loading.paths import expanded, locked, user_cache
from tests.support.data_modules import sizes
from tests.support.folders import make, prepared

pytestmark = pytest.mark.usefixtures("default_root")


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch: pytest.MonkeyPatch,
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


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock"):
        pass


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    assert user_cache().parent == Path(tempfile.gettempdir())
    assert user_cache().name.startswith("relit-")


def test_paths_as_people_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert expanded("~/a") == Path("/home/me/a")
    assert expanded("${SCRATCH}/$SCRATCH") == Path("/scratch//scratch")
    assert expanded("a/../b") == tmp_path / "b"
    (tmp_path / "$5").mkdir()
    assert expanded("$5") == tmp_path / "$5"
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(DataError, match=r"The path \$SCRATCH/data holds \$SCRATCH, but there is no such environment"):
        data_root("$SCRATCH/data")
    with pytest.raises(DataError, match="A path is empty: name a file or folder"):
        expanded("")
    with pytest.raises(DataError, match=r"The path ~no\.one/a begins with ~no\.one, but there is no such home folder"):
        expanded("~no.one/a")
    (tmp_path / "~no.one").mkdir()
    assert expanded("~no.one") == tmp_path / "~no.one"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "RELIT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user id that has no name
    monkeypatch.chdir(tmp_path)
    assert user_cache().is_absolute()
    assert tmp_path not in data_root().parents
