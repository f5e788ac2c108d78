"""`relit doctor`: its lines, its exit code, and that a wrong or crashing kernel is found."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.base import arrays_in_cache
from lit_models.cli import doctor, kernels
from lit_models.cli.doctor import Line, precision
from lit_models.cli.kernels import Fault, Kernel, errors_of, faults, problem_of
from tests.support.fixtures import Output, Patch, Relit

NAMES = [
    *("relit", "packages", "processor", "threads", "memory", "GPU", "data", "extras", "kernels", "peak", "precision")
]
USED = [kernel for kernel in kernels.KERNELS if not kernel.avoided]
LINEAR = Kernel("a linear layer", partial(nn.Linear, 3, 2), (4, 3), False)


def quick(monkeypatch: Patch, found: list[Fault]) -> None:
    monkeypatch.setattr(kernels, "faults", lambda *_: found)
    monkeypatch.setattr(doctor, "peak", lambda *_: Line("peak", "", values={"gflops": {"float32": 1, "bfloat16": 2}}))


def test_a_line_each(relit: Relit, capsys: Output, monkeypatch: Patch) -> None:
    quick(monkeypatch, [])
    assert relit("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == NAMES
    assert torch.__version__.split("+")[0] in lines[1]
    assert "digits" in lines[6]
    assert lines[-1].endswith("--trainer.precision bf16-mixed: up to 2.0 x as fast as float32")


@pytest.mark.parametrize(("avoided", "code", "status"), [("", 1, "wrong"), ("in another way", 0, "note")])
def test_a_wrong_kernel_that_relit_uses_fails(
    relit: Relit, capsys: Output, monkeypatch: Patch, avoided: str, code: int, status: str
) -> None:
    quick(monkeypatch, [Fault("a kernel", "bfloat16", "output off by 7", avoided)])
    assert relit("doctor", "--json") == code
    content = json.loads(capsys.readouterr().out)
    assert list(content) == ["right", *NAMES]
    assert content["right"] == (code == 0)
    assert content["kernels"]["status"] == status
    assert content["kernels"]["faults"][0]["problem"] == "output off by 7"
    assert content["precision"]["precision"] == ("32-true" if code else "bf16-mixed")


def test_a_package_that_fails_to_load_is_wrong(relit: Relit, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no_such_package"))
    assert relit("doctor") == 1
    assert "wrong  packages   no_such_package can't be imported (ModuleNotFoundError" in capsys.readouterr().out


def test_data_that_may_only_be_read_are_prepared_in_the_cache(tmp_path: Path, monkeypatch: Patch) -> None:
    root = tmp_path / "data"
    for name in ("digits/prepared", "mnist", "lfw"):
        (root / name).mkdir(parents=True)
    monkeypatch.setenv("RELIT_DATA", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = doctor.data()
    assert (line.status, line.values["prepared"]) == ("ok", ["digits"])
    (arrays_in_cache(root) / "mnist").mkdir(parents=True)
    root.chmod(0o555)
    line = doctor.data()
    assert (line.status, line.values["prepared"]) == ("note", ["digits", "mnist"])
    assert line.text.endswith(
        f": digits (prepared), lfw, mnist (prepared); can't be written to: arrays are prepared in "
        f"{arrays_in_cache(root)}"
    )
    root.chmod(0o755)


def test_a_data_root_that_cannot_be_read_is_wrong(tmp_path: Path, monkeypatch: Patch) -> None:
    def refuse(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setenv("RELIT_DATA", str(tmp_path))
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert doctor.data() == Line("data", f"{tmp_path} can't be read (Permission denied)", "wrong")
    monkeypatch.setenv("RELIT_DATA", "/data/$NO_SUCH_VARIABLE")
    line = doctor.data()
    assert line.status == "wrong"
    assert "$NO_SUCH_VARIABLE" in line.text


@pytest.mark.parametrize("kernel", USED[::3], ids=lambda kernel: kernel.name)
def test_right_kernels_are_right(kernel: Kernel) -> None:
    assert not problem_of(kernel, "cpu", "float32")
    largest = max(errors_of(kernel, "cpu", "bfloat16").values())
    assert 1e-4 < largest < 0.02, "rounding of bfloat16 is seen, and allowed"


def test_the_exact_results_are_those_of_float64() -> None:
    """Against the products of a linear layer, which autograd has no part in."""

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (0 if x.dtype == torch.float64 else 1)

    errors = errors_of(Kernel("", lambda: Noisy(3, 2, bias=False), (4, 3), False), "cpu", "float32")
    assert errors["output"] > 0.1
    assert errors["gradient of weight"] < 1e-6


def test_each_wrong_result_is_named() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient if gradient.dtype == torch.float64 else gradient * float("nan")

    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(Wrong.apply(x))

    kernel = Kernel("", lambda: Layer(3, 2), (4, 3), False)
    assert problem_of(kernel, "cpu", "float32") == "gradient of the input off by nan"


def crash() -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def refuse() -> nn.Module:
    raise RuntimeError("no such type\nand a trace")


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.long), 4])
def test_a_crash_is_a_fault_and_the_others_are_checked(size: int) -> None:
    """Each in a separate process, as on a CPU, or all in one, as on a GPU."""
    table = (Kernel("crash", crash, (1,)), Kernel("refusal", refuse, (1,), avoided="no"), LINEAR)
    found = kernels.check_in_groups(table, ("float32",), "cpu", size)
    assert found == [
        Fault("crash", "float32", "crashed with SIGSEGV", ""),
        Fault("refusal", "float32", "no such type", "no"),
    ]


def test_kernels_here() -> None:
    """Whatever this machine has, nothing is wrong that relit uses."""
    found = faults("cpu", ("float32",), kernels.KERNELS[:3])
    assert not [fault for fault in found if not fault.avoided]


@pytest.mark.parametrize(
    ("gflops", "wrong", "expected"),
    [
        ({"float32": 10.0, "bfloat16": 11.0}, set(), "32-true"),
        ({"float32": 10.0, "bfloat16": 20.0}, set(), "bf16-mixed"),
        ({"float32": 10.0, "bfloat16": 20.0}, {"bfloat16"}, "32-true"),
        ({"float32": 10.0, "bfloat16": 80.0, "float16": 90.0}, set(), "bf16-mixed"),
        ({"float32": 10.0, "bfloat16": 5.0, "float16": 90.0}, set(), "16-mixed"),
    ],
)
def test_precision(gflops: dict[str, float], wrong: set[str], expected: str) -> None:
    assert precision(gflops, wrong).values["precision"] == expected


def test_the_measured_peak_is_positive() -> None:
    values = doctor.peak("cpu", ("float32",), seconds=0.01).values["gflops"]
    assert values["float32"] > 0
