"""Runs of LayerwiseMLP, as a user meets them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from datamodules import Digits, GatherDataset, LabeledImages
from lit_models import LayerwiseMLP
from lit_models.errors import ModelError
from lit_models.support.phase_data import labeled_rows
from tests.lit_models.test_layerwise_mlp import TINY
from tests.support.data_modules import digits_of
from tests.support.fixtures import Output, Relit
from tests.support.small_data import stl10
from tests.support.tables import rows_of, table_of
from tests.support.tiny import assert_refused, assert_same_run, finished_run, killed_fit, killer, quick_run, the_run
from tests.support.trainers import quiet_trainer

FIT = quick_run("layerwise_mlp_digits", model=TINY)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    masked = (*FIT, "--model.mask_fraction=0.2", f"--data.root={digits_root}")
    return finished_run(tmp_path_factory.mktemp("whole"), *masked)


@pytest.mark.parametrize(
    "batch", [15, 36, 40, 55, 77], ids=["layer 1", "layer 2", "between layers", "layer 3", "fine-tuning"]
)
@pytest.mark.long
def test_a_killed_run_goes_on_exactly_in_any_phase(relit: Relit, uninterrupted: Path, batch: int) -> None:
    arguments = [*FIT, "--model.mask_fraction=0.2", "--checkpoint.every_n_steps=7"]
    killed_fit(relit, *arguments, *killer(batch=batch))
    assert relit("fit", *arguments, "--ckpt_path=last") == 0
    assert_same_run(the_run(), uninterrupted)


@pytest.mark.long
def test_a_resumed_run_may_fine_tune_longer_but_keeps_its_phases(relit: Relit, capsys: Output) -> None:
    arguments = ["fit", *FIT, "--model.finetune_schedule=cosine", "--trainer.limit_train_batches=1"]
    assert relit(*arguments, "--trainer.max_epochs=8") == 0
    assert relit(*arguments, "--model.pretrain_epochs=1", "--ckpt_path=last") == 1
    sentence = "This run was begun with 2 epochs of pretraining for each layer, not 1: leave --model.pretrain_epochs"
    assert sentence in capsys.readouterr().err
    assert relit(*arguments, "--model.finetune_epochs=6", "--ckpt_path=last") == 0
    state = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 11
    assert state["optimizer_states"][-1]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)
    assert LayerwiseMLP.load_from_checkpoint(the_run() / "checkpoints" / "last.ckpt").finetune_epochs == 6


def test_fit_logs_every_phase_and_keeps_the_best_classifier(uninterrupted: Path) -> None:
    rows = rows_of(uninterrupted / "metrics.csv")
    logged: dict[str, set[int]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in ("epoch", "step"):
                logged.setdefault(name, set()).add(int(row["step"]) // 10)
    pretraining = {
        f"{stage}/layer{layer}_reconstruction_loss": {2 * layer - 2, 2 * layer - 1}
        for stage in ("train", "val")
        for layer in (1, 2, 3)
    }
    finetuning = {f"{stage}/{name}": {6, 7, 8} for stage in ("train", "val") for name in ("loss", "accuracy")}
    assert logged == {**pretraining, **finetuning}

    best = torch.load(uninterrupted / "checkpoints" / "best.ckpt", weights_only=True)
    accuracy = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert best["epoch"] == 6 + int(np.argmax(accuracy))
    for name in ("losses", "accuracies"):
        assert np.asarray(Image.open(uninterrupted / "figures" / f"{name}.png")).std() > 0


@pytest.mark.long
def test_the_progress_bar_names_phase_and_layer(relit: Relit, capsys: Output) -> None:
    arguments = [*FIT, "--trainer.enable_progress_bar=true"]
    killed_fit(relit, *arguments, *killer(batch=15), "--checkpoint.every_n_steps=7")
    capsys.readouterr()
    assert relit("fit", *arguments, "--ckpt_path=last") == 0
    lines = [line for line in re.split(r"[\r\n]", capsys.readouterr().out) if line.startswith("Epoch ")]
    shown = {int(line[6:].split("/")[0]): line for line in lines}
    phases = [*[f"pretraining layer {layer} of 3" for layer in (1, 2, 3) for _ in range(2)], *["fine-tuning"] * 3]
    assert list(shown) == list(range(2, 10)), "it goes on in the second epoch"
    for epoch, line in shown.items():
        assert line.startswith(f"Epoch {epoch}/9, {phases[epoch - 1]}  ")
        assert "loss " in line


def test_no_best_checkpoint_before_fine_tuning(relit: Relit) -> None:
    assert relit("fit", *FIT, "--trainer.max_epochs=2", "--trainer.limit_train_batches=1") == 0
    assert {path.name for path in (the_run() / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_tests_write_tables_and_figures(relit: Relit, uninterrupted: Path, digits_root: Path) -> None:
    checkpoint = uninterrupted / "checkpoints" / "best.ckpt"
    assert relit("test", *FIT, f"--ckpt_path={checkpoint}", "--run.root=here") == 0
    figures = uninterrupted / "figures"
    model = LayerwiseMLP.load_from_checkpoint(checkpoint).eval()
    assert model.class_names == tuple("0123456789")
    batch = digits_of(digits_root)
    with torch.no_grad():
        guesses = model(batch.image).argmax(1).tolist()
    pairs = list(zip(batch.label.tolist(), guesses, strict=True))
    table = table_of(figures / "confusion_matrix.csv")
    assert table[0] == ["class", *"0123456789"]
    for true in range(10):
        assert table[true + 1] == [str(true), *(str(pairs.count((true, guess))) for guess in range(10))]
    last = table_of(figures / "class_accuracy.csv")[-1]
    correct = sum(true == guess for true, guess in pairs)
    assert last == ["all", "300", str(correct), f"{correct / 300:.4f}"]
    for name in ("class_accuracy", "confusion_matrix", "embedding"):
        assert np.asarray(Image.open(figures / f"{name}.png")).std() > 0


def test_predictions_name_files_classes_and_probabilities(
    relit: Relit, uninterrupted: Path, digits_root: Path, tmp_path: Path
) -> None:
    batch = digits_of(digits_root, count=7)
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, image in enumerate(batch.image):
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(folder / f"scan{number}.png")
    arguments = ["--data=ImageFolder", f"--data.path={folder}", "--data.image_size=32", "--data.channels=1"]
    checkpoint = uninterrupted / "checkpoints" / "last.ckpt"
    assert relit("predict", f"--ckpt_path={checkpoint}", *arguments, "--predictions.folder=told") == 0
    rows = table_of(Path("told/classes.csv"))
    model = LayerwiseMLP.load_from_checkpoint(checkpoint).eval()
    with torch.no_grad():
        highest, label = model(batch.image).softmax(1).max(1)
    assert rows[0][:3] == ["image", "class", "probability"]
    for number, (name, guess, probability, *_) in enumerate(rows[1:]):
        assert (name, guess) == (f"scan{number}.png", str(label[number].item()))
        assert float(probability) == pytest.approx(highest[number].item(), abs=1e-4)
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (
            "trainer.max_epochs=10",
            "The phases take 9 epochs (3 layers x 2 + 3), but --trainer.max_epochs is 10: leave it out, or change "
            "--model.pretrain_epochs or --model.finetune_epochs.",
        ),
        ("trainer.max_epochs=-1", "but --trainer.max_epochs is -1"),
        (
            "trainer.gradient_clip_val=1",
            "the Trainer can't clip their gradients: leave --trainer.gradient_clip_val out.",
        ),
        ("trainer.accumulate_grad_batches=2", "in place of --trainer.accumulate_grad_batches."),
    ],
)
def test_errors_are_a_sentence(relit: Relit, capsys: Output, argument: str, sentence: str) -> None:
    assert relit("fit", *FIT, f"--{argument}") == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.splitlines()[-1].startswith("relit: ")
    assert "Error" not in error, "neither a traceback nor a library's words around ours"
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("widths", "sentence"),
    [
        ("12", "--model.widths is 12; it must be a list. Write it as '[12]'."),
        ("[10.5, 3]", "--model.widths is 10.5; it must be a whole number."),
        ("[10, x]", "--model.widths is x; it must be a whole number."),
    ],
)
def test_widths_that_are_no_list_of_numbers(relit: Relit, capsys: Output, widths: str, sentence: str) -> None:
    assert relit("fit", *FIT, f"--model.widths={widths}") == 2
    assert capsys.readouterr().err == f"relit: {sentence}\n"


def test_weights_of_other_layers_are_refused(relit: Relit, uninterrupted: Path, capsys: Output) -> None:
    checkpoint = uninterrupted / "checkpoints" / "last.ckpt"
    assert relit("test", *FIT, "--model.widths=[12, 8, 7]", f"--ckpt_path={checkpoint}") == 1
    assert "The checkpoint's weights don't fit the model" in capsys.readouterr().err


class Partly(Digits):
    """Every other training image has no label."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.train_set = GatherDataset(
            LabeledImages(self.train_set.columns.image, self.train_set.columns.label.clone()), self.train_set.rows
        )
        self.train_set.columns.label[::2] = -1


