from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from datamodules.loading import archives
from tests.support.fixtures import Patch


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
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> tuple[str, list[str]]:
        requested: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, *_: object) -> None:
                requested.append(self.path)

            def log_error(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))))
        Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/", requested

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
