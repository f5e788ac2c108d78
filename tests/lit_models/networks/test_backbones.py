"""torchvision's and timm's networks as encoders; nothing is downloaded."""

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD

import lit_models
from lit_models.cli.export import write_onnx
from lit_models.errors import ModelError
from lit_models.networks.backbones import Backbone
from lit_models.networks.encoders import load_encoder
from lit_models.optimizers import decayed_weights
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import QUIET, the_run, weights

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
def test_torchvisions_features_are_the_input_of_the_last_layer(name: str, monkeypatch: Patch) -> None:
    if name == "vit_b_16":
        with torch.device("meta"):  # its 86 million weights don't matter
            assert Backbone("torchvision:vit_b_16", 224).out_features == 768
        return
    torch.manual_seed(0)
    size = 75 if name == "inception_v3" else 32
    with monkeypatch.context() as patch:
        for draw in ("kaiming_uniform_", "kaiming_normal_", "normal_", "trunc_normal_"):
            patch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)  # all weights are replaced below
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
        ({"encoder": "resnet"}, "encoder is resnet; it must be .*, torchvision:NAME, timm:NAME, or MODULE.NAME"),
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
    frozen = lit_models.MetricResNet(**arguments, freeze_encoder=True, pretrained="w.pt", encoder_lr=1e-5)
    learning = {id(parameter) for group in decayed_weights(frozen) for parameter in group["params"]}
    assert learning == {id(parameter) for parameter in frozen.classifier.parameters()}


