"""What comes out of a checkpoint or a card is data: nothing in it is imported, run, or read a second time."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from lit_models.support.arguments import foreign_class, parse_as_data
from lit_models.support.weights import write_weights
from tests.support.small_models import checkpoint_of, small_model

Relit = Callable[..., int]
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


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
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
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    if foreign_class(config) is None:
        try:
            parsed = parse_as_data(parser, config)
            parser.instantiate_classes(parsed)
        except Exception:
            pass
    assert not traps()


def test_the_configuration_without_anything_hostile_is_made(traps: Callable[[], bool]) -> None:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    assert foreign_class(CONFIG) is None
    made = parser.instantiate_classes(parse_as_data(parser, CONFIG))
    assert (type(made.model).__name__, type(made.data).__name__) == ("DCGAN", "FewLabels")


def test_the_traps_work(traps: Callable[[], bool]) -> None:
    """Without the guard, the parser imports what a text names."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    with pytest.raises(Exception, match="data"):
        parser.parse_object({"data": "{class_path: payload.Thing}"})
    assert traps()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "{class_path: payload.Thing}"),
        ("data", "hostile.yaml"),
        ("data", {"class_path": "payload.Thing"}),
        ("data", {"class_path": "datamodules.FewLabels", "init_args": {"images": "{class_path: payload.Thing}"}}),
        ("data", {"class_path": "datamodules.FewLabels", "init_args": {"images": "package.payload.Thing"}}),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_every_command_refuses(
    relit: Relit,
    traps: Callable[[], bool],
    command: str,
    key: str,
    value: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command != "test" and key == "model":
        pytest.skip("the same code")
    checkpoint = checkpoint_of(small_model("DCGAN"))
    checkpoint["config"][key] = value
    torch.save(checkpoint, "file.ckpt")
    assert relit(command, "--ckpt_path=file.ckpt") == 1
    said = capsys.readouterr().err
    assert "file.ckpt" in said
    assert f"say it yourself by --config or --{key}." in said
    assert not traps()


def test_a_module_of_the_users_may_be_named_by_both(relit: Relit) -> None:
    checkpoint = checkpoint_of(small_model("DCGAN"))
    mine = {"class_path": "mine.Data"}
    assert foreign_class({**checkpoint["config"], "data": mine}) == "mine.Data"
    assert foreign_class({**checkpoint["config"], "data": mine}, {"mine"}) is None


def test_a_card_is_data_too(relit: Relit, traps: Callable[[], bool], capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = checkpoint_of(small_model("DCGAN"))
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
