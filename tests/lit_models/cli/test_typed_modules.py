"""Modules in the current folder, which isn't on Python's path: found if the command line names them, and only then."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lit_models
from lit_models.cli.processes import environment
from lit_models.cli.typed_modules import typed_modules
from lit_models.support import current_folder
from lit_models.support.current_folder import FOR_CHILDREN, CurrentFolder
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_models import checkpoint_of, small_model
from tests.support.tiny import the_run

MINE = """
import os
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from helpers import pixels


class Cells:
    def __init__(self, folder, train=True):
        self.files = sorted(Path(folder).glob("*.png"))[0 if train else 1 :: 2]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        return Image.open(self.files[row]), int(self.files[row].stem[0])


class Tensors(Cells):
    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return pixels(image), label


class Module(LightningDataModule):
    workers = 0

    def train_dataloader(self, train=True):
        context = "spawn" if self.workers else None
        data = Tensors("pictures", train)
        return DataLoader(data, batch_size=4, num_workers=self.workers, multiprocessing_context=context)

    def val_dataloader(self):
        return self.train_dataloader(train=False)

    test_dataloader = predict_dataloader = val_dataloader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            Path(f"rank{self.trainer.global_rank}").open("a").write("x")
        return batch


class Spawning(Module):
    workers = 1


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
"""
HELPERS = """
import numpy as np
import torch


def pixels(image):
    from package import later  # a folder without __init__.py, imported when the loader runs

    return later.turned(torch.from_numpy(np.array(image)))
"""
LATER = "def turned(image):\n    return image.permute(2, 0, 1)\n"
TRAP = "from pathlib import Path\nPath(__file__).parents[1].joinpath('shadowed').touch()\n"
MODULES = ("mine", "helpers", "package", "package.later", "payload", "other")
SIZE = ("--model.image_size=16", "--model.num_classes=2", "--model.references_per_class=2", "--checkpoint.monitor=null")
LOOP = ("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
MODEL = ("--model=MetricResNet", "--model.encoder=mine.Net", *SIZE, *LOOP)
CELLS = ("--data=TorchDataset", "--data.train=mine.Cells", "--data.train_args.folder=pictures", "--data.batch_size=4")


def forget() -> None:
    """As a new process."""
    for name in MODULES:
        sys.modules.pop(name, None)
    if current_folder.FINDER in sys.meta_path:
        sys.meta_path.remove(current_folder.FINDER)
    current_folder.FINDER.names = frozenset()
    os.environ.pop(FOR_CHILDREN, None)
    importlib.invalidate_caches()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Iterator[Path]:
    """The current folder: ``mine.py``, what it imports, pictures, and folders that mustn't be taken for packages."""
    monkeypatch.chdir(tmp_path)
    files = {"mine.py": MINE, "helpers.py": HELPERS, "package/later.py": LATER, "other.py": "class Thing: pass\n"}
    files |= {f"{name}/__init__.py": TRAP for name in ("datamodules", "torchmetrics", "my_runs")}
    files |= {"wandb/run-1/files/code.py": TRAP, "payload.py": "raise SystemExit('a stranger runs')\n"}
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("pictures").mkdir()
    for number in range(32):
        pixels = np.full((16, 16, 3), 40 + 5 * number, np.uint8)
        Image.fromarray(pixels).save(f"pictures/{number // 2 % 2}_{number:02}.png")
    monkeypatch.setattr("lit_models.networks.user_network._MAKERS", {})
    forget()
    yield tmp_path
    forget()
    assert not Path("shadowed").exists()


