"""What a training shows: the header, lines and bars, and the message of Ctrl-C."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_models.__main__ import main
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import environment, wait_until
from tests.support.tiny import the_run

SMALL = (
    *("vae_digits", "--model.feature_maps=2", "--model.latent_dim=4", "--trainer.limit_train_batches=3"),
    *("--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", "--trainer.callbacks=null"),
)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_header_and_a_line_an_epoch(relit: Relit, columns: int, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert relit("fit", *SMALL, "--trainer.max_epochs=2") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    header = " ".join(lines[: lines.index(next(line for line in lines if line.startswith("run: "))) + 1])
    assert re.match(
        r"VAE, \d+ k parameters, on Digits \(1,297 train, 200 val, 300 test images\) "
        r"cpu, 32-true, 1 process, epochs 1 to 2 run: runs/vae_digits/[\w-]+$",
        header,
    )
    assert max(map(len, lines[:3])) <= columns
    epochs = [line for line in lines if line.startswith("Epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert all("val/" in line and "so far" in line for line in epochs)
    assert " left" in epochs[0]
    assert " left" not in epochs[1]
    assert lines[-1] == f"The run is in {the_run()}"
    assert f"relit: look at it with: relit report {the_run()}" in captured.err

    assert relit("test", *SMALL, "--ckpt_path=last", "--trainer.limit_test_batches=1") == 0
    tested = capsys.readouterr().out
    assert f"\ncheckpoint: {the_run()}/checkpoints/last.ckpt\n" in tested
    assert "VAE, " in tested
    assert "epochs" not in tested.split("run: ")[0]
    assert relit("validate", *SMALL, "--ckpt_path=last", "--trainer.enable_progress_bar=false") == 0
    assert "checkpoint: " not in capsys.readouterr().out, "the bar and the header go together"


@pytest.mark.long
@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_names_the_folder_and_a_command_that_continues(
    relit: Relit, saved: bool, tmp_path: Path, digits_root: Path
) -> None:
    seconds = 0.02 if saved else 0.1
    pace = f'--trainer.callbacks=[{{"class_path": "tests.support.tiny.Pace", "init_args": {{"seconds": {seconds}}}}}]'
    given = [*SMALL[:4], "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", pace]
    given += ["--trainer.max_epochs=3000", *([] if saved else ["--trainer.log_every_n_steps=1"])]
    command = [sys.executable, "-m", "lit_models", "fit", *given]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(RELIT_DATA=digits_root), "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    wanted = "runs/*/*/checkpoints/last.ckpt" if saved else "runs/*/*/metrics.csv"
    wait_until(lambda: list(tmp_path.glob(wanted)), process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    if not saved:
        assert told.endswith("; it has no checkpoint yet from which it could continue.\n")
        return
    (run,) = tmp_path.glob("runs/*/*")
    assert re.search(rf"relit: interrupted in epoch \d+\. The run is in {run.relative_to(tmp_path)}\. ", told)
    (shown,) = (line.split() for line in told.splitlines() if line.startswith("  relit fit "))
    short = ("--trainer.max_epochs=3", "--trainer.callbacks=null")
    assert relit(*shown[1:], *short) == 0
    assert list(tmp_path.glob("runs/*/*")) == [run], "the same run goes on"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_on_a_terminal(relit: Relit, columns: int, capsys: Output, monkeypatch: Patch) -> None:
    """Epochs from 1 of N with the time left, and the values of validation, on one line of the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert relit("fit", *SMALL, "--trainer.limit_train_batches=10", "--trainer.max_epochs=3") == 0
    states = [state.strip() for state in re.split(r"[\r\n]+", capsys.readouterr().out)]
    bars = [state for state in states if state.startswith("Epoch ")]
    assert bars[0].startswith("Epoch 1/3")
    assert all(re.match(r"Epoch [123]/3\b", bar) for bar in bars), bars
    assert any(re.match(r"Epoch 2/3, \d+ s left", bar) for bar in bars), bars
    assert any("val/" in bar for bar in bars), bars
    assert max(map(len, bars)) <= columns
    assert states[0].startswith("VAE, ")


def test_a_command_that_is_interrupted_before_it_begins(capsys: Output, monkeypatch: Patch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_models.cli.arguments.read_arguments", interrupt)
    assert main(["fit", "dcgan_digits"]) == 130
    assert capsys.readouterr().err == "relit: interrupted.\n"
