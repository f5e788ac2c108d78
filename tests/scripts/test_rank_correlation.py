"""The rank correlation of two recorded curves."""

import json
from pathlib import Path

from analyses import rank_correlation

from tests.support.fixtures import Output, Patch


def test_orders_of_epochs_are_compared(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """Of four epochs that both have, one pair is swapped: 1 - 6 * 2 / (4 * 15) = 0.8."""
    curves = {
        "val/wasserstein_distance": [[1, 9.0], [2, 5.0], [3, 4.0], [4, 1.0], [5, 7.0]],
        "val/fid": [[1, 80.0], [2, 2.0], [3, 3.0], [4, 0.5]],
    }
    runs = {"0": {"curves": curves}, "1": {"curves": {}}}
    (tmp_path / "gans.json").write_text(json.dumps({"steps": {"wgan": [{"seeds": runs}]}}), encoding="utf-8")
    monkeypatch.setattr(rank_correlation, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["rank_correlation.py", "gans", "val/wasserstein_distance", "val/fid"])
    assert rank_correlation.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "wgan, seed 0: 0.80 over 4 epochs",
        "wgan, seed 1: no val/wasserstein_distance and val/fid of three epochs or more",
    ]
