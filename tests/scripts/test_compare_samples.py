"""Grids of samples side by side."""

from pathlib import Path

import pytest
from analyses import compare_samples
from analyses.compare_samples import GAP, TEXT
from PIL import Image

from tests.support.fixtures import Patch

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def test_each_grid_keeps_its_pixels_below_its_name(tmp_path: Path, monkeypatch: Patch) -> None:
    files = [tmp_path / f"{place}.png" for place in range(3)]
    for color, file in zip(COLORS, files, strict=True):
        Image.new("RGB", (60, 40), color).save(file)
    figure = tmp_path / "figure.png"
    grids = [f"epoch {place}={file}" for place, file in enumerate(files)]
    monkeypatch.setattr("sys.argv", ["compare_samples.py", *grids, "--across", "2", "--figure", str(figure)])
    compare_samples.main()
    whole = Image.open(figure)
    assert whole.size == (2 * 60 + GAP, 2 * (40 + TEXT) + GAP)
    for place, color in enumerate(COLORS):
        x, y = place % 2 * (60 + GAP), place // 2 * (40 + GAP + TEXT)
        assert whole.crop((x, y + TEXT, x + 60, y + TEXT + 40)).getcolors() == [(2400, color)]
        assert (0, 0, 0) in dict(map(reversed, whole.crop((x, y, x + 60, y + TEXT)).getcolors())), "no name"


def test_what_cant_be_compared_is_told(tmp_path: Path, monkeypatch: Patch) -> None:
    for name, size in (("small", 8), ("large", 9)):
        Image.new("L", (size, size)).save(tmp_path / f"{name}.png")
    grids = [f"{name}={tmp_path / name}.png" for name in ("small", "large")]
    for named, told in ((grids, "small 8x8, large 9x9"), ([*grids, "a=b.png"], "no such file: a=b.png")):
        monkeypatch.setattr("sys.argv", ["compare_samples.py", *named, "--figure", str(tmp_path / "figure.png")])
        with pytest.raises(SystemExit, match=told):
            compare_samples.main()
    assert not (tmp_path / "figure.png").exists()
