from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import torch

from datamodules.loading import archives
from tests.support.fixtures import Patch
from tests.support.local_server import LocalServer, without_proxies


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The user's cache is an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def default_root(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The data root of a data module that isn't given one is an empty folder."""
    monkeypatch.setenv("RELIT_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def seeds(monkeypatch: Patch) -> None:
    """Fixed seeds of the run and of torch."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    torch.manual_seed(0)


@pytest.fixture
def serve(monkeypatch: Patch) -> Iterator[Callable[[Path], tuple[str, list[str]]]]:
    """Serves a folder by HTTP. Returns the address and a list of the paths that are requested."""
    monkeypatch.setattr(archives, "RETRY_DELAYS", ())
    without_proxies(monkeypatch)
    servers = ExitStack()

    def start(folder: Path) -> tuple[str, list[str]]:
        requested: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, *_: object) -> None:
                requested.append(self.path)

            def log_error(self, *_: object) -> None:
                pass

        server = servers.enter_context(LocalServer(partial(Handler, directory=str(folder))))
        return f"{server.url}/", requested

    with servers:
        yield start
