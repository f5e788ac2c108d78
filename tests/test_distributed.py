"""Two processes against one, for every method."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_scale import EXPERIMENTS, arguments_of, autoencoder_checkpoint
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD

import lit_models
from datamodules import (
    Digits,
    EpisodeDataModule,
    FewLabels,
    ImagePair,
    LabeledImages,
    Maps,
    SearchBatch,
    SearchDataModule,
)
from datamodules.loading.samplers import BatchSampler, ClassBalancedBatches
from lit_models import (
    DCGAN,
    SNGAN,
    VAE,
    WGAN,
    ConditionalGAN,
    CycleGAN,
    DARTSRetrain,
    DARTSSearch,
    DenoisingAutoencoder,
    DigitClassifier,
    LatentGAN,
    LayerwiseMLP,
    MetricResNet,
    Pix2Pix,
    ProtoNet,
    TransferClassifier,
    TripletGAN,
)
from lit_models.adversarial import AdversarialModule
from lit_models.losses.adversarial import gradient_penalty
from tests.datamodules.test_maps import write_maps
from tests.small_data import write_autoencoder
from tests.tiny import CONFIGS, TINY, the_run, weights

Relit = Callable[..., int]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.timeout(200),
]

# --- small models in which each image's part of a step depends on nothing but the image, so that it can't matter how a
# --- batch is shared out: without batch normalization, and with random draws that are made from the images


def without_batch_norm(model: LightningModule) -> LightningModule:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return model


def gan(kind: type[AdversarialModule], critic_lr: float = 0.05, **arguments: Any) -> LightningModule:
    class Reproducible(kind):  # type: ignore[valid-type, misc]
        def generate(self, batch: LabeledImages) -> Tensor:
            latent = batch.image[:, 0, 8:24:4, 15] * 2 - 1
            return self.generator(latent, batch.label) if kind is ConditionalGAN else self.generator(latent)

    model = without_batch_norm(
        Reproducible(
            image_size=32,
            channels=1,
            latent_dim=4,
            feature_maps=2,
            generator_optimizer=lambda p: SGD(p, lr=0.05),
            discriminator_optimizer=lambda p: SGD(p, lr=critic_lr),
            **arguments,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.2)
    return model


def penalty_between(critic: Any, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty with mixing weights that are made from the images."""
    return gradient_penalty(critic, real, fake, mix=real.flatten(1).mean(1) / 2 + 0.5)


def latent_gan(freeze_decoder: bool) -> LightningModule:
    sizes = {"hidden": 8, "code_dim": 4, "discriminator_feature_maps": 2}
    return gan(LatentGAN, decoder_checkpoint="autoencoder.ckpt", freeze_decoder=freeze_decoder, **sizes)


def vae(lr: float = 0.01, **arguments: Any) -> LightningModule:
    class Reproducible(VAE):
        def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
            return mean + (0.5 * log_variance).exp() * (5 * mean).sin()

    return Reproducible(32, 1, 3, 2, x_sigma2=1e-3, kl_warmup_steps=2, optimizer=sgd(lr), **arguments)


def classifier(**arguments: Any) -> LightningModule:
    sizes = {"encoder_checkpoint": "autoencoder.ckpt", "code_dim": 4, "feature_maps": 2}
    return TransferClassifier(**sizes, **arguments, optimizer=sgd(0.05))


def metric_resnet(loss: Any, **arguments: Any) -> LightningModule:
    sizes: dict[str, Any] = {"image_size": 32, "channels": 1, "num_classes": 10, "stem": "7x7", "feature_maps": 2}
    sizes |= {"mean": [0.5], "std": [0.5], "references_per_class": 7, "knn_neighbors": 5, "center_weight": 0.1}
    # Slow steps: without normalization, rounding errors grow where a maximum changes its place.
    return without_batch_norm(MetricResNet(loss=loss, **sizes, **arguments, optimizer=sgd(0.005)))


