"""Two processes against one, for every method."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.scale import arguments_of
from lightning.pytorch import Callback, LightningModule, Trainer

import lit_models
from tests.methods import CASES
from tests.support.compare import assert_alike
from tests.support.fixtures import Patch, Relit
from tests.support.processes import environment, run_relit
from tests.support.small_data import write_autoencoder
from tests.support.tiny import CONFIGS, TINY, assert_same_run, the_run, weights
from tests.support.trainers import quiet_trainer
from tests.support.two_ranks import Case, penalty_between

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.timeout(200),
]


class KeepCheckpoint(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else []) for name, case in CASES.items()],
)
def test_two_ranks_equal_one_process_on_the_same_global_batch(
    digits_root: Path, tmp_path: Path, monkeypatch: Patch, case: Case
) -> None:
    """Weights, validation figures and checkpoints, by the strategy that the method says it needs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_models.wgan.gradient_penalty", penalty_between)
    write_autoencoder(tmp_path / "autoencoder.ckpt", latent_dim=4, feature_maps=2)
    checkpoints, figures = [], []
    for processes in (1, 2):
        torch.manual_seed(0)
        model = case.model()
        model = model.double() if case.double else model
        start = {name: value.clone() for name, value in model.state_dict().items()}
        find_unused = "_find_unused_parameters_true" if model.needs_find_unused_parameters else ""
        path = tmp_path / f"{processes}.ckpt"
        trainer = quiet_trainer(
            devices=processes,
            strategy="auto" if processes == 1 else f"ddp_fork{find_unused}",
            precision="64-true" if case.double else "32-true",
            use_distributed_sampler=False,
            max_epochs=model.planned_epochs or 1,
            limit_train_batches=case.batches,
            limit_val_batches=2,
            callbacks=[KeepCheckpoint(path)],
            default_root_dir=tmp_path,
        )
        trainer.fit(model, case.data(digits_root, processes))
        checkpoints.append(torch.load(path, weights_only=True))
        figures.append({k: float(value) for k, value in trainer.callback_metrics.items() if k.startswith("val/")})

    alone, together = checkpoints
    assert alone["global_step"] == together["global_step"] > 0
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_alike(together[part], alone[part], part, rtol=1e-3, atol=case.tolerance)
    for name, value in alone["state_dict"].items():
        if name.endswith(("weight", "original")) and not name.startswith(case.frozen or "nothing"):
            assert not torch.equal(value, start[name]), f"{name} was not trained"
    assert figures[0]
    assert figures[1] == pytest.approx(figures[0], rel=1e-3, abs=1e-6)


@pytest.mark.long
def test_a_resumed_run_of_two_ranks_equals_the_uninterrupted_one(relit: Relit) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *TINY, *two, "--run.root=whole") == 0
    assert relit("fit", *TINY, *two, "--trainer.max_epochs=1") == 0
    assert relit("fit", *TINY, *two, "--ckpt_path=last") == 0
    assert_same_run(the_run(), the_run(Path("whole")))


class KeepNumbers(Callback):
    """Writes what a rank draws before each batch to a file: latent vectors, augmentation and dropout would be of it."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        numbers = [torch.rand(2).tolist(), random.random(), float(np.random.random())]
        with Path(f"numbers{trainer.global_rank}").open("a") as file:
            file.write(f"{numbers}\n")


def test_ranks_draw_different_numbers(relit: Relit) -> None:
    fit = [*TINY, "--trainer.max_epochs=1", f"--trainer.callbacks+={__name__}.KeepNumbers"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *fit, *two) == 0
    first, second = (Path(f"numbers{rank}").read_text().splitlines() for rank in (0, 1))
    drawn = [json.loads(line) for line in (*first, *second)]
    assert len(drawn) == 20
    for kind in zip(*drawn, strict=True):
        assert len(set(map(str, kind))) == 20


@pytest.mark.long
def test_two_devices_need_no_other_flag(relit: Relit, digits_root: Path) -> None:
    """The real command: Lightning starts the second process, both agree on one run folder, files are written once."""
    arguments = [*TINY, "--trainer.max_epochs=1", "--trainer.devices=2", f"--data.root={digits_root}"]
    result = run_relit("fit", *arguments)
    assert result.returncode == 0, result.stderr
    run = the_run()
    assert result.stdout.count("The run is in") == 1
    assert weights(run)["generator.layers.0.weight"].isfinite().all()
    assert (run / "samples" / "epoch_0001.png").is_file()


@pytest.mark.long
def test_the_benchmark_of_two_processes_runs(tmp_path: Path) -> None:
    benchmark = CONFIGS.parent / "scripts" / "benchmark.py"
    short = ["--methods", "VAE", "--part", "measured", "--rounds", "1", "--steps", "1", "--json", "scale.json"]
    command = [sys.executable, str(benchmark), "scale", *short]
    subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, timeout=180, check=True)
    measured = json.loads((tmp_path / "scale.json").read_text())["measured"]["VAE"]
    assert all(measured[side] > 0 for side in ("alone", "apart", "together", "predicted_alone"))
    assert 0 < measured["predicted_share"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("method", lit_models.METHODS)
def test_two_devices_need_no_other_flag_by_any_method(tmp_path: Path, method: str) -> None:
    """The real command on noise, with the published configuration but for the size of the networks: two epochs of two
    steps each, and their checkpoints."""
    scripts = CONFIGS.parent / "scripts"
    checkpoint = write_autoencoder(tmp_path / "autoencoder.ckpt", latent_dim=64, feature_maps=16)
    fit = ["fit", *arguments_of(method, 4, checkpoint, small=True)]
    fit.remove("--trainer.enable_checkpointing=false")
    short = ["--trainer.devices=2", "--trainer.limit_train_batches=2", "--trainer.max_epochs=2"]
    short += ["--checkpoint.monitor=null"]  # scores of generated images come from callbacks, which are left out
    result = run_relit(*fit, *short, cwd=tmp_path, PYTHONPATH=f"{scripts}:{CONFIGS.parent}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("The run is in") == 1
