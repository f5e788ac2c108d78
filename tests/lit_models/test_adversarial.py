"""The two-player loop against a plain PyTorch loop, and what each player may touch."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader

from datamodules import LabeledImages
from lit_models import DCGAN
from lit_models.adversarial import batch_statistics, evaluating, frozen
from lit_models.errors import ModelError
from lit_models.losses.gan import discriminator_bce, generator_bce
from lit_models.networks import differentiable_augmentation
from tests.support.fixtures import Patch
from tests.support.trainers import Rates, seeded_fit


def tiny(**arguments: Any) -> DCGAN:
    arguments = {
        "generator_optimizer": lambda p: SGD(p, lr=0.1),
        "discriminator_optimizer": lambda p: SGD(p, lr=0.1),
        **arguments,
    }
    torch.manual_seed(1)
    return DCGAN(image_size=16, channels=1, latent_dim=3, feature_maps=2, **arguments)


def loader(batches: int) -> DataLoader:
    images = torch.rand(4 * batches, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    rows = [LabeledImages(image, torch.tensor(0)) for image in images]
    return DataLoader(rows, batch_size=4, generator=torch.Generator())


def fit(model: DCGAN, batches: int, *callbacks: Callback, **arguments: Any) -> Trainer:
    return seeded_fit(model, loader(batches), *callbacks, **arguments)


def assert_trained_alike(model: DCGAN, generator: nn.Module, discriminator: nn.Module) -> None:
    """The networks of a model are those that a plain loop has trained."""
    for ours, plain in ((model.generator, generator), (model.discriminator, discriminator)):
        for name, parameter in plain.named_parameters():
            assert torch.allclose(ours.get_parameter(name), parameter, atol=1e-6), name


@pytest.mark.parametrize("fresh_latents", [False, True])
@pytest.mark.parametrize("n_critic", [1, 2])
def test_equals_a_plain_loop(n_critic: int, fresh_latents: bool) -> None:
    model = tiny(n_critic=n_critic, fresh_latents=fresh_latents)
    generator, discriminator = deepcopy(model.generator), deepcopy(model.discriminator)
    trainer = fit(model, batches=4)
    assert trainer.global_step == 4 // n_critic, "global_step counts the generator's steps"

    torch.manual_seed(3)
    optimizers = SGD(generator.parameters(), lr=0.1), SGD(discriminator.parameters(), lr=0.1)
    for i, batch in enumerate(loader(4)):
        fake = generator(torch.randn(4, 3))
        loss = discriminator_bce(discriminator(batch.image * 2 - 1), discriminator(fake.detach()))
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        if i % n_critic == n_critic - 1:
            fake = generator(torch.randn(4, 3)) if fresh_latents else fake
            optimizers[0].zero_grad()
            generator_bce(discriminator(fake)).backward()
            optimizers[0].step()
    assert_trained_alike(model, generator, discriminator)


def test_critic_rounds_go_on_across_epochs() -> None:
    """With three batches an epoch and n_critic 5, the generator's turns are at batches 5, 10 and 15 of 18."""
    assert fit(tiny(n_critic=5), batches=3, max_epochs=6).global_step == 3


def test_max_steps_means_generator_steps() -> None:
    model = tiny(n_critic=2)
    assert fit(model, batches=20, max_epochs=-1, max_steps=3).global_step == 3
    assert model.trainer.fit_loop.total_batch_idx + 1 == 6


class Touched(Callback):
    """Notes which network's parameters each optimizer's step changes, and which have gradients flowing to them."""

    def __init__(self) -> None:
        self.changed: list[tuple[bool, bool]] = []
        self.before: list[list[Tensor]] = []

    def networks(self, module: LightningModule) -> list[list[Tensor]]:
        networks = (module.generator, module.discriminator)
        return [[p.detach().clone() for p in network.parameters()] for network in networks]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.note(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.note(pl_module)
        self.before = []

    def note(self, module: LightningModule) -> None:
        now = self.networks(module)
        if self.before:
            pairs = zip(self.before, now, strict=True)
            self.changed.append(tuple(any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairs))
        self.before = now


def test_neither_player_touches_the_other() -> None:
    touched = Touched()
    fit(tiny(), 2, touched)
    discriminator_only, generator_only = (False, True), (True, False)
    assert touched.changed == [discriminator_only, generator_only] * 2


def test_fakes_are_detached_for_the_discriminator() -> None:
    class Spy(DCGAN):
        def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
            assert not fake.requires_grad
            return super().discriminator_loss(batch, fake)

        def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
            assert fake.requires_grad
            assert not any(p.requires_grad for p in self.discriminator.parameters())
            return super().generator_loss(batch, fake)

    model = Spy(image_size=16, channels=1, latent_dim=3, feature_maps=2)
    fit(model, 2)
    assert all(p.requires_grad for p in model.parameters())


def test_average_of_the_generator() -> None:
    model = tiny(ema_decay=0.9)
    history = [deepcopy(model.generator)]

    class Keep(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            history.append(deepcopy(pl_module.generator))

    fit(model, 3, Keep())
    for name, average in model.generator_average.named_parameters():
        expected = history[0].get_parameter(name)
        for step, current in enumerate(history[1:], start=1):
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * current.get_parameter(name)
        assert torch.allclose(average, expected, atol=1e-6), name
        assert not average.requires_grad
    assert model.sampling_generator is model.generator_average
    latent = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    with evaluating(model.generator_average):
        expected = (model.generator_average(latent) + 1) / 2
    assert torch.equal(model.sample(2, generator=torch.Generator().manual_seed(0)), expected)


def test_gradient_clipping() -> None:
    """With a learning rate of 1, the change of each network is its clipped gradient."""
    model = tiny(
        gradient_clip_norm=1e-3,
        generator_optimizer=lambda p: SGD(p, lr=1.0),
        discriminator_optimizer=lambda p: SGD(p, lr=1.0),
    )
    before = deepcopy(model)
    fit(model, 1)
    for network in ("generator", "discriminator"):
        pairs = zip(getattr(before, network).parameters(), getattr(model, network).parameters(), strict=True)
        norm = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1024.0, 65536.0])
