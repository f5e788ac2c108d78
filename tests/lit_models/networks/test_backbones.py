"""torchvision's and timm's networks as encoders; nothing is downloaded."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import lit_models
from lit_models.errors import ModelError
from lit_models.networks.backbones import Backbone
from lit_models.optimizers import decayed_weights
from tests.support.tiny import the_run, weights

Relit = Callable[..., int]
timm = pytest.importorskip("timm")
SMALL = "timm:resnet10t"


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """timm's own network, with its classifier, in evaluation mode."""
    torch.manual_seed(1)
    network = timm.create_model("resnet10t", pretrained=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_timms_features_of_normalized_images_come_back_from_a_file(reference: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({f"model.{name}": value.contiguous() for name, value in reference.state_dict().items()}, path)
    backbone = Backbone(SMALL, 32).eval()
    backbone.load_pretrained(str(path))
    image = torch.rand(3, 1, 32, 32)
    mean, std = (torch.tensor(reference.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))  # type: ignore[index,arg-type]
    with torch.no_grad():
        expected = reference.forward_head(  # type: ignore[operator]
            reference.forward_features((torch.cat([image] * 3, 1) - mean) / std),
            pre_logits=True,  # type: ignore[operator]
        )
        assert torch.allclose(backbone(image), expected, atol=1e-5)
    assert expected.shape == (3, backbone.out_features)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "mobilenet_v3_small", "vit_b_16", "inception_v3"])
def test_torchvisions_features_are_the_input_of_the_last_layer(name: str) -> None:
    if name == "vit_b_16":
        with torch.device("meta"):  # its 86 million weights don't matter
            assert Backbone("torchvision:vit_b_16", 224).out_features == 768
        return
    torch.manual_seed(0)
    size = 75 if name == "inception_v3" else 32
    backbone = Backbone(f"torchvision:{name}", size).eval()
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    whole = torchvision.models.get_model(name, weights=None, **options).eval()
    backbone.network.load_state_dict(whole.state_dict(), strict=False)
    last = [layer for layer in whole.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Any] = []
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    image = torch.rand(2, 3, size, size)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        whole((image - mean) / std)
        assert torch.allclose(backbone(image), seen[0], atol=1e-5)
    assert backbone.out_features == last.in_features


def test_a_frozen_network_changes_in_nothing() -> None:
    backbone = Backbone(SMALL, 32, frozen=True).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not backbone(torch.rand(4, 3, 32, 32)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "timm:resnet81"}, r"timm has no network resnet81: did you mean resnet\w+"),
        ({"encoder": "torchvision:resnt18"}, "torchvision has no network resnt18: did you mean resnet18"),
        ({"encoder": "timm:resnet18.nothing"}, r"timm has no network resnet18\.nothing: did you mean resnet18\."),
        ({"encoder": "resnet"}, "encoder is resnet; it must be .*, torchvision:NAME or timm:NAME"),
        ({"encoder": SMALL, "channels": 4}, f"channels is 4, but the encoder {SMALL} takes images of 1 or 3 channels"),
        ({"encoder": "torchvision:squeezenet1_0"}, "doesn't end in a linear layer"),
    ],
)
@pytest.mark.parametrize("method", ["ProtoNet", "MetricResNet", "TransferClassifier"])
def test_other_names_are_refused(method: str, arguments: dict[str, Any], message: str) -> None:
    more = {"freeze_encoder": False} if method == "TransferClassifier" else {}
    if method == "MetricResNet" and "channels" in arguments:
        more = {"mean": (0.0,) * 4, "std": (1.0,) * 4}
    with pytest.raises(ModelError, match=message):
        getattr(lit_models, method)(**arguments, **more)


def test_without_timm_one_sentence_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ModelError, match=r"^timm:resnet18 needs timm: pip install 'relit\[timm\]'\.$"):
        lit_models.ProtoNet(encoder="timm:resnet18")


