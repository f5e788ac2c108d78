import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.fixtures import Patch
from tests.support.report_page import measured, picture, write_tests


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    """A run with everything: two epochs of ten steps, a test, samples, triptychs, figures, a confusion matrix."""
    run = tmp_path / "gan" / "one"
    run.mkdir(parents=True)
    header = "epoch,step,train/loss,val/loss,val/fid,val/images,test/fid\n"
    train = [f"{epoch},{10 * epoch + i},{0.1 * i + epoch + 0.123456789},,,,\n" for epoch in (0, 1) for i in (4, 9)]
    val = ["0,9,,2.5,8.25,1000,\n", "1,19,,1.5,4.125,1000,\n"]
    (run / "metrics.csv").write_text(header + "".join(train + val) + "0,0,,,,,3.0625\n")
    write_tests(run, measured({"test/fid": 3.0625}, "gan_digits"))
    config = {
        "seed_everything": 3,
        "run": {"experiment": "gan_digits", "id": "one"},
        "checkpoint": {"monitor": "val/fid"},
        "model": {"class_path": "lit_models.DCGAN", "init_args": {"latent_dim": 8, "n_critic": 1}},
        "data": {"class_path": "datamodules.Digits", "init_args": {"root": None}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    record: dict[str, Any] = {
        "finished": True,
        "training_seconds": 754.0,
        "processor": "A processor",
        "threads": 2,
        "processes": 1,
    }
    record["data"] = {"name": "Digits", "train_images": 1347, "val_images": 150}
    record["peak_memory_bytes"] = {"process": 3 * 2**29, "accelerator": None}
    (run / "run.json").write_text(json.dumps({**record, "accelerator": None, "git_commit": "0123456789abcdef+changes"}))
    for epoch in (1, 2):
        picture(run / "samples" / f"epoch_{epoch:04}.png", 60 * epoch)
        picture(run / "samples" / "triptychs" / f"epoch_{epoch:04}.png", 70 * epoch)
    for name in ("embedding", "losses", "confusion_matrix"):
        picture(run / "figures" / f"{name}.png", 5)
    (run / "figures" / "confusion_matrix.csv").write_text("class,cat,dog\ncat,7,1\ndog,0,5\n")
    (run / "genotype.json").write_text('{"normal": []}')
    return run


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """The current folder is the test's."""
    monkeypatch.chdir(tmp_path)
