"""User-defined encoders: built where the user has named them, never because a file has."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import lit_models
from lit_models.errors import ModelError, RunError
from lit_models.networks import user_network
from lit_models.networks.user_network import import_encoder, register_encoder
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import QUIET, the_run, weights

METHODS = ("ProtoNet", "MetricResNet", "TransferClassifier")
LIMITS = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")


class Small(nn.Module):
    """Six features of a pixel each, as a map, with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def words() -> Any:
    return "no network"


class Vectors(nn.Linear):
    def __init__(self) -> None:
        super().__init__(5, 2)


@pytest.fixture(autouse=True)
def unregistered(monkeypatch: Patch) -> None:
    """Each test begins without registered networks."""
    monkeypatch.setattr(user_network, "_MAKERS", {})


def model_with(method: str, encoder: str, **arguments: Any) -> Any:
    sizes = {"image_size": 16, "channels": 3, "encoder": encoder}
    more = {"ProtoNet": {}, "MetricResNet": {"num_classes": 3}, "TransferClassifier": {"folds": 2}}[method]
    frozen = {"freeze_encoder": False} if method == "TransferClassifier" else {}
    return getattr(lit_models, method)(**{**sizes, **more, **frozen, **arguments})


def encoder_of(model: Any) -> Any:
    return model.encoders[0] if hasattr(model, "encoders") else model.encoder


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_mine_is_the_encoder(method: str) -> None:
    """Its features, flattened; ``MetricResNet`` gives it images normalized by its ``mean`` and ``std``."""
    torch.manual_seed(0)
    model = model_with(method, register_encoder(Small), **({"embedding_dim": 4} if method == "ProtoNet" else {}))
    encoder = encoder_of(model)
    assert type(encoder.network) is Small
    assert encoder.out_features == 6
    assert encoder.network.training, "measuring its features changed nothing"
    assert not encoder.network.layers[1].num_batches_tracked
    model.eval()
    image = torch.rand(2, 3, 16, 16)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    feature = encoder.network((image - mean) / std if method == "MetricResNet" else image).flatten(1)
    top = {"ProtoNet": "projection", "MetricResNet": "classifier"}.get(method)
    expected = (getattr(model, top) if top else model.heads[0])(feature)
    assert torch.allclose(model(image), expected, atol=1e-6)
    expected.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_frozen_with_weights_of_a_file(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Small()
    save_file({f"model.{name}": value for name, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    more = {"embedding_dim": 4} if method == "ProtoNet" else {}
    name = register_encoder(Small)
    pretrained = {"pretrained": str(tmp_path / "w.safetensors"), "freeze_encoder": True}
    model = model_with(method, name, **more, **pretrained).train()
    model(torch.rand(4, 3, 16, 16)).sum().backward()
    encoder = encoder_of(model)
    for key, value in source.state_dict().items():
        assert torch.equal(encoder.network.state_dict()[key], value), key
    assert all(parameter.grad is None for parameter in encoder.parameters())
    with pytest.raises(ModelError, match=r"Small has no weights of ImageNet: set --model\.pretrained to a file"):
        model_with(method, name, pretrained="imagenet")


def test_what_can_not_be_an_encoder_is_refused() -> None:
    for make in (lambda: nn.Identity(), Small()):  # noqa: PLW0108
        with pytest.raises(ModelError, match="can't be named in a checkpoint: define it at the top level of a module"):
            register_encoder(make)
    with pytest.raises(ModelError, match=r"words must make an nn\.Module, and makes a str"):
        model_with("ProtoNet", register_encoder(words))
    with pytest.raises(ModelError, match=r"Vectors can't embed a batch of two images of 3x16x16 \(mat1 and mat2"):
        model_with("ProtoNet", register_encoder(Vectors))
    for name in ("no_such_module.Net", f"{__name__}.Missing"):
        with pytest.raises(ModelError, match=rf"{name} can't be imported \(.*\): check the name\."):
            import_encoder(name)
    with pytest.raises(ModelError, match=r"METHODS must be a class or a function, and is a tuple"):
        import_encoder(f"{__name__}.METHODS")


MODULE = """
from pathlib import Path
from torch import nn

Path("imported").touch()

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1))

    def forward(self, image):
        return self.layers(image)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: Patch) -> Iterator[Callable[[], None]]:
    """A module ``my_networks`` on the path; called, it forgets that the module was imported, as a new process."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")

    def forget() -> None:
        sys.modules.pop("my_networks", None)
        user_network._MAKERS.clear()
        Path("imported").unlink(missing_ok=True)

    yield forget
    forget()


@pytest.mark.long
def test_a_run_trains_resumes_tests_and_exports_and_no_file_imports_it(
    relit: Relit, mine: Callable[[], None], capsys: Output
) -> None:
    model = ("--model=MetricResNet", "--model.encoder=my_networks.Small", "--model.channels=1", "--model.image_size=32")
    shape = ("--model.num_classes=10", "--model.mean=[0]", "--model.std=[1]", "--model.references_per_class=2")
    fit = (*model, *shape, "--data=Digits", "--data.batch_size=16", "--checkpoint.monitor=null", *QUIET, *LIMITS)
    assert relit("fit", *fit, "--trainer.max_epochs=1") == 0
    mine()
    assert relit("fit", *fit, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    run = the_run()
    last = run / "checkpoints" / "last.ckpt"
    assert weights(run)["encoder.network.layers.1.num_batches_tracked"] == 2
    mine()
    assert relit("test", "--config", run / "config.yaml", "--ckpt_path", last) == 0
    mine()
    assert relit("export", run, "--output=net", "--encoder=my_networks.Small") == 0
    mine()
    config = run / "config.yaml"
    limit = "--trainer.limit_predict_batches=1"
    assert relit("predict", "--config", config, "--weights=net.safetensors", limit) == 0

    mine()
    capsys.readouterr()
    told = "The encoder my_networks.Small isn't part of relit, and only you may name it: by --config FILE, by --model"
    for refused in (
        ("test", "--ckpt_path", last),
        ("fit", "--ckpt_path", last, "--trainer.max_epochs=3"),
        ("export", run, "--output=other"),
        ("predict", "--weights=net.safetensors"),
    ):
        assert relit(*refused) == 1
        assert told in capsys.readouterr().err, refused
    for load in (lit_models.MetricResNet.load_from_checkpoint, lit_models.MetricResNet.from_pretrained):
        with pytest.raises((ModelError, RunError), match=r"my_networks\.Small isn't part of relit, and only you may"):
            load(last)
    assert not Path("imported").exists()
    import_encoder("my_networks.Small")
    assert lit_models.MetricResNet.from_pretrained("net.safetensors")(torch.rand(2, 1, 32, 32)).shape == (2, 10)


def test_an_encoder_that_is_not_there_is_one_sentence(relit: Relit, capsys: Output) -> None:
    model = ("--model=ProtoNet", "--model.encoder=no_such.Net", "--data=Digits")
    assert relit("fit", *model) == 1
    assert capsys.readouterr().err == (
        f"relit: The encoder no_such.Net can't be imported (No module named 'no_such', neither installed nor in "
        f"{Path.cwd()} as no_such.py or as a folder no_such of Python files): check the name.\n"
    )