def protonet() -> LightningModule:
    model = without_batch_norm(ProtoNet(32, feature_maps=4, lr_halving_episodes=4, optimizer=sgd(0.01)))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.3)
    return model


def layerwise_mlp() -> LightningModule:
    phases = {
        "pretrain_epochs": 1,
        "finetune_epochs": 2,
        "pretrain_optimizer": sgd(0.1),
        "finetune_optimizer": sgd(0.1),
    }
    return LayerwiseMLP(32, 1, widths=[12, 8, 6], code_layer=2, dropout=0.0, **phases)


def darts_search(order: Any) -> LightningModule:
    class FixedStatistics(DARTSSearch):
        """Normalizes by the running means, which stay."""

        def training_step(self, batch: SearchBatch, batch_idx: int) -> None:
            self.supernet.eval()
            super().training_step(batch, batch_idx)

    # SGD, because Adam's first steps depend on the signs of gradients more than on their sizes.
    return FixedStatistics(
        32,
        1,
        10,
        2,
        3,
        1,
        order=order,
        arch_optimizer=lambda p: SGD(p, lr=1.0, momentum=0.5),
        eval_statistics="running",
    )


def darts_retrain() -> LightningModule:
    # With fewer channels some are dead from the start, as nothing normalizes them.
    sizes: dict[str, Any] = {"image_size": 32, "channels": 1, "init_channels": 6, "layers": 3, "epochs": 1}
    return without_batch_norm(DARTSRetrain(**sizes, drop_path=0.0, optimizer=sgd(0.01)))


def translator(kind: Any, **arguments: Any) -> LightningModule:
    sizes = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
    optimizers = {f"{player}_optimizer": partial(SGD, lr=0.02) for player in ("generator", "discriminator")}
    model = without_batch_norm(kind(**sizes, **optimizers, **arguments))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return model


def sgd(lr: float) -> Callable[..., SGD]:
    return partial(SGD, lr=lr, momentum=0.5)


# --- small data, of the same global batches --------------------------------------------------------------------------


