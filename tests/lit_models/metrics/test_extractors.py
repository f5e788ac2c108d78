import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_models import DigitClassifier
from lit_models.errors import ModelError, RunError
from lit_models.metrics.extractors import (
    DIGIT_CLASSIFIER,
    Extractor,
    ExtractorUnavailableError,
    digit_classifier,
    digit_classifier_card,
    fitted,
)
from lit_models.networks.convnet import ConvNet
from lit_models.support.extractors import export_digit_classifier, load_extractor
from tests.tiny import TINY, the_run

Relit = Callable[..., int]
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


def test_of_several_linear_layers_the_last_one_counts() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    image = torch.rand(5, 1, 2, 2)
    assert torch.equal(Extractor(network, (1, 2, 2))(image).embedding, network[:3](image))


def test_images_are_made_to_fit() -> None:
    colour = torch.rand(2, 3, 8, 8)
    grey = fitted(colour, (1, 8, 8))
    assert torch.allclose(grey[:, 0], (colour * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1), atol=1e-3)
    assert torch.equal(fitted(grey, (3, 8, 8))[:, 2], grey[:, 0])
    small = fitted(torch.full((1, 1, 16, 16), 0.25), (1, 4, 4))
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
    assert torch.equal(extractor(image).logits, module(image))
    assert extractor(image).embedding.shape == (2, 3)
    export_digit_classifier(checkpoint, tmp_path / "weights.safetensors", {"test_accuracy": "0.1"})
    assert (tmp_path / "weights.safetensors").stat().st_size > 100


def test_other_checkpoints_are_refused_in_a_sentence(relit: Relit) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    with pytest.raises(RunError, match="no classifier of relit"):
        load_extractor(str(checkpoint))
    with pytest.raises(RunError, match="There is no extractor nothing: it is `digits`, `inception`, or"):
        load_extractor("nothing")


def test_inceptions_weights_that_cannot_be_had_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3

    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", no_network)
    with pytest.raises(ExtractorUnavailableError, match="Inception's weights can't be downloaded"):
        load_extractor("inception")


def test_inception_takes_grey_images_in_the_unit_interval(monkeypatch: pytest.MonkeyPatch) -> None:
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
