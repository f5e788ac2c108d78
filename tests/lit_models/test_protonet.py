import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import nn

from datamodules import Digits, EpisodeDataModule, Episodes, LabeledImages, OmniglotEpisodes
from lit_models import ProtoNet
from lit_models.errors import ModelError
from lit_models.losses.prototypical import episode_accuracy, prototypical_loss
from lit_models.protonet import Conv4
from tests.support import two_ranks
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import QUIET, assert_refused, the_run
from tests.support.trainers import Rates, trainer_of

pytestmark = [pytest.mark.filterwarnings("ignore::datamodules.DataWarning"), pytest.mark.timeout(200)]


def episodes(count: int = 2, ways: int = 3, shots: int = 2, queries: int = 4, size: int = 16) -> Episodes:
    generator = torch.Generator().manual_seed(1)
    prototype = torch.rand(count, ways, 1, 1, size, size, generator=generator)
    noise = [torch.rand(count, ways, n, 1, size, size, generator=generator) for n in (shots, queries)]
    return Episodes(*((2 * prototype + part) / 3 for part in noise))


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_encoder_of_the_paper() -> None:
    """Conv4-64 has 111,936 parameters for one channel, and 64 features of 28x28 images (section 3.1)."""
    encoder = ProtoNet().encoder
    assert sum(p.numel() for p in encoder.parameters()) == 111_936
    assert encoder(torch.rand(2, 1, 28, 28)).shape == (2, 64)
    assert Conv4(3, 64)(torch.rand(2, 3, 84, 84)).shape == (2, 1600)


