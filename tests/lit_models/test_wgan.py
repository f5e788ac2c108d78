from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import SGD

from datamodules import LabeledImages
from lit_models import WGAN
from lit_models.cli.trainer import compile_networks
from lit_models.losses.gan import gradient_penalty
from tests.lit_models.test_adversarial import assert_trained_alike, fit, loader
from tests.support.data_modules import noise
from tests.support.fixtures import Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import CONFIGS, the_run
from tests.support.trainers import quiet_trainer

PENALTY = {"clip_value": None, "gradient_penalty_weight": 10.0}
SPECTRAL = {"clip_value": None, "spectral_norm": True}
VARIANTS = [{}, PENALTY, SPECTRAL, {"spectral_norm": True}, {**PENALTY, "spectral_norm": True}]
RESNET = {**PENALTY, "architecture": "resnet", "image_size": 32}


def tiny(**arguments: Any) -> WGAN:
    torch.manual_seed(1)
    return WGAN(**{"image_size": 16, "channels": 1, "latent_dim": 3, "feature_maps": 2, **arguments})


class ClipBounds(Callback):
    """The largest parameter of each network after each batch."""

    def __init__(self) -> None:
        self.critic: list[float] = []
        self.generator: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for name, seen in (("discriminator", self.critic), ("generator", self.generator)):
            seen.append(max(p.abs().max().item() for p in getattr(pl_module, name).parameters()))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clip_bounds_hold_after_each_step(precision: str) -> None:
    bounds = ClipBounds()
    fit(tiny(clip_value=0.01, n_critic=2), 6, bounds, precision=precision)
    assert len(bounds.critic) == 6
    assert max(bounds.critic) <= 0.01
    assert min(bounds.generator) > 0.5, "the generator isn't clipped"


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_equals_a_plain_loop(weight: float, monkeypatch: Patch) -> None:
    """Algorithm 1 of either paper, written down again, with SGD and the mixing weights fixed to 0.3."""
    monkeypatch.setattr("lit_models.wgan.gradient_penalty", partial(gradient_penalty, mix=torch.full((4,), 0.3)))
    optimizer = {f"{player}_optimizer": lambda p: SGD(p, lr=0.05) for player in ("generator", "discriminator")}
    model = tiny(n_critic=2, **optimizer, **(PENALTY if weight else {}))
    generator, critic = deepcopy(model.generator), deepcopy(model.discriminator)
    fit(model, 4)

    torch.manual_seed(3)
    optimizers = SGD(generator.parameters(), lr=0.05), SGD(critic.parameters(), lr=0.05)
    for i, (image, _) in enumerate(loader(4)):
        real, fake = image * 2 - 1, generator(torch.randn(4, 3))
        loss = critic(fake.detach()).mean() - critic(real).mean()
        if weight:
            between = (0.3 * real + 0.7 * fake.detach()).requires_grad_()
            slope = [torch.autograd.grad(critic(between)[j], between, create_graph=True)[0][j] for j in range(4)]
            loss = loss + weight * sum((one.square().sum().sqrt() - 1) ** 2 for one in slope) / 4
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        if not weight:
            for parameter in critic.parameters():
                parameter.data = parameter.data.clamp(-0.01, 0.01)
        if i % 2:
            optimizers[0].zero_grad()
            (-critic(fake).mean()).backward()
            optimizers[0].step()
    assert_trained_alike(model, generator, critic)


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_batch_norm_is_in_the_critic_with_clipping_alone(arguments: dict[str, Any]) -> None:
    model = tiny(**arguments)
    norms = [m for m in model.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (not arguments)
    spectral = [parametrize.is_parametrized(m) for m in model.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert all(spectral) if arguments.get("spectral_norm") else not any(spectral)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_whole_loss_is_logged_in_any_grad_mode(mode: Any) -> None:
    model = tiny(**PENALTY)
    data, fake = noise(), torch.rand(4, 1, 16, 16)
    with mode():
        values = model.discriminator_loss(LabeledImages(data.image.clone(), data.label), fake.clone())
    assert values["gradient_penalty"] > 0
    expected = -values["wasserstein_distance"] + 10 * values["gradient_penalty"]
    assert values["loss"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_a_run_logs(relit: Relit, precision: str) -> None:
    code = relit(
        *("fit", "--config", CONFIGS / "wgan_gp_digits.yaml", "--model.feature_maps=2", "--model.latent_dim=4"),
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=5", "--trainer.log_every_n_steps=5"),
        *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", f"--trainer.precision={precision}"),
        *("--trainer.limit_val_batches=2", "--data.batch_size=8"),
    )
    assert code == 0
    rows = {key: float(value) for row in rows_of(the_run() / "metrics.csv") for key, value in row.items() if value}
    for stage in ("train", "val"):
        distance, penalty = rows[f"{stage}/wasserstein_distance"], rows[f"{stage}/gradient_penalty"]
        assert rows[f"{stage}/discriminator_loss"] == pytest.approx(10 * penalty - distance, rel=1e-4)
        assert 0 < penalty < 1.1
        assert f"{stage}/generator_loss" in rows


@pytest.mark.parametrize(("arguments", "compiled"), [({}, True), (PENALTY, False)])
def test_a_critic_with_a_penalty_is_not_compiled(arguments: dict[str, Any], compiled: bool, monkeypatch: Patch) -> None:
    seen: list[nn.Module] = []

    def note(network: nn.Module) -> None:
        seen.append(network)

    monkeypatch.setattr(nn.Module, "compile", note)
    model = tiny(**arguments)
    compile_networks(model)
    assert any(network is model.generator for network in seen)
    assert any(network is model.discriminator for network in seen) == compiled


def test_critic_warm_up_is_that_of_the_authors_code() -> None:
    """100 steps of the critic before each of the generator's first 25 steps, and before every 500th."""
    model = tiny(n_critic=5, critic_warmup=True)
    rounds = []
    for generator_iterations in range(1001):
        if generator_iterations < 25 or generator_iterations % 500 == 0:
            rounds.append(100)
        else:
            rounds.append(5)
    assert [model.critic_steps(step) for step in range(1001)] == rounds
    model.critic_warmup = False
    assert {model.critic_steps(step) for step in range(1001)} == {5}


class LongRounds(WGAN):
    """Three rounds of four critic steps each, then one of two, one of four, …"""

    def critic_steps(self, generator_step: int) -> int:
        return 4 if generator_step < 3 or generator_step % 2 == 0 else 2


class Turns(Callback):
    """The batches (from 1) after which the generator has taken a step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(trainer.global_step)

    @property
    def batches(self) -> list[int]:
        return [i for i, (a, b) in enumerate(pairwise([0, *self.steps]), start=1) if b > a]


def test_rounds_of_different_lengths_go_on_across_epochs_and_after_a_resume(tmp_path: Path) -> None:
    arguments = {"image_size": 16, "channels": 1, "latent_dim": 3, "feature_maps": 2, "n_critic": 2}
    torch.manual_seed(1)
    undisturbed, turns = LongRounds(**arguments), Turns()
    resumed = deepcopy(undisturbed)
    fit(undisturbed, 10, turns, max_epochs=2)
    assert turns.batches == [4, 8, 12, 14, 18, 20]

    cut = tmp_path / "cut.ckpt"  # after 10 of 20 batches: two of the four steps of the third round
    fit(resumed, 10, max_epochs=1).save_checkpoint(cut)
    again, later = LongRounds(**arguments), Turns()
    trainer = quiet_trainer(max_epochs=2, callbacks=[later])
    trainer.fit(again, loader(10), ckpt_path=cut, weights_only=True)
    assert later.steps == turns.steps[10:]


def test_a_checkpoint_without_its_place_in_the_round_goes_on_by_the_batches(tmp_path: Path) -> None:
    """Checkpoints of older versions: with n_critic 3, 4 batches leave one step of the second round done."""
    arguments = {"image_size": 16, "channels": 1, "latent_dim": 3, "feature_maps": 2, "n_critic": 3}
    fit(WGAN(**arguments), 4).save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert checkpoint.pop("critic_steps_taken") == 1
    torch.save(checkpoint, tmp_path / "old.ckpt")
    trainer = quiet_trainer(max_epochs=2, callbacks=[turns := Turns()])
    trainer.fit(WGAN(**arguments), loader(4), ckpt_path=tmp_path / "old.ckpt", weights_only=True)
    assert turns.steps == [1, 2, 2, 2], "after batches 5, 6, 7 and 8"