def test_gradients_are_clipped_without_the_loss_scale(scale: float, fused: bool) -> None:
    """A fused optimizer removes the scale by itself, in its step; for others Lightning removes it before."""

    class SmallLosses(DCGAN):
        """Losses so small that their gradients don't overflow in float16 at any of the scales."""

        def discriminator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
            return 1e-3 * super().discriminator_loss(batch, fake)

        def generator_loss(self, batch: LabeledImages, fake: Tensor) -> Tensor:
            return 1e-3 * super().generator_loss(batch, fake)

    def sgd(parameters: Any) -> SGD:
        return SGD(parameters, lr=1e3, fused=fused)

    torch.manual_seed(1)
    model = SmallLosses(
        image_size=16,
        channels=1,
        latent_dim=3,
        feature_maps=2,
        gradient_clip_norm=1e-6,
        generator_optimizer=sgd,
        discriminator_optimizer=sgd,
    )
    before = deepcopy(model)
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    fit(model, 1, plugins=[precision])
    assert precision.scaler.get_scale() == scale, "no step was left out"
    for network in ("generator", "discriminator"):
        pairs = zip(getattr(before, network).parameters(), getattr(model, network).parameters(), strict=True)
        length = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
        assert length.item() == pytest.approx(1e-3, rel=1e-2)


def test_schedules_are_stepped_each_epoch() -> None:
    model = tiny(generator_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.1))
    fit(model, batches=2, max_epochs=3)
    generator, discriminator = model.optimizers()
    assert generator.param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**3)
    assert discriminator.param_groups[0]["lr"] == 0.1


def test_schedules_are_stepped_with_the_generator() -> None:
    """Five batches an epoch and n_critic 2 make two steps of the generator, then three."""
    decay = {f"{player}_scheduler": lambda o: LinearLR(o, 1.0, 0.0, 5) for player in ("generator", "discriminator")}
    rates = Rates()
    fit(tiny(n_critic=2, schedule_interval="step", **decay), 5, rates, max_epochs=2)
    steps = [batch // 2 for batch in range(10)]
    assert torch.allclose(
        torch.tensor(rates.all), 0.1 * (1 - torch.tensor(steps)[:, None] / 5).expand(-1, 2), atol=1e-8
    )


def test_an_interval_without_a_schedule_is_refused() -> None:
    with pytest.raises(ModelError, match="schedule_interval is step, but there is no schedule"):
        fit(tiny(schedule_interval="step"), 1)


def test_augmented_images_are_all_that_the_discriminator_gets(monkeypatch: Patch) -> None:
    """A plain loop in which every image, real or generated, is cut before it gets there."""
    monkeypatch.setattr(differentiable_augmentation, "_random_cutout", top_half)
    model = tiny(augmentations=["cutout"])
    generator, discriminator = deepcopy(model.generator), deepcopy(model.discriminator)
    discriminator._forward_pre_hooks.clear()
    assert model.state_dict().keys() == tiny().state_dict().keys(), "weights fit with and without"
    fit(model, 3)

    torch.manual_seed(3)
    optimizers = SGD(generator.parameters(), lr=0.1), SGD(discriminator.parameters(), lr=0.1)
    for batch in loader(3):
        fake = generator(torch.randn(4, 3))
        real = top_half(batch.image * 2 - 1)
        loss = discriminator_bce(discriminator(real), discriminator(top_half(fake).detach()))
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        generator_bce(discriminator(top_half(fake))).backward()
        optimizers[0].step()
    assert_trained_alike(model, generator, discriminator)


def top_half(image: Tensor) -> Tensor:
    return torch.cat([image[:, :, :8], torch.zeros_like(image[:, :, 8:])], dim=2)


def test_held_out_losses_go_by_the_batch_and_change_nothing() -> None:
    model = tiny()
    model.eval()
    batch = LabeledImages(torch.rand(4, 1, 16, 16), torch.zeros(4, dtype=torch.long))
    before = deepcopy(model.state_dict())
    with torch.no_grad(), batch_statistics(model):
        loss = model.discriminator_loss(batch, batch.image * 2 - 1)
    assert not model.discriminator.training
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train()
    assert torch.equal(loss, model.discriminator_loss(batch, batch.image * 2 - 1))
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_lets_gradients_through() -> None:
    model = tiny()
    with frozen(model.discriminator):
        image = torch.rand(2, 1, 16, 16, requires_grad=True)
        model.discriminator(image).sum().backward()
    assert image.grad is not None
    assert all(p.grad is None for p in model.discriminator.parameters())