def test_the_command_line_and_its_configurations_name_modules(folder: Path) -> None:
    (folder / "nested").mkdir()
    Path("a.yaml").write_text("model: {class_path: one.Net}\ndata: nested/b.yaml\ntrainer: {callbacks: [two.x.Stop]}\n")
    Path("nested/b.yaml").write_text("class_path: three.Data\ninit_args: {images: c.yaml, other: d.yaml}\n")
    Path("nested/c.yaml").write_text("class_path: four.Data\ninit_args: {again: b.yaml}\n")
    Path("nested/d.yaml").write_text("class_path: [\n")
    args = ["fit", "--config", "a.yaml", "--model.encoder=five.Net", "--data.train", "six.Cells"]
    args += ["--trainer.callbacks+=seven.Stop", "--data.images={class_path: eight.a.b.Data}", "--data.path=no file.png"]
    args += ["--ckpt_path", "payload.Thing", "--weights=payload.ckpt", "--run.experiment=payload.x", "--model", "VAE"]
    args += ["--config={data: nine.Data}", "--data.root={"]
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert typed_modules(args) == set(words)


def test_only_typed_modules_and_what_they_import_are_found(folder: Path) -> None:
    finder = CurrentFolder()
    try:
        finder.allow(str(folder), ["mine"])
        assert importlib.import_module("mine").__file__ == str(folder / "mine.py")
        for name in ("payload", "other", "wandb.run-1", "my_runs", "package"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        sys.modules["helpers"].pixels(np.zeros((2, 2, 3)))  # `package`, by a module that `mine` has imported
        assert "package.later" in sys.modules
        assert os.environ[FOR_CHILDREN] == f"helpers,mine,package:{folder}"
        (folder / "statistics.py").write_text("raise SystemExit\n")
        finder.allow(str(folder), ["statistics", "nowhere"])
        assert importlib.import_module("statistics").__file__ != str(folder / "statistics.py")
        with pytest.raises(ModuleNotFoundError, match=rf"'nowhere', neither installed nor in {folder} as nowhere\.py"):
            importlib.import_module("nowhere")
    finally:
        sys.meta_path.remove(finder)


def test_folders_without_python_files_are_no_packages(folder: Path) -> None:
    """W&B's own folder, imported by the user's module where W&B isn't installed."""
    Path("unpackaged/run-1").mkdir(parents=True)
    Path("other.py").write_text("try:\n    import unpackaged\nexcept ImportError:\n    unpackaged = None\n")
    current_folder.import_from_current_folder(["other.Thing"])
    assert importlib.import_module("other").unpackaged is None


def test_own_data_set_and_encoder(relit: Relit, folder: Path, capsys: Output) -> None:
    assert str(folder) not in sys.path
    assert relit("fit", *MODEL, *CELLS, "--data.root=data") == 0, capsys.readouterr().err
    run = the_run()
    forget()
    (last,) = run.glob("checkpoints/last.ckpt")
    assert relit("fit", "--config", run / "config.yaml", "--ckpt_path", last, "--trainer.max_epochs=2") == 0
    forget()
    assert relit("test", "--config", run / "config.yaml", "--ckpt_path", last) == 0
    forget()
    assert relit("export", run, "--encoder=mine.Net", "--output=net") == 0
    forget()
    capsys.readouterr()
    assert relit("test", "--ckpt_path", last) == 1
    assert "takes its data from mine.Cells, which isn't part of relit and would run code" in capsys.readouterr().err
    assert "mine" not in sys.modules


def test_own_data_module(relit: Relit, folder: Path, capsys: Output) -> None:
    assert relit("fit", *MODEL, "--data=mine.Module") == 0, capsys.readouterr().err
    assert Path("rank0").read_text() == "x" * 4
    forget()
    last = the_run() / "checkpoints" / "last.ckpt"
    typed = ("--data=mine.Module", "--model=MetricResNet", "--model.encoder=mine.Net")
    for command in ("test", "predict"):
        assert relit(command, f"--config={the_run() / 'config.yaml'}", f"--ckpt_path={last}", *typed) == 0, command
        forget()


@pytest.mark.parametrize("named", ["payload.Thing", "other.Thing"])
def test_no_checkpoint_names_a_module_of_the_folder(relit: Relit, folder: Path, capsys: Output, named: str) -> None:
    """Nor where the user has typed another one."""
    checkpoint = checkpoint_of(small_model("DCGAN"))
    checkpoint["config"]["data"] = {"class_path": named}
    torch.save(checkpoint, "payload.ckpt")
    for typed in ((), ("--model=ProtoNet", "--model.encoder=mine.Net")):
        assert relit("test", "--ckpt_path=payload.ckpt", *typed) == 1
        assert f"takes its data from {named}, which isn't part of relit" in capsys.readouterr().err
        assert not {"payload", "other"} & sys.modules.keys()
    assert relit("test", "--ckpt_path=payload.ckpt", "--data=mine.Module", "--trainer.fast_dev_run=1") in (0, 1)
    assert not {"payload", "other"} & sys.modules.keys()


def test_what_is_missing_is_one_sentence(relit: Relit, folder: Path, capsys: Output) -> None:
    Path("other.py").write_text("import a_package_of_others\n")
    Path("timeit.py").write_text("class Data: pass\n")
    where = f"neither installed nor in {folder} as my.py or as a folder my of Python files"
    fit = ("fit", "--model=MetricResNet", *SIZE)
    for args, told in (
        (("--data=my.Data",), f"--data is my.Data, but there is no module 'my', {where}: check the spelling."),
        (("--data=mine.Data",), "--data is mine.Data, but its module has no Data: check the spelling."),
        (
            ("--data=other.Data",),
            "--data is other.Data, whose code imports a_package_of_others, which isn't installed.",
        ),
        (
            ("--data=TorchDataset", "--data.train=my.Data"),
            f"There is no data set my.Data (No module named 'my', {where})",
        ),
    ):
        assert relit(*fit, *args) in (1, 2)
        assert told in capsys.readouterr().err
    assert relit(*fit, "--data=timeit.Data") in (1, 2)
    assert "timeit.py isn't used, as an installed package has the name timeit, too" in capsys.readouterr().err


def console_script(folder: Path) -> list[str]:
    """The installed command as pip writes it, whose path holds the script's folder and not the current one."""
    script = folder / "scripts of an environment" / "relit"
    script.parent.mkdir()
    text = "import sys\nfrom lit_models.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    script.write_text(text)
    return [sys.executable, str(script)]


def run_script(folder: Path, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = {"PYTHONPATH": str(Path(lit_models.__file__).parents[1]), "RELIT_DATA": str(folder / "data")}
    return subprocess.run(
        [*console_script(folder), *args], env={**os.environ, **path, **environment},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("data", "devices"), [("mine.Module", 2), ("mine.Spawning", 1)])
def test_the_console_script_and_processes_that_it_starts_find_it(folder: Path, data: str, devices: int) -> None:
    """That of the second rank, and a loader's spawned worker, in which the command doesn't run."""
    model = ("--model=DCGAN", "--model.image_size=16", "--model.feature_maps=2", "--model.latent_dim=4")
    more = ("--model.channels=3", "--checkpoint.monitor=null", f"--trainer.devices={devices}")
    one_worker = ("--trainer.limit_val_batches=0",)  # each further loader starts another one, which takes seconds
    done = run_script(folder, "fit", *model, *more, *LOOP, f"--data={data}", *one_worker)
    assert done.returncode == 0, done.stderr
    assert f"class_path: {data}\n" in (the_run() / "config.yaml").read_text()
    counts = [path.read_text() for path in sorted(folder.glob("rank*"))]
    assert counts == ["x" * (4 // devices)] * devices


@pytest.mark.long
def test_a_sweeps_trainings_find_it(folder: Path) -> None:
    pytest.importorskip("optuna")
    Path("mine.yaml").write_text("run: {experiment: mine}\n")
    vary = ("--vary", "seed_everything", "1", "--metric=val/loss", "--direction=minimize")
    done = run_script(folder, "sweep", "mine.yaml", *vary, "--", *MODEL, "--data=mine.Module")
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(list(Path("runs/mine").glob("*/checkpoints/last.ckpt"))) == 1


def test_commands_that_are_started_have_the_same_path(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert environment()["PYTHONSAFEPATH"] == "1"
    monkeypatch.syspath_prepend(str(folder))
    assert "PYTHONSAFEPATH" not in environment()
