"""What MetricResNet measures on held-out images, on classes that it learned and on others."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor, nn
from torch.nn import functional

from datamodules import DataError, Digits, UnseenClasses
from datamodules.loading.samplers import ClassBalancedBatches
from lit_models import MetricResNet
from lit_models.errors import ModelError
from lit_models.losses.triplet import batch_hard
from lit_models.metrics.retrieval import retrieval
from tests.lit_models.test_metric_resnet import LOSSES, TINY
from tests.support.trainers import trainer_of


@pytest.mark.parametrize("loss", LOSSES)
def test_retrieval_on_unseen_classes(digits_root: Path, loss: Any) -> None:
    torch.manual_seed(0)
    model = MetricResNet(**TINY | {"num_classes": 4}, loss=loss)
    data = UnseenClasses(Digits(root=str(digits_root)), classes_per_batch=4, samples_per_class=3)
    trainer = trainer_of(1, max_epochs=1, limit_train_batches=2)
    trainer.fit(model, data)
    names = ["map_at_r", "mean_average_precision", "r_precision", *(f"recall_at_{k}" for k in (1, 5, 10))]
    names += ["loss"] if loss == "triplet" else []
    assert {n for n in trainer.callback_metrics if n.startswith("val/")} == {f"val/{name}" for name in names}
    splits = [set(split.column("label").tolist()) for split in (data.train_set, data.val_set, data.test_set)]
    assert splits == [{0, 1, 2, 3}, {4}, {5, 6, 7, 8, 9}]
    trainer.test(model, data, verbose=False)
    image, label = data.transform(data.test_set.__getitems__(torch.arange(len(data.test_set))), training=False)
    with torch.no_grad():
        embedding = model.eval().embed(image)
    expected = retrieval(embedding, label, embedding, label, torch.arange(len(label)))["map_at_r"].mean().item()
    assert float(trainer.callback_metrics["test/map_at_r"]) == pytest.approx(expected, rel=1e-4)


def test_a_split_by_class_needs_classes(digits_root: Path) -> None:
    data = UnseenClasses(Digits(root=str(digits_root)), train_classes=8, val_classes=2)
    with pytest.raises(DataError, match="train_classes is 8 and val_classes 2; of 10 classes at least 2 are for train"):
        data.setup("fit")


class Noisy(MetricResNet):
    """Embeddings that are known: some pixels of the image, so that no training is needed."""

    def features(self, image: Tensor) -> Tensor:
        return functional.avg_pool2d(image, 8).flatten(1)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_evaluation_by_scikit_learn(digits_root: Path, loss: Any, processes: int) -> None:
    """Every figure of a test, of one process and of two with batches of different sizes, against scikit-learn's of all
    images at once."""
    if processes == 2 and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    torch.manual_seed(0)
    model = Noisy(**TINY, loss=loss, knn_neighbors=9, center_weight=0.5)
    if loss != "triplet":
        nn.init.normal_(model.classifier.weight)
    if loss == "center":
        model.center.normal_()
    data = Digits(root=str(digits_root), eval_batch_size=37)
    trainer = trainer_of(processes)
    trainer.test(model, data, verbose=False)
    found = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}

    data.setup("test")  # the ranks are other processes
    (train, train_label), (test, label) = (
        data.transform(split.__getitems__(torch.arange(len(split))), training=False)
        for split in (data.train_set, data.test_set)
    )
    x, y, z, t = model.features(train).numpy(), train_label.numpy(), model.features(test).numpy(), label.numpy()
    centroids = NearestCentroid().fit(x, y).centroids_
    square = ((z[:, None] - centroids) ** 2).sum(-1)
    votes = KNeighborsClassifier(9, weights="distance").fit(x, y).predict_proba(z)
    neighbors = KNeighborsClassifier(1).fit(z, t).kneighbors(n_neighbors=5, return_distance=False)

    def top(score: np.ndarray, k: int) -> float:
        return float(
            np.mean([label in np.argsort(-row, kind="stable")[:k] for row, label in zip(score, t, strict=True)])
        )

    expected = {
        "centroid_accuracy": top(-square, 1),
        "centroid_accuracy_top5": top(-square, 5),
        "knn_accuracy": top(votes, 1),
        "recall_at_1": np.mean(t[neighbors[:, 0]] == t),
        "recall_at_5": np.mean((t[neighbors] == t[:, None]).any(1)),
    }
    retrieved = retrieval(torch.from_numpy(z), label, torch.from_numpy(z), label, torch.arange(len(z)))
    expected |= {name: value.mean().item() for name, value in retrieved.items() if name not in expected}
    if loss == "triplet":
        expected |= {"accuracy": expected["centroid_accuracy"], "accuracy_top5": expected["centroid_accuracy_top5"]}
        own = ((x[:, None] - centroids) ** 2).sum(-1)

        def surprise(beta: float, distance: np.ndarray, label: np.ndarray) -> float:
            score = -beta * distance
            return float(np.mean(np.log(np.exp(score).sum(1)) - score[np.arange(len(label)), label]))

        betas = np.linspace(0.1, 40, 1000)
        best = betas[np.argmin([surprise(beta, own, y) for beta in betas])]
        assert 1 < best < 39
        assert found["cross_entropy"] == pytest.approx(surprise(best, square, t), rel=2e-2)
        assert found.pop("loss") > 0
    else:
        logits = model.classifier(torch.from_numpy(z)).detach()
        expected |= {"accuracy": top(logits.numpy(), 1), "accuracy_top5": top(logits.numpy(), 5)}
        expected["cross_entropy"] = expected["loss"] = functional.cross_entropy(logits, label).item()
    if loss == "center":
        expected["loss"] += 0.25 * (torch.from_numpy(z) - model.center[label]).square().sum(1).mean().item()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-5), name
    assert 0.3 < found["centroid_accuracy"] < found["centroid_accuracy_top5"] < 1
    assert found["knn_accuracy"] <= found["knn_accuracy_top5"] <= 1
    assert {"loss", "cross_entropy", "accuracy", "accuracy_top5", "knn_accuracy_top5", *expected} >= set(found)


def test_the_triplet_loss_of_a_split_is_that_of_balanced_batches() -> None:
    torch.manual_seed(0)
    model = MetricResNet(**TINY, loss="triplet")
    embedding, label = torch.randn(60, 4), torch.arange(60) % 6
    label[label == 5] = 0
    label[3] = 5  # a class with one image is left out
    rows = (label != 5).nonzero().flatten()
    expected = []
    for batch in ClassBalancedBatches(label[rows], 5, 4).epoch(0):
        assert len(batch) == 20
        chosen = rows[batch]
        expected.append(batch_hard(torch.cdist(embedding[chosen], embedding[chosen]), label[chosen], "soft").loss)
    assert len(expected) == 2
    found = model._split_triplet_loss(embedding, label)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert model._split_triplet_loss(embedding[:5], torch.arange(5)).item() == 0, "no class has two images"


@pytest.mark.parametrize("loss", LOSSES)
def test_validation_takes_few_references_and_says_how_training_images_fare(digits_root: Path, loss: Any) -> None:
    seen: list[int] = []

    class Counting(MetricResNet):
        def _embed_references(self, per_class: int | None) -> None:
            super()._embed_references(per_class)
            seen.append(len(self.evaluation.reference))

    torch.manual_seed(0)
    model = Counting(**TINY, loss=loss, references_per_class=3)
    data = Digits(root=str(digits_root), batch_size=128)
    trainer = trainer_of(1, max_epochs=1, limit_train_batches=2, num_sanity_val_steps=1)
    trainer.fit(model, data)
    assert {"train/accuracy", "train/centroid_accuracy", "val/accuracy"} <= set(trainer.callback_metrics)
    trainer.test(model, data, verbose=False)
    assert seen == [2, 30, 1297]
    trainer.validate(model, data, verbose=False)
    assert not {"train/accuracy", "train/centroid_accuracy"} & set(trainer.callback_metrics)


def test_centroids_are_those_of_the_averaged_weights_until_the_next_validation(digits_root: Path) -> None:
    """An average of the centroids, too, would by then have followed those of the trained weights, which are zeros."""
    model, data = MetricResNet(**TINY, loss="triplet"), Digits(root=str(digits_root), batch_size=64)
    trainer = trainer_of(
        1,
        max_epochs=3,
        check_val_every_n_epoch=2,
        limit_train_batches=2,
        num_sanity_val_steps=0,
        callbacks=[EMAWeightAveraging(decay=0.5)],
    )
    trainer.fit(model, data)
    assert torch.equal(model.centroid, model.evaluation.centroid)
    assert model.centroid.any()


def test_predictions_by_triplets_need_the_centroids_of_a_validation(digits_root: Path) -> None:
    torch.manual_seed(0)
    model, data = MetricResNet(**TINY, loss="triplet"), Digits(root=str(digits_root), batch_size=64)
    few = {"max_epochs": 1, "limit_train_batches": 1, "limit_predict_batches": 1}
    for without in ({"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}):
        trainer_of(1, **few, **without).fit(model, data)
        with pytest.raises(ModelError, match="has had none: train it for one more epoch, without"):
            trainer_of(1, **few).predict(model, data)
    trainer_of(1, **few).fit(model, data)
    (batch,) = trainer_of(1, **few).predict(model, data)
    assert batch.probability.max() > 0.11
