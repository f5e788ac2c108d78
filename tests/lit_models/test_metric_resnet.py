import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from datamodules import DataWarning, Digits, EpisodeDataModule, ImageFolder, LabeledImages
from lit_models import MetricResNet
from lit_models.errors import ModelError
from lit_models.losses.triplet import batch_hard, distances
from lit_models.networks.lenet import LeNet
from lit_models.networks.resnet import ResNet18
from lit_models.optimizers import one_cycle
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import QUIET, assert_refused, the_run
from tests.support.trainers import Rates, trainer_of

pytestmark = pytest.mark.timeout(200)

LOSSES = ["cross_entropy", "center", "triplet"]
TINY: dict[str, Any] = {
    "image_size": 32,
    "channels": 1,
    "num_classes": 10,
    "stem": "7x7",
    "feature_maps": 2,
    "mean": [0.5],
    "std": [0.5],
}


def batch_of(size: int = 24) -> LabeledImages:
    generator = torch.Generator().manual_seed(1)
    return LabeledImages(torch.rand(size, 1, 32, 32, generator=generator), torch.arange(size) % 5)


def step_of(model: MetricResNet, batch: LabeledImages) -> Tensor:
    """The loss of one training step, without a trainer."""
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    model.joined = lambda values: values  # type: ignore[method-assign]
    return model.training_step(batch, 0)


# --- the losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_a_step_by_its_parts(loss: Any) -> None:
    torch.manual_seed(0)
    model = MetricResNet(**TINY, loss=loss, label_smoothing=0.1, center_weight=0.2, embedding_dim=7).eval()
    batch = batch_of()
    with torch.no_grad():
        feature = model.projection(model.encoder(batch.image * 2 - 1))
    if loss == "triplet":
        expected = 0.0
        for anchor in range(24):
            gap = (feature[anchor] - feature).square().sum(1).sqrt()
            same = batch.label == batch.label[anchor]
            expected += math.log1p(math.exp(gap[same].max() - gap[~same].min())) / 24
    else:
        probability = model.classifier(feature).softmax(1)
        target = functional.one_hot(batch.label, 10) * 0.9 + 0.01
        expected = -(target * probability.log()).sum(1).mean().item()
    if loss == "center":
        center = torch.randn(10, 7)
        model.center.copy_(center)
        expected += 0.2 / 2 * (feature - center[batch.label]).square().sum(1).mean().item()
    assert step_of(model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_centers_follow_the_features_of_each_step() -> None:
    for rule, rate in (("paper", 0.5), ("sgd", 3.0)):
        torch.manual_seed(0)
        model = MetricResNet(**TINY, loss="center", center_rule=cast(Any, rule), center_rate=rate).eval()
        model.center.normal_()
        before, batch = model.center.clone(), batch_of()
        feature = model.features(batch.image).detach()
        step_of(model, batch).backward()
        for j in range(10):
            own = feature[batch.label == j]
            divisor = 1 + len(own) if rule == "paper" else 24
            expected = before[j] - rate * (before[j] - own).sum(0) / divisor
            assert torch.allclose(model.center[j], expected, atol=1e-5)


def test_unit_length_compares_directions() -> None:
    torch.manual_seed(0)
    model = MetricResNet(**TINY, loss="triplet", unit_length=True, margin=0.2).eval()
    batch = batch_of()
    embedding = model.embed(batch.image)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(24))
    feature = model.features(batch.image)
    cosine = 1 - functional.normalize(feature) @ functional.normalize(feature).T
    expected = batch_hard((2 * cosine).clamp(min=0).sqrt().fill_diagonal_(0), batch.label, 0.2).loss
    assert step_of(model, batch).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_distances_and_losses_are_float32_under_autocast(loss: Any) -> None:
    torch.manual_seed(0)
    model = MetricResNet(**TINY, loss=loss).eval()
    batch = batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        value = step_of(model, batch)
        feature = model.features(batch.image)
        assert model.encoder.conv1(batch.image).dtype == torch.bfloat16
        if loss == "triplet":
            found = model.triplet_loss(feature, batch.label).loss
    assert value.dtype == feature.dtype == model(batch.image).dtype == torch.float32
    if loss == "triplet":
        with torch.autocast("cpu", enabled=False):
            assert found == batch_hard(distances(feature), batch.label, "soft").loss
    value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_weight_decay_is_for_weights_only() -> None:
    model = MetricResNet(**TINY, optimizer=lambda p: SGD(p, lr=0.1, weight_decay=0.5))
    decayed, rest = model.configure_optimizers().param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.5
    assert rest["weight_decay"] == 0
    for parameter in decayed["params"]:
        assert parameter.ndim in (2, 4), names[parameter]
    for parameter in rest["params"]:
        assert names[parameter].endswith("bias") or ".bn" in names[parameter] or parameter.ndim == 1
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


