"""A small stand-in for the Hugging Face Hub's server.

It takes new repositories and commits of small files, lists them and hands them out, as ``huggingface_hub`` (2.4) asks
for it. It shows what the client sends, not that the real Hub takes it.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.support.local_server import LocalServer, Quiet

TOKEN = "hf_stand_in"


@dataclass
class Repository:
    """A repository's newest commit.

    Attributes:
        private: Whether only its owner sees it.
        files: Contents by name.
        messages: Those of the commits.
    """

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class HubServer(LocalServer):
    """The server.

    Attributes:
        repositories: By ``OWNER/NAME``.
        downloaded: Names of the files that were handed out.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.downloaded: list[str] = []
        super().__init__(_Handler)

    def environment(self, cache: Any) -> dict[str, str]:
        """The environment variables with which ``huggingface_hub`` talks to this server."""
        known = {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
        return {**known, "HF_HUB_OFFLINE": "0"}  # the playground, in the same process, sets it

    def commit(self, name: str, lines: bytes) -> dict[str, Any]:
        """Stores a commit, of which each line is an operation in JSON."""
        repository = self.repositories[name]
        for line in filter(None, lines.split(b"\n")):
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                repository.messages.append(value["summary"])
            else:
                assert operation["key"] == "file", operation["key"]
                repository.files[value["path"]] = base64.b64decode(value["content"])
        address = f"{self.url}/{name}/commit/{repository.commit}"
        return {"success": True, "commitOid": repository.commit, "commitUrl": address}


class _Handler(Quiet, BaseHTTPRequestHandler):
    server: HubServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Invalid username or password.")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_new = name not in self.server.repositories
            self.server.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
            self._reply({"url": f"{self.server.url}/{name}"}, 200 if is_new else 409)
        elif path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self._reply({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", path):
            if found[2] == "commit":
                self._reply(self.server.commit(found[1], body))
            else:
                names = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                self._reply({"files": modes})
        else:
            self._refuse(404, "Unknown address")

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/(\w+))?", path)
        file = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/([\w.-]+)", path)
        asked = found or file
        repository = None if asked is None else self.server.repositories.get(asked[1])
        if repository is None:
            self._refuse(404, "Repository not found", "RepoNotFound")
        elif found is not None and found[2] == "revision" and found[3] != "main":
            self._refuse(404, "Revision not found", "RevisionNotFound")
        elif file is not None:
            content = repository.files[file[3]]
            headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            if self.command == "GET":
                self.server.downloaded.append(file[3])
            self._send(200, content, "application/octet-stream", headers)
        elif found is not None and found[2] == "tree":
            files = repository.files.items()
            self._reply(
                [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in files]
            )
        else:
            self._reply({"id": path, "sha": repository.commit, "private": repository.private, "siblings": []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _refuse(self, code: int, message: str, name: str = "") -> None:
        self._send(code, json.dumps({"error": message}).encode(), headers={"X-Error-Code": name} if name else {})

    def _reply(self, answer: Any, code: int = 200) -> None:
        self._send(code, json.dumps(answer).encode())

    def _send(
        self, code: int, content: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
