from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from datamodules import LabeledImages
from lit_models import DenoisingAutoencoder
from tests.support.data_modules import real_root
from tests.support.fixtures import Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import quick_run, the_run

TINY = quick_run(
    "autoencoder_digits",
    model={"feature_maps": 2, "latent_dim": 4},
    trainer={"max_epochs": 2, "limit_train_batches": 5, "log_every_n_steps": 5},
)


def tiny(**arguments: Any) -> DenoisingAutoencoder:
    torch.manual_seed(0)
    return DenoisingAutoencoder(**{"image_size": 8, "channels": 1, "latent_dim": 3, "feature_maps": 2, **arguments})


def images(count: int, size: int = 8) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_the_corruption_is_noise_of_that_size_and_not_clipped() -> None:
    image = torch.full((50, 1, 32, 32), 0.9)
    noise = tiny(noise_std=0.5).corrupt(image) - image
    assert noise.mean().abs() < 0.01
    assert noise.std().item() == pytest.approx(0.5, rel=0.01)
    assert (image + noise).max() > 1.5
    assert torch.equal(tiny(noise_std=0.0).corrupt(image), image)


def test_the_corruption_moves_images_each_its_own_way() -> None:
    image = torch.zeros(40, 1, 32, 32)
    image[:, :, 14:18, 14:18] = 1
    moved = tiny(noise_std=0.0, max_translation=0.2).corrupt(image)
    place = torch.arange(32.0)
    centers = (moved * place).sum((1, 2, 3)) / moved.sum((1, 2, 3))
    assert centers.min() < 12
    assert centers.max() > 19
    assert (centers - 15.5).abs().max() <= 0.2 * 32 + 0.01


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_the_loss_compares_the_reconstruction_of_the_corrupted_with_the_clean_image(loss: str) -> None:
    model = tiny(noise_std=0.4, loss=loss)
    image = images(3)
    torch.manual_seed(5)
    corrupted = image + 0.4 * torch.randn_like(image)
    torch.manual_seed(5)
    value, logits = model.reconstruction_loss(image)
    reconstruction = model.reconstruct(corrupted)
    assert torch.allclose(logits.sigmoid(), reconstruction, atol=1e-6)
    total = 0.0
    for x, y in zip(image.flatten().tolist(), reconstruction.flatten().tolist(), strict=True):
        total += (x - y) ** 2 if loss == "squared_error" else -(x * np.log(y) + (1 - x) * np.log(1 - y))
    assert value.item() == pytest.approx(total / image.numel(), rel=1e-5)


def test_interpolation_decodes_codes_on_the_way() -> None:
    model = tiny()
    start, end = images(4).split(2)
    way = model.interpolate(start, end, 3)
    middle = (model.embed(start) + model.embed(end)) / 2
    assert torch.allclose(way[:, 1], model.decode(middle), atol=1e-6)
    assert torch.allclose(way[:, 0], model.reconstruct(start), atol=1e-6)


@pytest.mark.long
def test_a_run_its_pictures_and_its_predictions(relit: Relit) -> None:
    assert relit("fit", *TINY) == 0
    run = the_run()
    assert np.asarray(Image.open(run / "samples" / "reconstructions_0002.png")).std() > 0

    arguments = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert relit("predict", "--ckpt_path", run / "checkpoints" / "best.ckpt", *arguments) == 0
    files = sorted((run / "predictions").glob("*.png"))
    assert [file.name for file in files] == [f"{number:05d}.png" for number in range(300)]
    model = DenoisingAutoencoder.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)
    written = torch.from_numpy(np.asarray(Image.open(files[7]))[:, :, 0] / 255)
    assert torch.allclose(written, predicted(model, 7).double(), atol=0.51 / 255 + 1e-6)


def predicted(model: DenoisingAutoencoder, row: int) -> Tensor:
    from datamodules import Digits

    data = Digits()
    data.setup("test")
    batch = data.transform(data.test_set.__getitems__([row]), training=False)
    assert isinstance(batch, LabeledImages)
    return model.eval().reconstruct(batch.image)[0, 0]


def test_it_learns_to_remove_noise() -> None:
    torch.manual_seed(0)
    model = DenoisingAutoencoder(8, 1, 8, 8, noise_std=0.2)
    rows = torch.arange(8.0)
    clean = torch.stack([((rows[:, None] - c).abs() < 1.5).float().expand(8, 8) for c in range(8)])[:, None]
    optimizer = model.configure_optimizers()
    for _ in range(300):
        loss = model.reconstruction_loss(clean)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noisy = model.corrupt(clean)
    assert functional.mse_loss(model.reconstruct(noisy), clean) < 0.3 * functional.mse_loss(noisy, clean)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_mnist_is_learned_with_any_seed(relit: Relit, monkeypatch: Patch, seed: int) -> None:
    """By the squared error, these end with black images: an error of 0.085."""
    monkeypatch.setenv("RELIT_DATA", str(real_root("mnist")))
    limits = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=150", "--trainer.callbacks=[]")
    assert relit("fit", *quick_run("autoencoder_mnist", f"--seed_everything={seed}", *limits)) == 0
    (row,) = [row for row in rows_of(the_run() / "metrics.csv") if row["val/squared_error"]]
    assert float(row["val/squared_error"]) < 0.055
