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
from lit_models import DCGAN
from tests.tiny import TINY, the_run, weights

Relit = Callable[..., int]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.timeout(200),
]


class Reproducible(DCGAN):
    """Latents made from the batch, and no batch normalisation: then each image's part of a step depends on nothing
    but the image, and how a batch is shared out must not matter."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            image_size=32,
            channels=1,
            latent_dim=4,
            feature_maps=2,
            generator_optimizer=lambda p: SGD(p, lr=0.05),
            discriminator_optimizer=lambda p: SGD(p, lr=0.05),
            **arguments,
        )
        for network in (self.generator, self.discriminator):
            for i, layer in enumerate(network.layers):
                if isinstance(layer, nn.BatchNorm2d):
                    network.layers[i] = nn.Identity()
                elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    nn.init.normal_(layer.weight, 0, 0.2)

    def generate(self, batch: LabelledImages) -> Tensor:
        return self.generator(batch.image[:, 0, 8:24:4, 15] * 2 - 1)


@pytest.mark.parametrize("n_critic", [1, 2])
def test_two_ranks_equal_one_process_on_the_same_global_batch(digits_root: Path, n_critic: int) -> None:
    states, steps = [], []
    for processes in (1, 2):
        torch.manual_seed(0)
        model = Reproducible(n_critic=n_critic)
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
    assert steps[0] == 6 // n_critic
    torch.manual_seed(0)
    start = Reproducible().state_dict()
    for name, alone in states[0].items():
        assert torch.allclose(alone, states[1][name], atol=1e-6), name
        if name.endswith("weight"):
            assert not torch.allclose(alone, start[name], atol=1e-4), f"{name} was not trained"


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
