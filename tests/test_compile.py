"""``--compile=true``, for every method."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

import lit_models
from lit_models.cli.trainer import compile_networks
from tests.methods import METHODS, SMALL_MODELS
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_fits import small_fit
from tests.support.small_runs import small_run
from tests.support.tiny import TINY, the_run


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("title", [title for title in SMALL_MODELS if "," not in title])
def test_a_compiled_method_computes_what_the_plain_one_does(title: str, tmp_path: Path, monkeypatch: Patch) -> None:
    """All networks are captured by ``torch.compile``, but run as they are, which takes seconds in place of a minute.
    Each that has something to learn is called as a whole: its parts alone wouldn't be compiled."""
    captured: list[nn.Module] = []
    called: set[nn.Module] = set()

    def eager(self: nn.Module, *_: Any, **__: Any) -> None:
        compiled = torch.compile(self._call_impl, backend="eager")

        def noting(*args: Any, **named: Any) -> Any:
            called.add(self)
            return compiled(*args, **named)

        captured.append(self)
        self._compiled_call_impl = noting  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", eager)
    states = []
    for compiled in (False, True):
        torch._dynamo.reset()
        seed_everything(0)
        model, data, trainer = small_fit(title, tmp_path)
        if compiled:
            compile_networks(model)
        seed_everything(0)
        trainer.fit(model, data)
        trainer.validate(model, data, verbose=False)
        states.append(model.state_dict())
    assert captured
    learning = {network for network in captured if any(parameter.requires_grad for parameter in network.parameters())}
    assert {network for network in learning if not isinstance(network, nn.ParameterDict)} <= called
    for name, value in states[0].items():
        assert torch.allclose(states[1][name], value, atol=1e-5), name


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_method_trains_and_leaves_an_ordinary_checkpoint(
    relit: Relit, digits_root: Path, method: str
) -> None:
    assert relit("fit", *small_run(METHODS[method].runs[-1], digits_root), "--compile=true") == 0
    path = the_run() / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    plain = getattr(lit_models, method).load_from_checkpoint(path, weights_only=True)
    assert state.keys() == plain.state_dict().keys()
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.long
def test_without_a_compiler_one_sentence_says_so(
    relit: Relit, tmp_path: Path, monkeypatch: Patch, capsys: Output
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(inductor.cpp, "cxx", (str(tmp_path / "no_compiler"),))
    torch._dynamo.reset()
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--compile=true") == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == (
        "relit: --compile needs a C++ compiler, such as g++, for networks on a CPU: install one, or leave --compile "
        "out."
    )
    assert not list(Path("runs").rglob("*.ckpt"))
