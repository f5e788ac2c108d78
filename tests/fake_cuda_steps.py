"""Every method's steps, augmentation and metrics on a CUDA device that isn't there (`tests/support/fake_cuda.py`)."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import lit_models
from datamodules import (
    CIFAR10,
    MNIST,
    STL10,
    Episodes,
    FoldedImages,
    ImageDataModule,
    ImagePair,
    LabeledImages,
    Maps,
    SearchBatch,
    TinyImageNet,
)
from datamodules.samples import SampleRequest
from lit_models.callbacks.classification import confusion_counts
from lit_models.callbacks.histogram_baseline import histogram_nats
from lit_models.metrics.image_errors import TranslationMetrics
from lit_models.metrics.retrieval import (
    best_sharpness,
    centroid_scores,
    class_centroids,
    nearest,
    neighbor_votes,
    share_of_hits,
)
from lit_models.support.named_extractors import load_extractor
from tests.datamodules.loading.test_augment import RANDOM
from tests.methods import ALL_MODELS, METHODS, SMALL_MODELS
from tests.support.fake_cuda import (
    CUDA,
    DoublePrecisionError,
    ReadBackError,
    attach,
    backward,
    fake_cuda,
    moved,
    take_step,
)
from tests.support.small_models import built, small_model

N = 6


def labeled(shape: Any, classes: int = 3) -> LabeledImages:
    return LabeledImages(torch.rand(N, *shape), torch.arange(N) % classes)


def labeled_on_device(model: Any) -> LabeledImages:
    with torch.device(CUDA):
        return labeled(model.image_shape)


def batch_for(model: Any) -> Any:
    """A training batch on the device."""
    images = labeled_on_device(model)
    with torch.device(CUDA):
        match METHODS[type(model).__name__].batch:
            case "pairs":
                return ImagePair(images.image, torch.rand_like(images.image))
            case "episodes":
                return Episodes(torch.rand(2, 3, 1, *model.image_shape), torch.rand(2, 3, 2, *model.image_shape))
            case "halves":
                return SearchBatch(images, labeled(model.image_shape))
            case "folded images":
                return FoldedImages(*images, torch.arange(N) % 2)
    return images


class DataOnDevice(ImageDataModule):
    """As much of a data module as the methods ask for."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(batch_size=4)
        self.train_set = cast(
            Any,
            SimpleNamespace(
                column=lambda name: torch.arange(N) % 3,
                __getitems__=lambda rows: labeled(shape),
            ),
        )

    def transform(self, batch: Any, training: bool) -> Any:
        return batch

    def train_batches(self) -> Any:
        return range(5)


def model_and_trainer(model: Any, training: bool) -> tuple[Any, Any]:
    model = moved(model)
    shape = model.image_shape
    data = DataOnDevice(shape)
    return model, attach(model, data, training)


PRECISIONS = pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
TITLES = pytest.mark.parametrize("title", ALL_MODELS)


@PRECISIONS
@TITLES
def test_training_step(title: str, bf16: bool) -> None:
    if title == "WGAN, gradient penalty and spectral norm":
        pytest.skip("torch's power iteration writes to `out=`, which fake tensors refuse within a second derivative")
    real = small_model(title) if title in SMALL_MODELS else built(title)
    with fake_cuda(bf16):
        model, trainer = model_and_trainer(real, True)
        loss = model.training_step(batch_for(model), 1)
        if model.automatic_optimization:
            backward(loss)
            take_step(trainer.optimizers[0])
        assert trainer.logged or isinstance(model, lit_models.TransferClassifier)


