"""What an offline W&B run holds, read back from its files."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import CONFIGS, TINY, the_run

pytest.importorskip("wandb")

Relit = Callable[..., int]


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
    deadline = time.monotonic() + 30
    found: list[Any] = []
    while not any(record.HasField("exit") for record in found):  # W&B writes from a process of its own
        assert time.monotonic() < deadline, "W&B didn't finish its file"
        time.sleep(0.1)
        found = list(records(path))
    config: dict[str, Any] = {}
    for record in found:
        for update in (record.run.config.update, record.config.update):
            config |= items(update)
    return config, [items(record.history.item) for record in found if record.HasField("history")]


@pytest.mark.parametrize("how", [["--wandb.enabled=true"], ["--config", str(CONFIGS / "logger/wandb.yaml")]])
def test_an_offline_run_holds_configuration_curves_and_grids(relit: Relit, how: list[str]) -> None:
    assert relit("fit", *TINY, *how, "--trainer.max_epochs=2", "--wandb.mode=offline") == 0
    run = the_run()
    assert (run / "metrics.csv").is_file(), "CSV always"
    config, history = read_back(run)
    assert config["model"]["init_args"]["latent_dim"] == 4
    assert config["data"]["class_path"] == "datamodules.Digits"
    assert "git_commit" in config
    losses = [row for row in history if "train/generator_loss" in row]
    assert [row["trainer/global_step"] for row in losses] == [9, 19, 29, 39], "the generator's steps"
    grids = [row["trainer/global_step"] for row in history if any(key.startswith("samples") for key in row)]
    assert grids == [20, 40]
    pictures = [
        np.asarray(Image.open(path)) for path in run.glob("wandb/offline-run-*/files/media/images/samples_*.png")
    ]
    assert len(pictures) == 2
    assert all(picture.dtype == np.uint8 and picture.max() > 100 for picture in pictures), "not black"


def test_without_a_key_it_is_offline_and_never_asks(relit: Relit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for input"))
    assert relit("fit", *TINY, "--wandb.enabled=true", "--trainer.max_epochs=1") == 0
    assert list(the_run().glob("wandb/offline-run-*"))
