"""Two processes against one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import SGD

from datamodules import Digits, LabelledImages
from lit_models import DCGAN, SNGAN, WGAN, ConditionalGAN, TripletGAN
from lit_models.adversarial import AdversarialModule
from lit_models.losses.adversarial import gradient_penalty
from tests.tiny import TINY, the_run, weights

Relit = Callable[..., int]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.timeout(200),
]


def reproducible(kind: type[AdversarialModule], critic_lr: float = 0.05, **arguments: Any) -> AdversarialModule:
    """A small model with latents made from the batch and without batch normalisation: then each image's part of a step
    depends on nothing but the image, and how a batch is shared out must not matter."""

    class Reproducible(kind):  # type: ignore[valid-type, misc]
        def generate(self, batch: LabelledImages) -> Tensor:
            latent = batch.image[:, 0, 8:24:4, 15] * 2 - 1
            return self.generator(latent, batch.label) if kind is ConditionalGAN else self.generator(latent)

    torch.manual_seed(0)
    model = Reproducible(
        image_size=32,
        channels=1,
        latent_dim=4,
        feature_maps=2,
        generator_optimizer=lambda p: SGD(p, lr=0.05),
        discriminator_optimizer=lambda p: SGD(p, lr=critic_lr),
        **arguments,
    )
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.2)
    return model


def penalty_between(critic: Any, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty with mixing weights that are made from the images."""
    return gradient_penalty(critic, real, fake, mix=real.flatten(1).mean(1) / 2 + 0.5)


GANS = {
    "DCGAN": (DCGAN, {}),
    "DCGAN, n_critic 2": (DCGAN, {"n_critic": 2}),
    "SNGAN": (SNGAN, {"loss": "hinge", "ema_decay": 0.5}),
    "WGAN": (WGAN, {"clip_value": 0.3, "n_critic": 2}),
    # A critic's steps of 0.05 on large random weights diverge, which magnifies rounding errors.
    "WGAN-GP": (WGAN, {"clip_value": None, "gradient_penalty_weight": 10.0, "n_critic": 2, "critic_lr": 0.002}),
    "WGAN-GP, spectral norm": (
        WGAN,
        {"clip_value": None, "gradient_penalty_weight": 10.0, "spectral_norm": True, "n_critic": 1},
    ),
    "conditional, concat": (ConditionalGAN, {"condition": "image"}),
    "conditional, projection": (
        ConditionalGAN,
        {"discriminator": "projection", "spectral_norm": True, "critic_lr": 0.01},
    ),
    "triplet": (TripletGAN, {}),
}


@pytest.mark.parametrize(("kind", "arguments"), GANS.values(), ids=GANS)
def test_two_ranks_equal_one_process_on_the_same_global_batch(
    digits_root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[AdversarialModule], arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr("lit_models.wgan.gradient_penalty", penalty_between)
    states, steps = [], []
    for processes in (1, 2):
        model = reproducible(kind, **arguments)
        trainer = Trainer(
            accelerator="cpu",
            devices=processes,
            strategy="auto" if processes == 1 else "ddp_fork_find_unused_parameters_true",
            use_distributed_sampler=False,
            max_epochs=1,
            limit_train_batches=6,
            limit_val_batches=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, Digits(root=str(digits_root), batch_size=16 // processes))
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        steps.append(trainer.global_step)
    assert steps[0] == 6 // model.n_critic
    start = reproducible(kind, **arguments).state_dict()
    for name, alone in states[0].items():
        difference = (alone - states[1][name]).abs().max()
        assert difference <= 2e-5, f"{name} differs by {difference:.1e}"
        if name.endswith(("weight", "original")):
            assert not torch.allclose(alone, start[name], rtol=1e-4, atol=1e-4), f"{name} was not trained"


def test_a_resumed_run_of_two_ranks_equals_the_uninterrupted_one(relit: Relit) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork_find_unused_parameters_true"]
    assert relit("fit", *TINY, *two, "--run.root=whole") == 0
    assert relit("fit", *TINY, *two, "--trainer.max_epochs=1") == 0
    assert relit("fit", *TINY, *two, "--ckpt_path=last") == 0
    run, whole = the_run(), the_run(Path("whole"))
    state, expected = weights(run), weights(whole)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


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
