"""What comes out of a checkpoint or a card is data: nothing in it is imported, run, or read a second time."""

import copy
import json
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser

import lit_models
from lit_models.errors import ModelError, RunError
from lit_models.module import Method
from lit_models.support.arguments import foreign_class, parse_as_data
from lit_models.support.weights import write_weights
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_models import checkpoint_of, small_model

HOSTILE: list[Any] = [
    "payload.Thing",
    "package.payload.Thing",
    "this.s",
    "antigravity.webbrowser",
    "{class_path: payload.Thing}",
    "{class_path: payload.Thing, init_args: {}}",
    '{"class_path": "payload.Thing"}',
    "[{class_path: payload.Thing}]",
    "hostile.yaml",
    "./package/hostile.yaml",
    {"class_path": "payload.Thing"},
    {"class_path": "payload.Thing", "init_args": {}},
    {"class_path": "package.payload.Thing"},
    {"class_path": "{class_path: payload.Thing}"},
    {"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", "executed"]}},
    {"class_path": "os.mkdir"},
    {"class_path": "datamodules.TorchDataset", "init_args": {"train": "payload.Thing"}},
    {"class_path": "TorchDataset", "init_args": {"train": "FakeData", "test": "payload.Thing"}},
    "os.mkdir",
    "subprocess.Popen",
    "torch.hub.load",
    "torch.utils.bottleneck.__main__.main",
]
CONFIG = {
    "model": {
        "class_path": "lit_models.DCGAN",
        "init_args": {
            "image_size": 16,
            "latent_dim": 4,
            "feature_maps": 2,
            "generator_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "generator_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}},
        },
    },
    "data": {
        "class_path": "datamodules.FewLabels",
        "init_args": {"images": {"class_path": "datamodules.Digits", "init_args": {"batch_size": 8}}, "count": 20},
    },
}


@cache
def saved() -> dict[str, Any]:
    """A checkpoint of a DCGAN."""
    return checkpoint_of(small_model("DCGAN"))


def places(values: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nested configuration below the top."""
    if isinstance(values, dict):
        return [found for key, value in values.items() for found in [(*place, key), *places(value, (*place, key))]]
    return []


def with_value(place: tuple[Any, ...], value: Any, key: str | None = None) -> dict[str, Any]:
    config: Any = copy.deepcopy(CONFIG)
    part = config
    for name in place[:-1]:
        part = part[name]
    if key is not None and isinstance(part[place[-1]], dict):
        part[place[-1]][key] = value
    else:
        part[place[-1]] = value
    return config


def models_and_data() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    for kind, name in ((LightningModule, "model"), (LightningDataModule, "data")):
        parser.add_lightning_class_args(kind, name, subclass_mode=True, required=False)
    return parser


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: Patch) -> Callable[[], bool]:
    """Modules and files that say so if they are imported or read; returns whether one was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("package").mkdir()
    for place in ("payload.py", "package/payload.py"):
        Path(place).write_text("import os\nos.makedirs('executed', exist_ok=True)\nclass Thing: pass\n")
    for place in ("hostile.yaml", "package/hostile.yaml"):
        Path(place).write_text("class_path: payload.Thing\n")
    foreign = {"payload", "package", "package.payload", "this", "antigravity", "torch.utils.bottleneck.__main__"}
    for name in foreign:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return lambda: Path("executed").exists() or bool(foreign & sys.modules.keys())


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.sampled_from(places(CONFIG)),
    value=st.sampled_from(HOSTILE) | st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=2),
    key=st.none() | st.sampled_from(["images", "root", "dict_kwargs", "init_args", "discriminator_optimizer", "x"]),
)
def test_nothing_is_imported_whatever_a_checkpoints_configuration_says(
    traps: Callable[[], bool], place: tuple[Any, ...], value: Any, key: str | None
) -> None:
    config = with_value(place, value, key)
    parser = models_and_data()
    if foreign_class(config) is None:
        with suppress(Exception):  # to refuse it is right, too
            parsed = parse_as_data(parser, config)
            parser.instantiate(parsed)
    assert not traps()


def test_the_configuration_without_anything_hostile_is_made(traps: Callable[[], bool]) -> None:
    parser = models_and_data()
    assert foreign_class(CONFIG) is None
    made = parser.instantiate(parse_as_data(parser, CONFIG))
    assert (type(made.model).__name__, type(made.data).__name__) == ("DCGAN", "FewLabels")


def test_the_traps_work(traps: Callable[[], bool]) -> None:
    """Without the guard, the parser imports what a text names."""
    with pytest.raises(Exception, match="data"):
        models_and_data().parse_object({"data": "{class_path: payload.Thing}"})
    assert traps()


