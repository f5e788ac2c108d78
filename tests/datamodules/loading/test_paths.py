"""Paths as people type them, and the user's cache."""

import tempfile
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.base import data_root
from datamodules.loading.paths import expanded, user_cache
from tests.support.fixtures import Patch


def test_a_user_without_a_home_has_a_cache(monkeypatch: Patch) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    assert user_cache().parent == Path(tempfile.gettempdir())
    assert user_cache().name.startswith("relit-")


def test_paths_as_people_type_them(tmp_path: Path, monkeypatch: Patch) -> None:
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


def test_a_user_without_a_home(monkeypatch: Patch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "RELIT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user id that has no name
    monkeypatch.chdir(tmp_path)
    assert user_cache().is_absolute()
    assert tmp_path not in data_root().parents
