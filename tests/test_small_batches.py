"""A last batch of one image, and batches of one throughout, for every method: right, or refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_models import DARTSRetrain, LatentGAN, MetricResNet
from lit_models.adversarial import batch_statistics
from lit_models.errors import ModelError
from tests.methods import SMALL_MODELS
from tests.support.small_fits import ImagesInMemory, small_fit, small_trainer
from tests.support.small_models import small_model

ALL_HELD_OUT = {"limit_val_batches": 1.0, "limit_test_batches": 1.0}


def all_finite(values: dict[str, torch.Tensor]) -> bool:
    return bool(values) and all(value.isfinite().all() for value in values.values())


@pytest.mark.parametrize("title", SMALL_MODELS)
def test_a_last_held_out_batch_of_one(title: str, tmp_path: Path) -> None:
    model, data, trainer = small_fit(title, tmp_path, count=13, limit_train_batches=1, **ALL_HELD_OUT)
    trainer.fit(model, data)
    assert all_finite(trainer.callback_metrics)
    trainer.test(model, data, verbose=False)
    assert all_finite(trainer.callback_metrics)


@pytest.mark.parametrize("title", sorted(set(SMALL_MODELS) - {"ProtoNet", "MetricResNet, triplet", "LatentGAN"}))
def test_batches_of_one(title: str, tmp_path: Path) -> None:
    """Without ProtoNet, whose batches are episodes, and the triplet loss, which needs several images of a class."""
    model, data, trainer = small_fit(title, tmp_path, batch_size=1, eval_batch_size=1, count=7, **ALL_HELD_OUT)
    trainer.fit(model, data)
    assert all_finite(trainer.callback_metrics)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    trainer.test(model, data, verbose=False)
    assert all_finite(trainer.callback_metrics)


def test_one_image_alone_goes_by_the_running_means_where_it_has_no_variance() -> None:
    model = small_model("LatentGAN")
    latent = torch.randn(3, model.latent_dim)
    expected = model.generator.code(latent)
    with batch_statistics(model, 1):
        assert torch.allclose(model.generator.code(latent[:1]), expected[:1], atol=1e-6)
        assert not model.generator.code.training
    with batch_statistics(model, 3):
        assert not torch.allclose(model.generator.code(latent), expected, atol=1e-3)


SMALL_RESNET = {"num_classes": 3, "feature_maps": 2, "image_size": 32, "stem": "7x7"}


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LatentGAN, {"decoder_checkpoint": "a.ckpt", "channels": 3}),
        (MetricResNet, SMALL_RESNET),
        (
            DARTSRetrain,
            {"genotype": "DARTS_V1", "num_classes": 3, "init_channels": 4, "layers": 3, "auxiliary_weight": 0.4},
        ),
    ],
)
def test_training_batches_of_one_are_refused(kind: Any, arguments: dict[str, Any], tmp_path: Path) -> None:
    model, data = kind(**arguments), ImagesInMemory((3, 32, 32), 6, root=str(tmp_path), batch_size=1)
    sentence = f"^{kind.__name__} normalizes over the images of a batch, .*: set --data.batch_size to 2 or more"
    with pytest.raises(ModelError, match=sentence):
        small_trainer(model, tmp_path).fit(model, data)


@pytest.mark.parametrize("image_size", [33, 64])
def test_larger_images_make_batches_of_one_possible(image_size: int, tmp_path: Path) -> None:
    model = MetricResNet(**{**SMALL_RESNET, "image_size": image_size})  # type: ignore[arg-type]
    data = ImagesInMemory((3, image_size, image_size), 6, root=str(tmp_path), batch_size=1)
    trainer = small_trainer(model, tmp_path, **ALL_HELD_OUT)
    trainer.fit(model, data)
    assert all_finite(trainer.callback_metrics)


@pytest.mark.parametrize(
    "title", [title if title == "LatentGAN" else pytest.param(title, marks=pytest.mark.long) for title in SMALL_MODELS]
)
def test_two_processes_of_which_one_has_a_batch_of_one(title: str, tmp_path: Path) -> None:
    """Of 13 held-out images in batches of 6, one process has 6 and 1, the other 6."""
    strategy = "ddp_fork_find_unused_parameters_true"
    model, data, trainer = small_fit(title, tmp_path, count=13, devices=2, strategy=strategy, limit_train_batches=1)
    trainer.fit(model, data)
    assert all_finite(trainer.callback_metrics)
    trainer.test(model, data, verbose=False)
    assert all_finite(trainer.callback_metrics)