@PRECISIONS
@TITLES
@pytest.mark.parametrize("stage", ["validation", "test"])
def test_held_out_step(title: str, bf16: bool, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows of the CPU, whose number depends on their labels.
    monkeypatch.setattr(
        "lit_models.support.embedding_module.first_of_each_class", lambda label, _: torch.arange(len(label))
    )
    real = small_model(title) if title in SMALL_MODELS else built(title)
    with fake_cuda(bf16):
        model, trainer = model_and_trainer(real, False)
        batch = batch_for(model)
        getattr(model, f"on_{stage}_start")()
        getattr(model, f"on_{stage}_epoch_start")()
        getattr(model, f"{stage}_step")(batch.val if isinstance(batch, SearchBatch) else batch, 1)
        assert trainer.logged


@TITLES
def test_what_a_trained_model_is_for(title: str) -> None:
    """Every part that can be exported, and the methods for Python."""
    real = small_model(title) if title in SMALL_MODELS else built(title)
    with fake_cuda():
        model, _ = model_and_trainer(real, False)
        batch = batch_for(model)
        image = batch[0].flatten(0, 2) if isinstance(batch, Episodes) else labeled_on_device(model).image
        for part in model.exports:
            inputs = {
                **dict.fromkeys(("image", "source"), image),
                "latent": torch.randn(len(image), model.latent_dim, device=CUDA),
                "label": torch.zeros(len(image), dtype=torch.int64, device=CUDA),
            }
            inputs["code"] = inputs["latent"]
            result = getattr(model, part.method)(*(inputs[kind] for kind in part.inputs))
            assert all(value.is_cuda for value in (result if isinstance(result, tuple) else [result]))
        if hasattr(model, "sample"):
            # The classes of a conditional GAN are checked where they are, on the CPU.
            assert model.sample(4, generator=torch.Generator().manual_seed(0)).is_cuda
        if hasattr(model, "reconstruct"):
            assert model.reconstruct(image).is_cuda
        if hasattr(model, "interpolate"):
            assert model.interpolate(image, image.flip(0), 3, "slerp").is_cuda
        predicts = type(model).predict_step is not LightningModule.predict_step
        if predicts and not hasattr(model, "sample") and not isinstance(model, lit_models.ProtoNet):
            given = batch.val if isinstance(batch, SearchBatch) else batch
            result = model.predict_step(given, 0)
            assert (result if isinstance(result, Tensor) else result[0]).is_cuda


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_augmentation(name: str, dtype: torch.dtype) -> None:
    if dtype == torch.uint8 and name in ("gaussian_noise", "color_jitter", "random_resized_crop"):
        pytest.skip("floats only")
    with fake_cuda():
        assert RANDOM[name](torch.zeros(N, 3, 16, 16, dtype=dtype, device=CUDA), None).is_cuda


DATA: dict[str, Callable[[str], Any]] = {
    "CIFAR10": lambda root: CIFAR10(root, cutout=8),
    "TinyImageNet": lambda root: TinyImageNet(root, augmentation="strong"),
    "MNIST": lambda root: MNIST(root, augmentation="affine", binarization="dynamic"),
    "STL10": STL10,
    "Maps": lambda root: Maps(root=root, image_size=64),
    "Maps, unpaired": lambda root: Maps(root=root, image_size=64, pairing="unpaired"),
    "Maps, loose": lambda root: Maps(root=root, image_size=64, pairing="loose"),
}


@pytest.mark.parametrize("name", DATA)
def test_transform(name: str, tmp_path: Path) -> None:
    """What a data module makes of a training batch on the device."""
    data = DATA[name](str(tmp_path))
    with fake_cuda():
        data.train_set = None
        if hasattr(data, "_mean"):
            data._mean = torch.zeros(3, 1, 1)
        channels, height, width = data.image_shape
        enlarged = (height + 32, width + 32) if isinstance(data, Maps) else (height, width)
        image = torch.zeros(N, channels, *enlarged, dtype=torch.uint8, device=CUDA)
        label = torch.zeros(N, dtype=torch.int64, device=CUDA)
        batch = ImagePair(image, image) if isinstance(data, Maps) else LabeledImages(image, label)
        result = data.transform(batch, training=True)
        assert result[0].is_cuda
        assert result[0].dtype == torch.float32
        assert result[0].shape[1:] == data.image_shape


def on_device(metrics: TranslationMetrics) -> TranslationMetrics:
    """Made of real tensors before, because fake ones can't be copied as torchmetrics does."""
    for metric in metrics.metrics.values():
        moved(metric)
    return metrics


def test_metrics() -> None:
    metrics = TranslationMetrics(map_colors=False)
    with fake_cuda():
        on_device(metrics)
        with torch.device(CUDA):
            image, other, embedding = torch.rand(N, 3, 32, 32), torch.rand(N, 3, 32, 32), torch.rand(N, 4)
            label = torch.zeros(N, dtype=torch.int64)
        metrics.update(image, other)
        square, rows = nearest(embedding, embedding, 2, itself=torch.arange(N, device=CUDA))
        votes = neighbor_votes(square, label[rows], 3)
        centroids = class_centroids(embedding, label, 3)
        best_sharpness(centroid_scores(embedding, centroids), label)
        assert share_of_hits(votes.topk(1).indices, label).is_cuda
        assert histogram_nats(image[:, :1], torch.zeros(1024, 256, device=CUDA)).is_cuda
        assert confusion_counts(votes, label).is_cuda


def test_extractor() -> None:
    real = load_extractor("digits")
    with fake_cuda():
        features = moved(real)(torch.rand(N, 3, 28, 28, device=CUDA))
        assert features.embedding.is_cuda


def checkpoint_of_buffers() -> None:
    model, _ = model_and_trainer(MODELS["CycleGAN"], True)
    model.discriminator_loss(
        batch_for(model), torch.zeros(N, 2 * model.image_shape[0], *model.image_shape[1:], device=CUDA)
    )
    model.on_save_checkpoint({})


def bernoulli_images() -> None:
    model, _ = model_and_trainer(MODELS["VAE, Bernoulli"], True)
    model.training_step(batch_for(model), 0)


def request() -> None:
    number = torch.arange(N, device=CUDA)
    model, _ = model_and_trainer(MODELS["DCGAN"], False)
    model.predict_step(SampleRequest(number, -torch.ones_like(number), torch.zeros_like(number)), 0)


def prototypes() -> None:
    model, _ = model_and_trainer(MODELS["ProtoNet"], False)
    model.prototypes(labeled_on_device(model))


def map_counts() -> None:
    image = torch.zeros(N, 3, 32, 32, device=CUDA)
    on_device(MODELS["metrics"]).update(image, image)


def map_confusion() -> None:
    on_device(MODELS["metrics"]).confusion()


MODELS: dict[str, Any] = {}
READ_BACKS: dict[str, tuple[Callable[[], None], str]] = {
    "CycleGAN's buffers": (checkpoint_of_buffers, "when a checkpoint is written"),
    "images of a Bernoulli likelihood": (bernoulli_images, "checked in the first batch of an epoch"),
    "a request for samples": (request, "its seed and classes, once for a batch of predictions"),
    "ProtoNet's prototypes": (prototypes, "counts the classes of the support images, once for all predictions"),
    "counts of the kinds of maps": (map_counts, "torchmetrics' bincount, once for a held-out batch"),
    "the confusion of maps": (map_confusion, "once for a split"),
}
"""What waits for the device, and when. Epoch ends, at which metrics are computed and files written, aren't listed."""


@pytest.mark.parametrize("name", READ_BACKS)
def test_read_backs(name: str) -> None:
    """Each of them would be noticed above; one that is gone is to be taken off the list."""
    MODELS["metrics"] = TranslationMetrics()
    MODELS.update({title: built(title) for title in ("CycleGAN", "VAE, Bernoulli", "DCGAN", "ProtoNet")})
    with fake_cuda(), pytest.raises((ReadBackError, DataDependentOutputException, DynamicOutputShapeException)):
        READ_BACKS[name][0]()


FAULTS: dict[str, tuple[Callable[[Tensor], Any], type[Exception] | tuple[type[Exception], ...]]] = {
    "item": (lambda value: value.sum().item(), DataDependentOutputException),
    "float": (lambda value: float(value.sum()), DataDependentOutputException),
    "if": (lambda value: bool((value > 0).any()), DataDependentOutputException),
    "cpu": (lambda value: value.cpu(), ReadBackError),
    "tolist": (lambda value: value.tolist(), Exception),
    "numpy": (lambda value: value.numpy(), Exception),
    "boolean index": (lambda value: value[value > 0], DynamicOutputShapeException),
    "nonzero": (lambda value: value.nonzero(), DynamicOutputShapeException),
    "unique": (lambda value: value.unique(), DynamicOutputShapeException),
    "devices": (lambda value: value + torch.ones(3), RuntimeError),
    "float64": (lambda value: value.double(), DoublePrecisionError),
    "float64 of nothing": (lambda value: torch.zeros(3, dtype=torch.float64, device=CUDA), DoublePrecisionError),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name: str) -> None:
    fault, error = FAULTS[name]
    with fake_cuda():
        value = torch.zeros(3, device=CUDA)
        with pytest.raises(error):
            fault(value)


def test_autocast_is_on() -> None:
    with fake_cuda(bf16=True):
        assert (torch.zeros(2, 2, device=CUDA) @ torch.zeros(2, 2, device=CUDA)).dtype == torch.bfloat16
