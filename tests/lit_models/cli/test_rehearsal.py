"""Optimizers and schedules are tried before a training: those that would fail in it are refused, and no others."""

from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from lit_models.cli.rehearsal import rehearse
from lit_models.errors import ModelError
from lit_models.support import sources

SCHEDULES = "torch.optim.lr_scheduler."
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
WRONG_SCHEDULES: list[tuple[str, dict[str, Any], str]] = [
    ("StepLR", {"step_size": 0}, "step_size is 0; it must be at least 1"),
    ("StepLR", {"step_size": 1, "gamma": float("nan")}, "gamma is nan; it must be finite and at least 0"),
    ("StepLR", {"step_size": 1, "gamma": -0.5}, "gamma is -0.5; it must be at least 0"),
    ("CosineAnnealingLR", {"T_max": 0}, "T_max is 0; it must be at least 1"),
    ("CosineAnnealingLR", {"T_max": 9, "eta_min": -1.0}, "eta_min is -1.0; it must be at least 0"),
    ("CosineAnnealingWarmRestarts", {"T_0": 0}, "T_0 is 0; it must be at least 1"),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 2}, "can't work: Tried to step 3 times"),
    ("OneCycleLR", {"max_lr": 0.1}, r"OneCycleLR \(max_lr 0.1\) can't work: You must define either total_steps"),
    ("ExponentialLR", {"gamma": 1e200}, "can't work: after epoch 2 the learning rate is inf"),
    ("LinearLR", {"start_factor": 0.0}, "can't work: Starting multiplicative factor expected to be greater than 0"),
    ("LinearLR", {"end_factor": -1.0}, "can't work: Ending multiplicative factor expected to be between 0 and 1"),
    ("PolynomialLR", {"total_iters": -1}, "total_iters is -1; it must be at least 0"),
    (PLATEAU, {"monitor": "val/loss", "patience": -1}, "patience is -1; it must be at least 0"),
    (PLATEAU, {"monitor": "val/loss", "factor": 2.0}, "can't work: Factor should be < 1.0"),
]
RIGHT_SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 2}),
    ("MultiStepLR", {"milestones": [4, 2]}),
    ("ConstantLR", {}),
    ("LinearLR", {}),
    ("ExponentialLR", {"gamma": 1.1}),
    ("PolynomialLR", {"power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 1}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 5}),
    (PLATEAU, {"monitor": "val/loss", "patience": 0}),
]
WRONG_OPTIMIZERS: list[tuple[str, dict[str, Any], str]] = [
    ("SGD", {"lr": float("nan")}, "lr is nan; it must be finite and at least 0"),
    ("SGD", {"lr": float("inf")}, "lr is inf; it must be finite and at least 0"),
    ("SGD", {"momentum": -1.0}, "momentum is -1.0; it must be at least 0 and at most 1"),
    ("SGD", {"nesterov": True}, r"SGD \(nesterov True\) can't work: Nesterov momentum requires a momentum"),
    ("Adam", {"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\); it must be at least 0 and less than 1"),
    ("Adam", {"eps": -1.0}, "eps is -1.0; it must be at least 0"),
    ("AdamW", {"weight_decay": -1.0}, "weight_decay is -1.0; it must be at least 0"),
    ("RMSprop", {"alpha": 2.0}, "alpha is 2.0; it must be at least 0 and at most 1"),
    ("Rprop", {"etas": (2.0, 1.0)}, "can't work: Invalid eta values: 2.0, 1.0"),
    ("SGD", {"lr": 3e38, "weight_decay": 1e9}, "can't work: three steps leave weights that aren't finite"),
]
ONLY_SOME_WEIGHTS = {"Muon": "2D parameters", "SparseAdam": "dense gradients"}


def settings(name: str, kind: str, arguments: dict[str, Any]) -> Namespace:
    return Namespace({name: Namespace(class_path=kind, init_args=Namespace(arguments))})


def path_of_schedule(kind: str) -> str:
    return kind if "." in kind else f"{SCHEDULES}{kind}"


@pytest.mark.parametrize(("kind", "arguments", "sentence"), WRONG_SCHEDULES)
def test_a_schedule_that_would_fail_is_refused(kind: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=rf"^--model.lr_scheduler.*{sentence}"):
        rehearse(settings("lr_scheduler", path_of_schedule(kind), arguments), epochs=5)


def test_schedules_that_work_are_left_alone() -> None:
    before = torch.get_rng_state()
    for kind, arguments in RIGHT_SCHEDULES:
        rehearse(settings("generator_scheduler", path_of_schedule(kind), arguments), epochs=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "arguments", "sentence"), WRONG_OPTIMIZERS)
def test_an_optimizer_that_would_fail_is_refused(kind: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=rf"^--model.optimizer.*{sentence}"):
        rehearse(settings("optimizer", f"torch.optim.{kind}", arguments), epochs=1)


def test_every_optimizer_works_by_default_that_takes_any_weights() -> None:
    for kind in sources.optimizers():
        package = "lit_models.optimizers" if kind == "FusedAdam" else "torch.optim"
        given = settings("optimizer", f"{package}.{kind}", {})
        if kind in ONLY_SOME_WEIGHTS:
            with pytest.raises(ModelError, match=ONLY_SOME_WEIGHTS[kind]):
                rehearse(given, epochs=1)
        else:
            rehearse(given, epochs=1)


def test_a_schedule_is_tried_on_its_own_optimizer() -> None:
    """CyclicLR moves the momentum, which this optimizer doesn't have."""
    cyclic = settings("critic_scheduler", f"{SCHEDULES}CyclicLR", {"base_lr": 0.01, "max_lr": 0.1})
    rehearse(Namespace(**vars(cyclic), **vars(settings("critic_optimizer", "torch.optim.Adam", {}))), epochs=1)
    with pytest.raises(ModelError, match="optimizer must support momentum"):
        rehearse(Namespace(**vars(cyclic), **vars(settings("critic_optimizer", "torch.optim.Adagrad", {}))), epochs=1)


def test_a_users_own_class_is_left_alone() -> None:
    rehearse(settings("optimizer", "mine.Optimizer", {"lr": -1.0}), epochs=1)