def write_pictures(folder: Path, count: int, darkest: float, noise: float) -> None:
    """So many pictures of a darkest value and noise of some size above it."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(zlib.crc32("/".join(folder.parts[-2:]).encode()))
    for number in range(count):
        image = darkest + noise * torch.rand(3, 32, 32, generator=generator)
        torchvision.utils.save_image(image, folder / f"{number}.png")


def features(reference: Any, folder: Path) -> torch.Tensor:
    """What a network of timm's makes of the pictures in a folder, in the order of their names."""
    images = [torchvision.io.read_image(str(path)) / 255 for path in sorted(folder.rglob("*.png"))]
    mean, std = (torch.tensor(reference.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        maps = reference.forward_features((torch.stack(images) - mean) / std)
        return reference.forward_head(maps, pre_logits=True)


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


def episode_classifier(**arguments: Any) -> Any:
    return lit_models.ProtoNet(**{"image_size": 32, "channels": 3, "feature_maps": 4, **arguments})


def test_protonet_learns_with_any_encoder() -> None:
    for encoder in ("conv4", "resnet18", SMALL):
        model = episode_classifier(encoder=encoder)
        embedding = model(torch.rand(4, 3, 32, 32))
        embedding.square().mean().backward()
        assert embedding.ndim == 2
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_protonets_encoder_learns_at_its_own_rate_or_not_at_all() -> None:
    """Below a layer on top of it; by a step of gradient descent, of which the change is the rate times the gradient."""
    torch.manual_seed(0)
    model = episode_classifier(embedding_dim=5, encoder_lr=0.1, optimizer=lambda p: SGD(p, lr=0.5))
    optimizer = model.configure_optimizers()["optimizer"]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    image = torch.rand(4, 3, 32, 32)
    model(image).square().mean().backward()
    optimizer.step()
    for name, value in model.named_parameters():
        rate = 0.1 if name.startswith("encoder.") else 0.5
        assert value.grad is not None
        assert torch.allclose(value, before[name] - rate * value.grad), name
    assert model(image).shape == (4, 5)
    frozen = episode_classifier(freeze_encoder=True, pretrained="w.pt", embedding_dim=5)
    (group,) = frozen.configure_optimizers()["optimizer"].param_groups
    assert {id(parameter) for parameter in group["params"]} == {id(one) for one in frozen.projection.parameters()}


@pytest.mark.parametrize("encoder", ["conv4", "resnet18", SMALL])
@pytest.mark.parametrize("method", ["ProtoNet", "MetricResNet", "TransferClassifier"])
def test_a_frozen_encoder_of_any_method_changes_in_nothing(method: str, encoder: str, tmp_path: Path) -> None:
    """Neither in weights nor in statistics; what is on top of it learns."""
    arguments: dict[str, Any] = {"image_size": 32, "channels": 3, "feature_maps": 4, "encoder": encoder}
    more = {"ProtoNet": {"embedding_dim": 4}, "TransferClassifier": {"folds": 2}}.get(method, {})
    model: Any = getattr(lit_models, method)(**arguments, **more, freeze_encoder=True, pretrained="w.pt")
    model.has_weights = True  # random ones
    network = model.encoders if method == "TransferClassifier" else model.encoder
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model.train()
    result = model(torch.rand(4, 3, 32, 32))
    result.square().mean().backward()
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("encoder", ["conv4", "resnet18"])
def test_encoders_pass_from_method_to_method(encoder: str, tmp_path: Path) -> None:
    """Learned by classes or episodes, then on episodes or few labels: the same features."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 32, "channels": 3, "feature_maps": 4, "encoder": encoder}
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    learned = {
        "metric.ckpt": lit_models.MetricResNet(**sizes, **plain, num_classes=3),
        "proto.ckpt": lit_models.ProtoNet(**sizes),
        "few.ckpt": lit_models.TransferClassifier(**sizes, freeze_encoder=False, folds=0),
    }
    image = torch.rand(2, 3, 32, 32)
    for name, source in learned.items():
        for parameter in source.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        torch.save({"state_dict": source.state_dict()}, tmp_path / name)
        theirs = source.encoders[0] if name == "few.ckpt" else source.encoder  # type: ignore[index]
        for target in (lit_models.ProtoNet(**sizes), lit_models.TransferClassifier(**sizes, freeze_encoder=False)):
            ours = target.encoder if isinstance(target, lit_models.ProtoNet) else target.encoders[0]
            load_encoder(ours, str(tmp_path / name))
            with torch.no_grad():
                assert torch.equal(ours.eval()(image), theirs.eval()(image))  # type: ignore[operator,union-attr]
    normalizing = lit_models.MetricResNet(**sizes, num_classes=3)
    torch.save({"state_dict": normalizing.state_dict()}, tmp_path / "normalizing.ckpt")
    told = r"normalized images: train it with --model.mean '\[0, 0, 0\]' --model.std '\[1, 1, 1\]'"
    with pytest.raises(ModelError, match=told):
        load_encoder(lit_models.ProtoNet(**sizes).encoder, str(tmp_path / "normalizing.ckpt"))


def test_weights_that_do_not_fit_an_encoder_of_relits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ImageNet's weights take normalized images: set "):
        load_encoder(episode_classifier(encoder="resnet18").encoder, "imagenet")
    torch.save(lit_models.MetricResNet(stem="7x7", feature_maps=4).encoder.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"is of a ResNet18 with another stem: train one with --model\.stem 3x3"):
        load_encoder(episode_classifier(encoder="resnet18").encoder, str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match=r"w.pt isn't of conv4: 0.weight must be 4x3x3x3, and is 8x4x1x1"):
        load_encoder(episode_classifier().encoder, str(tmp_path / "w.pt"))


@pytest.mark.long
def test_protonet_with_a_backbone_trains_resumes_tests_exports_and_predicts(
    relit: Relit, reference: nn.Module, tmp_path: Path
) -> None:
    """On folders of pictures, from a local file of timm's weights; the checkpoint needs that file no more."""
    torch.save(reference.state_dict(), "w.pt")
    for number in range(6):
        write_pictures(tmp_path / "pictures" / f"class{number}", 6, darkest=0.15 * number, noise=0.1)
    model = ("--model=ProtoNet", f"--model.encoder={SMALL}", "--model.pretrained=w.pt", "--model.image_size=32")
    rates = ("--model.channels=3", "--model.encoder_lr=1e-5", "--model.embedding_dim=8")
    images = ("--data=EpisodeDataModule", "--data.images=ImageFolder", "--data.images.path=pictures")
    sizes = ("--data.images.image_size=32", "--data.images.split_by=class", "--data.images.val_fraction=0.34")
    sizes += ("--data.images.test_fraction=0.34",)
    episodes = ("--data.n_way=2", "--data.k_shot=1", "--data.n_query=1", "--data.train_episodes=2")
    test = ("--data.test_way=2", "--data.test_query=1", "--data.val_episodes=2", "--data.test_episodes=3")
    fit = (*model, *rates, *images, *sizes, *episodes, *test, "--checkpoint.monitor=null", *QUIET)
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    first = weights(the_run())
    Path("w.pt").unlink()
    assert relit("fit", *fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    last = weights(the_run())
    learned = last["encoder.network.conv1.0.weight"]
    assert not torch.equal(first["encoder.network.conv1.0.weight"], learned)
    assert torch.allclose(learned, reference.state_dict()["conv1.0.weight"], atol=1e-3), "it began with the file's"
    assert relit("test", "--ckpt_path", the_run(), *QUIET) == 0
    assert any(row.get("test/accuracy") for row in rows_of(the_run() / "metrics.csv"))
    support = ("--data=SupportQuery", "--data.support=pictures", "--data.query=pictures/class0")
    assert relit("predict", "--ckpt_path", the_run(), *support, *QUIET, "--predictions.folder=out") == 0
    assert relit("export", the_run(), "--output", "net") == 0
    assert relit("predict", "--weights=net.safetensors", *support, *QUIET, "--predictions.folder=again") == 0
    found = [next(Path(folder).rglob("classes.csv")).read_text() for folder in ("out", "again")]
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == 7


@pytest.mark.parametrize("method", ["ProtoNet", "MetricResNet", "TransferClassifier"])
def test_pretrained_weights_are_loaded_once(method: str, reference: nn.Module, tmp_path: Path) -> None:
    """At the first use, with or without a Trainer; so a model that has been trained keeps what it has learned in a
    test, and in a second training."""
    torch.save(reference.state_dict(), tmp_path / "w.pt")
    sizes: dict[str, Any] = {"image_size": 32, "channels": 3, "encoder": SMALL, "pretrained": str(tmp_path / "w.pt")}
    model: Any = getattr(lit_models, method)(**sizes)
    prefix = "encoders.0.network." if method == "TransferClassifier" else "encoder.network."
    network = model.encoders[0] if method == "TransferClassifier" else model.encoder
    weight = network.network.conv1[0].weight
    image = torch.rand(2, 3, 32, 32)
    random = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(image)
        assert torch.equal(weight, reference.state_dict()["conv1.0.weight"])
        weight.zero_()
        model.on_fit_start()
        model.on_test_start()
        model(image)
        assert not weight.any()
        again: Any = getattr(lit_models, method)(**sizes)
        again.load_state_dict(random)
        again(image)
    assert torch.equal(again.state_dict()[f"{prefix}conv1.0.weight"], random[f"{prefix}conv1.0.weight"]), "given others"


def test_a_head_that_has_learned_nothing_predicts_nothing(relit: Relit, capsys: Output) -> None:
    for method in ("MetricResNet", "TransferClassifier"):
        sizes = ("--model.image_size=32", "--model.num_classes=10", "--model.channels=3")
        model = (f"--model={method}", f"--model.encoder={SMALL}", "--model.pretrained=w.pt", *sizes)
        Path("pictures").mkdir(exist_ok=True)
        torchvision.utils.save_image(torch.rand(3, 32, 32), "pictures/0.png")
        data = ("--data=ImageFolder", "--data.path=pictures", "--data.image_size=32")
        assert relit("predict", *model, *data, *QUIET) == 1
        assert f"{method} starts from --model.pretrained in training, and this one has" in capsys.readouterr().err


@pytest.mark.long
def test_a_pretrained_network_is_measured_untrained(relit: Relit, reference: nn.Module) -> None:
    """The accuracy of the nearest class centroids of its features, in one command."""
    torch.save(reference.state_dict(), "w.pt")
    sets: dict[str, list[torch.Tensor]] = {"train": [], "test": []}
    for split, found in sets.items():
        for number in range(3):
            folder = Path("pictures", split, f"class{number}")
            write_pictures(folder, 4, darkest=0.1 * number, noise=0.5)
            found.append(features(reference, folder))
    centroid = torch.stack([of_class.mean(0) for of_class in sets["train"]])
    right = [torch.cdist(sets["test"][number], centroid).argmin(1) == number for number in range(3)]
    model = ("--model=MetricResNet", f"--model.encoder={SMALL}", "--model.pretrained=w.pt", "--model.image_size=32")
    data = ("--data=ImageFolder", "--data.path=pictures", "--data.image_size=32", "--data.val_fraction=0")
    assert relit("test", *model, "--model.num_classes=3", *data, *QUIET, "--run.experiment=measured") == 0
    (row,) = rows_of(the_run() / "metrics.csv")
    assert float(row["test/centroid_accuracy"]) == pytest.approx(float(torch.cat(right).float().mean()))


@pytest.mark.long
@pytest.mark.parametrize("method", ["ProtoNet", "MetricResNet", "TransferClassifier"])
def test_a_backbone_exports_as_onnx(method: str, tmp_path: Path) -> None:
    """``write_onnx`` compares ONNX Runtime's results with PyTorch's and refuses a difference."""
    pytest.importorskip("onnxruntime")
    more = {"freeze_encoder": False, "folds": 0} if method == "TransferClassifier" else {}
    model = getattr(lit_models, method)(image_size=32, channels=1, encoder=SMALL, **more, **ONE_CHANNEL.get(method, {}))
    for part in model.exports:
        card = write_onnx(model.eval(), part, tmp_path / f"{part.name}.onnx")
        assert card["inputs"][0]["shape"] == ["batch", 1, 32, 32]
        assert card["largest_difference"] < 1e-4


ONE_CHANNEL: dict[str, dict[str, Any]] = {"MetricResNet": {"mean": (0.0,), "std": (1.0,), "num_classes": 3}}


@pytest.mark.long
def test_pictures_of_new_classes_need_no_training(relit: Relit, reference: nn.Module) -> None:
    """A folder with examples of each class, a folder of pictures in question, and a pretrained network: one command."""
    torch.save(reference.state_dict(), "w.pt")
    for folder, count, darkest in (
        ("support/dark", 3, 0),
        ("support/bright", 3, 0.8),
        ("query/a", 1, 0),
        ("query/b", 2, 0.8),
    ):
        write_pictures(Path(folder), count, darkest, noise=0.2)
    model = ("--model=ProtoNet", f"--model.encoder={SMALL}", "--model.pretrained=w.pt")
    shape = ("--model.image_size=32", "--model.channels=3")
    data = ("--data=SupportQuery", "--data.support=support", "--data.query=query")
    assert relit("predict", *model, *shape, *data, *QUIET, "--predictions.folder=out") == 0
    found = [row["class"] for row in rows_of(next(Path("out").rglob("classes.csv")))]
    prototype = {name: features(reference, Path("support", name)).mean(0) for name in ("bright", "dark")}
    asked = features(reference, Path("query"))
    assert found == [min(prototype, key=lambda name: float((row - prototype[name]).norm())) for row in asked]
