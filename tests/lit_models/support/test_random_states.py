"""Random generators go on where they were, on every kind of device."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from lit_models.runs.resume import ExactResume
from lit_models.support.random_states import random_state, separate_random_numbers, set_random_state
from tests.support.fixtures import Patch


def test_random_states_survive_a_checkpoint(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "state.pt")
    drawn = [random.random(), np.random.rand(), torch.rand(2).tolist()]
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [random.random(), np.random.rand(), torch.rand(2).tolist()] == drawn


class AppleGPU:
    """Stands in for the generator of Apple's GPU, which ``torch.manual_seed`` seeds as it does all others."""

    def __init__(self, monkeypatch: Patch) -> None:
        self.state = torch.tensor([0, 0], dtype=torch.uint8)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch.mps, "get_rng_state", self.get)
        monkeypatch.setattr(torch.mps, "set_rng_state", self.set)
        monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: self.set(torch.tensor([seed % 251, 0])))

    def get(self) -> torch.Tensor:
        return self.state.clone()

    def set(self, state: torch.Tensor) -> None:
        self.state = state.to(torch.uint8)

    def draw(self) -> int:
        self.state[1] += 1
        return int(self.state[0]) * 256 + int(self.state[1])


def test_a_block_with_a_seed_leaves_the_run_its_numbers(monkeypatch: Patch) -> None:
    gpu = AppleGPU(monkeypatch)
    for seed in (3, 4):
        torch.manual_seed(seed)
        plain = [*torch.rand(4).tolist(), gpu.draw(), gpu.draw()]
        torch.manual_seed(seed)
        first = [*torch.rand(2).tolist()]
        with separate_random_numbers(7):
            torch.rand(5)
            assert gpu.draw() == 7 * 256 + 1
        assert [*first, *torch.rand(2).tolist(), gpu.draw(), gpu.draw()] == plain


def test_a_validation_leaves_apples_gpu_its_random_numbers(monkeypatch: Patch) -> None:
    """It draws from a seed that is the same each time; an epoch after it must not repeat the one before."""
    gpu, resume = AppleGPU(monkeypatch), ExactResume()
    trainer = SimpleNamespace(global_rank=0)
    torch.manual_seed(5)
    drawn = []
    for _ in range(2):
        drawn.append(gpu.draw())
        resume.on_validation_start(trainer, None)  # type: ignore[arg-type]
        assert gpu.draw() == 1
        resume.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert drawn == [5 * 256 + 1, 5 * 256 + 2]


def test_a_checkpoint_of_another_machine_is_taken(monkeypatch: Patch) -> None:
    """Of one without Apple's GPU, or of a version that didn't keep its state; and the other way round."""
    elsewhere = random_state()
    assert elsewhere["mps"] is None
    with monkeypatch.context() as patch:
        gpu = AppleGPU(patch)
        state = gpu.state
        for known in (elsewhere, {name: value for name, value in elsewhere.items() if name != "mps"}):
            set_random_state(known)
            assert gpu.state is state
        here = random_state()
    assert torch.equal(here["mps"], state)
    set_random_state(here)
