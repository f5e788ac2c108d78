"""A user's own loaders of (image, label), in a Trainer and by the command, on one process and on two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lit_models
from datamodules import ImagePair, LabeledImages, SearchBatch
from lit_models import DCGAN, VAE, DigitClassifier
from lit_models.errors import ModelError
from lit_models.support.plain_batches import reference_batches
from tests.support.fixtures import Patch
from tests.support.processes import run_relit
from tests.support.trainers import quiet_trainer

SMALL: dict[str, dict[str, Any]] = {
    "DCGAN": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2},
    "WGAN": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2, "n_critic": 1},
    "SNGAN": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2},
    "TripletGAN": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2, "embedding_dim": 2},
    "ConditionalGAN": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2, "num_classes": 4},
    "VAE": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2},
    "DenoisingAutoencoder": {"image_size": 16, "channels": 1, "latent_dim": 2, "feature_maps": 2},
    "DigitClassifier": {"image_size": 16, "channels": 1, "num_classes": 4, "widths": [2, 2]},
    "MetricResNet": {
        "image_size": 16,
        "channels": 1,
        "num_classes": 4,
        "feature_maps": 8,
        "mean": [0.5],
        "std": [0.5],
        "references_per_class": 2,
        "knn_neighbors": 2,
    },
    "LayerwiseMLP": {"image_size": 16, "channels": 1, "num_classes": 4, "widths": [4, 4], "code_layer": 1},
    "DARTSRetrain": {
        "image_size": 16,
        "channels": 1,
        "num_classes": 4,
        "init_channels": 2,
        "layers": 3,
        "epochs": 1,
        "auxiliary_weight": 0.0,
    },
}


def images(count: int = 32, dtype: torch.dtype = torch.float32, size: int = 16) -> TensorDataset:
    torch.manual_seed(0)
    image = torch.randint(256, (count, 1, size, size), dtype=torch.uint8)
    return TensorDataset(image if dtype == torch.uint8 else image / 255, torch.arange(count) % 4)


class Plain(LightningDataModule):
    """A data module as people write it."""

    def __init__(self, count: int = 64, batch_size: int = 8) -> None:
        super().__init__()
        self.data, self.batch_size = images(count), batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data, self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data, self.batch_size)


class CountedVAE(VAE):
    """Writes down how many training batches and images this process has seen."""

    seen = 0

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        self.seen += len(batch.image)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        folder = Path(self.trainer.default_root_dir)
        (folder / f"rank{self.global_rank}").write_text(f"{self.trainer.num_training_batches} {self.seen}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_every_method_learns_from_plain_loaders(tmp_path: Path, name: str) -> None:
    model = getattr(lit_models, name)(**SMALL[name])
    if name == "LayerwiseMLP":
        model = lit_models.LayerwiseMLP(**SMALL[name], pretrain_epochs=0, finetune_epochs=1)
    one = quiet_trainer(
        default_root_dir=tmp_path, max_epochs=1, limit_train_batches=2, limit_val_batches=1, limit_test_batches=1
    )
    one.fit(model, DataLoader(images(), 8), DataLoader(images(), 8))
    assert one.global_step > 0
    assert any(name.startswith("val/") for name in one.callback_metrics)
    one.test(model, datamodule=Plain(), verbose=False)
    assert any(name.startswith("test/") for name in one.callback_metrics)


class Seen(VAE):
    """Keeps its batches."""

    def __init__(self) -> None:
        super().__init__(**SMALL["VAE"])
        self.batches: list[Any] = []

    def training_step(self, batch: LabeledImages, batch_idx: int) -> Tensor:
        self.batches.append(batch)
        return super().training_step(batch, batch_idx)


BATCHES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "bytes": (lambda _: images(8, torch.uint8), lambda data: (data.tensors[0] / 255, data.tensors[1])),
    "floats": (lambda _: images(8), lambda data: data.tensors),
    "images only": (
        lambda _: TensorDataset(images(8).tensors[0]),
        lambda data: (data.tensors[0], torch.full((8,), -1)),
    ),
    "dictionaries": (
        lambda _: [{"image": image, "label": label} for image, label in images(8)],
        lambda data: (torch.stack([one["image"] for one in data]), torch.stack([one["label"] for one in data])),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BATCHES)
def test_kinds_of_batches(tmp_path: Path, kind: str) -> None:
    make, expected = BATCHES[kind]
    data, model = make(None), Seen()
    quiet_trainer(default_root_dir=tmp_path, max_epochs=1).fit(model, DataLoader(data, 8))
    (batch,) = model.batches
    assert isinstance(batch, LabeledImages)
    image, label = expected(data)
    assert torch.allclose(batch.image, image)
    assert torch.equal(batch.label, label)


def test_two_images_are_a_pair() -> None:
    model = DCGAN(**SMALL["DCGAN"])
    pair = model.on_before_batch_transfer([torch.zeros(2, 1, 16, 16), torch.ones(2, 3, 16, 16)], 0)
    assert isinstance(pair, ImagePair)
    assert model.on_before_batch_transfer(pair, 0) is pair


def test_a_search_batch_of_bytes_is_turned_into_floats(tmp_path: Path) -> None:
    """Its loader given without its data module: the images lie one level deeper."""
    bytes_ = LabeledImages(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.arange(3))
    model = lit_models.DARTSSearch(16, 1, 3, 2, 3)
    model.trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=1)
    for batch in model.on_before_batch_transfer(SearchBatch(bytes_, bytes_), 0):
        assert batch.image.flatten().tolist() == pytest.approx([0, 0.2, 1])
        assert batch.label.dtype == torch.int64


IMAGE = torch.zeros(2, 1, 16, 16)


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ([IMAGE - 1, torch.zeros(2).long()], r"images in \[0, 1\], but a batch holds values from -1 to -1: leave Norm"),
        ([IMAGE[..., :8], torch.zeros(2).long()], "built for images of 1x16x16, but the batches hold images of 1x16x8"),
        (
            [IMAGE, torch.full((2,), 7)],
            r"built for 4 classes, but a batch has the label 7: set --model\.num_classes",
        ),
        ([IMAGE, torch.zeros(2)], "labels are torch.float32"),
        ([IMAGE, ["cat", "dog"]], r"takes batches of \(image, label\), .*but got \(\(2, 1, 16, 16\), list\)"),
        ({"pixels": IMAGE}, "takes batches of"),
        (torch.zeros(2, 16), "takes batches of"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(batch: Any, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        DigitClassifier(**SMALL["DigitClassifier"]).on_before_batch_transfer(batch, 0)


def test_references_of_plain_data_are_the_first_of_each_class(tmp_path: Path) -> None:
    model = lit_models.MetricResNet(**SMALL["MetricResNet"])
    model.trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=1)
    model.trainer.datamodule = datamodule = Plain(count=30, batch_size=7)  # type: ignore[attr-defined]
    datamodule.train_dataloader = lambda: DataLoader(datamodule.data, 7)  # type: ignore[method-assign]  # in order
    batches = list(reference_batches(model, 4, 2))
    image, label = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert label.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert torch.equal(image, datamodule.data.tensors[0][:8])
    assert sum(len(batch.label) for batch in reference_batches(model, 4, None)) == 30


def test_ranks_take_turns_with_references_in_batches_of_one(tmp_path: Path, monkeypatch: Patch) -> None:
    model = lit_models.MetricResNet(**SMALL["MetricResNet"])
    model.trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=1)
    model.trainer.datamodule = datamodule = Plain(count=5)  # type: ignore[attr-defined]
    datamodule.train_dataloader = lambda: DataLoader(datamodule.data, 1)  # type: ignore[method-assign]  # in order
    monkeypatch.setattr(Trainer, "world_size", 2)
    images = datamodule.data.tensors[0]
    for rank in range(2):
        monkeypatch.setattr(Trainer, "global_rank", rank)
        share = [batch.image for batch in reference_batches(model, 4, None)]
        assert torch.equal(torch.cat(share), images[rank::2])


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 2])
def test_the_command_shares_plain_data_out(tmp_path: Path, devices: int) -> None:
    """By `relit fit --data mine.Module`: each process gets its part, as in a plain Trainer."""
    classes = [f"--model={__name__}.CountedVAE", f"--data={__name__}.Plain"]
    small = [f"--model.{key}={value}" for key, value in SMALL["VAE"].items()]
    loop = ["--trainer.max_epochs=1", f"--trainer.devices={devices}", "--trainer.accelerator=cpu"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0", f"--run.root={tmp_path}"]
    if devices > 1:
        loop.append("--trainer.strategy=ddp_fork")
    done = run_relit("fit", *classes, *small, *loop, *quiet)
    assert done.returncode == 0, done.stderr
    counts = [path.read_text() for path in sorted(tmp_path.glob("*/*/rank*"))]
    assert counts == [f"{8 // devices} {64 // devices}"] * devices
