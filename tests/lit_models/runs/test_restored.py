"""A resumed run says what its checkpoint overrides, and sees each image of an epoch once."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from datamodules.loading.loaders import BatchLoader
from datamodules.loading.samplers import ClassBalancedBatches, ShuffledBatches
from datamodules.loading.tensors import GatherDataset, LabeledImages
from lit_models import DARTSSearch
from lit_models.runs.checkpoints import Checkpoints
from lit_models.runs.restored import Difference, RestoredSettings, compared
from lit_models.runs.settings import tell_changes
from tests.methods import RUNS
from tests.support.fixtures import Output, Relit
from tests.support.small_runs import small_run
from tests.support.tiny import CONFIGS, TINY, contents, the_run
from tests.support.trainers import Recorder, quiet_trainer

ROWS = 240


class Counting(Recorder):
    """No batch comes after as many as Lightning counts."""

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        assert batch_idx + 1 <= self.trainer.num_training_batches
        return super().training_step(batch, batch_idx)


def loader(batch_size: int, balanced: bool = False, rows: int = ROWS) -> BatchLoader[Any]:
    numbers = torch.arange(rows)
    data = GatherDataset(LabeledImages(numbers.view(rows, 1, 1, 1).float(), numbers % 6))
    if balanced:
        return BatchLoader(data, batch_sampler=ClassBalancedBatches(numbers % 6, 2, batch_size // 2))
    return BatchLoader(data, batch_sampler=ShuffledBatches(rows, batch_size))


def fit(folder: Path, batches: BatchLoader[Any], steps: int, checkpoint: Path | None = None) -> list[list[int]]:
    model = Counting()
    callbacks = [RestoredSettings("{}"), ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
    trainer = quiet_trainer(max_epochs=2, max_steps=steps, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(model, batches, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return [batch.image.flatten().long().tolist() for batch in model.train_batches]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("before", [16, 32])
@pytest.mark.parametrize("after", [8, 16, 24, 48])
def test_another_batch_size_within_an_epoch_sees_each_image_once(
    tmp_path: Path, before: int, after: int, capsys: Output
) -> None:
    begun = fit(tmp_path, loader(before), steps=5)
    rest = fit(tmp_path, loader(after), -1, tmp_path / "epoch=0-step=5.ckpt")
    epoch = (ROWS - 5 * before) // after
    counts = Counter(row for batch in begun + rest[:epoch] for row in batch)
    assert set(counts.values()) == {1}, "none twice"
    assert ROWS - len(counts) < after, "none left out but a last part of a batch"
    assert len(rest) == epoch + ROWS // after, "and then the next epoch"
    told = f"epoch 1 goes on after the {5 * before} of {ROWS} that it has used"
    assert (told in capsys.readouterr().err) == (before != after)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batches", [loader(16, balanced=True), loader(16, rows=120)], ids=["sampler", "data"])
def test_otherwise_the_epoch_starts_over_and_says_so(tmp_path: Path, batches: BatchLoader[Any], capsys: Output) -> None:
    fit(tmp_path, loader(32, balanced=len(batches.dataset) == ROWS), steps=3)
    rest = fit(tmp_path, batches, -1, tmp_path / "epoch=0-step=3.ckpt")
    assert "epoch 1 starts over" in capsys.readouterr().err
    assert len(rest) == 2 * len(batches)


WORLDS = [((16, 1), (16, 2)), ((16, 2), (16, 1)), ((8, 2), (12, 3)), ((16, 2), (10, 1)), ((16, 2), (50, 2))]


@pytest.mark.parametrize(("before", "after"), WORLDS)
def test_another_number_of_processes_within_an_epoch_sees_each_image_once(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    def loaders(batch_size: int, world_size: int) -> list[BatchLoader[Any]]:
        rows = loader(batch_size).dataset
        return [
            BatchLoader(rows, batch_sampler=ShuffledBatches(ROWS, batch_size, 0, rank, world_size))
            for rank in range(world_size)
        ]

    counts: Counter[int] = Counter()
    begun = loaders(*before)
    for batches in begun:
        for batch in islice(batches, 5):
            counts.update(batch.image.flatten().long().tolist())
    share = after[0] * after[1]
    for batches in loaders(*after):
        batches.load_state_dict(begun[0].state_dict())
        assert batches.change is not None
        rest = list(batches)
        assert len(rest) == (ROWS - 5 * before[0] * before[1]) // share, "as many on each rank"
        for batch in rest:
            counts.update(batch.image.flatten().long().tolist())
    assert set(counts.values()) == {1}, "none twice"
    assert ROWS - len(counts) < share, "none left out but a last part of a batch"


class SeenRows(Callback):
    """Writes the number that each training image is made of, and its epoch, into the file ``seen_<rank>``."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        numbers = (batch.image[:, 0, 0, :8] > 0.5).long() @ (1 << torch.arange(8))
        with Path(f"seen_{trainer.global_rank}").open("a") as file:
            file.writelines(f"{trainer.current_epoch} {number}\n" for number in numbers.tolist())


