"""Arguments under their earlier names, wherever a file or a command line may hold one."""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import datamodules
import lit_models
import lit_models.callbacks
from lit_models import MetricResNet
from lit_models.cli import export
from lit_models.runs.settings import changes
from lit_models.support import renamed
from lit_models.support.checkpoint_files import read_checkpoint
from lit_models.support.renamed import RENAMED, with_new_names
from lit_models.support.weights import build_model, read_weights
from tests.support.fixtures import Output, Patch, Relit

SMALL = {"image_size": 16, "channels": 1, "num_classes": 3, "feature_maps": 2, "mean": [0.5], "std": [0.5]}


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    renamed._noted.clear()


@pytest.fixture
def old_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint as an earlier version wrote it, with 7 neighbors under the earlier name."""
    model = MetricResNet(**SMALL, knn_neighbors=7)
    arguments = {("knn_neighbours" if name == "knn_neighbors" else name): v for name, v in dict(model.hparams).items()}
    config = {
        "run": {"experiment": "old"},
        "model": {"class_path": "lit_models.MetricResNet", "init_args": {**SMALL, "knn_neighbours": 7}},
        "data": {"class_path": "datamodules.ImageFolder", "init_args": {"path": "x", "unlabelled": True}},
    }
    content = {"state_dict": model.state_dict(), "hyper_parameters": arguments, "config": config}
    content |= {"epoch": 0, "global_step": 0, "pytorch-lightning_version": "2.6.0"}
    path = tmp_path / "old.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("old", RENAMED)
def test_the_classes_have_the_new_name_and_not_the_old_one(old: str) -> None:
    for owner in RENAMED[old].classes:
        package = next(p for p in (lit_models, lit_models.callbacks, datamodules) if owner in p.__all__)
        arguments = ast.unparse(ast.parse(Path(import_module(getattr(package, owner).__module__).__file__).read_text()))
        assert f"{RENAMED[old].name}: " in arguments
        assert f"{old}: " not in arguments


def test_only_arguments_of_the_classes_that_were_renamed_get_new_names() -> None:
    theirs: dict[str, Any] = {"class_path": "mine.Data", "init_args": {"unlabelled": True}}
    assert with_new_names({"data": theirs}) == {"data": theirs}
    nested = {
        "class_path": "FewLabels",
        "init_args": {"images": {"class_path": "STL10", "init_args": theirs["init_args"]}},
    }
    new = with_new_names(nested)
    assert new["init_args"]["images"]["init_args"] == {"unlabeled": True}
    assert with_new_names({"data": {"init_args": {"unlabelled": True}}}) == {"data": {"init_args": {"unlabeled": True}}}


def resolved(relit: Relit, capsys: Output, *arguments: str) -> tuple[dict[str, Any], str]:
    assert relit("fit", *arguments, "--print_config") == 0
    said = capsys.readouterr()
    return yaml.safe_load(said.out), said.err


def test_a_configuration_and_a_command_line_may_have_old_names(relit: Relit, capsys: Output) -> None:
    callback = {"class_path": "TranslationScores", "init_args": {"map_colours": False}}
    content = {
        "model": {"class_path": "MetricResNet", "init_args": {"knn_neighbours": 7}},
        "data": {"class_path": "ImageFolder", "init_args": {"path": "x", "unlabelled": True}},
        "trainer": {"callbacks": [callback]},
    }
    Path("old.yaml").write_text(yaml.safe_dump(content))
    config, said = resolved(relit, capsys, "--config", "old.yaml")
    assert config["model"]["init_args"]["knn_neighbors"] == 7
    assert config["data"]["init_args"]["unlabeled"] is True
    assert config["trainer"]["callbacks"][0]["init_args"] == {"extractor": None, "map_colors": False}
    for old, new in RENAMED.items():
        assert said.count(f"relit: note: {old} is now called {new.name}; the old name still works.") == 1

    model = ("--model", "MetricResNet", "--model.knn_neighbours", "9", "--data", "SearchDataModule")
    data = ("--data.images", "STL10", "--data.images.unlabelled=true")
    callbacks = ("--trainer.callbacks+", "TranslationScores", "--trainer.callbacks.map_colours=false")
    config, _ = resolved(relit, capsys, *model, *data, *callbacks)
    assert config["model"]["init_args"]["knn_neighbors"] == 9
    assert config["data"]["init_args"]["images"]["init_args"]["unlabeled"] is True
    assert config["trainer"]["callbacks"][0]["init_args"]["map_colors"] is False


def test_a_checkpoint_and_a_card_may_have_old_names(old_checkpoint: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    content = read_checkpoint(old_checkpoint)
    assert build_model(content, old_checkpoint).hparams["knn_neighbors"] == 7
    assert MetricResNet.load_from_checkpoint(old_checkpoint, map_location="cpu").hparams["knn_neighbors"] == 7
    assert MetricResNet.load_from_checkpoint(old_checkpoint, knn_neighbors=3).hparams["knn_neighbors"] == 3
    assert content["config"]["data"]["init_args"] == {"path": "x", "unlabeled": True}

    assert export.main([str(old_checkpoint), "--output", "old"]) == 0
    card = Path("old.json")
    card.write_text(card.read_text().replace("knn_neighbors", "knn_neighbours").replace("unlabeled", "unlabelled"))
    weights = read_weights(Path("old.safetensors"))
    assert weights["hyper_parameters"]["knn_neighbors"] == 7
    assert weights["config"]["data"]["init_args"]["unlabeled"] is True


def test_an_old_name_isnt_a_change_of_a_run(tmp_path: Path) -> None:
    def config(name: str) -> dict[str, Any]:
        return {"model": {"class_path": "MetricResNet", "init_args": {name: 7}}}

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config("knn_neighbours")))
    assert not changes(tmp_path, config("knn_neighbors"))
