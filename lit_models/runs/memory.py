"""Memory: how much a run takes, and that it is used again instead of being given back."""

import ctypes
import re
import sys
from pathlib import Path
from types import ModuleType

import torch

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