PATHS = ("datamodules.TorchDataset", "TorchDataset")
PARTS: tuple[dict[str, Any], ...] = (
    {"train": "payload.Thing"},
    {"train": "FakeData", "test": "payload.Thing"},
    {"train": "LSUNClass", "train_args": {"root": "given"}},  # which unpickles a file there
    {"train": ["payload.Thing"]},
)
ARGS = {"init_args": PARTS[0]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "{class_path: payload.Thing}"),
        ("data", "hostile.yaml"),
        ("data", {"class_path": "payload.Thing"}),
        ("data", {"class_path": "datamodules.FewLabels", "init_args": {"images": "{class_path: payload.Thing}"}}),
        ("data", {"class_path": "datamodules.FewLabels", "init_args": {"images": "package.payload.Thing"}}),
        *(("data", {"class_path": path, "init_args": part}) for path in PATHS for part in PARTS),
        ("data", {"class_path": "datamodules.FewLabels", "init_args": {"images": {"class_path": PATHS[0], **ARGS}}}),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_every_command_refuses(
    relit: Relit, traps: Callable[[], bool], command: str, key: str, value: Any, capsys: Output
) -> None:
    if command != "test" and key == "model":
        pytest.skip("the same code")
    checkpoint = copy.deepcopy(saved())
    checkpoint["config"][key] = value
    torch.save(checkpoint, "file.ckpt")
    assert relit(command, "--ckpt_path=file.ckpt") == 1
    said = capsys.readouterr().err
    assert "file.ckpt" in said
    assert f"say it yourself by --config or --{key}." in said
    assert not traps()


TRAINING = {
    "trainer": {
        "max_epochs": 2,
        "precision": "32-true",
        "callbacks": [{"class_path": "lit_models.callbacks.SampleGrid", "init_args": {"count": 4, "epochs": [1]}}],
    },
    "checkpoint": {"monitor": None, "mode": "min", "every_n_steps": None},
    "lr_scaling": "none",
    "seed_everything": 1,
    "run": {"experiment": "an_experiment"},
}


def hostile_checkpoint(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A checkpoint with the value in a place; Lightning's own loading goes by some of these."""
    checkpoint = copy.deepcopy(saved())
    checkpoint["config"] = {**copy.deepcopy(CONFIG), **copy.deepcopy(TRAINING)}
    part: Any = checkpoint
    for name in place[:-1]:
        part = part[name]
    if isinstance(part, list):
        part[:] = [value]
    else:
        part[place[-1]] = value
    return checkpoint


IN_THE_ARGUMENTS = [
    *("latent_dim", "feature_maps", "generator_optimizer", "_class_path", "_instantiator", "generator_scheduler"),
    *("discriminator_optimizer", "augmentations", "ema_decay", "init_args", "class_path"),
]
PLACES = [
    *(("config", *place) for place in places({**CONFIG, **TRAINING})),
    ("config",),
    ("config", "trainer", "callbacks", 0),
    ("config", "model", "init_args", "pretrained"),
    *(("hyper_parameters", name) for name in IN_THE_ARGUMENTS),
    *((name,) for name in ("hyper_parameters", "hparams_name", "hparams_type", "hparams", "module_arguments")),
    *((name,) for name in ("callbacks", "loops", "datamodule_hparams_name", "relit_version", "class_names")),
]
LIGHTNINGS_PARSER = "lightning.pytorch.cli.instantiate_module"


@pytest.mark.long
@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.sampled_from(PLACES),
    value=st.sampled_from([*HOSTILE, LIGHTNINGS_PARSER]) | st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=2),
    by_lightnings_parser=st.booleans(),
    subclass=st.sampled_from([None, "lit_models.DCGAN", "payload.Thing"]),
)
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_imported_where_a_checkpoint_is_loaded_in_python(
    traps: Callable[[], bool], place: tuple[Any, ...], value: Any, by_lightnings_parser: bool, subclass: str | None
) -> None:
    checkpoint = hostile_checkpoint(place, value)
    if isinstance(checkpoint["hyper_parameters"], dict) and by_lightnings_parser:
        checkpoint["hyper_parameters"]["_instantiator"] = LIGHTNINGS_PARSER
        if subclass is not None:
            checkpoint["hyper_parameters"]["_class_path"] = subclass
    torch.save(checkpoint, "file.ckpt")
    for load in (lit_models.DCGAN.load_from_checkpoint, lit_models.DCGAN.from_pretrained):
        with suppress(Exception):
            load("file.ckpt")
        assert not traps()


def test_lightnings_own_loading_is_a_way_in(traps: Callable[[], bool]) -> None:
    """Without the guard, its parser imports what a text among the arguments names."""
    checkpoint = hostile_checkpoint(("hyper_parameters", "generator_optimizer"), "{class_path: payload.Thing}")
    checkpoint["hyper_parameters"]["_instantiator"] = LIGHTNINGS_PARSER
    torch.save(checkpoint, "file.ckpt")
    model = lit_models.DCGAN.load_from_checkpoint("file.ckpt")
    assert model.latent_dim == 4, "the arguments themselves are taken"
    assert not traps()
    with suppress(Exception):
        super(Method, lit_models.DCGAN).load_from_checkpoint("file.ckpt")
    assert traps()


