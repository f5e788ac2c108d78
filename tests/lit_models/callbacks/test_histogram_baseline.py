import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules import Digits
from lit_models import VAE
from lit_models.callbacks import HistogramBaseline
from lit_models.callbacks.histogram_baseline import (
    LEVELS,
    histogram_log_probability,
    histogram_nats,
    levels,
    training_histogram,
)
from tests.support.data_modules import set_up
from tests.support.trainers import quiet_trainer


@pytest.fixture
def digits(digits_root: Path) -> Digits:
    return set_up(Digits(root=str(digits_root), batch_size=16))


def test_the_histogram_by_a_loop(digits: Digits) -> None:
    counts = training_histogram(digits, torch.device("cpu"))
    log_probability = histogram_log_probability(counts)
    assert torch.allclose(log_probability.double().exp().sum(1), torch.ones(1024, dtype=torch.double), atol=1e-5)
    train = digits.train_set.__getitems__(range(len(digits.train_set))).image.flatten(1)
    test = digits.test_set.__getitems__(range(3)).image
    nats = histogram_nats(test / 255, log_probability).tolist()
    columns = [Counter(column) for column in train.T.tolist()]
    for image, value in zip(test.flatten(1).tolist(), nats, strict=True):
        expected = -sum(
            math.log((column[level] + 1) / (len(train) + LEVELS)) for level, column in zip(image, columns, strict=True)
        )
        assert value == pytest.approx(expected, rel=1e-5)


def test_binary_images_have_two_levels() -> None:
    image = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1)
    counts = levels(image)[:, 0].bincount(minlength=LEVELS)[None]
    nats = histogram_nats(image[:2], histogram_log_probability(counts))
    assert nats.tolist() == pytest.approx([-math.log(2 / 5), -math.log(3 / 5)])


def test_a_test_logs_the_mean_over_its_images(digits: Digits, tmp_path: Path) -> None:
    model = VAE(32, 1, 2, 2)
    trainer = quiet_trainer(default_root_dir=tmp_path, callbacks=[HistogramBaseline()])  # fmt: skip
    (result,) = trainer.test(model, digits, verbose=False)
    log_probability = histogram_log_probability(training_histogram(digits, torch.device("cpu")))
    test = digits.test_set.__getitems__(range(len(digits.test_set))).image
    expected = histogram_nats(test / 255, log_probability).mean().item()
    assert result["test/nats_histogram"] == pytest.approx(expected, rel=1e-5)
    assert result["test/nats"] > 0