class FailAt(Callback):
    """Ends the run before its fifth batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            raise RuntimeError("This is the end.")


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [((16, 1), (20, 2)), ((16, 2), (24, 1)), ((16, 1), (100, 1))])
def test_a_run_that_goes_on_with_other_batches_or_processes_sees_each_image_once(
    relit: Relit, before: tuple[int, int], after: tuple[int, int], capfd: Output
) -> None:
    """240 images that say their numbers, by the command."""
    for number in range(ROWS):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[0, :8] = [255 * (number >> bit & 1) for bit in range(8)]
        folder = Path("images") / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    fit = [
        *("fit", "--model=VAE", "--model.image_size=16", "--model.channels=1", "--model.feature_maps=2"),
        *("--model.latent_dim=2", "--data=ImageFolder", "--data.path=images", "--data.image_size=16"),
        *("--data.channels=1", "--data.val_fraction=0", "--data.test_fraction=0", "--run.id=one", "--data.root=root"),
        *("--trainer.callbacks=tests.lit_models.runs.test_restored.SeenRows", "--checkpoint.every_n_steps=1"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    ]

    def processes(batch_size: int, world_size: int) -> list[str]:
        several = ["--trainer.strategy=ddp_fork"] if world_size > 1 else []
        return [f"--data.batch_size={batch_size}", f"--trainer.devices={world_size}", *several]

    end = "--trainer.callbacks+=tests.lit_models.runs.test_restored.FailAt"
    assert relit(*fit, *processes(*before), "--trainer.max_epochs=2", end) == 1
    step = torch.load(the_run() / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step in (3, 4)
    for path in Path().glob("seen_*"):  # a batch after the checkpoint is lost
        path.write_text("".join(path.read_text().splitlines(keepends=True)[: step * before[0]]))
    assert relit(*fit, *processes(*after), "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    share = after[0] * after[1]
    lines = [line.split() for path in Path().glob("seen_*") for line in path.read_text().splitlines()]
    for epoch in ("0", "1"):
        counts = Counter(number for of, number in lines if of == epoch)
        print(f"{before} then {after}, epoch {epoch}: {len(counts)} of {ROWS}, each {set(counts.values())} times")
        assert set(counts.values()) == {1}
        assert ROWS - len(counts) < share
    seen = step * before[0] * before[1]
    assert f"epoch 1 goes on after the {seen} of {ROWS} that it has used" in capfd.readouterr().err


SGD = ("torch.optim.SGD", "lr=0.1")
CHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "rate": (("--model.generator_optimizer.lr=0.5",), "the first optimizer's lr is 0.0002 there and 0.5 here"),
    "moment": (
        ("--model.discriminator_optimizer.beta1=0.9",),
        "the second optimizer's betas is 0.5 there and 0.9 here",
    ),
    "generator's class": (
        ("--model.generator_optimizer=torch.optim.SGD", "--model.generator_optimizer.lr=0.1"),
        "the first optimizer is FusedAdam there and SGD here",
    ),
    "discriminator's class": (
        ("--model.discriminator_optimizer=torch.optim.RMSprop", "--model.discriminator_optimizer.lr=0.1"),
        "the second optimizer is FusedAdam there and RMSprop here",
    ),
    "schedule": (
        (
            "--model.generator_scheduler=torch.optim.lr_scheduler.ExponentialLR",
            "--model.generator_scheduler.gamma=0.9",
        ),
        "the number of schedules is 0 there and 1 here",
    ),
    "plateau": (
        ("--model.generator_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau",),
        "ReduceLROnPlateau needs the name of a metric",
    ),
}


@pytest.mark.parametrize(("arguments", "sentence"), CHANGES.values(), ids=CHANGES)
def test_what_a_checkpoint_overrides_cannot_be_changed(
    relit: Relit, finished: Path, arguments: tuple[str, ...], sentence: str, capsys: Output
) -> None:
    before = contents(finished)
    assert relit("fit", *TINY, "--ckpt_path=last", "--trainer.max_epochs=4", *arguments) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert contents(finished) == before


@pytest.mark.parametrize("changed", [["resnet18"], [None, True, [0.1], {"lr": 0.1}], [0.2], [0.1], ["1e-1"]], ids=str)
def test_a_rate_that_a_schedule_has_moved_differs_only_if_it_was_changed(changed: list[Any]) -> None:
    """Other settings may have changed, or be new in this version: texts, lists and numbers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 0.03
    trainer: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[])
    found = list(compared(trainer, {"optimizer_states": [saved]}, changed))
    is_rate = changed[0] in (0.1, "1e-1")
    assert found == ([Difference("the optimizer's lr", 0.03, 0.1)] if is_rate else [])


