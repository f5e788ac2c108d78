"""Scores of a model whose images are known: it "generates" training images, by the numbers that its latents draw."""

import json
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from datamodules import MNIST, Digits, GatherDataset, LabeledImages
from lit_models import DCGAN
from lit_models.callbacks import GenerationScores
from lit_models.callbacks import scores as scores_module
from lit_models.errors import RunError
from lit_models.metrics.extractors import Features
from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance
from lit_models.metrics.variety import (
    memorized_share,
    precision_recall_density_coverage,
    spread_share,
    training_distance,
)
from lit_models.support.weights import build_model, read_weights
from tests.support.fixtures import Output, Patch
from tests.support.small_fits import ImagesInMemory
from tests.support.trainers import Recorder, quiet_trainer, trainer_of

WEIGHTS = Path(__file__).parents[3] / "weights"


class Copier(Recorder):
    """Gives real digits back: of the class that is asked for, but 8 in place of every 3."""

    num_classes = 10

    def __init__(self, root: Path) -> None:
        super().__init__()
        data = Digits(root=str(root))
        data.setup("fit")
        self.image, self.label = data.train_set.column("image").float() / 255, data.train_set.column("label")
        self.made: list[Tensor] = []

    def sample(self, n: int, labels: Tensor | None = None, generator: Any = None) -> Tensor:
        assert labels is not None
        order = torch.randperm(len(self.image), generator=generator)
        wanted = torch.where(labels == 3, 8, labels)
        rows = torch.stack([order[self.label[order] == label][0] for label in wanted])
        self.made.append(self.image[rows])
        return self.image[rows]

    def test_step(self, batch: Any, batch_idx: int) -> None: ...


class Truth(torch.nn.Module):
    """An extractor that knows every training image: sums of pixels as features, a table as logits."""

    features, classifier_name = "sums", "table"

    def __init__(self, root: Path) -> None:
        super().__init__()
        copier = Copier(root)
        self.image, self.label = copier.image, copier.label

    def forward(self, image: Tensor) -> Features:
        same = torch.cdist(image.flatten(1), self.image.flatten(1)).argmin(1)
        return Features(image.unflatten(2, (4, 8)).sum((1, 3, 4)), torch.eye(10)[self.label[same]] * 50)


@pytest.fixture
def truth(digits_root: Path, monkeypatch: Patch) -> Truth:
    extractor = Truth(digits_root)
    monkeypatch.setattr(scores_module, "load_extractor", lambda which: extractor)
    return extractor


def first_of(images: GatherDataset[LabeledImages], count: int, truth: Truth) -> tuple[Features, Tensor]:
    """Features and classes of as many images of a split, in the callback's order."""
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return truth(images.column("image")[rows].float() / 255), images.column("label")[rows]


def trainer_with(callback: GenerationScores, folder: Path, devices: int = 1, epochs: int = 1) -> Trainer:
    few = {"limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 2, "num_sanity_val_steps": 0}
    return trainer_of(devices, callbacks=[callback], max_epochs=epochs, default_root_dir=folder, **few)


def test_scores_are_those_of_all_images_at_once(digits_root: Path, truth: Truth, tmp_path: Path) -> None:
    callback = GenerationScores(count=50, real_count=90, batch_size=20)
    trainer, model, data = trainer_with(callback, tmp_path), Copier(digits_root), Digits(root=str(digits_root))
    trainer.fit(model, data)
    real, label = first_of(data.val_set, 90, truth)
    training, _ = first_of(data.train_set, 1297, truth)
    fake = truth(torch.cat(model.made))
    held_out = training_distance(real.embedding, training.embedding)
    assert len(fake.logits) == 50
    expected = {
        "val/fid": frechet_distance(real.embedding, fake.embedding),
        "val/kid": kernel_distance(real.embedding, fake.embedding),
        "val/inception_score": inception_score(fake.logits),
        "val/label_accuracy": 0.9,
        "val/memorized": 1.0,
        "val/spread": spread_share(real.embedding, label, fake.embedding, torch.arange(50) % 10, 10),
        **{
            f"val/{name}": value
            for name, value in precision_recall_density_coverage(real.embedding, fake.embedding, 5).items()
        },
        "val/real_images": 90,
        "val/generated_images": 50,
    }
    assert memorized_share(training_distance(fake.embedding, training.embedding), held_out) == 1
    for name, value in expected.items():
        assert float(trainer.callback_metrics[name]) == pytest.approx(value, rel=1e-4), name


def test_a_training_is_the_same_without_scores(digits_root: Path, tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [GenerationScores(count=20, real_count=20)]):
        torch.manual_seed(3)
        model = DCGAN(image_size=32, channels=1, feature_maps=2, latent_dim=4, label_noise=0.1)
        few = {"limit_train_batches": 2, "limit_val_batches": 1}
        trainer = trainer_of(1, callbacks=callbacks, max_epochs=2, default_root_dir=tmp_path, **few)
        trainer.fit(model, Digits(root=str(digits_root), batch_size=8))
        assert ("val/fid" in trainer.callback_metrics) is bool(callbacks)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_two_ranks_share_the_images_of_one_process(digits_root: Path, truth: Truth, tmp_path: Path) -> None:
    results = []
    for devices in (1, 2):
        trainer = trainer_with(GenerationScores(count=50, real_count=90, batch_size=20), tmp_path, devices)
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
        results.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert results[0].keys() == results[1].keys() >= {"val/fid", "val/kid", "val/recall", "val/memorized"}
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-5), name