def test_pooling_before_the_relu_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = Conv4(1, 8)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    textbook: list[nn.Module] = []
    for layer in list(encoder)[:-1]:
        textbook.insert(len(textbook) - isinstance(layer, nn.ReLU), nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
    assert [type(layer).__name__ for layer in textbook[:4]] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    image = torch.rand(6, 1, 28, 28)
    assert torch.equal(encoder(image), nn.Sequential(*textbook, nn.Flatten())(image))
    encoder(image).square().sum().backward()
    gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    nn.Sequential(*textbook, nn.Flatten())(image).square().sum().backward()
    assert all(torch.equal(ours, p.grad) for ours, p in zip(gradients, encoder.parameters(), strict=True))


# --- the algorithm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_loss_and_accuracy_equal_a_plain_loop_over_images(distance: Any) -> None:
    """Algorithm 1 of the paper, image by image."""
    torch.manual_seed(0)
    model = ProtoNet(image_size=16, feature_maps=8, distance=distance, cosine_scale=5.0)
    batch = episodes()
    for _ in range(30):  # statistics for the batch normalization
        model.episode_distances(batch)
    model.eval()
    losses, accuracies = [], []
    for support, query in zip(batch.support, batch.query, strict=True):
        prototypes = []
        for images in support:
            embeddings = [model(image[None])[0].tolist() for image in images]
            prototypes.append([sum(column) / len(images) for column in zip(*embeddings, strict=True)])
        answers = []
        for own, images in enumerate(query):
            for image in images:
                z = model(image[None])[0].tolist()
                scores = [math.exp(-plain_distance(z, c, distance)) for c in prototypes]
                losses.append(-math.log(scores[own] / sum(scores)))
                answers.append(scores.index(max(scores)) == own)
        accuracies.append(sum(answers) / len(answers))
    found = model.episode_distances(batch)
    assert prototypical_loss(found).item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert episode_accuracy(found).tolist() == pytest.approx(accuracies)
    assert 1 / 3 < sum(accuracies) / 2 < 1, "some answers are right and some wrong"


def plain_distance(z: list[float], c: list[float], kind: str) -> float:
    if kind == "squared_euclidean":
        return sum((a - b) ** 2 for a, b in zip(z, c, strict=True))
    dot = sum(a * b for a, b in zip(z, c, strict=True))
    return 5.0 * (1 - dot / math.sqrt(sum(a * a for a in z) * sum(b * b for b in c)))


def test_support_and_query_share_the_statistics_of_batch_normalization() -> None:
    torch.manual_seed(0)
    model = ProtoNet(image_size=16, feature_maps=4)
    batch = episodes(count=1)
    model.episode_distances(batch)
    first = model.encoder[0](torch.cat((batch.support.flatten(0, 2), batch.query.flatten(0, 2))))
    mean = model.encoder[1].running_mean
    assert torch.allclose(mean, 0.1 * first.mean((0, 2, 3)), atol=1e-6)


def test_distances_are_taken_in_float32_under_autocast() -> None:
    model = ProtoNet(image_size=16, feature_maps=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(torch.rand(1, 1, 16, 16)).dtype == torch.bfloat16
        query, prototype = torch.randn(5, 64), torch.randn(3, 64)
        explicit = (query[:, None] - prototype).square().sum(-1)
        assert torch.allclose(model.distances(query, prototype), explicit, rtol=1e-5)


# --- training ---------------------------------------------------------------------------------------------------------


def fit(model: ProtoNet, root: Path, *callbacks: Callback, **arguments: Any) -> tuple[ProtoNet, Trainer]:
    settings = {"n_way": 5, "k_shot": 1, "n_query": 2, "test_way": 5, "test_query": 2, "val_episodes": 4} | arguments
    trainer = trainer_of(1, max_epochs=1, callbacks=list(callbacks))
    trainer.fit(model, EpisodeDataModule(Digits(root=str(root)), **settings))
    return model, trainer


@pytest.mark.parametrize("per_batch", [1, 2, 4])
def test_the_learning_rate_is_halved_by_episodes_not_steps(digits_root: Path, per_batch: int) -> None:
    model, rates = ProtoNet(image_size=32, feature_maps=2, lr_halving_episodes=4), Rates()
    fit(model, digits_root, rates, train_episodes=16, episodes_per_batch=per_batch)
    assert rates.first == [1e-3 * 0.5 ** (step * per_batch // 4) for step in range(16 // per_batch)]
    assert model.episodes_seen == 16


def test_the_learning_rate_may_stay(digits_root: Path) -> None:
    model, rates = ProtoNet(image_size=32, feature_maps=2, lr_halving_episodes=None), Rates()
    fit(model, digits_root, rates, train_episodes=5)
    assert rates.first == [1e-3] * 5


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("test_episodes", [8, 7])
def test_the_confidence_interval_is_that_of_all_episodes_of_all_ranks(digits_root: Path, test_episodes: int) -> None:
    torch.manual_seed(0)
    model = two_ranks.protonet()
    settings = {"test_way": 4, "test_shot": 1, "test_query": 5, "test_episodes": test_episodes}
    found = []
    for processes, per_batch in ((1, 1), (1, 3), (2, 2)):
        data = EpisodeDataModule(Digits(root=str(digits_root)), eval_episodes_per_batch=per_batch, **settings)
        trainer = trainer_of(processes)
        trainer.test(model, data, verbose=False)
        found.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    data = EpisodeDataModule(Digits(root=str(digits_root)), **settings)
    data.setup("test")
    accuracies, losses = [], []
    for batch in data.test_dataloader():
        with torch.no_grad():
            distance = model.episode_distances(data.transform(batch, training=False))[0]
        nearest = distance.argmin(-1)
        accuracies.append(np.mean([[nearest[n, q].item() == n for q in range(5)] for n in range(4)]))
        losses.append(prototypical_loss(distance[None]).item())
    assert len(accuracies) == test_episodes
    spread = math.sqrt(sum((a - np.mean(accuracies)) ** 2 for a in accuracies) / (test_episodes - 1))
    expected = {
        "test/accuracy": np.mean(accuracies),
        "test/accuracy_ci95": 1.96 * spread / math.sqrt(test_episodes),
        "test/error": 1 - np.mean(accuracies),
        "test/loss": np.mean(losses),
    }
    assert spread > 0.01
    for metrics in found:
        assert metrics == pytest.approx(expected, rel=1e-5)


def test_one_episode_has_no_confidence_interval(digits_root: Path) -> None:
    data = EpisodeDataModule(Digits(root=str(digits_root)), test_query=5, test_episodes=1)
    trainer = trainer_of(1)
    trainer.test(ProtoNet(image_size=32, feature_maps=2), data, verbose=False)
    assert set(trainer.callback_metrics) == {"test/loss", "test/accuracy", "test/error"}


def test_lakes_runs_are_tested_with_their_own_images(monkeypatch: Patch) -> None:
    """20 tasks of 20 queries: the error is the wrong answers out of 400."""
    runs = episodes(count=20, ways=20, shots=1, queries=1, size=28)
    runs = Episodes(*(part.mul(255).byte() for part in runs))
    data = OmniglotEpisodes(split="background", test_on="one_shot_runs", test_way=20, test_shot=1)
    monkeypatch.setattr(data, "prepare_data", lambda: None)
    monkeypatch.setattr(data, "setup", lambda stage: None)
    monkeypatch.setattr(data.images, "one_shot_runs", lambda: runs)
    torch.manual_seed(0)
    model = ProtoNet(feature_maps=4)
    for _ in range(10):  # for the statistics of batch normalization
        model.episode_distances(data.transform(runs, training=False))
    trainer = trainer_of(1)
    trainer.test(model, data, verbose=False)
    model.eval()
    wrong = 0
    for task in range(20):
        embedded = [model(part[task].flatten(0, 1) / 255) for part in runs]
        wrong += sum(int(torch.cdist(embedded[1][i : i + 1], embedded[0]).argmin()) != i for i in range(20))
    assert 0 < wrong < 380
    assert float(trainer.callback_metrics["test/error"]) == pytest.approx(wrong / 400, abs=1e-6)


# --- the command ------------------------------------------------------------------------------------------------------

TINY = (
    "--model=ProtoNet",
    "--model.image_size=32",
    "--model.feature_maps=4",
    "--model.lr_halving_episodes=7",
    "--data=EpisodeDataModule",
    "--data.images=Digits",
    "--data.k_shot=2",
    "--data.n_query=3",
    "--data.test_query=5",
    "--data.train_episodes=12",
    "--data.val_episodes=4",
    "--data.test_episodes=6",
    "--trainer.max_epochs=3",
    "--trainer.log_every_n_steps=1",
    *QUIET,
    "--checkpoint.monitor=val/accuracy",
    "--checkpoint.mode=max",
    "--run.experiment=tiny",
)


def test_a_run_leaves_curves_and_a_checkpoint_that_stands_alone(relit: Relit, capsys: Output) -> None:
    options = ["--channels_last=true", "--trainer.precision=bf16-mixed", "--data.episodes_per_batch=2"]
    assert relit("fit", *TINY, *options) == 0
    run = the_run()
    assert {path.name for path in (run / "figures").iterdir()} == {"losses.png", "accuracies.png"}
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(header)
    model = ProtoNet.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    assert model.image_shape == (1, 32, 32)
    assert model.distance == "squared_euclidean"
    capsys.readouterr()
    assert relit("test", *TINY, "--ckpt_path=best") == 0
    assert "test/accuracy_ci95" in capsys.readouterr().out
    assert relit("fit", *TINY, "--compile=false", "--trainer.max_epochs=1", "--model.distance=cosine") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data.n_way=11"], "can't be drawn from 10 classes: set --data.n_way to 10 or less"),
        (["--data.test_way=11"], "set --data.test_way to 10 or less"),
        (["--data.k_shot=500"], "lower --data.k_shot or --data.n_query"),
        (["--data.test_query=15"], "lower --data.test_shot or --data.test_query"),
        (["--data.episodes_per_batch=13"], "raise --data.train_episodes or lower --data.episodes_per_batch"),
        (["--model.distance=euclidean"], "it must be squared_euclidean or cosine"),
    ],
)
def test_errors_are_a_sentence(relit: Relit, capsys: Output, arguments: list[str], sentence: str) -> None:
    assert_refused(relit, capsys, "fit", *TINY, *arguments, sentence=sentence)


def test_single_images_are_refused(relit: Relit, capsys: Output, digits_root: Path) -> None:
    model = ["--model=ProtoNet", "--model.image_size=32", "--run.experiment=tiny", "--trainer.accelerator=cpu"]
    assert relit("fit", *model, "--data=Digits") == 1
    sentence = (
        "ProtoNet takes episodes, but Digits gives single images: set --data EpisodeDataModule --data.images Digits"
    )
    assert sentence in capsys.readouterr().err
    with pytest.raises(ModelError, match=sentence):
        trainer_of(1).test(ProtoNet(image_size=32, feature_maps=2), Digits(root=str(digits_root)))


# --- prediction -------------------------------------------------------------------------------------------------------


def write_digits(folder: Path, images: LabeledImages, invert: bool = False) -> None:
    """Scanned digits as PNG files in a folder for each class, of changing size."""
    for number, (image, label) in enumerate(zip(*images, strict=True)):
        pixels = np.kron(image[0].numpy(), np.ones((2 + number % 3,) * 2, np.uint8))
        path = folder / f"digit {label}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pixels if invert else pixels).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A checkpoint of a network that has seen the digits 0 to 4 only."""

    class Low(Digits):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            for split in (self.train_set, self.val_set, self.test_set):
                split.rows = split.rows[split.columns.label[split.rows] < 5]

    torch.manual_seed(0)
    model = ProtoNet(image_size=32, feature_maps=16)
    data = EpisodeDataModule(Low(root=str(digits_root)), k_shot=2, n_query=5, test_query=2, train_episodes=60)
    trainer = trainer_of(1, max_epochs=1, limit_val_batches=0)
    trainer.fit(model, data)
    path = tmp_path_factory.mktemp("trained") / "model.ckpt"
    trainer.save_checkpoint(path)
    return path


def high_digits(root: Path) -> tuple[LabeledImages, LabeledImages]:
    """Examples (3 a class) and pictures in question (6 a class) of the digits 5 to 9."""
    data = Digits(root=str(root))
    data.setup("test")
    image, label = data.test_set.__getitems__(torch.arange(len(data.test_set)))
    places = [(label == digit).nonzero().flatten() for digit in range(5, 10)]
    support, query = (torch.cat([rows[a:b] for rows in places]) for a, b in ((0, 3), (3, 9)))
    return LabeledImages(image[support], label[support]), LabeledImages(image[query], label[query])


@pytest.mark.parametrize("inverted", [False, True])
def test_prediction_of_classes_never_seen(
    relit: Relit, digits_root: Path, trained: Path, tmp_path: Path, inverted: bool
) -> None:
    support, query = high_digits(digits_root)
    write_digits(tmp_path / "known", support, inverted)
    write_digits(tmp_path / "asked", query, inverted)
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["protonet"]["inverted"] = inverted
    torch.save(checkpoint, "model.ckpt")
    model = ["--model=ProtoNet", "--model.image_size=32", "--model.feature_maps=16", "--ckpt_path=model.ckpt"]
    folders = ["--data=SupportQuery", "--data.support=known", "--data.query=asked", "--data.batch_size=7"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--predictions.folder=out"]
    assert relit("predict", *model, *folders, *quiet) == 0
    rows = rows_of(Path("out/classes.csv"))
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert len(rows) == 30
    assert {row["class"] for row in rows} <= {f"digit {d}" for d in range(5, 10)}
    right = [row["class"] == row["image"].split("/")[0] for row in rows]
    assert sum(right) > 15, "chance is 6"

    network = ProtoNet.load_from_checkpoint(trained).eval()
    (image, label), question = support, query.image / 255
    with torch.no_grad():
        prototypes = torch.stack([network(image[label == d] / 255).mean(0) for d in range(5, 10)])
        probability = (-torch.cdist(network(question), prototypes).square()).softmax(1)
    # The files were enlarged by copying pixels, and are made small again by a filter.
    expected = dict(zip([row["image"] for row in rows], probability.max(1).values.tolist(), strict=True))
    off = [abs(float(row["probability"]) - expected[row["image"]]) for row in rows]
    assert np.median(off) < 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_ranks_predict_what_one_does(relit: Relit, digits_root: Path, trained: Path, tmp_path: Path) -> None:
    support, query = high_digits(digits_root)
    write_digits(tmp_path / "known", support)
    write_digits(tmp_path / "asked", LabeledImages(query.image[:9], query.label[:9]))
    common = ["--model=ProtoNet", "--model.image_size=32", "--model.feature_maps=16", f"--ckpt_path={trained}"]
    common += ["--data=SupportQuery", "--data.support=known", "--data.query=asked", "--data.batch_size=2"]
    common += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork"]
    assert relit("predict", *common, "--predictions.folder=one") == 0
    assert relit("predict", *common, *two, "--predictions.folder=two") == 0
    assert Path("two/classes.csv").read_text() == Path("one/classes.csv").read_text()
    assert len(Path("one/classes.csv").read_text().splitlines()) == 10


def test_prototypes_of_classes_with_different_numbers_of_examples(trained: Path) -> None:
    model = ProtoNet.load_from_checkpoint(trained).eval()
    image, label = torch.rand(600, 1, 32, 32), torch.randint(3, (600,))
    expected = torch.stack([model(image[label == k]).mean(0) for k in range(3)])
    found = model.prototypes(LabeledImages(image, label))
    assert torch.allclose(found, expected, atol=1e-4)
    probability = model.classify(image[:5], found)
    assert torch.allclose(probability.sum(1), torch.ones(5))
    assert torch.equal(model.polarized(image), image)


def test_training_data_tell_whether_pictures_are_inverted(digits_root: Path) -> None:
    model, trainer = fit(ProtoNet(image_size=32, feature_maps=2), digits_root, train_episodes=1)
    assert not model.inverted
    trainer.datamodule.inverted = True
    model.setup("fit")
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    other = ProtoNet()
    other.on_load_checkpoint(checkpoint)
    assert other.inverted
    assert other.polarized(torch.tensor(0.25)) == 0.75
    assert OmniglotEpisodes().inverted


def test_prediction_without_folders_says_what_is_missing(relit: Relit, trained: Path, capsys: Output) -> None:
    assert relit("predict", *TINY, "--model.feature_maps=16", f"--ckpt_path={trained}") == 1
    assert "add --data SupportQuery --data.support FOLDER" in capsys.readouterr().err
