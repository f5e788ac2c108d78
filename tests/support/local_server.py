"""Servers that tests talk to by HTTP."""

import threading
from http.server import ThreadingHTTPServer
from typing import Any, Self

from tests.support.fixtures import Patch


class LocalServer(ThreadingHTTPServer):
    """Listens at `url`, a free port of this machine, and answers within a ``with`` block."""

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Quiet:
    """A handler that logs no requests among a test's output, and keeps connections open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


def without_proxies(monkeypatch: Patch) -> None:
    """Requests go to their addresses, whatever proxy this machine has."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
