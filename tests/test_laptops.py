"""Machines without Linux's conveniences: Windows, and Apple's GPUs, which have no double precision."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_models.losses.precision import in_float64
from lit_models.registry import METHODS
from tests.methods import METHODS as RECORDS
from tests.methods import SMALL_MODELS
from tests.support.fixtures import Patch
from tests.support.processes import REPOSITORY, environment
from tests.support.small_fits import small_fit
from tests.support.small_runs import small_run

AS_ON_WINDOWS = """
import multiprocessing, os, signal, sys

# Other packages first: they have their own ways to do without.
import filelock, jsonargparse, lightning.pytorch, lightning.pytorch.cli, lightning.pytorch.loggers, matplotlib.pyplot
import safetensors.torch, sklearn.datasets, sklearn.manifold, torch, torchmetrics.image, torchvision, tqdm, yaml

fork_of_this_test = os.fork
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
RunOnWindows = Callable[[str, Path], None]
FORKING = (
    AS_ON_WINDOWS
    + """
import json

if __name__ == "__main__":
    for line in sys.stdin:
        folder, code = json.loads(line)
        child = fork_of_this_test()
        if child == 0:
            os.chdir(folder)
            output = open_("output", os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            exec(code)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)
"""Runs the code of each line, which names a folder, too, in a fork that has imported no module of ours."""


@pytest.fixture(scope="module")
def run_on_windows(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Iterator[RunOnWindows]:
    """Runs code in a folder. The other packages, which take seconds, are imported once for all."""
    script = tmp_path_factory.mktemp("windows") / "windows.py"
    script.write_text(FORKING, encoding="utf-8")
    options: dict[str, Any] = {"env": environment(RELIT_DATA=digits_root), "text": True}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(script)], **pipes, **options) as process:

        def run(code: str, folder: Path) -> None:
            print(json.dumps([str(folder), code]), file=process.stdin, flush=True)
            exit_code = process.stdout.readline()  # type: ignore[union-attr]
            assert exit_code == "0\n", (folder / "output").read_text()

        yield run


@pytest.mark.long
def test_as_on_windows_everything_imports_and_a_run_trains(
    run_on_windows: RunOnWindows, tmp_path: Path, digits_root: Path
) -> None:
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
    run_on_windows(code, tmp_path)
    assert (tmp_path / "dcgan_digits.safetensors").is_file()
    (metrics,) = tmp_path.glob("runs/dcgan_digits/*/metrics.csv")
    assert len(metrics.read_text().splitlines()) > 1


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_as_on_windows_a_method_imports_alone_trains_and_is_tested(
    method: str, run_on_windows: RunOnWindows, tmp_path: Path, digits_root: Path
) -> None:
    """On the digits, or on small data of the kind that the method takes."""
    arguments = small_run(RECORDS[method].runs[-1], digits_root)
    code = f"""
import importlib
assert not any(name.startswith(("lit_models", "datamodules")) for name in sys.modules)
importlib.import_module({METHODS[method]!r})
from lit_models.__main__ import main
assert main(["fit", *{arguments}]) == 0
assert main(["test", *{arguments}, "--ckpt_path=last"]) == 0
"""
    run_on_windows(code, tmp_path)
    (run,) = tmp_path.glob("runs/*/*")
    assert (run / "checkpoints" / "last.ckpt").is_file()


WINDOWS_LOCKS = """
import ctypes, types

libc = ctypes.CDLL(None, use_errno=True)

def locking(file, mode, size):
    # Locks of an open file, as Windows has them, by the call that the module fcntl makes (LOCK_EX | LOCK_NB).
    if libc.flock(file, 2 | 4) != 0:
        raise OSError(ctypes.get_errno(), "locked")

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
"""


@pytest.mark.long
def test_as_on_windows_a_sweep_locks_its_trials(tmp_path: Path, digits_root: Path) -> None:
    """Two processes share a sweep; one lock that is held lets the other process wait."""
    pytest.importorskip("optuna")
    arguments = [
        *("dcgan_digits", "--vary", "model.latent_dim", "4", "8", "--metric=val/generator_loss"),
        *("--direction=minimize", "--", "--model.feature_maps=2", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=2", "--trainer.accelerator=cpu", "--checkpoint.monitor=null"),
        "--trainer.callbacks=null",
    ]
    code = f"""
{AS_ON_WINDOWS}
{WINDOWS_LOCKS}
if __name__ == "__main__":
    import subprocess
    popen = subprocess.Popen
    def on_windows(*args, **kwargs):
        assert not kwargs.get("pass_fds"), "pass_fds not supported on Windows"
        return popen(*args, **kwargs)
    subprocess.Popen = on_windows
    from pathlib import Path
    from lit_models.cli.sweep_training import lock_of
    held = lock_of(Path("held.lock"))
    assert held is not None and lock_of(Path("held.lock")) is None
    held.close()
    assert lock_of(Path("held.lock")) is not None
    from lit_models.__main__ import main
    sys.exit(main(["sweep", *{arguments}]))
"""
    script = tmp_path / "windows.py"
    script.write_text(code, encoding="utf-8")
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(RELIT_DATA=digits_root), "text": True}
    command = [sys.executable, str(script)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, **options) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
    runs = [path.parent for path in tmp_path.glob("runs/dcgan_digits/*/run.json")]
    assert sorted(run.name for run in runs) == ["latent_dim=4", "latent_dim=8"]


def test_text_files_are_utf_8_everywhere() -> None:
    """Windows would read and write them in its own encoding."""
    for folder in ("lit_models", "datamodules", "scripts"):
        for path in REPOSITORY.glob(f"{folder}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and opens_text(node):
                    assert any(keyword.arg == "encoding" for keyword in node.keywords), f"{path}:{node.lineno}"


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens a file as text, by ``open`` or a method of ``pathlib.Path``, without naming the encoding in
    its first argument."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "read_text":
        return not call.args
    if name == "write_text":
        return len(call.args) < 2
    if name != "open" or ast.unparse(call.func) in ("Image.open", "os.open", "tarfile.open", "gzip.open", "file.open"):
        return False
    place = 0 if isinstance(call.func, ast.Attribute) else 1
    modes = [*call.args[place : place + 1], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    return not any("b" in str(constant.value) for mode in modes for constant in ast.walk(mode) if is_text(constant))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_a_terminal_of_few_letters_is_no_error(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from lit_models.__main__ import main; main([]); print('\u2212')"],
        env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8=0),
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith(b"?")


class WithoutDouble(TorchDispatchMode):
    """Refuses operations that make double precision of anything else, but where :func:`in_float64` moves to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))

        def doubles(values: Any) -> bool:
            return any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in tree_leaves(values))

        if doubles(results) and not doubles((args, kwargs)) and not self.allowed:
            raise TypeError(f"{func}: the device has no float64")
        return results


@pytest.mark.long
@pytest.mark.parametrize("title", SMALL_MODELS)
def test_on_a_device_without_double_precision_every_method_trains_and_is_tested(
    title: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    """As Apple's GPUs are, which raise a TypeError."""
    model, data, trainer = small_fit(title, tmp_path)
    mode, double = WithoutDouble(), torch.Tensor.double

    def on_the_cpu(values: torch.Tensor) -> torch.Tensor:  # called in one place only, as another test shows
        mode.allowed = True
        try:
            return double(values)
        finally:
            mode.allowed = False

    monkeypatch.setattr(torch.Tensor, "double", on_the_cpu)
    with mode:
        with pytest.raises(TypeError, match="the device has no float64"):
            torch.zeros(1).to(torch.float64)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)


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


def test_double_precision_moves_to_the_cpu_where_the_device_has_none(monkeypatch: Patch) -> None:
    monkeypatch.setattr("lit_models.losses.precision.WITHOUT_FLOAT64", {"meta"})
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # it tries to leave the device
        in_float64(torch.zeros(2, device="meta"))
    assert in_float64(torch.tensor([0.5])).dtype == torch.float64