def test_the_test_tells_what_scores_can_be_and_which_classes_fail(
    digits_root: Path, truth: Truth, tmp_path: Path, capsys: Output
) -> None:
    callback = GenerationScores(extractor="digits", test_count=60, real_count=2000, batch_size=25)
    trainer = trainer_with(callback, tmp_path)
    trainer.test(Copier(digits_root), Digits(root=str(digits_root)), verbose=False)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["extractor"] == "digits"
    assert scores["features"] == "sums"
    assert scores["real_images"] == 300
    assert scores["fid_floor_images"] == 60
    assert 0 <= scores["fid_floor"] < scores["fid"] < scores["fid_noise"]
    data = Digits(root=str(digits_root))
    data.setup("test")
    real, _ = first_of(data.test_set, 300, truth)
    training, _ = first_of(data.train_set, 60, truth)
    assert scores["fid_floor"] == pytest.approx(frechet_distance(real.embedding, training.embedding), rel=1e-4)
    assert scores["inception_score_real"] == pytest.approx(inception_score(real.logits), rel=1e-4)
    judge = json.loads((tmp_path / "judge.json").read_text())["test"]
    assert (judge["features"], judge["classifier"], judge["data"]) == ("sums", "table", "Digits")
    other, ten = judge["calibration"]["other real images"], judge["calibration"]["ten training images repeated"]
    assert other["fid"] == scores["fid_floor"] < ten["fid"]
    assert other["memorized"] < 0.02 < ten["memorized"] == 1
    assert ten["recall"] < other["recall"]
    assert ten["spread"] < 1e-6
    table = (tmp_path / "figures" / "label_accuracy.csv").read_text().splitlines()
    assert table[4] == "3,6,0,0.0000"
    assert table[9] == "8,6,6,1.0000"
    assert (tmp_path / "figures" / "label_accuracy.png").is_file()
    assert "extractor 'digits' (sums)" in capsys.readouterr().out


def test_due_epochs(digits_root: Path, truth: Truth, tmp_path: Path, monkeypatch: Patch) -> None:
    measured: list[int] = []
    callback = GenerationScores(every_n_epochs=3)

    def measure(trainer: Trainer, *_: Any) -> tuple[dict[str, float], None]:
        measured.append(trainer.current_epoch + 1)
        return {"fid": 1.0}, None

    monkeypatch.setattr(callback, "_measure", measure)
    trainer_with(callback, tmp_path, epochs=7).fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert measured == [1, 3, 6, 7]


