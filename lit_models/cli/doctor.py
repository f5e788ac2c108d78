"""``relit doctor``: what this machine is, whether its kernels compute right, and how fast it is.

A line for each, marked ``ok``, ``note`` (worth knowing) or ``wrong`` (relit doesn't work here, or computes wrong
numbers). Bug reports ask for the output.
"""

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lit_models.cli.command_parser import CommandParser
from lit_models.support.extras import packages_by_extra
from lit_models.support.machine import memory_of_machine

NEEDED = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "numpy")
OTHER_LOGGERS = ("comet-ml", "neptune")
WORTHWHILE = 1.2
"""How many times as fast as float32 a type has to be before it is recommended."""
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass
class Line:
    """One line of the report.

    Attributes:
        name: What it is about.
        text: What was found.
        status: "ok", "note" or "wrong".
        values: The same for programs.
    """

    name: str
    text: str
    status: str = "ok"
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status:5}  {self.name:10} {self.text}"


def main(args: list[str]) -> int:
    """Runs the command; returns 1 if something is wrong."""
    parser = CommandParser(
        prog="relit doctor",
        description="Prints what this machine is, checks the kernels that relit's methods use against float64, and "
        "measures how fast it computes. Takes about 20 seconds. Exit code 1 if something is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    given = parser.parse_args(args)
    lines = []
    for line in examine():
        lines.append(line)
        if not given.json:
            print(line, flush=True)
    right = all(line.status != "wrong" for line in lines)
    if given.json:
        content = {line.name: {"status": line.status, "text": line.text, **line.values} for line in lines}
        print(json.dumps({"right": right, **content}, indent=2))
    return 0 if right else 1


def examine() -> Iterator[Line]:
    """The lines, each as soon as it is known."""
    yield system()
    packages = needed_packages()
    yield packages
    if packages.status == "wrong":
        return
    yield processor()
    yield threads()
    yield memory()
    device, line = accelerator()
    yield line
    yield data()
    yield extras()
    dtypes = types_of(device)
    line = kernels(device, dtypes)
    yield line
    wrong = {fault["dtype"] for fault in line.values["faults"] if not fault["avoided"]}
    line = peak(device, dtypes)
    yield line
    yield precision(line.values["gflops"], wrong)


def system() -> Line:
    """relit, Python and the operating system."""
    values = {"relit": version("relit"), "python": platform.python_version(), "platform": platform.platform()}
    return Line("relit", f"{values['relit']}, Python {values['python']}, {values['platform']}", values=values)


def needed_packages() -> Line:
    """The packages that every command needs; wrong if one can't be imported."""
    found, broken = {}, {}
    for name in NEEDED:
        try:
            import_module(name)
            found[name] = version(name)
        except Exception as error:  # a package that fails to load raises anything
            broken[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    if not broken:
        return Line("packages", text, values={"versions": found})
    problems = "; ".join(f"{name} can't be imported ({error})" for name, error in broken.items())
    return Line("packages", f"{problems}; {text}", "wrong", {"versions": found, "broken": broken})


def processor() -> Line:
    """The processor, and which of its vector instructions matter here."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    content = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    names = re.findall(r"model name\s*:\s*(.+)", content)
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16", "sve")
    flags = set(re.findall(r"^(?:flags|Features)\s*:(.*)$", content, re.MULTILINE)[:1] or [""])
    sets = [name for name in wanted if name in " ".join(flags).split()]
    values = {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "instructions": sets,
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
    }
    known = f" with {', '.join(sets)}" if sets else ""
    return Line("processor", f"{values['name']}{known}; torch uses {values['torch_uses']}", values=values)


def threads() -> Line:
    """Threads against processors; too many wait for each other, and a busy machine spoils measurements."""
    import torch

    allowed = allowed_processors()
    used = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    values = {"threads": used, "processors": allowed, "of": os.cpu_count(), "load": load}
    text = f"{_counted(used, 'thread')} on {_counted(allowed, 'processor')}"
    if allowed < (os.cpu_count() or 1):
        text += f" of {os.cpu_count()}"
    if load is not None:
        text += f", load {load:.1f}"
    if used > allowed:
        return Line("threads", f"{text}: set OMP_NUM_THREADS={max(1, int(allowed))}", "note", values)
    if load is not None and load > 0.5 * (os.cpu_count() or 1):  # the load is that of all processors
        return Line("threads", f"{text}: other programs are running, so the peak below is too low", "note", values)
    return Line("threads", text, values=values)


def allowed_processors() -> float:
    """Processors that this process may use: its affinity, or a container's quota if that is less."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):  # no cgroups, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        count = min(count, int(quota) / int(period))
    return count


def memory() -> Line:
    """Main memory: all, what is available, and a container's limit."""
    values: dict[str, Any] = {"bytes": memory_of_machine(), "available": None, "limit": None}
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file() and (found := re.search(r"MemAvailable:\s*(\d+) kB", meminfo.read_text(encoding="utf-8"))):
        values["available"] = 1024 * int(found[1])
    with suppress(OSError, ValueError):  # no cgroups, or "max"
        values["limit"] = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    words = {"bytes": "{}", "available": "{} available", "limit": "limited to {}"}
    text = ", ".join(words[name].format(_gigabytes(value)) for name, value in values.items() if value is not None)
    return Line("memory", text or "unknown", values=values)


def accelerator() -> tuple[str, Line]:
    """The device that the Trainer chooses, and what it is."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        cudnn = torch.backends.cudnn.version()
        values = {
            "names": [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())],
            "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "cuda": torch.version.cuda,
            "cudnn": cudnn,
            "bytes": total,
            "free": free,
        }
        text = (
            f"{len(values['names'])} x {values['names'][0]}, capability {values['capability']}, CUDA "
            f"{torch.version.cuda}, cuDNN {cudnn}, {_gigabytes(free)} of {_gigabytes(total)} free"
        )
        return "cuda", Line("GPU", text, values=values)
    if torch.backends.mps.is_available():
        return "mps", Line("GPU", "Apple's, by MPS", values={"names": ["mps"]})
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    return "cpu", Line("GPU", f"none; {built}", values={"names": []})


def data() -> Line:
    """The folder of all data sets; wrong if it can't be read."""
    from datamodules.base import arrays_in_cache, data_root
    from datamodules.errors import DataError
    from datamodules.loading.paths import is_writable

    try:
        root = data_root()
        cache = arrays_in_cache(root)
        existing = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        prepared = [name for name in folders if (root / name / "prepared").is_dir() or (cache / name).is_dir()]
    except DataError as error:
        return Line("data", str(error), "wrong")
    except OSError as error:
        return Line("data", f"{error.filename} can't be read ({error.strerror})", "wrong")
    values = {"root": str(root), "folders": folders, "prepared": prepared, "free": free}
    listed = ", ".join(f"{name} (prepared)" if name in prepared else name for name in folders) or "nothing yet"
    text = f"{root}, {_gigabytes(free)} free: {listed}"
    if not is_writable(root):
        return Line("data", f"{text}; can't be written to: arrays are prepared in {cache}", "note", values)
    return Line("data", text, values=values)


def extras() -> Line:
    """Optional packages; none is imported."""
    installed, missing = {}, []
    for extra, packages in packages_by_extra().items():
        found = {name: number for name in packages if (number := _version(name)) is not None}
        installed.update(found)
        if len(found) < len(packages):
            missing.append(extra)
    installed.update({name: number for name in OTHER_LOGGERS if (number := _version(name)) is not None})
    text = ", ".join(f"{name} {number}" for name, number in installed.items()) or "none"
    if missing:
        text += f"; for the rest: pip install 'relit[{','.join(missing)}]'"
    return Line("extras", text, values={"versions": installed, "missing": missing})


def types_of(device: str) -> tuple[str, ...]:
    """The types to examine."""
    return ("float32", "bfloat16", "float16") if device == "cuda" else ("float32", "bfloat16")


def kernels(device: str, dtypes: tuple[str, ...]) -> Line:
    """The kernels that the methods use; wrong if one of those is, a note if one that relit avoids is."""
    from lit_models.cli.kernels import KERNELS, faults

    found = faults(device, dtypes)
    used = [fault for fault in found if not fault.avoided]
    count = len(KERNELS) * len(dtypes)
    text = f"{count - len(found)} of {count} agree with float64 on {device}"
    if found and not used:
        text += "; relit avoids the others"
    for fault in found:
        how = f" ({fault.avoided})" if fault.avoided else ""
        text += f"\n{'':18}{fault.kernel} in {fault.dtype}: {fault.problem}{how}"
    status = "wrong" if used else "note" if found else "ok"
    return Line("kernels", text, status, {"count": count, "faults": [fault.as_dict() for fault in found]})


def peak(device: str, dtypes: tuple[str, ...], seconds: float = 1.5) -> Line:
    """The fastest convolution and matrix product that were seen.

    The types take turns, because other programs slow a part of the time.

    Args:
        device: The device.
        dtypes: The types.
        seconds: How long to measure.
    """
    import torch
    from torch.nn import functional

    images, size = (16, 512) if device == "cpu" else (256, 8192)
    runs: list[tuple[str, int, Callable[[], Any]]] = []
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        image = torch.randn(images, 128, 32, 32, device=device).to(kind).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 3, 3, device=device).to(kind).contiguous(memory_format=torch.channels_last)
        matrix = torch.randn(size, size, device=device).to(kind)
        runs.append((dtype, 2 * image.numel() * 128 * 9, partial(functional.conv2d, image, weight, padding=1)))
        runs.append((dtype, 2 * size**3, partial(torch.mm, matrix, matrix)))
    for _, _, run in runs:  # the first time prepares
        run()
    best = dict.fromkeys(dtypes, 0.0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for dtype, operations, run in runs:
            _wait_for(device)
            start = time.perf_counter()
            run()
            _wait_for(device)
            best[dtype] = max(best[dtype], operations / (time.perf_counter() - start) / 1e9)
    text = ", ".join(f"{value:,.0f} GFLOP/s in {dtype}" for dtype, value in best.items())
    return Line("peak", text, values={"gflops": {dtype: round(value, 1) for dtype, value in best.items()}})


def _wait_for(device: str) -> None:
    import torch

    if device != "cpu":
        torch.accelerator.synchronize()


def precision(gflops: dict[str, float], wrong: set[str]) -> Line:
    """Which ``--trainer.precision`` to take: the fastest whose kernels are right, float32 if it gains little.

    Args:
        gflops: The measured peak by type.
        wrong: Types in which a kernel that relit uses is wrong.
    """
    candidates = [dtype for dtype in gflops if dtype != "float32" and dtype not in wrong]
    # float16 needs loss scaling, which two-optimizer methods do without: only where bfloat16 is slow.
    best = max(candidates, key=lambda dtype: gflops[dtype] * (1.5 if dtype == "bfloat16" else 1), default="float32")
    ratio = gflops[best] / gflops["float32"]
    if best == "float32" or ratio < WORTHWHILE:
        return Line("precision", "leave --trainer.precision out (32-true)", values={"precision": PRECISIONS["float32"]})
    text = f"--trainer.precision {PRECISIONS[best]}: up to {ratio:.1f} x as fast as float32"
    return Line("precision", text, values={"precision": PRECISIONS[best]})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