# --- heads and encoders -----------------------------------------------------------------------------------------------


def test_the_papers_heads() -> None:
    triplet = MetricResNet(**TINY, loss="triplet", head="mlp")
    kinds = [type(layer) for layer in triplet.projection]  # type: ignore[union-attr]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in triplet.projection.parameters() if p.ndim == 2] == [(1024, 16), (128, 1024)]
    assert triplet.embed(batch_of().image).shape == (24, 128)
    assert triplet.embed(batch_of().image).min() < 0
    assert MetricResNet(**TINY, loss="center", embedding_dim=512).center.shape == (10, 512)


def test_lenet_is_that_of_the_papers_table_1() -> None:
    network = LeNet(1, 32, 28)
    kernels = [tuple(p.shape) for p in network.parameters() if p.ndim == 4]
    assert [(k[0], k[2]) for k in kernels] == [(32, 5), (32, 5), (64, 5), (64, 5), (128, 5), (128, 5)]
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, network.out_features) == (2, 128 * 9)


def test_a_checkpoint_of_another_head_is_refused(tmp_path: Path, digits_root: Path) -> None:
    model = MetricResNet(**TINY, head="mlp")
    trainer = trainer_of(1, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, Digits(root=str(digits_root)))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert MetricResNet.load_from_checkpoint(tmp_path / "model.ckpt").head == "mlp, 128"
    sentence = "head is mlp, 128 outputs, the model's linear, 16: leave --model.head and --model.embedding_dim as they"
    with pytest.raises(ModelError, match=sentence):
        trainer_of(1).test(MetricResNet(**TINY), Digits(root=str(digits_root)), ckpt_path=tmp_path / "model.ckpt")
    old = torch.load(tmp_path / "model.ckpt", weights_only=True)
    del old["head"]
    del old["hyper_parameters"]["encoder"]
    torch.save(old, tmp_path / "old.ckpt")
    MetricResNet.load_from_checkpoint(tmp_path / "old.ckpt")


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_the_schedule_is_torchs(digits_root: Path, schedule: Any) -> None:
    model, seen = MetricResNet(**TINY, schedule=schedule, optimizer=lambda p: SGD(p, lr=0.5)), Rates()
    trainer = trainer_of(1, max_epochs=2, limit_train_batches=10, limit_val_batches=0, callbacks=[seen])
    trainer.fit(model, Digits(root=str(digits_root)))
    rates = seen.first
    if schedule == "constant":
        assert rates == [0.5] * 20
        return
    optimizer = SGD(model.parameters(), lr=0.5)
    torchs = OneCycleLR(optimizer, max_lr=0.5, total_steps=20, cycle_momentum=False)
    for rate in rates:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-5)
        optimizer.step()
        if rate is not rates[-1]:
            torchs.step()
    assert max(rates) == pytest.approx(0.5)


