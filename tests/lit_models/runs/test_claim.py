"""The claim to a run's folder, before a trainer has ranked the processes."""

from pathlib import Path

import pytest

from lit_models.errors import RunError
from lit_models.runs.claim import Claim
from lit_models.runs.folder import RunOptions
from tests.support.fixtures import Patch

ONE = RunOptions("x", id="one")
pytestmark = pytest.mark.usefixtures("no_job")


def test_of_several_nodes_only_the_first_owns_the_run(monkeypatch: Patch) -> None:
    first, second = Claim(), Claim()
    monkeypatch.setenv("NODE_RANK", "1")
    folder = second.take(ONE, for_training=True, goes_on=False, nodes=2)
    monkeypatch.delenv("NODE_RANK")
    assert first.take(ONE, for_training=True, goes_on=False, nodes=2) == folder
    assert first.ownership is not None
    assert second.ownership is None
    second.remove_if_empty_handed()
    assert folder.is_dir(), "it isn't the second node's"
    first.remove_if_empty_handed()
    assert not folder.exists()
    assert first.ownership is None


def test_a_training_on_one_node_owns_its_run_whatever_the_nodes_rank(monkeypatch: Patch) -> None:
    """As where each node of a cluster trains a run."""
    monkeypatch.setenv("NODE_RANK", "1")
    claim, other = Claim(), Claim()
    claim.take(ONE, for_training=True, goes_on=False)
    with pytest.raises(RunError):
        other.take(ONE, for_training=True, goes_on=False)
    claim.release()


def test_nodes_agree_by_a_name_or_by_slurm_or_not_at_all(monkeypatch: Patch) -> None:
    with pytest.raises(RunError, match="several nodes"):
        Claim().take(RunOptions("x"), for_training=False, goes_on=False, nodes=2)
    assert not Path("runs").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert Claim().take(RunOptions("x"), for_training=False, goes_on=False, nodes=2).name == "slurm-17"