def test_weights_of_another_network_are_refused(reference: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(reference.state_dict(), path)
    with pytest.raises(ModelError, match=r"w.pt isn't of torchvision:resnet18: conv1.weight must be 64x3x7x7, and"):
        Backbone("torchvision:resnet18", 32).load_pretrained(str(path))


def test_the_encoder_learns_at_its_own_rate() -> None:
    arguments: dict[str, Any] = {"image_size": 32, "num_classes": 3, "encoder": SMALL}
    model = lit_models.MetricResNet(**arguments, encoder_lr=1e-5)
    groups = decayed_weights(model, model.encoder, 1e-5)
    rates = {id(parameter): group.get("lr") for group in groups for parameter in group["params"]}
    decayed = {id(parameter): group.get("weight_decay") is None for group in groups for parameter in group["params"]}
    assert rates.keys() == {id(parameter) for parameter in model.parameters()}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (1e-5 if name.startswith("encoder.") else None)
        assert decayed[id(parameter)] == (parameter.ndim > 1)
    frozen = lit_models.MetricResNet(**arguments, freeze_encoder=True, pretrained="w.pt")
    learning = {id(parameter) for group in decayed_weights(frozen) for parameter in group["params"]}
    assert learning == {id(parameter) for parameter in frozen.classifier.parameters()}


QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
LIMITS = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")


@pytest.mark.long
def test_a_run_with_a_backbone_trains_resumes_exports_and_predicts(
    relit: Relit, reference: nn.Module, tmp_path: Path
) -> None:
    torch.save(reference.state_dict(), "w.pt")
    digits = ("--data=Digits", "--data.batch_size=16", "--checkpoint.monitor=null", *QUIET)
    frozen = ("--model=MetricResNet", f"--model.encoder={SMALL}", "--model.pretrained=w.pt", "--model.channels=1")
    shape = ("--model.image_size=32", "--model.num_classes=10", "--model.mean=[0]", "--model.std=[1]")
    fit = (*frozen, *shape, "--model.freeze_encoder=true", "--model.references_per_class=2", *digits, *LIMITS)
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    Path("w.pt").unlink()  # a checkpoint stands alone
    assert relit("fit", *fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    state = weights(the_run())
    for name, value in reference.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(state[f"encoder.network.{name}"], value), name
    assert relit("export", the_run(), "--output", "net") == 0
    model = lit_models.MetricResNet.from_pretrained("net.safetensors")
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 10)
    assert relit("predict", "--weights=net.safetensors", *digits[:2], *QUIET, "--trainer.limit_predict_batches=1") == 0


@pytest.mark.long
@pytest.mark.parametrize("freeze", ["true", "false"])
def test_a_few_labels_on_a_pretrained_backbone(relit: Relit, reference: nn.Module, freeze: str) -> None:
    torch.save(reference.state_dict(), "w.pt")
    model = ("--model=TransferClassifier", f"--model.encoder={SMALL}", "--model.pretrained=w.pt", "--model.folds=2")
    data = ("--data=FewLabels", "--data.images=Digits", "--data.count=40", "--data.folds=2")
    assert (
        relit("fit", *model, f"--model.freeze_encoder={freeze}", *data, *QUIET, *LIMITS, "--trainer.max_epochs=1") == 0
    )
    state = weights(the_run())
    changed = {
        name
        for name, value in reference.state_dict().items()
        if not name.startswith("fc.") and not torch.equal(state[f"encoders.0.network.{name}"], value)
    }
    assert bool(changed) == (freeze == "false")


def test_protonet_learns_with_any_encoder() -> None:
    for encoder in ("conv4", "resnet18", SMALL):
        model = lit_models.ProtoNet(image_size=32, channels=3, feature_maps=4, encoder=encoder)
        embedding = model(torch.rand(4, 3, 32, 32))
        embedding.square().mean().backward()
        assert embedding.ndim == 2
        assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ModelError, match="pretrained is for encoders of torchvision and timm; conv4 has no weights"):
        lit_models.ProtoNet(pretrained="imagenet")


@pytest.mark.long
def test_pictures_of_new_classes_need_no_training(relit: Relit, reference: nn.Module) -> None:
    """A folder with examples of each class, a folder of pictures in question, and a pretrained network: one command."""
    torch.save(reference.state_dict(), "w.pt")
    generator = torch.Generator().manual_seed(0)
    for folder in ("support/dark", "support/bright", "query"):
        Path(folder).mkdir(parents=True)
        for n in range(3):
            offset = 0.8 if "bright" in folder or (folder == "query" and n > 0) else 0.0
            image = offset + 0.2 * torch.rand(3, 32, 32, generator=generator)
            torchvision.utils.save_image(image, f"{folder}/{n}.png")
    model = ("--model=ProtoNet", f"--model.encoder={SMALL}", "--model.pretrained=w.pt")
    shape = ("--model.image_size=32", "--model.channels=3")
    data = ("--data=SupportQuery", "--data.support=support", "--data.query=query")
    assert relit("predict", *model, *shape, *data, *QUIET, "--predictions.folder=out") == 0
    with next(Path("out").rglob("classes.csv")).open(newline="") as file:
        found = [row["class"] for row in csv.DictReader(file)]
    mean, std = (torch.tensor(reference.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))  # type: ignore[index,arg-type]

    def features(folder: str) -> torch.Tensor:
        images = [torchvision.io.read_image(str(path)) / 255 for path in sorted(Path(folder).iterdir())]
        maps = reference.forward_features((torch.stack(images) - mean) / std)  # type: ignore[operator]
        return reference.forward_head(maps, pre_logits=True)  # type: ignore[operator]

    with torch.no_grad():
        prototype = {name: features(f"support/{name}").mean(0) for name in ("bright", "dark")}
        expected = [min(prototype, key=lambda name: float((row - prototype[name]).norm())) for row in features("query")]
    assert found == expected
