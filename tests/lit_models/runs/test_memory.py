"""Memory: models that are larger than it."""

import pytest
from torch import nn

from lit_models.runs import memory
from lit_models.runs.memory import within_memory
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import TINY


def test_parameters_larger_than_memory_are_refused_before_they_get_values(monkeypatch: Patch) -> None:
    """A linear layer from 9 to 10 has 90 weights and 10 biases of 4 bytes each."""
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 400)
    with within_memory():
        nn.Linear(9, 10)
    written: list[int] = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: written.append(self.in_features))
    with pytest.raises(RuntimeError, match="the parameters up to bias take 440 of 400 bytes"), within_memory():
        nn.Linear(10, 10)
    assert not written
    nn.Linear(10, 10)  # outside of the block
    assert written == [10]


def test_a_model_larger_than_memory_is_one_sentence(relit: Relit, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 1000)
    assert relit("fit", *TINY) == 1
    assert "The model needs more memory than there is: lower its sizes" in capsys.readouterr().err