def test_an_older_checkpoint_without_the_classes_names(relit: Relit, finished: Path, capsys: Output) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["optimizer_classes"]
    torch.save(checkpoint, path)
    assert relit("fit", *TINY, "--ckpt_path=last", "--trainer.max_epochs=4", *CHANGES["generator's class"][0]) == 1
    assert "the first optimizer is of another class there and SGD here" in capsys.readouterr().err
    short = ("--trainer.max_epochs=4", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0")
    assert relit("fit", *TINY, "--ckpt_path=last", *short) == 0


@pytest.mark.long
def test_a_highest_learning_rate_cannot_be_changed(relit: Relit, digits_root: Path, capsys: Output) -> None:
    arguments = small_run(RUNS["digit_classifier"][0], digits_root, epochs=2)
    assert relit("fit", *arguments, "--trainer.max_epochs=1") == 0
    assert relit("fit", *arguments, "--ckpt_path=last", "--model.max_lr=0.5") == 1
    assert "is 0.01 there and 0.5 here" in capsys.readouterr().err
    assert relit("fit", *arguments, "--ckpt_path=last") == 0
    assert torch.load(the_run() / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["max_lr"] == 0.01


def test_the_note_tells_what_a_checkpoint_overrides(tmp_path: Path, capsys: Output) -> None:
    """By the method's own list: the other settings do apply."""

    def config(std: float, smoothing: float) -> dict[str, Any]:
        arguments = {"arch_init_std": std, "gradient_clip_norm": smoothing}
        return {"model": {"class_path": "lit_models.DARTSSearch", "init_args": arguments}}

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(0.0, 5.0)))
    model = DARTSSearch(16, 1, 3, 4, 3)
    tell_changes(tmp_path, config(0.1, 4.0), model.restored_arguments)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("arch_init_std = 0.0, as the checkpoint holds what it made; 0.1 is not used.")
    assert second.endswith("gradient_clip_norm = 4.0 (was 5.0); it applies from here on.")


@pytest.mark.long
@pytest.mark.parametrize("setting", ["seed_everything", "data.split_seed"])
def test_with_another_order_of_the_images_the_epoch_starts_over(relit: Relit, setting: str, capsys: Output) -> None:
    """As many rows as before, so that the loader alone can't see it."""
    end = ("--trainer.callbacks+=tests.lit_models.runs.test_restored.FailAt", "--checkpoint.every_n_steps=1")
    assert relit("fit", *TINY, *end, "--trainer.max_epochs=1") == 1
    step = last_checkpoint()["global_step"]
    assert relit("fit", *TINY, "--ckpt_path=last", f"--{setting}=5", "--trainer.max_epochs=1") == 0
    assert f"{setting} may change the order of the images: epoch 1 starts over." in capsys.readouterr().err
    assert last_checkpoint()["global_step"] == step + 20


def last_checkpoint(name: str = "last") -> dict[str, Any]:
    return torch.load(the_run() / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.mark.long
def test_a_one_cycle_schedule_is_followed_to_its_end_and_not_beyond(
    relit: Relit, digits_root: Path, capsys: Output
) -> None:
    """Five batches an epoch, planned for three epochs."""
    fit = ["fit", *small_run(RUNS["digit_classifier"][0], digits_root), "--trainer.limit_train_batches=1.0"]
    fit += ["--data.batch_size=256", "--trainer.max_epochs=3"]
    assert relit(*fit, "--trainer.max_steps=5") == 0
    before = contents(the_run())
    for longer, length in (("--trainer.max_epochs=4", 20), ("--data.batch_size=128", 25)):
        assert relit(*fit, "--ckpt_path=last", longer) == 1
        sentence = (
            rf"The one-cycle schedule ends after 15 steps, but --trainer.max_epochs . \(max_steps -1\) .* {length}:"
        )
        assert re.search(sentence, said := capsys.readouterr().err), said
        assert contents(the_run()) == before
    assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=2") == 0
    assert "the schedule's total_steps is 15 there and 10 here" in capsys.readouterr().err
    schedule = last_checkpoint()["lr_schedulers"][0]
    torchs = OneCycleLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))]), 0.01, total_steps=15)
    for _ in range(10):
        torchs.optimizer.step()
        torchs.step()
    assert (schedule["total_steps"], schedule["last_epoch"]) == (15, 10)
    assert schedule["_last_lr"] == pytest.approx(torchs.get_last_lr())


