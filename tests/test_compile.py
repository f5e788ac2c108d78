"""``--compile=true``, for methods of every kind of training step. (DCGAN's is in lit_models/cli/test_command.py.)"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lit_models
from tests.methods import METHODS
from tests.support.small_runs import small_run
from tests.support.tiny import the_run

Relit = Callable[..., int]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", [name for name, record in METHODS.items() if record.compiled])
def test_a_compiled_method_trains_and_leaves_an_ordinary_checkpoint(
    relit: Relit, digits_root: Path, method: str
) -> None:
    assert relit("fit", *small_run(METHODS[method].runs[-1], digits_root), "--compile=true") == 0
    path = the_run() / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    plain = getattr(lit_models, method).load_from_checkpoint(path, weights_only=True)
    assert state.keys() == plain.state_dict().keys()
    assert all(value.isfinite().all() for value in state.values())
