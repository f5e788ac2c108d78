"""The check of a GPU machine: what it runs and expects, and a rehearsal on the CPU."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from analyses import gpu_check
from analyses.gpu_check import MODES, Row, as_expected, ending, runs_of

from lit_models.cli.doctor import Line
from tests.methods import METHODS
from tests.support.fixtures import Output, Patch


def test_every_run_of_every_method_is_checked() -> None:
    runs = runs_of(list(METHODS))
    assert list(runs.values()) == [run for method in METHODS.values() for run in method.runs]
    assert {title.split()[0] for title in runs} == METHODS.keys()


@pytest.mark.parametrize(
    ("run", "mode", "result", "expected"),
    [
        ("VAE", "fp16", "ok", True),
        ("VAE", "fp16", "relit: no", False),
        ("VAE", "resume", "the weights are 0.1 off an uninterrupted run's", False),
        ("DARTSSearch", "fp16", "relit: DARTSSearch does not support fp16.", True),
        ("DARTSSearch", "fp16", "ok", False),
        ("DARTSSearch", "fp16", "ended by signal 11", False),
    ],
)
def test_what_is_expected(run: str, mode: str, result: str, expected: bool) -> None:
    assert as_expected(Row(run, mode, result, 1.0)) is expected


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, "relit: note: something", "ok"),
        (1, "a warning\nrelit: the reason\nsomething else\n\n", "relit: the reason"),
        (1, "Traceback\nValueError: 3\n", "ValueError: 3"),
        (1, "", "no message"),
        (-11, "", "ended by signal 11"),
        (None, "", "not finished in 5 s"),
    ],
)
def test_how_a_process_has_ended(tmp_path: Path, code: int | None, said: str, expected: str) -> None:
    process: Any = SimpleNamespace(exitcode=code, kill=lambda: None, join=lambda: None)
    (tmp_path / "said").write_text(said)
    assert ending(process, tmp_path / "said", 5) == expected


def test_a_wrong_kernel_is_a_failure(monkeypatch: Patch, capsys: Output) -> None:
    """Of the only server that processes are forked from, the check chooses what it has imported."""
    calls: list[str] = []

    def examine() -> Iterator[Line]:
        calls.append("examined")
        yield Line("GPU", "one")
        yield Line("kernels", "20 of 21 agree with float64", "wrong")

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("RELIT_DATA", "")
    monkeypatch.setattr(gpu_check, "examine", examine)
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: calls.append("server"))
    monkeypatch.setattr("multiprocessing.set_forkserver_preload", calls.extend)
    patience: dict[str, float] = {}

    def check(title: str, run: Any, mode: str, *arguments: Any) -> Row:
        patience[mode] = arguments[-1]
        return Row(title, mode, "ok", 1.0)

    monkeypatch.setattr(gpu_check, "check", check)
    monkeypatch.setattr("sys.argv", ["gpu_check.py", "--methods", "DCGAN", "--modes", "fp32", "compile"])
    assert gpu_check.main() == 1
    assert calls[-2:] == ["server", "examined"]
    assert "lit_models.cli.command" in calls
    assert patience == {"fp32": 300, "compile": 1200}
    assert capsys.readouterr().out.endswith("2 of 2 as expected.\n`relit doctor` finds something wrong: kernels.\n")


@pytest.mark.long
def test_a_rehearsal(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """A run that is killed and goes on, two processes as two nodes, and one that fails."""
    for name in ("PYTHONPATH", "RELIT_DATA"):
        monkeypatch.setenv(name, "")  # what the check sets is taken back
    monkeypatch.setitem(MODES, "bf16", ["--trainer.precision=bf17"])
    table = tmp_path / "table.json"
    arguments = ["--accelerator", "cpu", "--methods", "VAE", "--modes", "resume", "ddp 2", "bf16", "--batches", "5"]
    monkeypatch.setattr("sys.argv", ["gpu_check.py", *arguments, "--json", str(table)])
    assert gpu_check.main() == 1
    rows = [Row(**row) for row in json.loads(table.read_text())]
    by_mode = {row.mode: row for row in rows if row.run == "VAE"}
    assert [by_mode[mode].result for mode in ("resume", "ddp 2")] == ["ok", "ok"]
    assert "bf17" in by_mode["bf16"].result
    for mode in ("resume", "ddp 2"):
        assert by_mode[mode].loss is not None
        assert (by_mode[mode].images_a_second or 0) > 0
    said = capsys.readouterr().out
    assert "| VAE | resume | ok |" in said
    assert said.endswith(f"{len(rows) - 2} of {len(rows)} as expected.\n")