def test_without_inceptions_weights_training_goes_on(digits_root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3

    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", no_network)
    trainer = trainer_with(GenerationScores(extractor="inception"), tmp_path)
    with pytest.warns(UserWarning, match="Inception's weights can't be downloaded .*; the run goes on without"):
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert trainer.global_step == 1
    assert "val/fid" not in trainer.callback_metrics


def test_only_generative_models_are_measured(digits_root: Path, tmp_path: Path) -> None:
    class Silent(LightningModule):
        pass

    with pytest.raises(RunError, match="measures models that make images"):
        GenerationScores().setup(trainer_with(GenerationScores(), tmp_path), Silent(), "fit")
    with pytest.raises(RunError, match="counts must be at least 2"):
        GenerationScores(count=1)
    with pytest.raises(RunError, match="neighbors is 5; count, test_count and real_count must be larger"):
        GenerationScores(test_count=5)


def test_more_neighbors_than_images_are_refused_before_any_training(digits_root: Path, tmp_path: Path) -> None:
    trainer = trainer_with(GenerationScores(neighbors=250), tmp_path)
    sentence = "there are only {} images to compare with: lower it"
    with pytest.raises(RunError, match=sentence.format("200 validation") + r", or set compare_with to training\.$"):
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert trainer.global_step == 0
    trainer = trainer_with(GenerationScores(neighbors=300), tmp_path)
    with pytest.raises(RunError, match=sentence.format("300 test")):
        trainer.test(Copier(digits_root), Digits(root=str(digits_root)), verbose=False)
    trainer = trainer_with(GenerationScores(neighbors=700, compare_with="training"), tmp_path)
    with pytest.raises(RunError, match=sentence.format("648 training") + r"\.$"):
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    one = r"there is only 1 validation image to compare with: set compare_with to training\.$"
    with pytest.raises(RunError, match=one):
        trainer_with(GenerationScores(), tmp_path).fit(Copier(digits_root), ImagesInMemory((1, 32, 32), 1))
    callback = GenerationScores(neighbors=250)
    trainer = quiet_trainer(callbacks=[callback], max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert trainer.global_step > 0, "without validations nothing is measured"


def test_channels_that_the_extractor_cannot_take_are_refused_before_any_training(
    digits_root: Path, tmp_path: Path
) -> None:
    trainer = trainer_with(GenerationScores(), tmp_path)
    sentence = "The extractor takes images of 1 channel, which can't be made of 2: set another extractor"
    with pytest.raises(RunError, match=sentence):
        trainer.fit(Copier(digits_root), ImagesInMemory((2, 32, 32), 24))
    assert trainer.global_step == 0


def test_halves_of_the_training_images_stand_in_for_small_splits(
    digits_root: Path, truth: Truth, tmp_path: Path
) -> None:
    """Chosen by one half, tested against the other, which have no image in common."""
    callback = GenerationScores(count=50, test_count=700, batch_size=50, compare_with="training", inception_splits=5)
    trainer = trainer_with(callback, tmp_path)
    trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    val = callback._references["val"]
    assert "val/inception_score_sd" in trainer.callback_metrics
    trainer.test(Copier(digits_root), Digits(root=str(digits_root)), verbose=False)
    test = callback._references["test"]
    assert (len(val.real.embedding), len(test.real.embedding)) == (649, 648)
    data = Digits(root=str(digits_root))
    data.setup("fit")
    training, _ = first_of(data.train_set, 1297, truth)
    assert torch.equal(val.real.embedding, training.embedding[0::2])
    assert torch.equal(test.real.embedding, training.embedding[1::2])
    judge = json.loads((tmp_path / "judge.json").read_text())["test"]["calibration"]
    counts = {kind: scores["generated_images"] for kind, scores in judge.items()}
    assert counts == {"other real images": 649, "ten training images repeated": 700}, "there are no more others"


def test_ten_training_images_are_of_all_classes_in_turn() -> None:
    label = torch.randint(4, (30,), generator=torch.Generator().manual_seed(0))
    rows = [(label == one).nonzero().flatten().tolist() for one in range(4)]
    expected = [of[turn] for turn in range(30) for of in rows if turn < len(of)]
    assert scores_module._classes_in_turn(label).tolist() == expected
    assert label[scores_module._classes_in_turn(label)[:8]].tolist() == [0, 1, 2, 3] * 2


def test_images_that_are_not_finite_are_refused(digits_root: Path, truth: Truth, tmp_path: Path) -> None:
    class Broken(Copier):
        def sample(self, n: int, labels: Tensor | None = None, generator: Any = None) -> Tensor:
            return super().sample(n, labels, generator) * torch.nan

    trainer = trainer_with(GenerationScores(count=50), tmp_path)
    with pytest.raises(RunError, match="50 of 50 generated images aren't finite"):
        trainer.fit(Broken(digits_root), Digits(root=str(digits_root)))


@pytest.mark.long
@pytest.mark.skipif(not (Path(os.environ.get("RELIT_DATA", ".")) / "mnist").is_dir(), reason="needs MNIST")
def test_ten_memorized_digits_are_judged_worse_than_the_shipped_dcgan(tmp_path: Path) -> None:
    """Over the classifier's embedding, they had a better FID, KID and Inception Score."""
    path = WEIGHTS / "dcgan_mnist.safetensors"
    trainer = trainer_with(GenerationScores(test_count=3000, real_count=3000), tmp_path)
    trainer.test(build_model(read_weights(path), path), MNIST(batch_size=64, image_size=32), verbose=False)
    dcgan = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
    judge = json.loads((tmp_path / "judge.json").read_text())["test"]["calibration"]
    real, ten = judge["other real images"], judge["ten training images repeated"]
    for name in ("fid", "kid"):
        assert real[name] < dcgan[name] < ten[name] / 2, name
    for name in ("recall", "coverage"):
        assert real[name] > dcgan[name] > 10 * ten[name], name
    assert dcgan["memorized"] < 0.02 < ten["memorized"] == 1
    assert ten["spread"] < 1e-6 < 0.9 < real["spread"] < 1.1
