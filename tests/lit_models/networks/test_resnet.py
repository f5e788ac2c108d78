from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from lit_models.errors import ModelError, RunError
from lit_models.networks import resnet
from lit_models.networks.resnet import ResNet18, load_weights
from tests.support.fixtures import Patch
from tests.support.malicious import Malicious


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    torch.manual_seed(0)
    network = resnet18(num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
    return network.eval()


def test_with_the_papers_stem_it_is_torchvisions(torchvisions: nn.Module, tmp_path: Path) -> None:
    state = torchvisions.state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "w.pth")
    encoder = ResNet18(stem="7x7").eval()
    assert load_weights(encoder, str(tmp_path / "w.pth")) == []
    image = torch.randn(2, 3, 64, 64)
    torchvisions.fc, classifier = nn.Identity(), torchvisions.fc
    with torch.no_grad():
        assert torch.allclose(encoder(image), torchvisions(image), atol=1e-5)
    torchvisions.fc = classifier


def test_the_parameters_are_initialized_as_torchvisions() -> None:
    torch.manual_seed(0)
    ours, theirs = ResNet18(stem="7x7").state_dict(), resnet18().state_dict()
    for name, value in ours.items():
        assert value.shape == theirs[name].shape
        if value.ndim == 4:
            assert value.std().item() == pytest.approx(theirs[name].std().item(), rel=0.05), name
        else:
            assert torch.equal(value, theirs[name]), name
    assert set(theirs) - set(ours) == {"fc.weight", "fc.bias"}


def test_the_stem_for_small_images_keeps_their_size() -> None:
    encoder = ResNet18(channels=1, feature_maps=4)
    sizes = []
    for stage in (encoder.bn1, encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        stage.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape)))
    assert encoder(torch.rand(2, 1, 64, 64)).shape == (2, 32)
    assert sizes == [(2, 4, 64, 64), (2, 4, 64, 64), (2, 8, 32, 32), (2, 16, 16, 16), (2, 32, 8, 8)]
    assert isinstance(encoder.maxpool, nn.Identity)


def test_the_features_are_averaged_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert ResNet18(feature_maps=2)(torch.rand(2, 3, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("form", ["bare", "checkpoint", "data parallel", "safetensors"])
def test_weights_of_every_form_are_loaded(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    source = ResNet18(feature_maps=4)
    state: dict[str, Any] = dict(source.state_dict())
    path = tmp_path / "w.pth"
    if form == "safetensors":
        path = tmp_path / "w.safetensors"
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        prefix = {"bare": "", "checkpoint": "encoder.", "data parallel": "module."}[form]
        state = {f"{prefix}{name}": value for name, value in state.items()}
        state["classifier.weight"] = torch.zeros(3, 3)
        torch.save({"state_dict": state, "epoch": 3} if form == "checkpoint" else state, path)
    encoder = ResNet18(feature_maps=4)
    assert load_weights(encoder, str(path)) == []
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("channels", [3, 1])
def test_another_stem_keeps_its_own_weights(torchvisions: nn.Module, tmp_path: Path, channels: int) -> None:
    torch.save(torchvisions.state_dict(), tmp_path / "w.pth")
    encoder = ResNet18(channels, stem="3x3" if channels == 3 else "7x7")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    kept = load_weights(encoder, str(tmp_path / "w.pth"))
    assert {name.split(".")[0] for name in kept} == {"conv1", "bn1"}
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name] if name in kept else torchvisions.state_dict()[name]), name


def test_torchvisions_weights_are_asked_for_safely(monkeypatch: Patch, torchvisions: nn.Module) -> None:
    asked: dict[str, Any] = {}

    def download(self: Any, **arguments: Any) -> dict[str, torch.Tensor]:
        asked.update(arguments, url=self.url)
        return torchvisions.state_dict()

    monkeypatch.setattr(type(resnet.ResNet18_Weights.IMAGENET1K_V1), "get_state_dict", download)
    encoder = ResNet18(stem="7x7")
    assert load_weights(encoder, "imagenet") == []
    assert asked["weights_only"] is asked["check_hash"] is True
    assert "resnet18" in asked["url"]
    assert torch.equal(encoder.conv1.weight, torchvisions.conv1.weight)


def test_no_network_is_a_sentence(monkeypatch: Patch) -> None:
    def offline(self: Any, **_: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(type(resnet.ResNet18_Weights.IMAGENET1K_V1), "get_state_dict", offline)
    with pytest.raises(ModelError, match=r"can't be downloaded .*name it by --model.pretrained"):
        load_weights(ResNet18(), "imagenet")


def test_unfit_files_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = ResNet18(feature_maps=4)
    with pytest.raises(ModelError, match=r"There is no file .*none\.pth"):
        load_weights(encoder, "none.pth")
    torch.save(ResNet18(feature_maps=8).state_dict(), "wide.pth")
    with pytest.raises(ModelError, match=r"has layer1.0.conv1.weight as 4x4x3x3, the file has it as 8x8x3x3"):
        load_weights(encoder, "wide.pth")
    torch.save({"weight": torch.zeros(2)}, "other.pth")
    with pytest.raises(ModelError, match="the file hasn't"):
        load_weights(encoder, "other.pth")
    torch.save([1, 2], "list.pth")
    with pytest.raises(ModelError, match="holds no weights by name"):
        load_weights(encoder, "list.pth")
    torch.save({"x": Malicious(Path.touch, Path("evil"))}, "evil.pth")
    with pytest.raises(RunError, match="could run code"):
        load_weights(encoder, "evil.pth")
    assert not Path("evil").exists()
    Path("cut.safetensors").write_bytes(b"123")
    with pytest.raises(ModelError, match="can't be read as safetensors"):
        load_weights(encoder, "cut.safetensors")
