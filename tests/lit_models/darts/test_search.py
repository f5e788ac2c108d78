import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import SGD, Adam

from datamodules import ImageDataModule, LabeledImages, SearchBatch, SearchDataModule
from datamodules.loading.tensors import GatherDataset
from lit_models import DARTSSearch
from lit_models.callbacks import CellFigures
from lit_models.darts.genotype import derive_genotype, read_genotype
from lit_models.darts.supernet import statistics_kept
from lit_models.errors import ModelError
from tests.support.compare import assert_alike
from tests.support.darts_edgewise import edgewise_tensors, edgewise_twin
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import (
    QUIET,
    assert_refused,
    assert_same_training,
    finished_run,
    killed_fit,
    killer,
    quick_run,
    the_run,
)
from tests.support.trainers import quiet_trainer

TINY: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 3, "init_channels": 2, "layers": 3, "epochs": 2}


class Noise(ImageDataModule):
    """Random images of 8x8 pixels in three classes, 24 for either half and 7 for the test."""

    name = "noise"
    image_shape = (1, 8, 8)
    num_classes = 3

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        image = super().transform(batch, training).image
        return batch._replace(image=image.to(self.dtype))

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(256, (55, 1, 8, 8), dtype=torch.uint8, generator=generator)
        columns = LabeledImages(image, torch.randint(3, (55,), generator=generator))
        splits = (GatherDataset(columns, rows) for rows in torch.arange(55).split([24, 24, 7]))
        self.train_set, self.val_set, self.test_set = splits
        self.predict_set = self.test_set


