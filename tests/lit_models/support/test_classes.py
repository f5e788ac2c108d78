"""Classes are compared by their names wherever a checkpoint meets data."""

import inspect
from pathlib import Path

import pytest
import torch

import lit_models
from datamodules import DataWarning, Digits, ImageFolder
from lit_models import DigitClassifier, MetricResNet
from lit_models.errors import ModelError
from lit_models.support.classes import NamedClasses
from tests.support.fixtures import Patch
from tests.support.folders import make
from tests.support.trainers import quiet_trainer

CLASSIFIERS = (
    *("MetricResNet", "LayerwiseMLP", "TransferClassifier", "DigitClassifier"),
    *("DARTSRetrain", "DARTSSearch", "ConditionalGAN"),
)


class ReversedDigits(Digits):
    """The same images, with their classes in another order."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.class_names = tuple("9876543210")
        for name in ("train_set", "val_set", "test_set", "predict_set"):
            split = getattr(self, name)
            columns = split.columns._replace(label=9 - split.columns.label)
            setattr(self, name, type(split)(columns, split.rows))


@pytest.fixture(scope="module")
def trained(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A checkpoint of a classifier of digits, and its accuracy in the test."""
    path = tmp_path_factory.mktemp("digits") / "classifier.ckpt"
    torch.manual_seed(0)
    model = DigitClassifier(widths=[8, 8])
    one = quiet_trainer(default_root_dir=path.parent, max_epochs=2, limit_val_batches=0)
    one.fit(model, Digits(str(digits_root), batch_size=16))
    one.save_checkpoint(path)
    (scores,) = one.test(model, Digits(str(digits_root)), verbose=False)
    return path, scores["test/accuracy"]


def test_names_are_kept(trained: tuple[Path, float]) -> None:
    assert torch.load(trained[0], weights_only=False)["class_names"] == list("0123456789")


def test_another_order_is_mapped_and_said(tmp_path: Path, digits_root: Path, trained: tuple[Path, float]) -> None:
    path, accuracy = trained
    assert accuracy > 0.3
    with pytest.warns(DataWarning, match="classes of ReversedDigits are given the order that the model learned: 0, 1"):
        (scores,) = quiet_trainer(default_root_dir=tmp_path).test(
            DigitClassifier(widths=[8, 8]), ReversedDigits(str(digits_root)), ckpt_path=str(path), verbose=False
        )
    assert scores["test/accuracy"] == pytest.approx(accuracy)
    loaded = DigitClassifier.load_from_checkpoint(path, weights_only=False)
    with pytest.warns(DataWarning, match="given the order that the model learned"):
        (again,) = quiet_trainer(default_root_dir=tmp_path).test(
            loaded, ReversedDigits(str(digits_root)), verbose=False
        )
    assert again["test/accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("stage", ["test", "fit"])
def test_other_classes_are_refused(tmp_path: Path, monkeypatch: Patch, stage: str) -> None:
    monkeypatch.setenv("RELIT_DATA", str(tmp_path / "root"))
    sizes = {"image_size": 16, "batch_size": 4}
    model = {"image_size": 16, "num_classes": 2, "feature_maps": 8}
    one = quiet_trainer(default_root_dir=tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    one.fit(MetricResNet(**model), ImageFolder(str(make(tmp_path / "a", blue=10, red=10)), **sizes))
    one.save_checkpoint(tmp_path / "last.ckpt")
    other = ImageFolder(str(make(tmp_path / "b", azure=10, blue=10)), **sizes)
    sentence = "learned the classes blue, red, but the classes of ImageFolder are azure, blue: azure is new"
    with pytest.raises(ModelError, match=sentence):
        getattr(quiet_trainer(default_root_dir=tmp_path, max_epochs=2), stage)(
            MetricResNet(**model), datamodule=other, ckpt_path=str(tmp_path / "last.ckpt")
        )


def test_old_checkpoints_without_names_are_not_checked(
    tmp_path: Path, digits_root: Path, trained: tuple[Path, float]
) -> None:
    checkpoint = torch.load(trained[0], weights_only=False)
    del checkpoint["class_names"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    (scores,) = quiet_trainer(default_root_dir=tmp_path).test(
        DigitClassifier(widths=[8, 8]), Digits(str(digits_root)), ckpt_path=str(tmp_path / "old.ckpt"), verbose=False
    )
    assert scores["test/accuracy"] == pytest.approx(trained[1])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_compares_names(name: str) -> None:
    method = getattr(lit_models, name)
    assert issubclass(method, NamedClasses)
    setups = [vars(base)["setup"] for base in method.__mro__ if "setup" in vars(base)]
    assert any("take_class_names()" in inspect.getsource(setup) for setup in setups)
