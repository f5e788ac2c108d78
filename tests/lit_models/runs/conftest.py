import os
from pathlib import Path

import pytest

from tests.support.fixtures import Patch


@pytest.fixture
def no_job(tmp_path: Path, monkeypatch: Patch) -> None:
    """An empty folder, and none of the variables by which a cluster, W&B or relit names processes."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "RELIT_", "WANDB_")) or name in ("NODE_RANK", "GROUP_RANK"):
            monkeypatch.delenv(name)
