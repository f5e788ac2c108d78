"""Memory: how much a run takes, and that it is used again instead of being given back."""

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lit_models.support.machine import memory_of_machine

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory(limit: int = 2**30) -> bool:
    """Has the C library keep freed memory of up to ``limit`` bytes for the next tensor.

    By default glibc returns every large block to the kernel as soon as it is freed, and each training step on a CPU
    waits for the kernel to map and zero the same gigabytes again. Steps with large tensors take up to half the time
    without that; small ones don't change. Does nothing where the C library isn't glibc.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = [library.mallopt(option, limit) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)]
    return all(done)


@contextmanager
def within_memory() -> Iterator[None]:
    """Refuses modules built within the block whose parameters together are larger than the machine's memory.

    Kernels lend more than they have, and kill a process that writes to it. Parameters are counted as they are
    registered, before they get their values.

    Raises:
        RuntimeError: They are larger.
    """
    most = memory_of_machine()
    held = 0

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal held
        if parameter is not None and parameter.device.type == "cpu":
            held += parameter.nbytes
            if most is not None and held > most:
                raise RuntimeError(f"out of memory: the parameters up to {name} take {held:,} of {most:,} bytes")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """The most bytes that this process has held so far: in main memory, and of tensors on an accelerator.

    Args:
        device: Where the run computes.

    Returns:
        ``process`` (None on Windows, which lacks the module `resource`) and ``accelerator`` (None without CUDA).
    """
    return {
        "process": _peak_of_process(),
        "accelerator": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _peak_of_process() -> int | None:
    status = Path("/proc/self/status")
    if status.is_file() and (
        found := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    ):
        return 1024 * int(found[1])
    if resource is None:
        return None
    # On Linux, this would be at least the memory of the program that has started this one.
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
