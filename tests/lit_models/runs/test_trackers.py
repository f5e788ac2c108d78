"""TensorBoard and MLflow hold what W&B holds, and a resumed run goes on in the same place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from packaging.version import Version
from PIL import Image
from torch import Tensor

from lit_models.runs.loggers import WandbOptions, wandb_logger
from lit_models.support.logging import log_figure, log_image, log_table
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import CONFIGS, TINY, the_run

SHORT = ("--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=2", "--trainer.limit_val_batches=1")


def logged_rows(run: Path) -> list[int]:
    """The steps at which ``metrics.csv`` holds a training loss."""
    return [int(row["step"]) for row in rows_of(run / "metrics.csv") if row["train/generator_loss"]]


def test_tensorboards_event_files_hold_it_all_and_are_resumed(relit: Relit) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit = (*TINY, *SHORT, "--config", CONFIGS / "logger" / "tensorboard.yaml")
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    assert relit("fit", *fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    run = the_run()
    assert sorted({path.parent for path in run.rglob("events.*")}) == [run / "tensorboard"]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags: dict[str, Any] = events.Tags()
    assert {"train/generator_loss", "epoch"} <= {*tags["scalars"]}
    losses = events.Scalars("train/generator_loss")
    assert [event.step for event in losses] == logged_rows(run)
    assert {"samples", "figures/losses"} <= {*tags["images"]}
    assert [event.step for event in events.Images("samples")] == [4, 8]
    picture = events.Images("samples")[-1]
    assert min(picture.width, picture.height) > 32
    hyperparameters = yaml.unsafe_load((run / "tensorboard" / "hparams.yaml").read_text())
    assert hyperparameters["model"]["init_args"]["latent_dim"] == 4
    assert "torch" in hyperparameters["environment"]
    assert hyperparameters["environment"]["folder"] == str(run.absolute())
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


@pytest.mark.long
def test_mlflows_store_holds_it_all_and_is_resumed(relit: Relit, monkeypatch: Patch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    fit = (*TINY, *SHORT, "--config", CONFIGS / "logger" / "mlflow.yaml")
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    assert relit("fit", *fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    run = the_run()
    client = MlflowClient((run / "mlruns").absolute().as_uri())
    experiment = client.get_experiment_by_name("dcgan_digits")
    assert experiment is not None
    (record,) = client.search_runs([experiment.experiment_id])
    assert record.info.run_id == (run / "mlflow_id").read_text()
    assert record.info.run_name == f"dcgan_digits/{run.name}"
    assert record.info.status == "FINISHED"
    assert record.data.params["model.init_args.latent_dim"] == "4"
    assert record.data.params["environment.folder"] == str(run.absolute())
    assert record.data.params["trainer.max_epochs"] == "1", "a parameter of MLflow's never changes"
    losses = client.get_metric_history(record.info.run_id, "train/generator_loss")
    assert [value.step for value in losses] == logged_rows(run)
    artifacts = {file.path for file in client.list_artifacts(record.info.run_id)}
    assert {"config.yaml", "images"} <= artifacts
    pictures = [file.path for file in client.list_artifacts(record.info.run_id, "images")]
    assert sum("samples" in name and name.endswith(".png") for name in pictures) == 2
    assert any("losses" in name for name in pictures)


class Tracker:
    """Stands in for the trainer of a run at step 7 with one logger."""

    is_global_zero = True
    global_step = 7

    def __init__(self, logger: Any) -> None:
        self.loggers = [logger]


class Noted:
    """Notes the calls of a few methods."""

    def __init__(self, *methods: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        for method in methods:
            setattr(self, method, self._noting(method))

    def _noting(self, method: str) -> Callable[..., None]:
        return lambda *values, **named: self.calls.append((method, *values, *named.values()))


def test_any_logger_with_a_picture_method_gets_pictures_and_tables(tmp_path: Path) -> None:
    picture = tmp_path / "plane.png"
    Image.fromarray(np.full((3, 5, 3), 200, np.uint8)).save(picture)
    table = tmp_path / "counts.csv"
    table.write_text("name,count\na|b,1\n")
    image: Tensor = __import__("torch").full((1, 2, 3), 0.5)

    own = Noted("log_image", "log_table")
    board = Noted("add_image", "add_text")
    comet = Noted("log_image", "log_table")
    boards: list[Any] = [own, *(type("Other", (), {"experiment": one})() for one in (board, comet))]
    for logger in boards:
        trainer: Any = Tracker(logger)
        log_image(trainer, "samples", image)
        log_figure(trainer, picture)
        log_table(trainer, table)
    assert [call[:2] for call in own.calls] == [
        ("log_image", "samples"),
        ("log_image", "figures/plane"),
        ("log_table", "tables/counts"),
    ]
    assert own.calls[2][2:] == (["name", "count"], [["a|b", 1.0]], 7)
    assert board.calls[0][2].shape == (2, 3, 3)
    assert (board.calls[0][2] == 127).all()
    assert board.calls[1][2].shape == (3, 5, 3)
    assert board.calls[2] == ("add_text", "tables/counts", "| name | count |\n| --- | --- |\n| a&#124;b | 1 |", 7)
    assert [call[2:] for call in comet.calls[:2]] == [("samples", 7), ("figures/plane", 7)]
    assert comet.calls[2] == ("log_table", str(table))
    log_image(Tracker(object()), "samples", image)  # type: ignore[arg-type]  # a logger that takes no pictures


def test_mlflow_without_a_store_or_a_server_is_one_sentence(relit: Relit, monkeypatch: Patch, capsys: Output) -> None:
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if Version(mlflow.__version__).major >= 3:  # earlier ones keep a store in a folder without being asked to
        assert relit("fit", *TINY, "--trainer.logger=MLFlowLogger") == 1
        assert capsys.readouterr().err == (
            "relit: MLFlowLogger needs --trainer.logger.tracking_uri, such as sqlite:///mlflow.db; --config "
            "logger/mlflow needs none, and keeps its store in the run's folder.\n"
        )
    server = "--trainer.logger.tracking_uri=http://127.0.0.1:9"  # where nothing listens
    assert relit("fit", *TINY, "--config", CONFIGS / "logger" / "mlflow.yaml", server) == 1
    told = capsys.readouterr().err
    assert told.startswith("relit: MLflow's server or store http://127.0.0.1:9 can't be used (API request to http://")
    assert told.endswith("): start it, or correct --trainer.logger.tracking_uri or $MLFLOW_TRACKING_URI.\n")
    assert not list(Path("runs").rglob("*.ckpt"))


def test_wandbs_environment_variables_are_honored_and_options_win(tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("wandb")
    values = {"PROJECT": "mine", "ENTITY": "us", "RUN_GROUP": "ours", "TAGS": "a,b", "NOTES": "seen", "NAME": "first"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)

    def settings(options: WandbOptions) -> list[Any]:
        logger = wandb_logger(options, tmp_path, "dcgan")
        return [logger._wandb_init[name] for name in ("project", "entity", "group", "tags", "notes", "name")]

    assert settings(WandbOptions()) == ["mine", "us", "ours", ["a", "b"], "seen", "first"]
    given = WandbOptions(project="p", entity="e", group="g", tags=["t"], notes="n")
    assert settings(given) == ["p", "e", "g", ["t"], "n", "first"]
    for name in values:
        monkeypatch.delenv(f"WANDB_{name}")
    assert settings(WandbOptions()) == ["relit", None, "dcgan", [], None, f"dcgan/{tmp_path.name}"]
