"""Scores of a model whose images are known: it "generates" training images, by the numbers that its latents draw."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from datamodules import Digits
from lit_models.callbacks import GenerationScores
from lit_models.callbacks import scores as scores_module
from lit_models.errors import RunError
from lit_models.metrics.extractors import Features
from lit_models.metrics.generation import frechet_distance, inception_score, kernel_distance


class Copier(LightningModule):
    """Gives real digits back: of the class that is asked for, but 8 in place of every 3."""

    num_classes = 10

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
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

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def test_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Truth(torch.nn.Module):
    """An extractor that knows every training image: sums of pixels as features, a table as logits."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        copier = Copier(root)
        self.image, self.label = copier.image, copier.label

    def forward(self, image: Tensor) -> Features:
        same = torch.cdist(image.flatten(1), self.image.flatten(1)).argmin(1)
        return Features(image.unflatten(2, (4, 8)).sum((1, 3, 4)), torch.eye(10)[self.label[same]] * 50)


@pytest.fixture
def truth(digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    extractor = Truth(digits_root)
    monkeypatch.setattr(scores_module, "load_extractor", lambda which: extractor)
    return extractor


def trainer_with(callback: GenerationScores, folder: Path, devices: int = 1, epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_fork",
        callbacks=[callback],
        max_epochs=epochs,
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=2,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def test_scores_are_those_of_all_images_at_once(digits_root: Path, truth: Truth, tmp_path: Path) -> None:
    callback = GenerationScores(count=50, real_count=90, batch_size=20)
    trainer, model, data = trainer_with(callback, tmp_path), Copier(digits_root), Digits(root=str(digits_root))
    trainer.fit(model, data)
    real = truth(truth.image[torch.randperm(1297, generator=torch.Generator().manual_seed(0))[:90]])
    fake = truth(torch.cat(model.made))
    assert len(fake.logits) == 50
    expected = {
        "val/fid": frechet_distance(real.embedding, fake.embedding),
        "val/kid": kernel_distance(real.embedding, fake.embedding),
        "val/inception_score": inception_score(fake.logits),
        "val/label_accuracy": 0.9,
        "val/real_images": 90,
        "val/generated_images": 50,
    }
    for name, value in expected.items():
        assert float(trainer.callback_metrics[name]) == pytest.approx(value, rel=1e-4), name


def test_two_ranks_share_the_images_of_one_process(digits_root: Path, truth: Truth, tmp_path: Path) -> None:
    results = []
    for devices in (1, 2):
        trainer = trainer_with(GenerationScores(count=50, real_count=90, batch_size=20), tmp_path, devices)
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
        results.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert results[0].keys() == results[1].keys() >= {"val/fid", "val/kid"}
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-5), name


def test_the_test_tells_what_scores_can_be_and_which_classes_fail(
    digits_root: Path, truth: Truth, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = GenerationScores(extractor="digits", test_count=60, real_count=2000, batch_size=25)
    trainer = trainer_with(callback, tmp_path)
    trainer.test(Copier(digits_root), Digits(root=str(digits_root)), verbose=False)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["extractor"] == "digits"
    assert scores["real_images"] == 1297
    assert scores["fid_floor_images"] == 648
    assert 0 <= scores["fid_floor"] < scores["fid"] < scores["fid_noise"]
    order = torch.randperm(1297, generator=torch.Generator().manual_seed(0))
    halves = [truth(truth.image[rows]).embedding for rows in (order[:648], order[648:1296])]
    assert scores["fid_floor"] == pytest.approx(frechet_distance(*halves), rel=1e-4)
    real_logits = truth(truth.image[order]).logits
    assert scores["inception_score_real"] == pytest.approx(inception_score(real_logits), rel=1e-4)
    table = (tmp_path / "figures" / "label_accuracy.csv").read_text().splitlines()
    assert table[4] == "3,6,0,0.0000"
    assert table[9] == "8,6,6,1.0000"
    assert (tmp_path / "figures" / "label_accuracy.png").is_file()
    assert "extractor 'digits'" in capsys.readouterr().out


def test_due_epochs(digits_root: Path, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    callback = GenerationScores(every_n_epochs=3)

    def measure(trainer: Trainer, *_: Any) -> tuple[dict[str, float], None]:
        measured.append(trainer.current_epoch + 1)
        return {"fid": 1.0}, None

    monkeypatch.setattr(callback, "_measure", measure)
    trainer_with(callback, tmp_path, epochs=7).fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert measured == [1, 3, 6, 7]


def test_without_inceptions_weights_training_goes_on(
    digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity import feature_extractor_inceptionv3

    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", no_network)
    trainer = trainer_with(GenerationScores(extractor="inception"), tmp_path)
    with pytest.warns(UserWarning, match="can't be downloaded .*; the run goes on without scores"):
        trainer.fit(Copier(digits_root), Digits(root=str(digits_root)))
    assert trainer.global_step == 1
    assert "val/fid" not in trainer.callback_metrics


def test_only_generative_models_are_measured(digits_root: Path, tmp_path: Path) -> None:
    class Silent(LightningModule):
        pass

    with pytest.raises(RunError, match="measures models that make images"):
        GenerationScores().setup(trainer_with(GenerationScores(), tmp_path), Silent(), "fit")
    with pytest.raises(RunError, match="counts at least 2"):
        GenerationScores(count=1)