def digits(root: Path, processes: int, batch_size: int = 16) -> LightningDataModule:
    return Digits(root=str(root), batch_size=batch_size // processes, eval_batch_size=32 // processes)


def few_labels(root: Path, processes: int) -> LightningDataModule:
    return FewLabels(digits(root, 1), count=40, repeats=2)


def episodes(root: Path, processes: int) -> LightningDataModule:
    ways = {"n_way": 5, "k_shot": 1, "n_query": 2, "test_way": 5, "test_query": 2, "val_episodes": 4}
    return EpisodeDataModule(digits(root, 1), episodes_per_batch=2 // processes, train_episodes=8, **ways)


class DoubleDigits(Digits):
    """Images in float64."""

    def transform(self, batch: LabeledImages, training: bool) -> LabeledImages:
        batch = super().transform(batch, training)
        return batch._replace(image=batch.image.double())


def halves(root: Path, processes: int) -> LightningDataModule:
    images = DoubleDigits(root=str(root))
    return SearchDataModule(images, batch_size=8 // processes, eval_batch_size=32 // processes)


class Balanced(Digits):
    """Batches of 8 classes x 4 digits."""

    def train_batches(self) -> BatchSampler:
        rank, processes = self._rank_and_world_size()
        return ClassBalancedBatches(self.train_set.column("label"), 8 // processes, 4, 0, rank, processes)


def balanced(root: Path, processes: int) -> LightningDataModule:
    return Balanced(root=str(root), eval_batch_size=32 // processes)


class FixedMaps(Maps):
    """The same window of every pair."""

    def augment(self, batch: ImagePair) -> ImagePair:
        return ImagePair(*(image[..., :32, :32] for image in batch))


def maps(root: Path, processes: int) -> LightningDataModule:
    write_maps(Path("maps"), train=12, val=4)
    return FixedMaps(root=".", image_size=32, batch_size=4 // processes, eval_batch_size=4 // processes)


@dataclass
class Case:
    """A method's model and data, and how much of both."""

    model: Callable[[], LightningModule]
    data: Callable[[Path, int], LightningDataModule] = digits
    batches: int = 4
    tolerance: float = 2e-5
    double: bool = False
    frozen: tuple[str, ...] = ()
    """Names, or their beginnings, of what isn't trained."""
    slow: bool = False


CASES = {
    "DCGAN": Case(partial(gan, DCGAN)),
    "DCGAN, n_critic 2": Case(partial(gan, DCGAN, n_critic=2)),
    "SNGAN": Case(partial(gan, SNGAN, loss="hinge", ema_decay=0.5)),
    "WGAN": Case(partial(gan, WGAN, clip_value=0.3, n_critic=2)),
    # A critic's steps of 0.05 on large random weights diverge, which magnifies rounding errors.
    "WGAN, gradient penalty": Case(
        partial(gan, WGAN, clip_value=None, gradient_penalty_weight=10.0, n_critic=2, critic_lr=0.002)
    ),
    "WGAN, gradient penalty and spectral norm": Case(
        partial(gan, WGAN, clip_value=None, gradient_penalty_weight=10.0, spectral_norm=True, n_critic=1)
    ),
    "ConditionalGAN, concat": Case(partial(gan, ConditionalGAN, condition="image")),
    "ConditionalGAN, projection": Case(
        partial(gan, ConditionalGAN, discriminator="projection", spectral_norm=True, critic_lr=0.01)
    ),
    "TripletGAN": Case(partial(gan, TripletGAN)),
    "LatentGAN": Case(partial(latent_gan, freeze_decoder=True), frozen=("generator.decoder",)),
    "LatentGAN, decoder learns": Case(partial(latent_gan, freeze_decoder=False)),
    "VAE": Case(vae),
    "VAE, optimal variance": Case(partial(vae, lr=0.001, variance="optimal")),
    "DenoisingAutoencoder": Case(lambda: DenoisingAutoencoder(32, 1, 4, 2, noise_std=0.0, optimizer=sgd(0.5))),
    "TransferClassifier": Case(partial(classifier, freeze_encoder=False), few_labels),
    "TransferClassifier, frozen": Case(partial(classifier, freeze_encoder=True), few_labels, frozen=("encoders",)),
    "DigitClassifier": Case(lambda: without_batch_norm(DigitClassifier(widths=[2, 4], optimizer=sgd(0.01)))),
    "MetricResNet, cross-entropy": Case(partial(metric_resnet, "cross_entropy"), balanced, 3),
    "MetricResNet, center": Case(partial(metric_resnet, "center"), balanced, 3),
    "MetricResNet, center by sgd": Case(
        partial(metric_resnet, "center", center_rule="sgd", center_rate=5.0), balanced, 3
    ),
    "MetricResNet, triplet": Case(partial(metric_resnet, "triplet"), balanced, 3),
    "ProtoNet": Case(protonet, episodes),
    "LayerwiseMLP": Case(layerwise_mlp, partial(digits, batch_size=128)),
    "DARTSSearch, first order": Case(partial(darts_search, 1), halves, 2, 1e-9, double=True),
    "DARTSSearch, second order": Case(partial(darts_search, 2), halves, 2, 1e-9, double=True, slow=True),
    "DARTSRetrain": Case(darts_retrain),
    "Pix2Pix": Case(partial(translator, Pix2Pix, dropout=0.0), maps, 3),
    "Pix2Pix, plain GAN": Case(
        partial(translator, Pix2Pix, dropout=0.0, conditional=False, lambda_l1=0.0, loss="lsgan"), maps, 3
    ),
    # Each rank has a buffer of generated images of its own; they aren't full by then.
    "CycleGAN": Case(partial(translator, CycleGAN, blocks=1), maps, 3, tolerance=1e-4),
}


def test_every_method_has_a_case() -> None:
    assert {name.split(",")[0] for name in CASES} == set(lit_models.METHODS), "in CASES"
    assert set(EXPERIMENTS) == set(lit_models.METHODS), "in scripts/benchmark_scale.py"


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
    digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
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
        find_unused = "_find_unused_parameters_true" if getattr(model, "needs_find_unused_parameters", False) else ""
        path = tmp_path / f"{processes}.ckpt"
        trainer = Trainer(
            accelerator="cpu",
            devices=processes,
            strategy="auto" if processes == 1 else f"ddp_fork{find_unused}",
            precision="64-true" if case.double else "32-true",
            use_distributed_sampler=False,
            max_epochs=getattr(model, "planned_epochs", 1),
            limit_train_batches=case.batches,
            limit_val_batches=2,
            callbacks=[KeepCheckpoint(path)],
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, case.data(digits_root, processes))
        checkpoints.append(torch.load(path, weights_only=True))
        figures.append({k: float(value) for k, value in trainer.callback_metrics.items() if k.startswith("val/")})

    alone, together = checkpoints
    assert alone["global_step"] == together["global_step"] > 0
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_close(alone[part], together[part], case.tolerance, part)
    for name, value in alone["state_dict"].items():
        if name.endswith(("weight", "original")) and not name.startswith(case.frozen or "nothing"):
            assert not torch.equal(value, start[name]), f"{name} was not trained"
    assert figures[0]
    assert figures[1] == pytest.approx(figures[0], rel=1e-3, abs=1e-6)


def assert_close(value: Any, other: Any, tolerance: float, where: str) -> None:
    """Numbers and tensors differ by no more than rounding; all else is equal."""
    if isinstance(value, dict):
        assert value.keys() == other.keys(), where
        for key in value:
            assert_close(value[key], other[key], tolerance, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        assert len(value) == len(other), where
        for number, (a, b) in enumerate(zip(value, other, strict=True)):
            assert_close(a, b, tolerance, f"{where}.{number}")
    elif isinstance(value, Tensor) and value.is_floating_point():
        torch.testing.assert_close(other, value, rtol=1e-3, atol=tolerance, msg=lambda text: f"{where}: {text}")
    elif isinstance(value, float):
        assert other == pytest.approx(value, rel=1e-4), where
    else:
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, where


@pytest.mark.long
def test_a_resumed_run_of_two_ranks_equals_the_uninterrupted_one(relit: Relit) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *TINY, *two, "--run.root=whole") == 0
    assert relit("fit", *TINY, *two, "--trainer.max_epochs=1") == 0
    assert relit("fit", *TINY, *two, "--ckpt_path=last") == 0
    run, whole = the_run(), the_run(Path("whole"))
    state, expected = weights(run), weights(whole)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


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
    command = [sys.executable, "-m", "lit_models", "fit", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
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
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=180, check=True)
    measured = json.loads((tmp_path / "scale.json").read_text())["measured"]["VAE"]
    assert all(measured[side] > 0 for side in ("alone", "apart", "together"))


@pytest.mark.slow
@pytest.mark.parametrize("method", lit_models.METHODS)
def test_two_devices_need_no_other_flag_by_any_method(tmp_path: Path, method: str) -> None:
    """The real command on noise, with the published configuration but for the size of the networks: two epochs of two
    steps each, and their checkpoints."""
    scripts = CONFIGS.parent / "scripts"
    fit = arguments_of(method, 4, autoencoder_checkpoint(tmp_path), small=True)
    fit.remove("--trainer.enable_checkpointing=false")
    short = ["--trainer.devices=2", "--trainer.limit_train_batches=2", "--trainer.max_epochs=2"]
    short += ["--checkpoint.monitor=null"]  # scores of generated images come from callbacks, which are left out
    environment = {**os.environ, "PYTHONPATH": f"{scripts}:{CONFIGS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lit_models", *fit, *short]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("The run is in") == 1
