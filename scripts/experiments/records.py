"""The files of results: how they are written, and whether what they hold can be vouched for.

Each seed's record ends with a digest of its content, and so does what the seeds of a step share (data, settings,
command), and each measurement without a training (results/judge.json, results/map_baselines.json).
`scripts/results_table.py --check` thus finds what was edited by hand, or mixed from two records by a merge.
"""

import hashlib
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_models.support.files import write_atomically

REPOSITORY = Path(__file__).parents[2]
DIGEST = "sha256"

Settings = dict[str, Any]


def digest(record: Settings) -> str:
    """The SHA-256 of a seed's record, or of what seeds share, without the digest that it may hold.

    Example:
        >>> digest({"steps": 3, "sha256": "…"}) == digest({"steps": 3})
        True
    """
    content = {name: value for name, value in record.items() if name not in (DIGEST, "seeds")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(record: Settings) -> Settings:
    """The record with its digest, which comes last."""
    kept = finite({name: value for name, value in record.items() if name != DIGEST})
    return {**kept, DIGEST: digest(kept)}


def finite(value: Any) -> Any:
    """The same without values that can't be had, such as the precision of a kind of pixels that is never painted.

    Example:
        >>> finite({"figures": {"test/accuracy": 0.5, "test/map_precision_road": float("nan")}})
        {'figures': {'test/accuracy': 0.5}}
    """
    if not isinstance(value, dict):
        return value
    return {name: finite(part) for name, part in value.items() if not isinstance(part, float) or math.isfinite(part)}


def write_results(path: Path, content: Settings) -> None:
    """Writes a file of results.

    Raises:
        ValueError: A value isn't finite, which JSON can't hold.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # A point of a curve takes one line, not four.
    text = re.sub(r"\[\s+([^\s,]+),\s+([^\s,]+)\s+\]", r"[\1, \2]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{text}\n")


def seal_all(results: Path) -> list[Path]:
    """Gives the records that have no digest theirs; returns the files that were written."""
    written = []
    for path, content in _files(results):
        lacking = [record for _, record in _records(content) if DIGEST not in record]
        for record in lacking:
            record[DIGEST] = digest(record)
        if lacking:
            write_results(path, content)
            written.append(path)
    return written


def altered(results: Path) -> Iterator[str]:
    """The records whose digest isn't that of their content."""
    for path, content in _files(results):
        for name, record in _records(content):
            if DIGEST not in record:
                yield f"{path.name}: the record of {name} has no digest: check it, then run results_table.py --seal"
            elif digest(record) != record[DIGEST]:
                yield f"{path.name}: the record of {name} was changed after it was made"


def lost_commits(results: Path) -> Iterator[str]:
    """The records that name a commit that isn't in the history; nothing where the history isn't at hand."""
    known = _history()
    for path, content in _files(results) if known else ():
        for name, record in _records(content):
            named = {
                record.get("commit"),
                record.get("git_commit"),
                *(test["commit"] for test in record.get("tests", {}).values()),
            } - {None}
            for commit in named:
                if commit.partition("+")[0] not in known:
                    yield f"{path.name}: {name} is of the commit {commit[:8]}, which isn't in the history"


def _files(results: Path) -> Iterator[tuple[Path, Settings]]:
    for path in sorted(results.glob("*.json")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def _records(content: Settings) -> Iterator[tuple[str, Settings]]:
    """What has a digest: each choice of a step's settings, and each seed with it; else each measurement."""
    if "steps" not in content:
        several = all(isinstance(part, dict) for part in content.values())
        yield from content.items() if several else [("the measurement", content)]
        return
    for name, entries in content["steps"].items():
        for entry in entries:
            yield name, entry
            yield from ((f"{name}, seed {seed},", run) for seed, run in entry["seeds"].items())


def _history() -> set[str]:
    """The commits before and at HEAD; none in a shallow clone or without Git."""

    def git(*arguments: str) -> str:
        try:
            asked = subprocess.run(("git", *arguments), cwd=REPOSITORY, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return asked.stdout.strip() if asked.returncode == 0 else ""

    if (
        git("rev-parse", "--is-shallow-repository") != "false"
        or Path(git("rev-parse", "--show-toplevel")) != REPOSITORY
    ):
        return set()
    return {*git("rev-list", "HEAD").split()}
