"""What an offline W&B run holds, read back from its files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import wait_until
from tests.support.tiny import CONFIGS, QUIET, TINY, the_run

wandb = pytest.importorskip("wandb")


def items(record: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record}


def records(path: Path) -> Iterator[Any]:
    """The protobuf records of a ``.wandb`` file, which is a LevelDB log in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, payload = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        block_left = 32768 - position % 32768
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if block_left < 7 or kind == 0:
            position += block_left
            continue
        payload += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(payload)
            payload = b""


def read_back(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration and the history of the run's only ``.wandb`` file."""
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    # W&B writes from a separate process.
    wait_until(lambda: any(record.HasField("exit") for record in records(path)), seconds=30)
    found = list(records(path))
    config: dict[str, Any] = {}
    for record in found:
        for update in (record.run.config.update, record.config.update):
            config |= items(update)
    return config, [items(record.history.item) for record in found if record.HasField("history")]


@pytest.mark.parametrize(
    "how",
    [
        ["--wandb.enabled=true"],
        pytest.param(["--config", str(CONFIGS / "logger/wandb.yaml")], marks=pytest.mark.long),
    ],
)
def test_an_offline_run_holds_configuration_curves_and_grids(relit: Relit, how: list[str]) -> None:
    assert relit("fit", *TINY, *how, "--trainer.max_epochs=2", "--wandb.mode=offline") == 0
    run = the_run()
    assert (run / "metrics.csv").is_file(), "CSV always"
    config, history = read_back(run)
    assert config["model"]["init_args"]["latent_dim"] == 4
    assert config["data"]["class_path"] == "datamodules.Digits"
    assert {"git_commit", "torch", "processes"} <= config["environment"].keys()
    losses = [row for row in history if "train/generator_loss" in row]
    assert [row["trainer/global_step"] for row in losses] == [9, 19, 29, 39], "the generator's steps"
    grids = [row["trainer/global_step"] for row in history if any(key.startswith("samples") for key in row)]
    assert grids == [20, 40]
    pictures = [
        np.asarray(Image.open(path)) for path in run.glob("wandb/offline-run-*/files/media/images/samples_*.png")
    ]
    assert len(pictures) == 2
    assert all(picture.dtype == np.uint8 and picture.max() > 100 for picture in pictures), "not black"


def test_without_a_key_it_is_offline_and_never_asks(relit: Relit, monkeypatch: Patch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for input"))
    assert relit("fit", *TINY, "--wandb.enabled=true", "--trainer.max_epochs=1") == 0
    assert list(the_run().glob("wandb/offline-run-*"))


# --- what each callback and method shows ------------------------------------------------------------------------------


class Recorder:
    """Stands in for a W&B run: keeps what is logged, by key."""

    id = "recorded"

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.config = self
        self.logged: dict[str, list[Any]] = {}

    def update(self, settings: dict[str, Any], allow_val_change: bool) -> None:
        """As of a W&B run's ``config``."""
        self.settings |= settings

    def log(self, metrics: dict[str, Any]) -> None:
        assert metrics["trainer/global_step"] >= 0
        for key, value in metrics.items():
            self.logged.setdefault(key, []).append(value)

    def pictures(self) -> dict[str, np.ndarray]:
        """The last picture of each key, ``(H, W)`` or ``(H, W, 3)``."""
        return {key: np.asarray(values[-1][0].image) for key, values in self.logged.items() if key in self._keys(list)}

    def tables(self) -> dict[str, Any]:
        return {key: self.logged[key][-1] for key in self._keys(wandb.Table)}

    def _keys(self, kind: type) -> list[str]:
        return [key for key, values in self.logged.items() if isinstance(values[-1], kind)]


CLASSES = ("class_accuracy", "confusion_matrix", "confused_pairs")
SHOWN = {
    "generation": (
        *("conditional_gan_digits", ["--model.feature_maps=2", "--trainer.callbacks+=GenerationScores"]),
        [f"--trainer.callbacks.{count}=20" for count in ("test_count", "real_count", "count")],
        {"samples", "figures/losses", "figures/accuracies", "figures/label_accuracy"},
        {"tables/label_accuracy"},
    ),
    "autoencoder": (
        *("vae_mnist_2d", ["--data=Digits", "--data.batch_size=256", "--model.feature_maps=2"]),
        ["--trainer.callbacks+=Interpolations"],
        {"samples", "reconstructions", "figures/losses", "figures/latent_map", "figures/latent_plane"}
        | {"figures/interpolation_lerp", "figures/interpolation_slerp"},
        set(),
    ),
    "classification": (
        *("resnet18_digits", ["--model.feature_maps=2", "--data.batch_size=256", "--channels_last=false"]),
        ["--trainer.callbacks.per_class=5"],
        {"figures/losses", "figures/accuracies", "figures/examples_0", "figures/embedding"}
        | {f"figures/{name}" for name in CLASSES},
        {"tables/classification_report", "tables/embedding", *(f"tables/{name}" for name in CLASSES)},
    ),
    "architecture search": pytest.param(
        *("darts_search_digits", ["--model.init_channels=2", "--model.layers=3"]),
        [],
        {"figures/cells", "figures/search", "figures/losses", "figures/accuracies"},
        set(),
        marks=pytest.mark.slow,
    ),
    "found architecture": (
        *("darts_retrain_cifar10", ["--data=Digits", "--data.batch_size=16", "--model.channels=1"]),
        ["--model.image_size=32", "--model.init_channels=2", "--model.layers=3"],
        {"figures/cells", "figures/losses", "figures/accuracies", *(f"figures/{name}" for name in CLASSES)},
        {"tables/classification_report", *(f"tables/{name}" for name in CLASSES)},
    ),
}


@pytest.mark.parametrize(("config", "arguments", "more", "pictures", "tables"), SHOWN.values(), ids=SHOWN)
@pytest.mark.long
@pytest.mark.draws
def test_all_that_is_drawn_is_shown(
    relit: Relit,
    monkeypatch: Patch,
    config: str,
    arguments: list[str],
    more: list[str],
    pictures: set[str],
    tables: set[str],
) -> None:
    recorder = Recorder()
    monkeypatch.setattr("lit_models.runs.trackers.wandb_logger", lambda *_: WandbLogger(experiment=recorder))
    common = ["--config", str(CONFIGS / f"{config}.yaml"), *arguments, *more, "--wandb.enabled=true", *QUIET]
    limits = [f"--trainer.limit_{stage}_batches=2" for stage in ("train", "val")]
    assert relit("fit", *common, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", *limits) == 0
    assert relit("test", *common, "--ckpt_path=last", "--trainer.limit_test_batches=2") == 0
    shown = recorder.pictures()
    assert shown.keys() == pictures
    for key, picture in shown.items():
        assert picture.dtype == np.uint8
        assert picture.max() > max(100, picture.min()), f"{key} shows nothing"
    assert recorder.tables().keys() == tables
    for table in recorder.tables().values():
        assert len(table.data) > 0
    drawn = {path.stem for path in the_run().glob("figures/*.png")}
    assert drawn == {key.removeprefix("figures/") for key in pictures if key.startswith("figures/")}, "nothing else"
    if "tables/confusion_matrix" in tables:
        (chart,) = recorder.logged["charts/confusion_matrix"]
        counts = [
            list(map(int, row[1:])) for row in list(csv.reader((the_run() / "figures/confusion_matrix.csv").open()))[1:]
        ]
        assert [row[2] for row in chart.table.data] == [count for row in counts for count in row]


@pytest.mark.long
def test_of_two_ranks_one_logs(relit: Relit) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *TINY, *ranks, "--wandb.enabled=true", "--trainer.max_epochs=1", "--data.batch_size=32") == 0
    config, history = read_back(the_run())
    assert config["environment"]["processes"] == 2
    assert [row["trainer/global_step"] for row in history if "train/generator_loss" in row] == [9, 19]


@pytest.mark.long
def test_a_test_leaves_the_configuration_of_the_training(relit: Relit, monkeypatch: Patch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("lit_models.runs.trackers.wandb_logger", lambda *_: WandbLogger(experiment=recorder))
    fit = ["--wandb.enabled=true", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    assert relit("fit", *TINY, *fit) == 0
    assert recorder.settings["ckpt_path"] is None
    assert relit("test", *TINY, *fit, "--ckpt_path=last", "--data.eval_batch_size=100") == 0
    assert recorder.settings["ckpt_path"] is None
    assert "test/generator_loss" in recorder.logged


# --- the workspace ----------------------------------------------------------------------------------------------------


def test_a_workspace_has_a_section_for_each_kind(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    pytest.importorskip("wandb_workspaces")
    from analyses import wandb_workspace

    for name, metrics in {"one": "epoch,step,train/loss,val/loss", "two": "epoch,step,val/fid"}.items():
        for folder in ("samples", "figures"):
            (tmp_path / name / folder).mkdir(parents=True)
        (tmp_path / name / "metrics.csv").write_text(metrics + "\n")
    for picture in ("one/samples/reconstructions_0001.png", "two/samples/epoch_0003.png", "two/figures/losses.png"):
        (tmp_path / picture).touch()
    runs = [tmp_path / "one", tmp_path / "two"]
    assert wandb_workspace.metrics(runs) == ["train/loss", "val/fid", "val/loss"]
    keys = wandb_workspace.pictures(runs)
    workspace = wandb_workspace.build("somebody", "gans", "all", wandb_workspace.metrics(runs), keys)
    assert (workspace.entity, workspace.project, workspace.name) == ("somebody", "gans", "all")
    samples, losses, others, system = workspace.sections
    assert [section.name for section in workspace.sections] == ["Samples", "Losses", "Metrics", "System"]
    assert [panel.media_keys for panel in samples.panels] == [["samples"], ["reconstructions"], ["figures/losses"]]
    assert [(panel.x, panel.y) for panel in losses.panels] == [("trainer/global_step", ["train/loss", "val/loss"])]
    assert [panel.y for panel in others.panels] == [["val/fid"]]
    assert any("system/gpu.0.gpu" in panel.y for panel in system.panels)
    specification = json.loads(workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    assert len(specification["section"]["panelBankConfig"]["sections"]) == 4

    monkeypatch.setattr("sys.argv", ["wandb_workspace.py", *map(str, runs), "--print"])
    assert wandb_workspace.main() == 0
    assert "Losses\n  loss: train/loss, val/loss\n" in capsys.readouterr().out
