from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import Digits
from lit_models import MetricResNet
from lit_models.callbacks import FeaturePlane
from lit_models.callbacks.feature_plane import spread
from lit_models.errors import RunError
from tests.support.data_modules import digits_of
from tests.support.trainers import trainer_of


def fit(model: MetricResNet, callback: FeaturePlane, root: Path, data_root: Path) -> None:
    trainer = trainer_of(1, max_epochs=2, limit_train_batches=2, callbacks=[callback], default_root_dir=root)
    trainer.fit(model, Digits(root=str(data_root)))


def a_model(embedding_dim: int) -> MetricResNet:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "channels": 1, "num_classes": 10, "mean": [0.5], "std": [0.5], "feature_maps": 2}
    return MetricResNet(**sizes, loss="center", encoder="lenet", embedding_dim=embedding_dim)  # type: ignore[arg-type]


def test_features_are_drawn_over_the_epochs(tmp_path: Path, digits_root: Path) -> None:
    model, callback = a_model(2), FeaturePlane(per_class=3)
    fit(model, callback, tmp_path, digits_root)
    assert np.asarray(Image.open(tmp_path / "figures" / "feature_plane.png")).std() > 0
    assert list(callback.epochs) == [1, 2]
    image, label = digits_of(digits_root, "val")
    rows = sorted(int(row) for one in range(10) for row in (label == one).nonzero()[:3])
    feature, drawn = callback.epochs[2]
    assert torch.equal(drawn, label[rows])
    with torch.no_grad():
        assert torch.allclose(feature, model.eval().features(image[rows]), atol=1e-4)
    resumed = FeaturePlane()
    resumed.load_state_dict(callback.state_dict())
    assert resumed.epochs is callback.epochs


def test_features_of_more_dimensions_are_refused(tmp_path: Path, digits_root: Path) -> None:
    with pytest.raises(RunError, match=r"features have 3 components: set --model.embedding_dim 2"):
        fit(a_model(3), FeaturePlane(), tmp_path, digits_root)


def test_panels_are_spread_over_the_epochs() -> None:
    assert spread([1], 4) == [1]
    assert spread([1, 2, 3], 4) == [1, 2, 3]
    assert spread(list(range(1, 11)), 4) == [1, 4, 7, 10]