@pytest.mark.long
def test_behind_the_end_of_a_cosine_the_learning_rate_rises_and_that_is_said(relit: Relit, capsys: Output) -> None:
    vae = ["--config", str(CONFIGS / "vae_digits.yaml"), "--model.feature_maps=2", *TINY[-3:]]
    schedule = "torch.optim.lr_scheduler.CosineAnnealingLR"
    fit = ["fit", *vae, "--trainer.limit_train_batches=1", f"--model.lr_scheduler={schedule}"]
    told = "The cosine schedule reaches its lowest learning rate after 2 epochs, but --trainer.max_epochs 3"
    assert relit(*fit, "--model.lr_scheduler.T_max=2", "--trainer.max_epochs=2") == 0
    assert told not in capsys.readouterr().err
    before = contents(the_run())
    assert relit(*fit, "--model.lr_scheduler.T_max=3", "--trainer.max_epochs=3", "--ckpt_path=last") == 1
    assert "the schedule's T_max is 2 there and 3 here" in capsys.readouterr().err
    assert contents(the_run()) == before
    assert relit(*fit, "--model.lr_scheduler.T_max=2", "--trainer.max_epochs=3", "--ckpt_path=last") == 0
    assert told in capsys.readouterr().err
    schedule_state = last_checkpoint()["lr_schedulers"][0]
    assert schedule_state["_last_lr"] == pytest.approx([schedule_state["base_lrs"][0] / 2])


@pytest.mark.long
@pytest.mark.parametrize("method", ["pix2pix", "darts"])
def test_another_length_of_a_methods_own_schedule(relit: Relit, digits_root: Path, method: str, capsys: Output) -> None:
    """pix2pix's plan follows max_epochs; DARTS has its own epochs, which a checkpoint's cosine keeps."""
    fit = ["fit", *small_run(RUNS[method][0], digits_root, epochs=2), "--trainer.limit_train_batches=1"]
    assert relit(*fit) == 0
    if method == "pix2pix":
        first = last_checkpoint()["lr_schedulers"][0]["base_lrs"][0]
        assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=4") == 0
        assert "trainer.max_epochs = 4 (was 2); it applies from here on" in capsys.readouterr().err
        rates = [last_checkpoint(name)["lr_schedulers"][0]["_last_lr"][0] for name in ("previous", "last")]
        assert rates == pytest.approx([first / 3, 0]), "constant for half of the four epochs, then down to 0 after them"
        return
    assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=3") == 1
    assert "epochs is 2, but --trainer.max_epochs is 3: leave it out, or change --model.epochs" in (
        capsys.readouterr().err
    )
    assert relit(*fit, "--ckpt_path=last", "--model.epochs=3") == 1
    assert "the schedule's T_max is 2 there and 3 here" in capsys.readouterr().err


@pytest.mark.long
def test_another_decay_of_the_average(relit: Relit, capsys: Output) -> None:
    """It applies to the steps that follow; an average can't begin or end on the way."""
    few = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0")
    fit = ("fit", *TINY, "--model.ema_decay=0.1", *few)
    assert relit(*fit, "--trainer.max_epochs=1") == 0
    before = last_checkpoint()["state_dict"]
    assert relit(*fit, "--ckpt_path=last", "--trainer.max_epochs=2", "--model.ema_decay=0.15") == 0
    assert "ema_decay = 0.15 (was 0.1); it applies from here on" in capsys.readouterr().err
    after = last_checkpoint()["state_dict"]
    names = [name for name in after if name.startswith("generator.") and name.endswith("weight")]
    assert names
    for name in names:
        average = "generator_average." + name.removeprefix("generator.")
        assert torch.allclose(after[average], 0.15 * before[average] + 0.85 * after[name], atol=1e-6), name
    kept = contents(the_run())
    assert relit("fit", *TINY, *few, "--ckpt_path=last", "--trainer.max_epochs=3", "--model.ema_decay=null") == 1
    assert "don't fit the model" in capsys.readouterr().err
    assert contents(the_run()) == kept


def test_the_scaling_of_learning_rates_cannot_be_changed(relit: Relit, finished: Path, capsys: Output) -> None:
    before = contents(finished)
    assert relit("fit", *TINY, "--ckpt_path=last", "--trainer.max_epochs=4", "--lr_scaling=linear") == 1
    assert "lr_scaling is none there and linear here" in capsys.readouterr().err
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("now", "best"), [(("val/loss", "min"), 0.5), (("val/accuracy", "max"), None), (("val/loss", "max"), None)]
)
def test_the_best_value_of_another_metric_counts_for_nothing(now: tuple[str, Any], best: float | None) -> None:
    before, after = Checkpoints("val/loss"), Checkpoints(*now)
    before.best_score = 0.5
    after.load_state_dict(before.state_dict())
    assert after.best_score == best
    after.load_state_dict({"best_score": 0.5})
    assert after.best_score == 0.5, "older checkpoints don't name the metric"
