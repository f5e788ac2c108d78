from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from datamodules import Digits
from lit_models import DenoisingAutoencoder, LatentGAN
from lit_models.errors import ModelError, RunError
from tests.support.small_data import write_autoencoder
from tests.support.small_models import checkpoint_of
from tests.support.tiny import quick_run
from tests.support.trainers import quiet_trainer

FIT = quick_run(
    "latent_gan_mnist",
    "--data=Digits",
    "--model.decoder_checkpoint=autoencoder.ckpt",
    model={"feature_maps": 2, "discriminator_feature_maps": 2, "code_dim": 4, "hidden": 8},
    trainer={"max_epochs": 2, "limit_train_batches": 5, "callbacks": "SampleGrid", "callbacks.epochs": [2]},
)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return write_autoencoder(tmp_path / "autoencoder.ckpt", latent_dim=4, feature_maps=2)


def gan(decoder: Path, **arguments: Any) -> LatentGAN:
    torch.manual_seed(0)
    sizes = {"latent_dim": 3, "hidden": 8, "code_dim": 4, "feature_maps": 2, "discriminator_feature_maps": 2}
    return LatentGAN(str(decoder), **{**sizes, **arguments})


@pytest.mark.parametrize("bounded", [True, False])
def test_spectral_norm_takes_the_place_of_the_discriminators_batch_norm(bounded: bool, decoder: Path) -> None:
    model = gan(decoder, spectral_norm=bounded)
    layers = list(model.discriminator.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers) != bounded
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert all(parametrize.is_parametrized(layer, "weight") == bounded for layer in convolutions)
    assert not any(parametrize.is_parametrized(layer) for layer in model.generator.modules())


def trained(root: Path, model: LatentGAN, batches: int = 3) -> LatentGAN:
    quiet_trainer(max_epochs=1, limit_train_batches=batches, limit_val_batches=1).fit(
        model, Digits(root=str(root), batch_size=8)
    )
    return model


@pytest.mark.parametrize("extra_convolution", [False, True])
def test_it_starts_from_the_decoders_images(digits_root: Path, decoder: Path, extra_convolution: bool) -> None:
    """Whatever the code, the untrained convolution included, as the autoencoder decodes it."""
    model = trained(digits_root, gan(decoder, extra_convolution=extra_convolution, ema_decay=0.9), batches=0)
    autoencoder = DenoisingAutoencoder.load_from_checkpoint(decoder, weights_only=True)
    model.generator.eval()
    latent = torch.randn(5, 3)
    expected = autoencoder.decode(model.generator.code(latent))
    assert torch.allclose((model.generator(latent) + 1) / 2, expected, atol=1e-6)
    average = model.generator_average.eval()
    assert torch.allclose((average(latent) + 1) / 2, autoencoder.decode(average.code(latent)), atol=1e-6)


@pytest.mark.parametrize("freeze_decoder", [True, False])
def test_what_is_trained(digits_root: Path, decoder: Path, freeze_decoder: bool) -> None:
    model = trained(digits_root, gan(decoder, freeze_decoder=freeze_decoder))
    saved = torch.load(decoder, weights_only=True)["state_dict"]
    for name, value in model.generator.decoder.state_dict().items():
        assert torch.equal(value, saved[f"decoder.{name}"]) == freeze_decoder, name
    start = gan(decoder)
    pairs = zip(model.generator.code.parameters(), start.generator.code.parameters(), strict=True)
    assert all(not torch.equal(now, before) for now, before in pairs)


def test_projection_finds_what_was_generated(decoder: Path) -> None:
    model = gan(decoder, extra_convolution=True)
    for module in model.generator.modules():
        if isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0, 0.5)
    image = model.sample(4, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        first, found = (model.project(image, candidates=64, steps=steps) for steps in (0, 100))
    model.generator.eval()
    errors = [functional.mse_loss((model.generator(latent) + 1) / 2, image) for latent in (first, found)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[0] < 0.5 * functional.mse_loss(model.sample(4), image), "the nearest candidate is near"
    assert all(p.grad is None for p in model.parameters())
    assert model.training


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_interpolation(decoder: Path, path: str) -> None:
    model = gan(decoder)
    model.project = partial(model.project, candidates=8, steps=2)  # type: ignore[method-assign]
    start, end = torch.rand(2, 3, 1, 32, 32)
    with torch.inference_mode():
        way = model.interpolate(start, end, 5, path)  # type: ignore[arg-type]
    assert way.shape == (3, 5, 1, 32, 32)
    model.generator.eval()
    assert torch.allclose(way[:, 0], (model.generator(model.project(start)) + 1) / 2, atol=1e-5)
    assert torch.allclose(way[:, -1], (model.generator(model.project(end)) + 1) / 2, atol=1e-5)


def test_no_decoder_and_one_of_another_size(tmp_path: Path, digits_root: Path, decoder: Path) -> None:
    with pytest.raises(RunError, match="There is no checkpoint of an autoencoder in"):
        trained(digits_root, gan(tmp_path / "missing.ckpt"))
    with pytest.raises(
        ModelError, match=r"code_dim is 8, but the decoder in .* trained with 4: set --model.code_dim 4"
    ):
        trained(digits_root, gan(decoder, code_dim=8))


def test_a_checkpoint_without_the_argument_keeps_batch_normalization(
    digits_root: Path, decoder: Path, tmp_path: Path
) -> None:
    """Checkpoints from before ``spectral_norm`` existed."""
    old = trained(digits_root, gan(decoder, ema_decay=0.9))
    content = checkpoint_of(old)
    assert content["hyper_parameters"].pop("spectral_norm") is False
    torch.save(content, tmp_path / "old.ckpt")
    new = LatentGAN.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True).eval()
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in new.discriminator.modules())
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(new.discriminator(images), old.eval().discriminator(images))
    bounded = gan(decoder, spectral_norm=True, ema_decay=0.9)
    with pytest.raises(RuntimeError, match="loading state_dict"):
        bounded.load_state_dict(content["state_dict"])


def test_a_checkpoint_with_spectral_normalization_judges_as_before(
    digits_root: Path, decoder: Path, tmp_path: Path
) -> None:
    """σ goes by the vectors of the power iteration, which have to be in the checkpoint."""
    model = trained(digits_root, gan(decoder, spectral_norm=True))
    torch.save(checkpoint_of(model), tmp_path / "x.ckpt")
    new = LatentGAN.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(new.discriminator(images), model.eval().discriminator(images))
    for layer in new.discriminator.modules():
        if isinstance(layer, nn.Conv2d):
            matrix = layer.weight.detach().flatten(1)
            assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1, abs=0.05)
