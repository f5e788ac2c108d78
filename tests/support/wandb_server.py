"""A small stand-in for W&B's server.

It speaks as much of GraphQL and of the file-stream protocol as runs, ``wandb sync``, artifacts, sweeps with their
agents and saved workspaces need. It shows what W&B's client (0.31) sends, not that the real server takes it.
"""

import gzip
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml

from tests.support.local_server import LocalServer, Quiet

ENTITY = "somebody"


@dataclass
class StoredRun:
    """What the server knows about a run."""

    name: str
    project: str
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    times_started: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in sorted(self.lines.get("wandb-history.jsonl", {}).items())]


class WandbServer(LocalServer):
    """The server.

    Attributes:
        runs: Runs by id.
        artifacts: Committed artifacts: name, type, aliases, metadata, and the files' contents by name.
        sweeps: Configurations of sweeps by id.
        views: Specifications of saved workspaces by their names.
        asked: Names of all GraphQL operations, in order.
        unknown: Operations that it has no answer to.
    """

    def __init__(self, runs_per_sweep: int = 2) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[dict[str, Any]] = []
        self._uncommitted: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self.runs_per_sweep = runs_per_sweep
        self._numbers = itertools.count(1)
        self._runs_of_sweep: dict[str, int] = {}
        self._lock = threading.Lock()
        super().__init__(_Handler)

    # --- GraphQL ------------------------------------------------------------------------------------------------------

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The ``data`` of the answer to a GraphQL query."""
        operation = (re.search(r"(?:query|mutation)\s+(\w+)", query) or [None, "?"])[1]
        with self._lock:
            self.asked.append(operation)
            for pattern, answer in self._answers().items():
                if re.fullmatch(pattern, operation):
                    return answer(variables)
            self.unknown.append(f"{operation}: {query}")
        return {}

    def _answers(self) -> dict[str, Any]:
        return {
            "Viewer|GetDefaultEntity": lambda _: {"viewer": _viewer()},
            "ServerInfo.*|ServerFeatures.*": lambda _: {
                "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}
            },
            "UpsertBucket": self._upsert_run,
            "RunResumeStatus": self._resume_status,
            "CreateRunFiles": self._create_files,
            "UpsertSweep": self._upsert_sweep,
            "Sweep.*": self._sweep,
            "CreateAgent": lambda _: {"createAgent": {"agent": {"id": "agent"}}},
            "Heartbeat": self._heartbeat,
            "UpsertView2": self._upsert_view,
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": {"organization": None}},
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
        }

    def _upsert_run(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, project = asked["name"], asked.get("project") or "uncategorized"
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name, project))
        run.settings |= {key: value for key, value in asked.items() if value is not None}
        if asked.get("config"):
            run.config |= {key: entry["value"] for key, entry in json.loads(asked["config"]).items()}
        if asked.get("summaryMetrics"):
            run.summary |= json.loads(asked["summaryMetrics"])
        if asked.get("displayName"):
            run.times_started += 1
        return {"upsertBucket": {"bucket": self._described(run), "inserted": inserted}}

    def _resume_status(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(asked["name"])
        if run is None:
            return {"model": None}
        return {"model": {"id": "p", "name": run.project, "entity": _entity(), "bucket": self._described(run)}}

    def _described(self, run: StoredRun) -> dict[str, Any]:
        history = run.lines.get("wandb-history.jsonl", {})
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.settings.get("displayName"),
            "description": None,
            "project": {"id": "p", "name": run.project, "entity": _entity()},
            "sweepName": run.settings.get("sweep"),
            "tags": run.settings.get("tags", []),
            "historyLineCount": len(history),
            "eventsLineCount": len(run.lines.get("wandb-events.jsonl", {})),
            "logLineCount": 0,
            "historyTail": json.dumps([line for _, line in sorted(history.items())][-1:]),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "wandbConfig": json.dumps({"t": {}}),
        }

    def _create_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = f"{self.url}/upload/{asked['run']}"
        files = [{"name": name, "uploadUrl": f"{upload}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    # --- artifacts ----------------------------------------------------------------------------------------------------

    def _create_artifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Begins a version of an artifact; it counts when it is committed, with all its files."""
        identifier = f"artifact{next(self._numbers)}"
        described = asked["input"]
        self._uncommitted[identifier] = {
            "name": described["artifactCollectionName"],
            "type": described["artifactTypeName"],
            "aliases": [alias["alias"] for alias in described["aliases"]],
            "metadata": json.loads(described.get("metadata") or "{}"),
            "files": {},
        }
        return {"createArtifact": {"artifact": {"id": identifier, "state": "PENDING", "artifactSequence": {"id": "s"}}}}

    def _create_manifest(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"uploadUrl": f"{self.url}/artifact/{asked['artifactID']}/{asked['name']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": {"id": "file", **upload}}}}

    def _create_artifact_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": f"stored/{one['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "uploadUrl": f"{self.url}/artifact/{one['artifactID']}/{one['name']}",
                "artifact": {"id": one["artifactID"]},
            }
            for one in asked["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commit_artifact(self, asked: dict[str, Any]) -> dict[str, Any]:
        artifact = self._uncommitted.pop(asked["artifactID"])
        self.artifacts.append(artifact)
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": "digest"}}}

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def _upsert_sweep(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("id") or f"sweep{next(self._numbers)}"
        if asked.get("config"):
            self.sweeps[name] = yaml.safe_load(asked["config"])
        project = {"id": "p", "name": asked.get("projectName"), "entity": _entity()}
        return {
            "upsertSweep": {"sweep": {"id": name, "name": name, "project": project}, "configValidationWarnings": []}
        }

    def _sweep(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("sweep") or asked.get("name")
        config = self.sweeps[name]
        empty = dict.fromkeys(("bestLoss", "controller", "scheduler", "heartbeatAt", "description", "displayName"))
        facts = {"id": name, "name": name, "state": "RUNNING", "config": yaml.safe_dump(config), "runCount": 0}
        facts |= {"method": config["method"], "runs": {"edges": []}, "createdAt": "2026-01-01T00:00:00"}
        return {"project": {"sweep": {**empty, **facts, "priorRunsFilters": None, "earlyStopJobRunning": False}}}

    def _heartbeat(self, asked: dict[str, Any]) -> dict[str, Any]:
        """When the run before has ended, the newest sweep's next one, in which each parameter takes its next value;
        after the last, the end."""
        if any(json.loads(asked.get("runState") or "{}").values()):
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": "[]"}}
        name = list(self.sweeps)[-1]
        number = self._runs_of_sweep[name] = self._runs_of_sweep.get(name, -1) + 1
        if number >= self.runs_per_sweep:
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([{"type": "exit"}])}}
        parameters = self.sweeps[name]["parameters"]
        arguments = {key: {"value": _value(parameter, number)} for key, parameter in parameters.items()}
        command = {"type": "run", "run_id": f"{name}run{number}", "program": "", "args": arguments}
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([command])}}

    # --- workspaces ---------------------------------------------------------------------------------------------------

    def _upsert_view(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.views[asked["displayName"]] = json.loads(asked["spec"])
        return {"upsertView": {"view": {"id": "view", "name": asked["name"]}, "inserted": True}}

    # --- files --------------------------------------------------------------------------------------------------------

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """Takes lines of a run's growing files."""
        with self._lock:
            run = self.runs[name]
            for file, chunk in (body.get("files") or {}).items():
                for number, line in enumerate(chunk["content"]):
                    run.lines.setdefault(file, {})[chunk["offset"] + number] = line
            for line in (body.get("files") or {}).get("wandb-summary.json", {}).get("content", []):
                run.summary |= json.loads(line)
            if body.get("complete"):
                run.exit_code = body["exitcode"]

    def upload(self, path: str, content: bytes) -> None:
        kind, owner, name = path.lstrip("/").split("/", 2)
        with self._lock:
            files = self._uncommitted[owner]["files"] if kind == "artifact" else self.runs[owner].files
            files[name] = content


def _value(parameter: dict[str, Any], number: int) -> Any:
    values = parameter.get("values") or [parameter.get("value", parameter.get("min"))]
    return values[number % len(values)]


def _entity() -> dict[str, str]:
    return {"id": "e", "name": ENTITY}


def _viewer() -> dict[str, Any]:
    names = dict.fromkeys(("entity", "username", "name"), ENTITY)
    return {**names, "id": "u", "flags": "{}", "admin": False, "email": "", "teams": {"edges": []}}


class _Handler(Quiet, BaseHTTPRequestHandler):
    server: WandbServer

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self.server.upload(self.path, self._body())
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.server.stream(found[1], json.loads(body))
            self._reply({"exitcode": None, "limits": {}})
        elif self.path == "/graphql":
            asked = json.loads(body)
            self._reply({"data": self.server.answer(asked["query"], asked.get("variables") or {})})
        else:
            self._reply({})
