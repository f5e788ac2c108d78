"""Runs a training script as it is, times it from outside by a hook on every optimizer's step, and stops it.

    python watch.py RESULT BEGAN SKIP COUNT SCRIPT [ARGUMENT ...]
    python watch.py RESULT BEGAN SKIP COUNT -m MODULE [ARGUMENT ...]

BEGAN is ``time.time()`` before the process was started. RESULT becomes a JSON object: seconds to the first optimizer
step, this process's CPU time until then, seconds of COUNT optimizer steps after the first SKIP, and the peak of its
memory in bytes. The script runs with its folder first on the path; its DataLoader's workers are not watched.
"""

import json
import os
import re
import runpy
import sys
import time
from pathlib import Path
from typing import Any


class Watch:
    """The hook.

    Args:
        result: File to write.
        began: When the process was started.
        skip: Optimizer steps that aren't timed.
        count: Optimizer steps that are.
    """

    def __init__(self, result: Path, began: float, skip: int, count: int) -> None:
        self.result, self.began, self.skip, self.count = result, began, skip, count
        self.seen = 0
        self.first = self.first_cpu = self.start = 0.0

    def __call__(self, *_: Any) -> None:
        if _rehearses():
            return
        self.seen += 1
        if self.seen == 1:
            self.first, self.first_cpu = self._now() - self.began, time.process_time()
        if self.seen == self.skip:
            self.start = self._now()
        if self.seen == self.skip + self.count:
            found = {
                "first_step": self.first,
                "first_cpu": self.first_cpu,
                "seconds": self._now() - self.start,
                "peak_bytes": peak_bytes(),
            }
            self.result.write_text(json.dumps(found), encoding="utf-8")
            os._exit(0)

    @staticmethod
    def _now() -> float:
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.time()


def _rehearses() -> bool:
    """Whether relit only tries an optimizer on a few numbers, before it trains."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "lit_models.cli.rehearsal":
            return True
    return False


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file() and (
        found := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    ):
        return 1024 * int(found[1])
    import resource

    # On Linux, this would be at least the memory of the program that has started this one.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Reads the arguments and runs the script."""
    result, began, skip, count, *command = sys.argv[1:]
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(Watch(Path(result), float(began), int(skip), int(count)))
    sys.path.pop(0)  # this file's folder
    if command[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
