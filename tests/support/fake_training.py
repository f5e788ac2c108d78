"""Stands in for ``relit fit``: writes a run folder by a formula, in milliseconds, by the standard library alone."""

import json
import os
import signal
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-I", "-S", __file__]
"""Without the environment's packages, whose search takes longer than such a training."""


def settings_of(arguments: list[str]) -> dict[str, str]:
    """The values on a command line, in place of the configuration that relit resolves."""
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    return {name: value for name, value in given.items() if name not in ("run.root", "run.id", "ckpt_path")}


def value_of(settings: dict[str, str], epoch: int) -> float:
    """(x - 3)² + y + seed / 10, approached from above over the epochs."""
    x, y, seed = (float(settings.get(name, 0)) for name in ("model.x", "model.y", "seed_everything"))
    return (x - 3) ** 2 + y + seed / 10 + 8 / epoch


def main(arguments: list[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    settings = settings_of(arguments)
    run = Path(given["--run.root"]) / "toy" / given["--run.id"]
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(json.dumps(settings))  # which is YAML, too
    with (run.parent / "started.txt").open("a") as file:
        file.write(f"{run.name} {'resumed' if '--ckpt_path=last' in arguments else 'new'}\n")
    if settings.get("model.x") == os.environ.get("FAKE_FAILS"):
        print("relit: x is unlucky.", file=sys.stderr)
        return 1
    if "FAKE_FULL" in os.environ:
        print("relit: last.ckpt can't be written (No space left on device): make room.", file=sys.stderr)
        return 1
    if run.name == os.environ.get("FAKE_KILLS") and not (run / "checkpoints" / "last.ckpt").exists():
        (run / "checkpoints" / "last.ckpt").write_bytes(b"")
        os.kill(os.getppid(), signal.SIGKILL)
        return 0
    rows = ["epoch,step,val/score"]
    for epoch in range(1, 5):
        rows.append(f"{epoch - 1},{epoch},{value_of(settings, epoch)}")
        (run / "metrics.csv").write_text("\n".join(rows) + "\n")
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if run.name == os.environ.get("FAKE_ENDLESS"):
        time.sleep(600)  # its last epoch, until it is stopped
    (run / "run.json").write_text(json.dumps({"finished": True, "training_seconds": 0.1}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
