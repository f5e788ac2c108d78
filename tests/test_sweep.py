import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CONFIGS

Relit = Callable[..., int]
VARY = ("--vary", "model.n_critic", "1", "2", "--metrics", "val/generator_loss")
FAST = ("--", "--model.feature_maps=2", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2")


@pytest.fixture
def sweep(relit: Relit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the script on dcgan_digits, and what it would start as processes in this one."""

    start_process = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "lit_models"]:
            return start_process(command, **options)
        return subprocess.CompletedProcess(command, relit(*command[3:], "--trainer.accelerator=cpu"))

    def start(*arguments: str) -> Any:
        script = CONFIGS.parent / "scripts" / "sweep.py"
        monkeypatch.setattr("sys.argv", [str(script), str(CONFIGS / "dcgan_digits.yaml"), *arguments])
        monkeypatch.setattr(subprocess, "run", run)
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(script), run_name="__main__")
        return exit_.value.code

    return start


def test_a_sweep_trains_each_value_once_and_draws_one_figure(
    sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*VARY, "--only", "1", *FAST) == 0
    runs = Path("runs/dcgan_digits")
    assert [path.name for path in runs.iterdir()] == ["n_critic=2"]
    capfd.readouterr()
    assert sweep(*VARY, *FAST) == 0
    said = capfd.readouterr().out
    assert said.count("== relit fit") == 1, "the finished run is left alone"
    assert "model.n_critic=1" in said
    assert (runs / "comparison" / "metrics.png").is_file()
    assert "| n_critic=2 " in (runs / "comparison" / "comparison.md").read_text()


def test_a_run_that_fails_stops_the_sweep(sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("--vary", "model.latent_dimm", "8", "9", *FAST) == 2
    said = capfd.readouterr()
    assert said.out.count("== relit fit") == 1
    assert "mend it and repeat the command" in said.err


def test_only_names_a_run_of_the_sweep(sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep(*VARY, "--only", "2", *FAST) == 2
    assert "the sweep has the runs 0 to 1" in capfd.readouterr().err
