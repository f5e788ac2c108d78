"""The baselines of image translation."""

from pathlib import Path

import pytest
import torch
from analyses import translation_baselines

from datamodules import ImagePair
from lit_models.metrics.image_errors import MAP_COLORS
from tests.support.pairs import write_maps

pytestmark = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


def test_the_lookup_against_a_plain_loop() -> None:
    numbers = torch.Generator().manual_seed(0)
    source, target, other = (torch.randint(4, (2, 3, 6, 5), generator=numbers) * 85 / 255 for _ in range(3))
    found = translation_baselines.looked_up(other, translation_baselines.lookup_table(ImagePair(source, target)))

    def key(pixel: torch.Tensor) -> tuple[int, ...]:
        return tuple(round(float(value) * 255) // 16 for value in pixel)

    known: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for n in range(2):
        for y in range(6):
            for x in range(5):
                known.setdefault(key(source[n, :, y, x]), []).append(target[n, :, y, x])
    everywhere = target.mean((0, 2, 3))
    for n in range(2):
        for y in range(6):
            for x in range(5):
                colors = known.get(key(other[n, :, y, x]))
                expected = torch.stack(colors).mean(0) if colors else everywhere
                assert torch.allclose(found[n, :, y, x], expected, atol=1e-6)


def test_baselines_of_small_maps(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", train=6, val=5)
    scores = translation_baselines.baseline_scores(translation_baselines.Maps(root=str(tmp_path), image_size=32))
    assert list(scores) == ["mean map", "nearest color of the photograph", "color lookup"]
    data = translation_baselines.Maps(root=str(tmp_path), image_size=32)
    data.setup("test")
    train, test = (translation_baselines.whole(data, split) for split in ("train", "test"))
    assert train.target.shape == (6, 3, 32, 32)
    mean = (sum(train.target) / 6 * 255).round() / 255
    assert scores["mean map"]["l1"] == pytest.approx((test.target - mean).abs().mean().item(), rel=1e-4)
    assert {f"map_recall_{kind}" for kind in MAP_COLORS} <= scores["color lookup"].keys()
