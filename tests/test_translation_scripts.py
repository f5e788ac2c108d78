"""The scripts of image translation: baselines, and the grid of methods and pairings."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import translation_baselines
import translation_grid

from datamodules import ImagePair
from lit_models.metrics.translation import MAP_COLOURS
from tests.datamodules.test_maps import write_maps

Relit = Callable[..., int]

pytestmark = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


def test_the_lookup_against_a_plain_loop() -> None:
    numbers = torch.Generator().manual_seed(0)
    source, target, other = (torch.randint(4, (2, 3, 6, 5), generator=numbers) * 85 / 255 for _ in range(3))
    found = translation_baselines.looked_up(other, ImagePair(source, target))

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
                colours = known.get(key(other[n, :, y, x]))
                expected = torch.stack(colours).mean(0) if colours else everywhere
                assert torch.allclose(found[n, :, y, x], expected, atol=1e-6)


def test_baselines_of_small_maps(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", train=6, val=5)
    scores = translation_baselines.baseline_scores(32, str(tmp_path))
    assert list(scores) == ["mean map", "nearest colour of the photograph", "colour lookup"]
    data = translation_baselines.Maps(root=str(tmp_path), image_size=32)
    data.setup("test")
    train, test = (translation_baselines.whole(data, split) for split in ("train", "test"))
    assert train.target.shape == (6, 3, 32, 32)
    mean = (sum(train.target) / 6 * 255).round() / 255
    assert scores["mean map"]["l1"] == pytest.approx((test.target - mean).abs().mean().item(), rel=1e-4)
    assert {f"map_recall_{kind}" for kind in MAP_COLOURS} <= scores["colour lookup"].keys()


def test_what_is_left_to_do(tmp_path: Path) -> None:
    def left() -> list[list[str]]:
        return translation_grid.cell_commands("CycleGAN", "loose", 3, tmp_path, "--more")

    run = tmp_path / "cyclegan_maps_64" / "loose"
    last = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    fit, test = left()
    assert fit[0] == "fit"
    assert {"--data.pairing=loose", "--trainer.max_epochs=3", "--run.id=loose", "--more"} <= set(fit)
    assert last not in fit
    assert test[0] == "test"
    assert last in test
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (run / "run.json").write_text('{"finished": false}')
    assert [command[0] for command in left()] == ["fit", "test"]
    assert last in left()[0]
    (run / "run.json").write_text('{"finished": true}')
    assert [command[0] for command in left()] == ["test"]
    (run / "scores.json").write_text("{}")
    assert left() == []


def test_a_filled_grid_becomes_a_table(relit: Relit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One real cell; the other eight are said to be done."""
    write_maps(tmp_path / "data" / "maps", train=3, val=5)
    monkeypatch.setenv("RELIT_DATA", str(tmp_path / "data"))
    runs = tmp_path / "runs"
    values = dict.fromkeys(("l1", "psnr", "ssim", "map_accuracy", "map_recall_motorway"), 0.5)
    for method in translation_grid.METHODS:
        for pairing in translation_grid.PAIRINGS:
            if (method, pairing) != ("pix2pix", "loose"):
                run = translation_grid.cell_run(method, pairing, runs)
                run.mkdir(parents=True)
                (run / "scores.json").write_text(json.dumps({**values, "map_precision_motorway": None}))
                (run / "run.json").write_text('{"training_seconds": 1.0, "finished": true}')
    more = ["--model.feature_maps=2", "--model.discriminator_feature_maps=2", "--trainer.accelerator=cpu"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--data.batch_size=3"]
    commands = []

    def command(arguments: list[str]) -> int:
        commands.append(arguments[0])
        return relit(*arguments)

    translation_grid.fill(1, runs, *more, *quiet, command=command)
    assert commands == ["fit", "test"]
    lines = translation_grid.table(runs).splitlines()
    assert len(lines) == 2 + 9 + 3
    assert lines[2] == "| plain GAN, paired | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | – |"
    assert lines[6].startswith("| pix2pix, loose | 0.")
    translation_grid.fill(1, runs, command=command)
    assert commands == ["fit", "test"]