class Unmeasured(Digits):
    """Held-out images without labels."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for name in ("val_set", "test_set"):
            if (held_out := getattr(self, name)) is not None:
                columns = LabeledImages(held_out.columns.image, torch.full_like(held_out.columns.label, -1))
                setattr(self, name, GatherDataset(columns, held_out.rows))


@pytest.mark.parametrize(("stage", "split"), [("fit", "validation"), ("validate", "validation"), ("test", "test")])
def test_held_out_images_without_labels_are_refused(digits_root: Path, stage: str, split: str) -> None:
    with pytest.raises(ModelError, match=f"learns classes, but Unmeasured gives {split} images without labels"):
        getattr(quiet_trainer(), stage)(LayerwiseMLP(**TINY), Unmeasured(root=str(digits_root)))


@pytest.mark.parametrize(("unlabeled", "fraction"), [(False, 0.2), (True, 1.0), (True, 0.5)])
def test_pretraining_takes_all_images_and_fine_tuning_the_labeled_ones(
    digits_root: Path, unlabeled: bool, fraction: float
) -> None:
    seen: dict[int | None, list[Tensor]] = {}

    class Seen(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            layer = model.layer_at(trainer.current_epoch)
            seen.setdefault(layer, []).append(batch[0] if layer is not None and layer > 1 else batch.label)

    torch.manual_seed(0)
    model = LayerwiseMLP(**TINY, labeled_fraction=fraction)
    data = (Partly if unlabeled else Digits)(root=str(digits_root), batch_size=128)
    quiet_trainer(max_epochs=9, callbacks=[Seen()]).fit(model, data)
    assert {layer: sum(map(len, batches)) for layer, batches in seen.items()} == {
        1: 2560,
        2: 2560,
        3: 2560,
        None: 3 * 1280,
    }, "all phases have as many steps"
    every = torch.cat(seen[1])
    assert (every < 0).any() == unlabeled
    tuned = torch.cat(seen[None])
    assert tuned.min() == 0
    labels = data.train_set.column("label")
    rows = labeled_rows(labels, fraction, 0)
    assert rows is not None
    for one in range(10):
        size = int((labels == one).sum())
        count = int((labels[rows] == one).sum())
        assert count == round(fraction * size)
        assert float((tuned == one).float().mean()) == pytest.approx(count / len(rows), abs=0.01)


def test_labels_are_drawn_by_class_and_seed() -> None:
    label = torch.tensor([0] * 50 + [1] * 30 + [-1] * 20)[torch.randperm(100)]
    rows = labeled_rows(label, 0.1, seed=0)
    assert rows is not None
    assert label[rows].bincount().tolist() == [5, 3]
    assert len(rows.unique()) == 8
    same, other = labeled_rows(label, 0.1, seed=0), labeled_rows(label, 0.1, seed=1)
    assert same is not None
    assert other is not None
    assert torch.equal(rows, same)
    assert not torch.equal(rows, other)
    assert labeled_rows(label[label >= 0], 1.0, seed=0) is None
    with pytest.raises(ModelError, match="No training image has a label"):
        labeled_rows(torch.full((3,), -1), 1.0, 0)


def test_stl10s_images_without_labels_are_for_pretraining(relit: Relit, tmp_path: Path) -> None:
    stl10(tmp_path)
    (tmp_path / "stl10" / "stl10_binary" / "unlabeled_X.bin").write_bytes(bytes(5 * 3 * 96 * 96))
    data = ["--data=STL10", f"--data.root={tmp_path}", "--data.image_size=8", "--data.batch_size=4"]
    model = ["--model.channels=3", "--model.image_size=8", "--trainer.limit_train_batches=1"]
    assert relit("fit", *FIT, *model, *data, "--data.unlabeled=true") == 0


def test_a_fraction_that_leaves_a_class_without_labels_is_refused(relit: Relit, capsys: Output) -> None:
    sentence = "labeled_fraction is 0.001, which leaves class "
    assert_refused(relit, capsys, "fit", *FIT, "--model.labeled_fraction=0.001", sentence=sentence)


@pytest.mark.parametrize("fewest", [1, 3, 100, 122, 500, 6000])
def test_the_fraction_that_is_recommended_is_enough(fewest: int) -> None:
    label = torch.cat([torch.zeros(7000, dtype=torch.int64), torch.ones(fewest, dtype=torch.int64)])
    with pytest.raises(ModelError, match=f"leaves class 1, of {fewest} labeled images") as refused:
        labeled_rows(label, 1e-5, 0)
    enough = float(str(refused.value).rsplit(" ", 1)[1].rstrip("."))
    rows = labeled_rows(label, enough, 0)
    assert rows is not None
    assert (label[rows] == 1).sum() >= 1
    if fewest < 500:
        with pytest.raises(ModelError, match="without a label"):
            labeled_rows(label, enough - 0.001, 0)