class Keep(Callback):
    """Keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[SearchBatch] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)


def searched(root: Path, model: DARTSSearch, *callbacks: Callback, **arguments: Any) -> Trainer:
    dtype = torch.float64 if arguments.get("precision") == "64-true" else torch.float32
    own: dict[str, Any] = {"max_epochs": 2, "default_root_dir": root, "use_distributed_sampler": False, **arguments}
    trainer = quiet_trainer(callbacks=list(callbacks), **own)
    trainer.fit(model, SearchDataModule(Noise(dtype), batch_size=8))
    return trainer


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [pytest.param(1, marks=pytest.mark.long), 2])
def test_steps_by_plain_code_on_the_edgewise_network(tmp_path: Path, order: int) -> None:
    """Steps in float64, with momentum, weight decay, a schedule that hasn't begun and clipping, against torch's
    optimizers on the network written edge by edge; in second order with autograd through the unrolled step."""
    torch.manual_seed(0)
    model = DARTSSearch(**TINY, order=order, gradient_clip_norm=2.0).double()
    supernet = model.supernet
    edgewise = edgewise_twin(supernet, 1, 3, 2, 3)
    alphas = [alpha.detach().clone().requires_grad_() for alpha in model.alphas]
    sgd = SGD(edgewise.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    adam = Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    keep = Keep()
    few = {"max_epochs": 1, "limit_train_batches": 4 - order, "limit_val_batches": 0}
    searched(tmp_path, model, keep, precision="64-true", **few)
    assert len(keep.batches) == 4 - order

    names, parameters = zip(*edgewise.named_parameters(), strict=True)
    norms = []
    for batch in keep.batches:
        train, val = (LabeledImages(images.image.double(), images.label) for images in batch)
        buffers = {name: buffer.clone() for name, buffer in edgewise.named_buffers()}

        def loss(images: LabeledImages, values: tuple[Tensor, ...]) -> Tensor:
            state = {**dict(zip(names, values, strict=True)), **buffers}  # noqa: B023
            return functional.cross_entropy(functional_call(edgewise, state, (images.image, *alphas)), images.label)

        moved = parameters
        if order == 2:
            gradients = torch.autograd.grad(loss(train, parameters), parameters, create_graph=True)
            moved = tuple(
                p - 0.025 * (g + 3e-4 * p.detach() + 0.9 * sgd.state[p].get("momentum_buffer", torch.zeros_like(p)))
                for p, g in zip(parameters, gradients, strict=True)
            )
        for alpha, gradient in zip(alphas, torch.autograd.grad(loss(val, moved), alphas), strict=True):
            alpha.grad = gradient
        adam.step()
        sgd.zero_grad()
        functional.cross_entropy(edgewise(train.image, *(alpha.detach() for alpha in alphas)), train.label).backward()
        norms.append(float(nn.utils.clip_grad_norm_(edgewise.parameters(), 2.0)))
        sgd.step()

    assert max(norms) > 2, "something was clipped"
    for ours, theirs in zip(model.alphas, alphas, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)
    found = edgewise_tensors(supernet, dict(supernet.state_dict()))
    for name, value in edgewise.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(found[name], value, atol=1e-8), name


@pytest.mark.long
def test_finite_differences_come_near_the_exact_product_where_they_can(tmp_path: Path) -> None:
    """On the whole module: same term, so the same order of size and about the same direction on float64 images."""
    gradients = []
    for product in ("exact", "finite_difference"):
        torch.manual_seed(0)
        model = DARTSSearch(**TINY, order=2, mixed_product=product)
        keep = Keep()
        trainer = searched(tmp_path, model, keep, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
        optimizer = trainer.optimizers[0]
        gradients.append(torch.cat([g.flatten() for g in model.hypergradient(keep.batches[0], optimizer).gradient]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.5


def test_only_the_weights_pass_moves_running_means(tmp_path: Path) -> None:
    for order in (1, 2):
        torch.manual_seed(0)
        model = DARTSSearch(**TINY, order=order)
        searched(tmp_path, model, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
        stem = model.supernet.stem_norm
        assert stem.running_var.mean() != 1
        # One update of momentum 0.1 from a variance of 1: 0.9 + 0.1 v. Two would leave at most 0.81 + 0.19 v.
        assert stem.running_var.min() > 0.89


def test_every_parameter_is_trained_and_known_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DARTSSearch(**TINY)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = searched(tmp_path, model)
    assert trainer.global_step == 6, "the steps of α don't count"
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    weight, arch = (optimizer.state_dict()["param_groups"] for optimizer in trainer.optimizers)
    assert arch[0]["param_names"] == ["arch_parameters.normal", "arch_parameters.reduction"]
    assert [*weight[0]["param_names"], *arch[0]["param_names"]] == [name for name, _ in model.named_parameters()]


def test_the_papers_optimizers_and_schedule(tmp_path: Path) -> None:
    model = DARTSSearch(**{**TINY, "epochs": 4})
    (weight, arch), _ = model.configure_optimizers()
    assert isinstance(weight, SGD)
    group = weight.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert isinstance(arch, Adam)
    group = arch.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)
    rates = [0.001 + 0.012 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)]
    trainer = searched(tmp_path, model, max_epochs=4, limit_train_batches=1, limit_val_batches=0)
    (figures,) = (callback for callback in trainer.callbacks if isinstance(callback, CellFigures))
    assert [entry["learning_rate"] for entry in figures.history] == pytest.approx(rates)


@pytest.mark.parametrize("std", [0.0, 1e-3, 0.5])
def test_alpha_starts_with_the_given_deviation(std: float) -> None:
    torch.manual_seed(0)
    alphas = torch.stack(DARTSSearch(**TINY, arch_init_std=std).alphas).detach()
    assert float(alphas.std()) == pytest.approx(std, rel=0.25)


def test_alpha_leaves_zero(tmp_path: Path) -> None:
    """At zero all operations have one weight, but not one gradient."""
    torch.manual_seed(0)
    model = DARTSSearch(**TINY, arch_init_std=0)
    searched(tmp_path, model, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert all(len(alpha.unique()) > 50 for alpha in model.alphas)


def test_evaluation_takes_the_statistics_of_the_batch(tmp_path: Path) -> None:
    """What is logged is the loss of a training pass over the same batches, and differs from that by running means."""
    logged = {}
    for statistics in ("batch", "running"):
        torch.manual_seed(0)
        model = DARTSSearch(**TINY, eval_statistics=statistics)
        trainer = searched(tmp_path, model, max_epochs=1)
        logged[statistics] = float(trainer.callback_metrics["val/loss"])
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        batches = [trainer.datamodule.transform(batch, False) for batch in trainer.datamodule.val_dataloader()]
        model.train()
        with torch.no_grad(), statistics_kept(model.supernet):
            expected = [float(functional.cross_entropy(model(b.image), b.label)) for b in batches]
        model.eval()
        model(batches[0].image)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert len(expected) == 3
    assert logged["batch"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert abs(logged["running"] - logged["batch"]) > 0.01


def test_a_checkpoint_of_before_these_arguments(tmp_path: Path) -> None:
    """Its weights are loaded unchanged, its second order stays what it was, and it is evaluated as the paper does."""
    torch.manual_seed(0)
    model = DARTSSearch(**TINY, order=2, mixed_product="finite_difference")
    hyperparameters = dict(model.hparams)
    for name in ("arch_init_std", "eval_statistics"):
        del hyperparameters[name]
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": hyperparameters,
        "pytorch-lightning_version": "2.6.0",
        "history": [],
    }
    torch.save(content, tmp_path / "old.ckpt")
    loaded = DARTSSearch.load_from_checkpoint(tmp_path / "old.ckpt")
    assert_alike(loaded.state_dict(), model.state_dict())
    assert loaded.mixed_product == "finite_difference"
    assert loaded.supernet.stem_norm.eval_statistics == "batch"


# --- as a user meets it -----------------------------------------------------------------------------------------------

FIT = quick_run(
    "darts_search_digits",
    model={"init_channels": 2, "epochs": 2},
    data={"batch_size": 4, "eval_batch_size": 10},
    trainer={"limit_train_batches": 4, "limit_val_batches": 2, "log_every_n_steps": 1},
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    return finished_run(tmp_path_factory.mktemp("whole"), *FIT, f"--data.images.root={digits_root}")


@pytest.mark.long
@pytest.mark.draws
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_search_of_the_second_order_goes_on_exactly(relit: Relit) -> None:
    arguments = [*FIT, "--model.order=2", "--checkpoint.every_n_steps=1"]
    assert relit("fit", *arguments, "--run.root=whole") == 0
    killed_fit(relit, *arguments, *killer(batch=6))
    assert relit("fit", *arguments, "--ckpt_path=last") == 0
    run, whole = the_run(), the_run(Path("whole"))
    assert_same_training(run, whole)
    for made in (*whole.glob("genotypes/*.json"), whole / "figures" / "cells.png", whole / "figures" / "search.png"):
        assert (run / made.relative_to(whole)).read_bytes() == made.read_bytes()


def test_a_search_leaves_genotypes_figures_and_metrics(uninterrupted: Path) -> None:
    checkpoint = torch.load(uninterrupted / "checkpoints" / "last.ckpt", weights_only=True)
    alphas = [checkpoint["state_dict"][f"arch_parameters.{kind}"] for kind in ("normal", "reduction")]
    genotype = derive_genotype(*alphas)
    assert read_genotype(str(uninterrupted / "genotype.json")) == genotype
    assert read_genotype(str(uninterrupted / "genotypes" / "epoch_0002.json")) == genotype
    assert checkpoint["genotype"] == json.loads(genotype.to_json())
    assert torch.equal(checkpoint["history"][-1]["alpha"], torch.stack(alphas))
    for name in ("cells", "search", "losses", "accuracies"):
        assert np.asarray(Image.open(uninterrupted / "figures" / f"{name}.png")).std() > 0
    rows = rows_of(uninterrupted / "metrics.csv")
    counts = {name: sum(bool(row.get(name)) for row in rows) for name in rows[0]}
    for name in ("loss", "accuracy", "arch_loss"):
        assert counts[f"train/{name}"] == 8
    for name in ("train/epoch_loss", "train/epoch_accuracy", "val/loss", "val/accuracy"):
        assert counts[name] == 2
    assert counts["learning_rate"] == 8
    known = [entry["accuracy"] for entry in checkpoint["history"]]
    assert [entry["val"] for entry in known] == pytest.approx(
        [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    )
    for epoch, entry in enumerate(known):
        batches = [float(row["train/accuracy"]) for row in rows if row["train/accuracy"] and row["epoch"] == str(epoch)]
        assert entry["train"] == pytest.approx(sum(batches) / 4)


def test_test_and_predict(relit: Relit, uninterrupted: Path) -> None:
    checkpoint = f"--ckpt_path={uninterrupted / 'checkpoints' / 'last.ckpt'}"
    few = "--trainer.limit_{}_batches=1"
    assert relit("test", checkpoint, few.format("test"), "--trainer.enable_progress_bar=false") == 0
    assert relit("predict", checkpoint, few.format("predict"), "--predictions.folder=told") == 0
    assert len(Path("told/classes.csv").read_text().splitlines()) == 11


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_a_compiled_search_equals_one_that_isnt(tmp_path: Path, order: int) -> None:
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = DARTSSearch(**TINY, order=order)
        if compiled:
            model.supernet.compile()
        searched(tmp_path, model, max_epochs=1, limit_val_batches=1)
        states.append(model.state_dict())
    assert_alike(*states, atol=1e-4)


def test_the_second_order_in_bfloat16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DARTSSearch(**TINY, order=2)
    searched(tmp_path, model, max_epochs=1, limit_train_batches=1, precision="bf16-mixed")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_float16_is_refused_in_python(tmp_path: Path, monkeypatch: Patch) -> None:
    """As on a GPU; on a CPU Lightning's Trainer has bfloat16 in its place."""
    monkeypatch.setattr(Trainer, "precision", "16-mixed")
    with pytest.raises(ModelError, match="can't be trained in float16"):
        searched(tmp_path, DARTSSearch(**TINY), max_epochs=1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model.order=2", "--model.weight_optimizer=FusedAdam"], "The second order anticipates the step of SGD"),
        (["--trainer.precision=16-true"], "keeps the weights themselves in 16 bits"),
        (["--trainer.precision=16-mixed"], "can't be trained in float16: α's gradient is computed by hand"),
        (["--trainer.precision=16"], "Use --trainer.precision bf16-mixed or 32-true."),
        (["--data=Digits"], "set --data SearchDataModule --data.images Digits."),
        (["--data.batch_size=201"], "set --data.batch_size to 200 or less"),
    ],
    ids=str,
)
def test_errors_are_a_sentence(relit: Relit, capsys: Output, arguments: list[str], sentence: str) -> None:
    assert_refused(relit, capsys, "fit", *FIT[:2], *QUIET, *arguments, sentence=sentence)
