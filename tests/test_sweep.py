import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CONFIGS, Pace

Relit = Callable[..., int]
VARY = ("--vary", "model.n_critic", "1", "2", "--metrics", "val/generator_loss")
FAST = (
    "--",
    "--model.feature_maps=2",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
)


@pytest.fixture
def sweep(relit: Relit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the script on dcgan_digits, and what it would start as processes in this one."""

    start_process = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "lit_models"]:
            return start_process(command, **options)
        return subprocess.CompletedProcess(command, relit(*command[3:]))

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


def test_a_run_of_other_settings_is_not_taken_for_finished(
    sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*VARY, "--only", "1", *FAST) == 0
    assert sweep(*VARY, "--only", "1", *FAST, "--model.latent_dim=8") == 1
    said = capfd.readouterr().err
    assert "runs/dcgan_digits/n_critic=2 was trained with model.init_args.latent_dim = 100, not 8" in said


def test_a_run_that_fails_stops_the_sweep(sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("--vary", "model.latent_dimm", "8", "9", *FAST) == 2
    said = capfd.readouterr()
    assert said.out.count("== relit fit") == 1
    assert "mend it and repeat the command" in said.err


def test_only_names_a_run_of_the_sweep(sweep: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep(*VARY, "--only", "2", *FAST) == 2
    assert "the sweep has the runs 0 to 1" in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    "script",
    [
        ("sweep.py", str(CONFIGS / "dcgan_digits.yaml"), "--vary", "model.latent_dim", "4", "8"),
        ("reproduce.py", "gans_mnist", "--budget", "smoke", "--steps", "dcgan"),
    ],
    ids=lambda script: script[0],
)
def test_ctrl_c_waits_for_the_run_and_stops_the_script(
    script: tuple[str, ...], tmp_path: Path, digits_root: Path
) -> None:
    """A terminal sends SIGINT to the script and to what it has started; a second, impatient one changes nothing."""
    name, *arguments = script
    pace = '--trainer.callbacks=[{"class_path": "tests.tiny.Pace", "init_args": {"seconds": 0.2}}]'
    training = (*FAST[:2], "--trainer.max_epochs=9", "--checkpoint.monitor=null", pace)
    process = subprocess.Popen(
        [sys.executable, str(CONFIGS.parent / "scripts" / name), *arguments, *training],
        cwd=tmp_path,
        env={**os.environ, "RELIT_DATA": str(digits_root), "PYTHONPATH": str(CONFIGS.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        trainer, _ = Pace.read(0, tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert out.count("== relit fit") == 1, "nothing more is started"
    assert "relit: interrupted" in err
    assert err.splitlines()[-1] == "Interrupted; the same command goes on."
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(trainer, 0)