def test_a_schedule_without_an_end_is_refused(digits_root: Path) -> None:
    model = MetricResNet(**TINY, schedule="one_cycle")
    with pytest.raises(ModelError, match=r"set --trainer.max_epochs or max_steps"):
        trainer_of(1, max_epochs=-1).fit(model, Digits(root=str(digits_root)))


def test_pretrained_weights_are_loaded_for_training_only(digits_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = ResNet18(1, 2, "7x7")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = MetricResNet(**TINY, pretrained=str(tmp_path / "w.pth"), optimizer=lambda p: SGD(p, lr=0.0))
    trainer = trainer_of(1, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, Digits(root=str(digits_root)))
    assert torch.equal(model.encoder.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    (tmp_path / "w.pth").unlink()
    MetricResNet.load_from_checkpoint(tmp_path / "model.ckpt")
    trainer_of(1, max_epochs=1).fit(model, Digits(root=str(digits_root)), ckpt_path=tmp_path / "model.ckpt")


# --- the command ------------------------------------------------------------------------------------------------------

COMMAND = (
    "--model=MetricResNet",
    *(f"--model.{name}={value}" for name, value in TINY.items()),
    "--model.schedule=one_cycle",
    "--model.optimizer=SGD",
    "--model.optimizer.lr=0.05",
    "--model.optimizer.momentum=0.9",
    "--data=Digits",
    "--data.batch_size=64",
    "--trainer.max_epochs=2",
    "--trainer.gradient_clip_val=5",
    "--trainer.log_every_n_steps=1",
    *QUIET,
    "--run.experiment=tiny",
)


@pytest.mark.parametrize("loss", [pytest.param("center", marks=pytest.mark.slow), "triplet"])
@pytest.mark.long
def test_a_run_its_test_and_predictions_from_its_checkpoint_alone(
    relit: Relit, capsys: Output, digits_root: Path, loss: str
) -> None:
    # oneDNN's strided 1x1 convolutions write beyond their memory with channels_last and less than 8 channels.
    options = [f"--model.loss={loss}", "--model.feature_maps=8", "--channels_last=true"]
    options += ["--checkpoint.monitor=val/accuracy"]
    assert relit("fit", *COMMAND, *options, "--checkpoint.mode=max") == 0
    run = the_run()
    header = set((run / "metrics.csv").read_text().splitlines()[0].split(","))
    assert {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/accuracy_top5",
        "val/recall_at_1",
    } <= header
    callbacks = ["--trainer.callbacks+=ClassificationReport", "--trainer.callbacks+=EmbeddingPlot"]
    callbacks.append("--trainer.callbacks.per_class=2")
    assert relit("test", *COMMAND, *options, *callbacks, "--ckpt_path=best") == 0
    assert "test/knn_accuracy_top5" in capsys.readouterr().out
    assert (run / "figures" / "embedding.png").is_file()

    data = Digits(root=str(digits_root))
    data.setup("test")
    image, label = data.test_set.__getitems__(torch.arange(60))
    Path("pictures").mkdir()
    for number, pixels in enumerate(image):
        Image.fromarray(pixels[0].numpy()).save(f"pictures/{number:02}.png")
    folder = ["--data=ImageFolder", "--data.path=pictures", "--data.image_size=32", "--data.channels=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--predictions.folder=out"]
    assert relit("predict", f"--ckpt_path={run}/checkpoints/last.ckpt", *folder, *quiet) == 0
    rows = rows_of(Path("out/classes.csv"))
    model = MetricResNet.load_from_checkpoint(run / "checkpoints" / "last.ckpt").eval()
    with torch.no_grad():
        probability = model(image / 255).softmax(1)
    ranked = probability.sort(1, descending=True)
    assert len(rows) == 60
    for row, values, indices in zip(rows, ranked.values.tolist(), ranked.indices.tolist(), strict=True):
        assert [row[f"class{n}"] for n in ("", "_2", "_3", "_4", "_5")] == [str(i) for i in indices[:5]]
        told = [float(row[f"probability{n}"]) for n in ("", "_2", "_3", "_4", "_5")]
        assert told == pytest.approx(values[:5], abs=1e-4)
    assert sum(int(row["class"]) == one for row, one in zip(rows, label.tolist(), strict=True)) > 12, "chance is 6"


@pytest.mark.long
def test_a_longer_training_stretches_the_schedule(relit: Relit) -> None:
    """After two steps of two, and after two more of four."""
    command = (*COMMAND, "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0")
    rates = []
    for more in (["--trainer.max_epochs=1"], ["--ckpt_path=last"]):
        assert relit("fit", *command, *more) == 0
        checkpoint = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
        rates.append(checkpoint["optimizer_states"][0]["param_groups"][0]["lr"])
        assert checkpoint["global_step"] == checkpoint["lr_schedulers"][0]["last_epoch"]
    assert rates == pytest.approx([0.05 * one_cycle(2, 2), 0.05 * one_cycle(4, 4)], abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--model.loss=triplet", "--data.batch_size=16"],
            "set --data.classes_per_batch 10 --data.samples_per_class 4",
        ),
        (["--model.loss=tripet"], "--model.loss is tripet; it must be"),
        (["--model.margin=hard"], "model.margin"),
        (["--model.pretrained=none.pth"], "There is no file none.pth"),
        (["--data=TinyImageNet", "--model.loss=triplet"], "set --data.classes_per_batch 10 --data.samples_per_class 4"),
    ],
)
def test_errors_are_a_sentence(
    relit: Relit, capsys: Output, arguments: list[str], sentence: str, monkeypatch: Patch
) -> None:
    if "--data=TinyImageNet" in arguments:
        monkeypatch.setattr("datamodules.TinyImageNet.prepare_data", lambda self: None)
        monkeypatch.setattr("datamodules.TinyImageNet.setup", lambda self, stage: setattr(self, "num_classes", 10))
        monkeypatch.setattr("datamodules.TinyImageNet.image_shape", (1, 32, 32))
        arguments = [*arguments, "--model.num_classes=10", "--data.batch_size=16"]
    assert_refused(relit, capsys, "fit", *COMMAND, *arguments, sentence=sentence)


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_episodes_are_refused(digits_root: Path, stage: str) -> None:
    data = EpisodeDataModule(Digits(root=str(digits_root)), test_query=5)
    with (
        pytest.warns(DataWarning, match="classes that are trained on"),
        pytest.raises(ModelError, match="takes single images, but EpisodeDataModule gives episodes: set --data Digits"),
    ):
        getattr(trainer_of(1, max_epochs=1), stage)(MetricResNet(**TINY), data)


def test_a_trained_model_asks_for_other_data_not_for_another_model(digits_root: Path, tmp_path: Path) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "1.png")
    folder = ImageFolder(str(tmp_path), root=str(tmp_path / "root"), image_size=64, channels=3)
    with pytest.raises(ModelError, match=r"gives 3x64x64 .*: set --data.image_size 32 and --data.channels 1, or"):
        trainer_of(1).predict(MetricResNet(**TINY), folder)
    digits = Digits(root=str(digits_root))
    for change, fault in (
        ({"image_size": 64}, "images of 1x64x64, but Digits gives 1x32x32 (channels x height x width)"),
        ({"num_classes": 12}, "12 classes, but Digits gives images of 10 classes"),
    ):
        with pytest.raises(ModelError) as error:
            trainer_of(1).test(MetricResNet(**{**TINY, **change}), digits)
        assert str(error.value) == f"MetricResNet is built for {fault}: choose other data."


def test_loaders_of_other_things_are_refused() -> None:
    loader = torch.utils.data.DataLoader([0])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="takes batches of"):
        trainer_of(1, max_epochs=1).fit(cast(LightningModule, MetricResNet(**TINY)), loader)
