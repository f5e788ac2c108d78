"""Scripts that start many trainings, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import environment, wait_until
from tests.support.tiny import CONFIGS, Pace

FAST = (
    "--",
    "--model.feature_maps=2",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
)
SWEEP = ("--vary", "model.latent_dim", "4", "8", "--metric", "val/generator_loss", "--direction", "minimize")


@pytest.mark.long
@pytest.mark.parametrize(
    "script",
    [
        ("sweep.py", str(CONFIGS / "dcgan_digits.yaml"), *SWEEP),
        ("reproduce.py", "gans_mnist", "--budget", "smoke", "--steps", "dcgan"),
    ],
    ids=lambda script: script[0],
)
def test_ctrl_c_waits_for_the_run_and_stops_the_script(
    script: tuple[str, ...], tmp_path: Path, digits_root: Path
) -> None:
    """A terminal sends SIGINT to the script and to what it has started; a second, impatient one changes nothing."""
    name, *arguments = script
    pace = '--trainer.callbacks=[{"class_path": "tests.support.tiny.Pace", "init_args": {"seconds": 0.05}}]'
    training = (*FAST[:2], "--trainer.max_epochs=9", "--checkpoint.monitor=null", pace)
    process = subprocess.Popen(
        [sys.executable, str(CONFIGS.parent / "scripts" / name), *arguments, *training],
        cwd=tmp_path,
        env=environment(RELIT_DATA=digits_root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt")), process)
        trainer, _ = Pace.read(0, tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    logs = [path.read_text() for path in tmp_path.glob("runs/dcgan_digits/sweeps/*/trial-*.log")]
    said = "".join([out, err, *logs])
    assert said.count(" fit --config") == 1, "nothing more is started"
    assert "relit: interrupted" in said
    assert err.splitlines()[-1] == "Interrupted; the same command continues."
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(trainer, 0)
