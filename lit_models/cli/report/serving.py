"""``relit report FOLDER --watch``: the overview on this machine's own address, refreshed while runs train.

The server listens on the loopback address only, answers GET and HEAD only, and reads nothing outside the folder.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lit_models.cli.report.overview import Overview, is_run, last_sample, thumbnail
from lit_models.errors import RunError

HOST = "127.0.0.1"
FRESH = 1.0
"""Seconds for which an answer about all runs is kept."""


class Server(ThreadingHTTPServer):
    """Answers for one folder of runs.

    Args:
        root: The folder.
        port: The port; 0 for any that is free.

    Raises:
        RunError: The port is in use or not allowed.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        self.root = root.resolve()
        self.overview = Overview(self.root, served=True)
        self._lock = Lock()
        self._answer = (0.0, b"")
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise RunError(f"Port {port} can't be used ({reason}): choose another --port, or 0 for any.") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing if the browser has closed the connection; else the traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def data(self) -> bytes:
        """All runs, as JSON."""
        with self._lock:
            if time.monotonic() - self._answer[0] > FRESH:
                content = json.dumps({"runs": self.overview.runs()}).encode()
                self._answer = (time.monotonic(), content)
            return self._answer[1]

    def folder_of(self, identifier: str) -> Path | None:
        """The run's folder; None unless it is a run within the root."""
        try:
            folder = (self.root / identifier).resolve()
            return folder if folder.is_relative_to(self.root) and is_run(folder) else None
        except (OSError, ValueError):
            return None


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    server_version = "relit"
    sys_version = ""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        # Another site's page, by a name that it points here, is refused (DNS rebinding).
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._answer(403, "text/plain", b"Open the page by its address.")
            return
        parts = urlsplit(self.path)
        given = parse_qs(parts.query)
        if parts.path == "/":
            from lit_models.cli.report.page import render_overview

            page = render_overview(self.server.overview, live=True)
            self._answer(200, "text/html; charset=utf-8", page.encode())
        elif parts.path == "/runs.json":
            self._answer(200, "application/json", self.server.data())
        elif parts.path == "/thumbnail":
            folder = self.server.folder_of(given.get("run", [""])[0])
            sample = None if folder is None else last_sample(folder)
            inside = sample is not None and sample.resolve().is_relative_to(self.server.root)
            content = thumbnail(sample) if sample is not None and inside else None
            # The address names the picture's time, so another picture has another address.
            self._answer(404 if content is None else 200, "image/webp", content or b"", cache="private, max-age=86400")
        elif parts.path == "/report":
            self._report(given.get("run", []))
        elif parts.path == "/favicon.ico":  # every browser asks for it
            self._answer(204, "image/x-icon", b"")
        else:
            self._answer(404, "text/plain", b"There is no such page.")

    do_HEAD = do_GET  # noqa: N815

    def _report(self, identifiers: list[str]) -> None:
        from lit_models.cli.report.page import render
        from lit_models.cli.report.reading import read_record
        from lit_models.runs.reading import read_run

        folders = [self.server.folder_of(identifier) for identifier in identifiers]
        if not folders or None in folders or len(set(identifiers)) < len(identifiers):
            self._answer(404, "text/plain", b"There is no such run.")
            return
        try:
            records = [
                read_record(read_run(folder, name)) for folder, name in zip(folders, identifiers, strict=True) if folder
            ]
            self._answer(200, "text/html; charset=utf-8", render(records)[0].encode())
        except (RunError, OSError) as error:  # half written, or just removed
            self._answer(200, "text/plain; charset=utf-8", str(error).encode())

    def _answer(self, code: int, kind: str, content: bytes, cache: str = "no-store") -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", cache if code == 200 else "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal stays quiet."""


def serve(root: Path, port: int) -> int:
    """Serves until Ctrl-C; returns the exit code."""
    with Server(root, port) as server:
        print(f"The runs in {root} are on {server.address} (Ctrl-C ends it).", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0
