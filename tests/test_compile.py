"""``--compile=true``, for methods of every kind of training step. (DCGAN's is in lit_models/cli/test_command.py.)"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lit_models
from tests.small_runs import RUNS, small_run
from tests.support.tiny import the_run

Relit = Callable[..., int]
METHODS = {"protonet": "ProtoNet", "pix2pix": "Pix2Pix", "cycle_gan": "CycleGAN", "metric_resnet": "MetricResNet"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", METHODS)
def test_a_compiled_method_trains_and_leaves_an_ordinary_checkpoint(relit: Relit, digits_root: Path, page: str) -> None:
    assert relit("fit", *small_run(RUNS[page][-1], digits_root), "--compile=true") == 0
    path = the_run() / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    plain = getattr(lit_models, METHODS[page]).load_from_checkpoint(path, weights_only=True)
    assert state.keys() == plain.state_dict().keys()
    assert all(value.isfinite().all() for value in state.values())