def test_a_class_for_lightnings_parser_is_refused(traps: Callable[[], bool]) -> None:
    checkpoint = hostile_checkpoint(("hyper_parameters", "_instantiator"), LIGHTNINGS_PARSER)
    checkpoint["hyper_parameters"]["_class_path"] = "lit_models.DCGAN"
    torch.save(checkpoint, "file.ckpt")
    with pytest.raises(ModelError, match="leaves it to LightningCLI's parser"):
        lit_models.DCGAN.load_from_checkpoint("file.ckpt")


COMMANDS: dict[str, tuple[str, ...]] = {
    "fit": ("fit", "--ckpt_path=file.ckpt", "--trainer.fast_dev_run=true"),
    "fit from weights": ("fit", "--weights=file.ckpt", "--trainer.fast_dev_run=true"),
    "validate": ("validate", "--ckpt_path=file.ckpt", "--trainer.fast_dev_run=true"),
    "test": ("test", "--ckpt_path=file.ckpt", "--trainer.fast_dev_run=true"),
    "predict": ("predict", "--ckpt_path=file.ckpt", "--count=1", "--predictions.folder=made"),
    "predict with weights": ("predict", "--weights=file.ckpt", "--count=1", "--predictions.folder=made"),
    "export": ("export", "file.ckpt"),
    "report": ("report", "runs/x/y", "--output=page.html"),
    "compare": ("compare", "runs/x/y", "--output=made"),
}


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from(PLACES),
    value=st.sampled_from(HOSTILE) | st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=2),
)
def test_no_command_imports_what_a_checkpoint_says(
    relit: Relit, traps: Callable[[], bool], command: str, place: tuple[Any, ...], value: Any, capsys: Any
) -> None:
    checkpoint = hostile_checkpoint(place, value)
    torch.save(checkpoint, "file.ckpt")
    run = Path("runs/x/y")
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, run / "checkpoints/last.ckpt")
    (run / "config.yaml").write_text(json.dumps(checkpoint["config"]))
    (run / "metrics.csv").write_text("epoch,step,train/loss\n0,9,1.5\n")
    assert relit(*COMMANDS[command]) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not traps()


def test_a_module_of_the_users_may_be_named_by_both(relit: Relit) -> None:
    checkpoint = copy.deepcopy(saved())
    mine = {"class_path": "mine.Data"}
    assert foreign_class({**checkpoint["config"], "data": mine}) == "mine.Data"
    assert foreign_class({**checkpoint["config"], "data": mine}, {"mine"}) is None


def test_data_of_torchvisions_are_taken() -> None:
    for name in ("FashionMNIST", "torchvision.datasets.FashionMNIST"):
        assert foreign_class({"class_path": "datamodules.TorchDataset", "init_args": {"train": name}}) is None
    mine = {"class_path": "datamodules.TorchDataset", "init_args": {"train": "mine.Cells"}}
    assert (foreign_class(mine), foreign_class(mine, {"mine"})) == ("mine.Cells", None)


def test_a_damaged_file_is_refused_in_python_too(traps: Callable[[], bool]) -> None:
    torch.save(checkpoint_of(small_model("DCGAN")), "file.ckpt")
    content = bytearray(Path("file.ckpt").read_bytes())
    with zipfile.ZipFile("file.ckpt") as archive:
        part = max(archive.infolist(), key=lambda one: one.file_size)
    content[part.header_offset + len(part.filename) + 200] ^= 1
    Path("file.ckpt").write_bytes(content)
    for load in (lit_models.DCGAN.load_from_checkpoint, lit_models.DCGAN.from_pretrained):
        with pytest.raises(RunError, match="damaged, as its contents don't have its own checksums"):
            load("file.ckpt")


def test_a_card_is_data_too(relit: Relit, traps: Callable[[], bool], capsys: Output) -> None:
    checkpoint = copy.deepcopy(saved())
    about = {"method": "DCGAN", "experiment": "x", "state": {}, "data": None, "epoch": 0, "step": 0}
    write_weights(checkpoint, Path("w.safetensors"), {**about, "hyperparameters": checkpoint["hyper_parameters"]})
    card = json.loads(Path("w.json").read_text())
    for value in ("{class_path: payload.Thing}", "payload.Thing", "hostile.yaml"):
        data = {"class_path": "datamodules.FewLabels", "init_args": {"images": value}}
        Path("w.json").write_text(json.dumps({**card, "data": data}))
        assert relit("test", "--weights=w.safetensors") == 1
        Path("w.json").write_text(
            json.dumps({**card, "hyperparameters": {**card["hyperparameters"], "latent_dim": value}})
        )
        assert relit("predict", "--weights=w.safetensors") == 1
    assert not traps()
