"""How a run starts: the sanity check, and what is said about slow settings."""

import os
import subprocess
import sys
from typing import Any

import pytest

from lit_models import DCGAN, DARTSSearch
from lit_models.adversarial import AdversarialModule
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import TINY

SHORT = (*TINY, "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=3", "--trainer.callbacks=null")


@pytest.fixture
def sanity_batches(monkeypatch: Patch) -> list[tuple[int, int]]:
    """The number and the images of each batch that sanity checks have seen."""
    seen: list[tuple[int, int]] = []
    true = AdversarialModule.validation_step

    def counted(self: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.sanity_checking:
            seen.append((batch_idx, len(batch.image)))
        true(self, batch, batch_idx)

    monkeypatch.setattr(AdversarialModule, "validation_step", counted)
    return seen


def test_the_sanity_check_takes_one_small_batch_and_none_on_resume(
    relit: Relit, sanity_batches: list[tuple[int, int]]
) -> None:
    small = (*SHORT, "--data.eval_batch_size=16")
    assert relit("fit", *small, "--trainer.max_epochs=1") == 0
    assert sanity_batches == [(0, 2)]
    assert relit("fit", *small, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert sanity_batches == [(0, 2)]
    smaller = (*SHORT, "--data.eval_batch_size=1", "--trainer.num_sanity_val_steps=2")
    assert relit("fit", *smaller, "--trainer.max_epochs=1") == 0
    assert sanity_batches == [(0, 2), (0, 1), (1, 1)]


def test_compile_on_a_cpu_is_advised_against(relit: Relit, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setattr("lit_models.cli.command.compile_networks", lambda _: None)
    short = (*SHORT, "--trainer.max_steps=1", "--trainer.num_sanity_val_steps=0")
    assert relit("fit", *short, "--compile=true") == 0
    assert "note: --compile takes half a minute or more to start and gains nothing on a CPU" in capsys.readouterr().err
    monkeypatch.setattr(DCGAN, "compilation", DARTSSearch.compilation)
    assert relit("fit", *short) == 0
    assert "--compile" not in capsys.readouterr().err
    assert relit("fit", *short, "--compile=true") == 0
    assert "--compile takes about 11 minutes for 3 cells on one core to start" in capsys.readouterr().err


def test_a_notebooks_drawing_backend_is_not_taken_on() -> None:
    """``!relit …`` in a notebook hands ``MPLBACKEND`` on, of a package that relit's environment may lack."""
    code = "import lit_models.__main__; import matplotlib.pyplot as plot; plot.figure(); print(plot.get_backend())"
    environment = {**os.environ, "MPLBACKEND": "module://no_such_package.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("agg", 0), done.stderr


def test_a_training_without_any_batch_says_so(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=0") == 0
    assert "relit: no batch was trained, so there is no run: raise --trainer.max_epochs" in capsys.readouterr().err
