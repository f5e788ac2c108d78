import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from datamodules import Digits, LabeledImages, SampleRequest
from lit_models import VAE
from lit_models.errors import ModelError, RunWarning
from lit_models.losses.vae import bits_per_dim, importance_weighted_bound
from tests.support.fixtures import Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import quick_run, the_run
from tests.support.trainers import quiet_trainer

TINY = quick_run(
    "vae_digits",
    model={"feature_maps": 2, "latent_dim": 3, "importance_samples": 2},
    trainer={"max_epochs": 2, "limit_train_batches": 5, "log_every_n_steps": 5},
)


def tiny(**arguments: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(**{"image_size": 8, "channels": 1, "latent_dim": 3, "feature_maps": 2, "x_sigma2": 1e-3, **arguments})


def images(count: int, size: int = 8, channels: int = 1) -> Tensor:
    return torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(1)) / 255


# --- the networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [8, 16, 64, 512])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_power_of_two(image_size: int, channels: int) -> None:
    model = tiny(image_size=image_size, channels=channels)
    image = images(2, image_size, channels)
    mean, log_variance = model.encode(image)
    assert mean.shape == log_variance.shape == (2, 3)
    reconstruction = model.reconstruct(image)
    assert reconstruction.shape == image.shape
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1


def test_the_decoder_mirrors_the_encoder() -> None:
    model = VAE(image_size=64, channels=3, feature_maps=4)
    down = [(m.in_channels, m.out_channels) for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    up = [(m.out_channels, m.in_channels) for m in model.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert down == up[::-1] == [(3, 4), (4, 8), (8, 16), (16, 32)]
    assert isinstance(model.encoder.head, nn.Linear)
    assert isinstance(model.encoder.log_variance, nn.Linear)


# --- training ---------------------------------------------------------------------------------------------------------


def test_draws_have_the_posteriors_moments_and_pass_gradients_on() -> None:
    model = tiny()
    mean = torch.tensor([[1.0, -2.0, 0.0]]).expand(20_000, 3).clone().requires_grad_()
    log_variance = torch.tensor([[0.0, -2.0, 1.0]]).expand(20_000, 3).clone().requires_grad_()
    torch.manual_seed(0)
    latent = model.draw(mean, log_variance)
    assert torch.allclose(latent.mean(0), mean[0], atol=0.05)
    assert torch.allclose(latent.var(0), log_variance[0].exp(), rtol=0.05)
    latent.sum().backward()
    torch.manual_seed(0)
    noise = torch.randn(20_000, 3)
    assert torch.equal(mean.grad, torch.ones_like(mean))
    assert torch.allclose(log_variance.grad, 0.5 * (log_variance / 2).exp() * noise, atol=1e-5)


def test_terms_by_hand() -> None:
    model = tiny(kl_weight=0.5)
    image = images(3)
    mean, log_variance = model.encode(image)
    logits = model.logits(model.draw(mean, log_variance))
    reconstruction = logits.sigmoid()
    terms = {name: value.item() for name, value in model.terms(image, logits, mean, log_variance).items()}
    variance = 1e-3 * 64
    error = (image - reconstruction).square().sum((1, 2, 3)).mean().item()
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1).mean().item()
    assert terms["reconstruction_nats"] == pytest.approx(error / (2 * variance), rel=1e-5)
    assert terms["kl_nats"] == pytest.approx(kl, rel=1e-5)
    assert terms["loss"] == pytest.approx(error / variance + 0.5 * 2 * kl, rel=1e-5)
    bits = (error + 64 / (12 * 255**2)) / (2 * variance) + kl
    bits += 64 * (0.5 * np.log(2 * np.pi * variance) + np.log(255))
    assert terms["bits_per_dim"] == pytest.approx(bits / (64 * np.log(2)), rel=1e-5)
    assert terms["nats"] == pytest.approx(bits, rel=1e-5)


def test_bernoulli_terms_by_a_plain_loop() -> None:
    model = tiny(likelihood="bernoulli", kl_weight=0.5)
    image = images(3).round()
    mean, log_variance = model.encode(image)
    latent = model.draw(mean, log_variance)
    terms = {k: v.item() for k, v in model.terms(image, model.logits(latent), mean, log_variance).items()}
    assert set(terms) == {"loss", "reconstruction_nats", "kl_nats", "nats"}, "a probability of bits has no gray levels"
    reconstruction, kl = 0.0, 0.0
    for n, decoded in enumerate(model.decode(latent)):
        for x, p in zip(image[n].flatten().tolist(), decoded.flatten().tolist(), strict=True):
            reconstruction -= np.log(p if x == 1 else 1 - p) / 3
        for m, v in zip(mean[n].tolist(), log_variance[n].tolist(), strict=True):
            kl += (np.exp(v) + m**2 - 1 - v) / 2 / 3
    assert terms["reconstruction_nats"] == pytest.approx(reconstruction, rel=1e-5)
    assert terms["kl_nats"] == pytest.approx(kl, rel=1e-5)
    assert terms["nats"] == pytest.approx(reconstruction + kl, rel=1e-5)
    assert terms["loss"] == pytest.approx(2 * (reconstruction + 0.5 * kl), rel=1e-5)


def test_bernoulli_images_are_checked() -> None:
    model = tiny(likelihood="bernoulli")
    label = torch.zeros(4, dtype=torch.long)
    for image in (2 * images(4) - 1, images(4) * 255, torch.full((4, 1, 8, 8), float("nan"))):
        with pytest.raises(ModelError, match=r"takes images in \[0, 1\], but these range from"):
            model.validation_step(LabeledImages(image, label), 0)
    with pytest.warns(RunWarning, match="gray images is not normalized"):
        model._check(images(4), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model._check(images(4), 0)  # once a run
    model._check(images(4).round(), 0)
    tiny()._check(2 * images(4) - 1, 0)


def test_a_learned_variance_approaches_the_optimum() -> None:
    """The images are fixed and so is x̂: only s² learns."""
    model = tiny(variance="learned", x_sigma2=1e-2)
    assert model.log_s2.exp().item() == pytest.approx(0.64)
    image = images(16)
    mean, log_variance = model.encode(image)
    logits = model.logits(mean).detach()
    optimizer = torch.optim.Adam([model.log_s2], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        model.terms(image, logits, mean.detach(), log_variance.detach())["loss"].backward()
        optimizer.step()
    expected = (image - logits.sigmoid()).square().mean().item() + 1 / (12 * 255**2)
    assert model.log_s2.exp().item() == pytest.approx(expected, rel=1e-3)


def test_the_optimal_variance_of_a_batch_and_its_running_mean() -> None:
    model = tiny(variance="optimal")
    squared = []
    with torch.no_grad():
        for step in range(3):
            image = images(6).roll(step, 0) * 0.5**step
            logits = model.logits(model.encode(image)[0])
            squared.append((image - logits.sigmoid()).square().mean().item() + 1 / (12 * 255**2))
            assert model.decoder_variance(image, logits).item() == pytest.approx(squared[-1], rel=1e-5)
    assert model.s2.item() == pytest.approx(squared[-1], rel=1e-5), "without a trainer, each step is the first"
    model.eval()
    assert model.decoder_variance(image * 0, logits).item() == model.s2.item(), "no use of the evaluated images"


@pytest.mark.parametrize("variance", ["fixed", "learned", "optimal"])
def test_a_checkpoint_restores_the_variance(variance: str) -> None:
    model = tiny(variance=variance)
    names = set(model.state_dict()) - set(tiny().state_dict())
    assert names == {"fixed": set(), "learned": {"log_s2"}, "optimal": {"s2"}}[variance]
    for name in names:
        model.state_dict()[name].fill_(0.25)
    other = tiny(variance=variance)
    other.load_state_dict(model.state_dict())
    image = images(2)
    other.eval()
    expected = {"fixed": 0.064, "learned": np.exp(0.25), "optimal": 0.25}[variance]
    assert other.decoder_variance(image, image).item() == pytest.approx(expected)


def test_train_and_val_weigh_alike_and_warm_up_changes_the_objective_only(
    digits_root: Path, monkeypatch: Patch
) -> None:
    seen: dict[str, list[float]] = {"objective": [], "loss": [], "reconstruction": [], "kl": []}

    class Spy(VAE):
        def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            logged = self.trainer.callback_metrics
            seen["objective"].append(float(loss))
            for name, key in (("loss", "loss"), ("reconstruction", "reconstruction_nats"), ("kl", "kl_nats")):
                seen[name].append(float(logged[f"train/{key}"]))
            return loss

    torch.manual_seed(0)
    model = Spy(32, 1, 3, 2, x_sigma2=1e-3, kl_weight=2.0, kl_warmup_steps=4)
    with torch.no_grad():
        model.encoder.head.bias.fill_(1.0)  # so that there is a divergence from the first step on
    trainer = quiet_trainer(max_steps=6, log_every_n_steps=1, limit_val_batches=1)  # fmt: skip
    trainer.fit(model, Digits(root=str(digits_root), batch_size=16))
    for step, (objective, loss, reconstruction, kl) in enumerate(zip(*seen.values(), strict=True)):
        weight = 2.0 * min(1.0, step / 4)
        assert objective == pytest.approx(2 * (reconstruction + weight * kl), rel=1e-5)
        assert loss == pytest.approx(2 * (reconstruction + 2.0 * kl), rel=1e-5), "what is logged has the whole weight"
    (result,) = trainer.validate(model, Digits(root=str(digits_root), batch_size=16), verbose=False)
    expected = 2 * (result["val/reconstruction_nats"] + 2.0 * result["val/kl_nats"])
    assert result["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_an_older_checkpoint_keeps_its_meaning(tmp_path: Path) -> None:
    """Written before there was a choice of likelihood and variance."""
    arguments = {
        "image_size": 8, "channels": 1, "latent_dim": 3, "feature_maps": 2, "x_sigma2": 2e-3, "kl_weight": 1.0,
        "kl_warmup_steps": 0, "importance_samples": None,
    }  # fmt: skip
    state = tiny().state_dict()
    assert {name.split(".")[0] for name in state} == {"encoder", "decoder"}
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": arguments, "pytorch-lightning_version": "2.6.0"}, path)
    model = VAE.load_from_checkpoint(path, weights_only=True)
    assert (model.likelihood, model.variance) == ("gaussian", "fixed")
    assert model.s2.item() == pytest.approx(2e-3 * 64)
    image = images(2)
    mean, log_variance = model.encode(image)
    logits = model.logits(mean)
    loss = model.terms(image, logits, mean, log_variance)["loss"].item()
    error = (image - logits.sigmoid()).square().sum((1, 2, 3)).mean().item()
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1).mean().item()
    assert loss == pytest.approx(error / (2e-3 * 64) + 2 * kl, rel=1e-5)


# --- what it makes ----------------------------------------------------------------------------------------------------


def test_samples_are_decoded_draws_of_the_prior() -> None:
    model = tiny()
    sample = model.sample(5, generator=torch.Generator().manual_seed(2))
    latent = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(sample, model.decode(latent))
    assert not sample.requires_grad
    request = SampleRequest(torch.arange(5), torch.full((5,), -1), torch.zeros(5, dtype=torch.long))
    assert model.predict_step(request, 0).shape == (5, 1, 8, 8)
    with pytest.raises(ModelError, match="has no classes"):
        model.sample(2, labels=torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_interpolation_goes_from_one_reconstruction_to_the_other(path: str) -> None:
    model = tiny()
    start, end = images(4).split(2)
    way = model.interpolate(start, end, 6, path)  # type: ignore[arg-type]
    assert way.shape == (2, 6, 1, 8, 8)
    assert torch.allclose(way[:, 0], model.reconstruct(start), atol=1e-5)
    assert torch.allclose(way[:, -1], model.reconstruct(end), atol=1e-5)


def test_the_importance_weighted_bound_is_the_tighter() -> None:
    model = tiny()
    image = images(200)
    with torch.no_grad():
        mean, log_variance = model.encode(image)
        torch.manual_seed(0)
        weight = model.log_importance_weights(image, mean, log_variance, 50)
        assert weight.shape == (50, 200)
        assert weight.std(0).min() > 0, "every draw is another"
        single = bits_per_dim(weight.mean(0), image).mean().item()
        many = bits_per_dim(importance_weighted_bound(weight), image).mean().item()
        torch.manual_seed(0)
        terms = model.terms(image, model.logits(model.draw(mean, log_variance)), mean, log_variance)
    assert many < single
    assert terms["bits_per_dim"].item() == pytest.approx(single, rel=0.02), "the mean weight is the bound itself"


@pytest.mark.parametrize("count", [3, 1500])
def test_blocks_of_draws_are_draws(count: int, monkeypatch: Patch) -> None:
    """Against one draw at a time, with the same noise: 3 images take blocks, 1,500 don't."""
    model = tiny(likelihood="bernoulli")
    image = images(count).round()
    noise = torch.randn(7, count, 3, generator=torch.Generator().manual_seed(5))
    taken = 0

    def given(like: Tensor) -> Tensor:
        nonlocal taken
        part = noise.flatten()[taken : taken + like.numel()].view(like.shape)
        taken += like.numel()
        return part

    monkeypatch.setattr("lit_models.vae.DECODED_AT_ONCE", 9)
    monkeypatch.setattr(torch, "randn_like", given)
    with torch.no_grad():
        mean, log_variance = model.encode(image)
        weight = model.log_importance_weights(image, mean, log_variance, 7)
        for draw in range(7):
            latent = mean + (log_variance / 2).exp() * noise[draw]
            p = model.decode(latent)
            log_likelihood = torch.where(image == 1, p, 1 - p).log().flatten(1).sum(1)
            prior = torch.distributions.Normal(0, 1).log_prob(latent).sum(1)
            posterior = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(latent).sum(1)
            assert torch.allclose(weight[draw], log_likelihood + prior - posterior, rtol=1e-4, atol=1e-3)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_run_and_its_pictures(relit: Relit) -> None:
    assert relit("fit", *TINY) == 0
    run = the_run()
    for name in ("epoch_0002.png", "reconstructions_0002.png"):
        assert np.asarray(Image.open(run / "samples" / name)).std() > 0
    rows = rows_of(run / "metrics.csv")
    for stage in ("train", "val"):
        for name in ("loss", "reconstruction_nats", "kl_nats", "bits_per_dim"):
            assert any(row[f"{stage}/{name}"] for row in rows), f"{stage}/{name} is logged"

    alone = VAE.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert alone.sample(2).shape == (2, 1, 32, 32)
    arguments = ["--trainer.callbacks=null", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert relit("test", *TINY, *arguments, "--ckpt_path=best") == 0
    last = rows_of(run / "metrics.csv")[-1]
    assert float(last["test/bits_per_dim_importance_weighted"]) > 0
    assert relit("predict", "--ckpt_path", run / "checkpoints" / "best.ckpt", *arguments[1:]) == 0
    assert len(list((run / "predictions").glob("*.png"))) == 64
