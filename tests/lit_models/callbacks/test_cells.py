from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lit_models.callbacks.cells import draw_genotype, draw_search
from lit_models.darts.genotype import DARTS_V2, random_genotype


def test_drawings_show_every_operation(tmp_path: Path) -> None:
    pictures = []
    for number, genotype in enumerate((DARTS_V2, DARTS_V2._replace(normal=random_genotype(0).normal))):
        path = draw_genotype(genotype, tmp_path / f"{number}.png")
        pictures.append(np.asarray(Image.open(path).convert("RGB")).astype(int))
    difference = abs(pictures[0] - pictures[1]).sum(2)
    half = len(difference) // 2
    assert difference[:half].any(), "the normal cells differ"
    assert not difference[half:].any(), "the reduction cells don't"


def test_the_heat_map_shows_the_history(tmp_path: Path) -> None:
    torch.manual_seed(0)
    alpha = torch.randn(2, 14, 8)
    history = [
        {"alpha": epoch * alpha, "learning_rate": 0.1, "accuracy": {"val": 0.1 * epoch} if epoch else {}}
        for epoch in range(3)
    ]
    pictures = [
        np.asarray(Image.open(draw_search(history[:count], tmp_path / f"{count}.png")).convert("RGB")).astype(int)
        for count in (1, 3)
    ]
    assert pictures[0].std() > 0
    assert abs(pictures[0] - pictures[1]).any()
