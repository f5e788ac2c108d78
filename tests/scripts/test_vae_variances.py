"""The picture of what the variance and the KL term of a VAE do."""

import sys
from pathlib import Path

import torch
from analyses import vae_variances

from lit_models import VAE
from tests.support.fixtures import Patch
from tests.support.small_data import write_autoencoder

SIZES = {"latent_dim": 2, "feature_maps": 2}


def with_data(path: Path) -> Path:
    """Adds the data module of a configuration to a checkpoint."""
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": {"data": {"class_path": "datamodules.Digits", "init_args": {}}}}, path)
    return path


def test_a_row_for_each_model(tmp_path: Path, monkeypatch: Patch) -> None:
    first = with_data(write_autoencoder(tmp_path / "fixed.ckpt", VAE, x_sigma2=2e-5, **SIZES))
    second = write_autoencoder(tmp_path / "optimal.ckpt", VAE, variance="optimal", kl_weight=0.0, **SIZES)
    drawn = {}
    monkeypatch.setattr(vae_variances, "draw", lambda rows, path: drawn.update({path: rows}))
    given = ["--checkpoints", str(first), str(second), "--reconstructions", "2", "--samples", "3", "--figure", "a.png"]
    monkeypatch.setattr(sys, "argv", ["vae_variances.py", *given])
    vae_variances.main()
    (rows,) = drawn.values()
    assert [name for name, _ in rows] == ["test images", "fixed, s² = 0.02", "optimal, s² = 0.01\nβ = 0"]
    images = rows[0][1][:2]
    assert images.amax() > 0.9
    assert bool((rows[0][1][2:] == 1).all())
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for path, (_, row) in zip((first, second), rows[1:], strict=True):
        model = VAE.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
        with torch.no_grad():
            assert torch.equal(row, torch.cat((model.decode(model.encode(images)[0]), model.decode(noise))))


def test_the_picture_of_gray_and_of_color_images(tmp_path: Path) -> None:
    for channels in (1, 3):
        path = tmp_path / f"{channels}.png"
        vae_variances.draw([("a", torch.rand(3, channels, 8, 8)), ("b", torch.rand(3, channels, 8, 8))], path)
        assert path.is_file()
