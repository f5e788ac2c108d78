"""Machines without Linux's conveniences: Windows, and Apple's GPUs, which have no double precision."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_models.losses.precision import in_float64
from lit_models.registry import METHODS

REPOSITORY = Path(__file__).parents[1]

AS_ON_WINDOWS = """
import multiprocessing, os, signal, sys

# Other packages first: they have their own ways to do without.
import filelock, jsonargparse, lightning.pytorch, lightning.pytorch.cli, lightning.pytorch.loggers, matplotlib.pyplot
import safetensors.torch, sklearn.datasets, sklearn.manifold, torch, torchmetrics.image, torchvision, tqdm, yaml

for name in ("fcntl", "resource", "pwd", "grp", "termios", "readline"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGCHLD", "alarm"):
    delattr(signal, name)
for name in ("fork", "forkpty", "posix_fallocate", "sched_getaffinity", "getuid", "getpgid", "killpg", "uname"):
    delattr(os, name)
multiprocessing.set_start_method("spawn", force=True)
get_context = multiprocessing.get_context

def without_fork(method=None):
    if method in ("fork", "forkserver"):
        raise ValueError(f"cannot find context for {method!r}")
    return get_context(method)

open_ = os.open

def without_folders(path, flags, *args, **kwargs):
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.isdir(path) and "datamodules" in CALLER():
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return open_(path, flags, *args, **kwargs)

def CALLER():
    frame, names = sys._getframe(2), []
    while frame:
        names.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return "datamodules" if any(name.split(".")[0] in ("lit_models", "datamodules") for name in names) else ""

multiprocessing.get_context = without_fork
os.open = without_folders
"""


def test_as_on_windows_everything_imports_and_a_run_trains(tmp_path: Path, digits_root: Path) -> None:
    """Every module of both packages, so every method; then a training of 2 batches, its test and its export."""
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for package in ("lit_models", "datamodules")
        for path in sorted(REPOSITORY.glob(f"{package}/**/*.py"))
    ]
    assert {*METHODS.values()} < {*modules}
    arguments = [
        *("--config", str(REPOSITORY / "configs" / "dcgan_digits.yaml"), "--data.root", str(digits_root)),
        *("--model.feature_maps=2", "--model.latent_dim=4", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    ]
    code = f"""
{AS_ON_WINDOWS}
if __name__ == "__main__":
    import importlib
    for module in {modules}:
        importlib.import_module(module)
    from lit_models.__main__ import main
    limits = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=2"]
    assert main(["fit", *{arguments}, *limits]) == 0
    assert main(["fit", *{arguments}, *limits, "--ckpt_path=last", "--trainer.max_epochs=3"]) == 0
    assert main(["export", "runs/dcgan_digits"]) == 0
    assert main(["predict", "--weights", "dcgan_digits.safetensors", "--trainer.accelerator=cpu"]) == 0
"""
    script = tmp_path / "windows.py"
    script.write_text(code)
    environment = {"PYTHONPATH": str(REPOSITORY), "RELIT_DATA": str(digits_root)}
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "dcgan_digits.safetensors").is_file()
    (metrics,) = tmp_path.glob("runs/dcgan_digits/*/metrics.csv")
    assert len(metrics.read_text().splitlines()) > 1


def test_double_precision_is_asked_for_in_one_place() -> None:
    """Apple's GPUs refuse float64, so nothing but :mod:`lit_models.losses.precision` may make it."""
    for path in REPOSITORY.glob("lit_models/**/*.py"):
        if path.name in ("precision.py", "kernels.py"):  # the second computes its references on the CPU
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
                assert node.attr not in ("float64", "double"), f"{path}:{node.lineno}"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "double", f"{path}:{node.lineno}"


def test_double_precision_moves_to_the_cpu_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_models.losses.precision.WITHOUT_FLOAT64", {"meta"})
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # it tries to leave the device
        in_float64(torch.zeros(2, device="meta"))
    assert in_float64(torch.tensor([0.5])).dtype == torch.float64
