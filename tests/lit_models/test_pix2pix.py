from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from datamodules import Digits, ImagePair, Maps
from lit_models import Pix2Pix
from lit_models.errors import ModelError
from lit_models.networks import few_pixels
from lit_models.networks.resnet_generator import ResNetGenerator
from tests.lit_models.support.test_authors_weights import AuthorsUNet, by_the_image, shaken
from tests.support.compare import assert_alike
from tests.support.data_modules import set_up
from tests.support.fixtures import Output, Patch, Relit
from tests.support.pairs import write_maps
from tests.support.tiny import CONFIGS, QUIET, assert_same_run, the_run
from tests.support.trainers import Rates, seeded_fit

pytestmark = pytest.mark.filterwarnings("ignore:.* pairs in .*; the data set has:datamodules.DataWarning")


def tiny(**arguments: Any) -> Pix2Pix:
    torch.manual_seed(0)
    defaults = {"image_size": 32, "feature_maps": 2, "discriminator_feature_maps": 2, "patch_size": 16}
    return Pix2Pix(**{**defaults, **arguments})


def pairs(count: int = 2, source_channels: int | None = None) -> ImagePair:
    numbers = torch.Generator().manual_seed(1)
    channels = (source_channels or 3, 3)
    return ImagePair(*(torch.rand(count, number, 32, 32, generator=numbers) for number in channels))


def loader(batches: int, size: int = 2, source_channels: int | None = None) -> DataLoader:
    rows = [ImagePair(*row) for row in zip(*pairs(batches * size, source_channels), strict=True)]
    return DataLoader(rows, batch_size=size, generator=torch.Generator())  # type: ignore[arg-type]


def plain_discriminator_loss(model: Pix2Pix, batch: ImagePair, fake: Tensor) -> Tensor:
    """Half of −mean log σ(D(real)) − mean log(1 − σ(D(fake))), or of the squared distances to 1 and 0."""
    halves = []
    for target, real in ((batch.target * 2 - 1, True), (fake, False)):
        seen = torch.cat([batch.source * 2 - 1, target], 1) if model.conditional else target
        score = model.discriminator(seen)
        if model.loss == "bce":
            probability = 1 / (1 + torch.exp(-score))
            halves.append(-torch.log(probability if real else 1 - probability).mean())
        else:
            halves.append(((score - 1) ** 2 if real else score**2).mean())
    return 0.5 * (halves[0] + halves[1])


def plain_generator_loss(model: Pix2Pix, batch: ImagePair, fake: Tensor) -> Tensor:
    score = model.discriminator(torch.cat([batch.source * 2 - 1, fake], 1) if model.conditional else fake)
    gan = -torch.log(torch.sigmoid(score)).mean() if model.loss == "bce" else ((score - 1) ** 2).mean()
    difference = sum((a - b).abs().sum() for a, b in zip(fake, batch.target * 2 - 1, strict=True))
    return gan + model.lambda_l1 * difference / fake.numel()


METHODS = [
    {"loss": "bce"},
    {"loss": "lsgan", "lambda_l1": 10.0},
    {"conditional": False, "lambda_l1": 0.0},
    {"generator": "resnet", "blocks": 1},
    {"source_channels": 1},
]


@pytest.mark.parametrize("method", METHODS, ids=str)
class TestMethods:
    def test_losses(self, method: dict[str, Any]) -> None:
        model, batch = tiny(**method), pairs(source_channels=method.get("source_channels"))
        for parameter in model.discriminator.parameters():
            nn.init.normal_(parameter, 0, 0.3)
        fake = torch.rand(2, 3, 32, 32) * 2 - 1
        expected = plain_discriminator_loss(model, batch, fake)
        assert model.discriminator_loss(batch, fake).item() == pytest.approx(expected.item(), rel=1e-5)
        losses = model.generator_loss(batch, fake)
        assert losses["loss"].item() == pytest.approx(plain_generator_loss(model, batch, fake).item(), rel=1e-5)
        parts = losses["generator_gan_loss"] + model.lambda_l1 * losses["generator_l1_loss"]
        assert losses["loss"].item() == pytest.approx(parts.item())

    def test_training_equals_a_plain_loop(self, method: dict[str, Any]) -> None:
        """Three steps of batches of two, the learning rate constant as there is one epoch."""
        sgd = {f"{player}_optimizer": lambda p: SGD(p, lr=0.02) for player in ("generator", "discriminator")}
        model = tiny(**method, **sgd, dropout=0.0)
        plain = deepcopy(model)
        batches = loader(3, source_channels=method.get("source_channels"))
        seeded_fit(model, batches)
        optimizers = SGD(plain.generator.parameters(), lr=0.02), SGD(plain.discriminator.parameters(), lr=0.02)
        for batch in batches:
            fake = plain.generator(batch.source * 2 - 1)
            optimizers[1].zero_grad()
            plain_discriminator_loss(plain, batch, fake.detach()).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            plain_generator_loss(plain, batch, fake).backward()
            optimizers[0].step()
        start = tiny(**method).state_dict()
        assert_alike(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(
            model.state_dict()["discriminator.layers.0.weight"], start["discriminator.layers.0.weight"]
        )


def test_networks_that_are_asked_for() -> None:
    assert tiny().discriminator.layers[0].in_channels == 6
    assert tiny(conditional=False).discriminator.layers[0].in_channels == 3
    resnet = tiny(generator="resnet", blocks=3).generator
    assert isinstance(resnet, ResNetGenerator)
    assert sum(isinstance(module, nn.Dropout) for module in resnet.modules()) == 3


def test_a_translation_depends_on_its_source_only() -> None:
    """Not on the batch, nor on chance, unless dropout is asked for; and the model goes on training as before."""
    model = tiny().train()
    for parameter in model.generator.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    source = pairs(3).source
    alone = torch.cat([model.translate(one[None]) for one in source])
    assert torch.allclose(model.translate(source), alone, atol=1e-5)
    assert torch.equal(model.translate(source), model.translate(source))
    assert all(module.training for module in model.modules())
    noisy = tiny(dropout_at_test=True)
    noisy.load_state_dict(model.state_dict())
    assert (noisy.translate(source) - noisy.translate(source)).abs().max() > 0.01
    assert not any(module.training for module in noisy.eval().modules())


@pytest.mark.parametrize("generator", ["unet", "resnet"])
def test_evaluation_in_bf16(generator: str) -> None:
    """Several images at once, of which each is normalized by itself, as near as bf16 goes."""
    model, source = tiny(generator=generator, blocks=1), pairs(3).source
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.translate(source)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, model.translate(source), atol=0.05)


class Casts(TorchDispatchMode):
    """Counts by name how often parameters are made bfloat16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {parameter.data_ptr(): name for name, parameter in module.named_parameters()}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            name = self.names.get(args[0].data_ptr())
            self.counts.update([name] if name else [])
        return func(*args, **kwargs)


def test_the_generators_weights_are_cast_once_a_batch(monkeypatch: Patch) -> None:
    """In layers of few pixels, too. (The discriminator's weights, far fewer, are cast for each of its passes.)"""
    monkeypatch.setattr(few_pixels, "WEIGHTS", 0)
    model = tiny()
    with Casts(model) as casts:
        seeded_fit(model, loader(2, size=1), precision="bf16-mixed")
    of_generator = [name for name, one in model.named_parameters() if one.ndim == 4 and name.startswith("generator.")]
    assert len(of_generator) == 10
    assert {casts.counts[name] for name in of_generator} == {2}


def test_the_learning_rates_fall_over_the_second_half() -> None:
    """The authors' rule, at 4 + 4 epochs: 1 − max(0, epoch + 1 − 4) / 5."""
    rates = Rates()
    seeded_fit(tiny(), loader(1), rates, max_epochs=8)
    expected = [2e-4 * part for part in (1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2)]
    assert rates.all == [pytest.approx([rate, rate]) for rate in expected]
    constant = Rates()
    seeded_fit(tiny(decay_start=1.0), loader(1), constant, max_epochs=3)
    assert constant.all == [[2e-4, 2e-4]] * 3


@pytest.fixture
def maps_root(tmp_path: Path) -> Path:
    write_maps(tmp_path / "data" / "maps", train=6, val=5, height=120)
    return tmp_path / "data"


def small_run(root: Path) -> list[str]:
    return [
        *("--config", str(CONFIGS / "pix2pix_maps_128.yaml"), f"--data.root={root}", "--data.image_size=32"),
        *("--data.load_size=36", "--data.evaluation=resized"),  # the whole picture, as predictions are
        *("--model.image_size=32", "--model.feature_maps=2", "--model.discriminator_feature_maps=2"),
        *("--model.patch_size=16", "--data.eval_batch_size=1", "--trainer.max_epochs=4"),
        *("--trainer.log_every_n_steps=1", "--checkpoint.every_n_steps=4", *QUIET),
    ]


@pytest.mark.long
def test_test_predict_and_a_resumed_run(relit: Relit, maps_root: Path) -> None:
    """A run that is interrupted in mid-epoch, while the learning rate falls, goes on as if nothing had happened;
    ``predict`` writes the images that the test measured, from the prepared pairs as from a folder of photographs."""
    run = small_run(maps_root)
    assert relit("fit", *run, "--run.root=whole") == 0
    stop = ("--trainer.callbacks+=tests.support.tiny.InterruptAt", "--trainer.callbacks.batch=17")
    assert relit("fit", *run, *stop) == 130
    reached = torch.load(the_run() / "checkpoints" / "last.ckpt", weights_only=True)
    assert reached["global_step"] == 16
    assert reached["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(2e-4 * 2 / 3)
    assert relit("fit", *run, "--ckpt_path=last") == 0
    whole = the_run(Path("whole"))
    assert {"triptychs_0001.png", "triptychs_0004.png"} <= {path.name for path in whole.glob("samples/*")}
    assert_same_run(the_run(), whole)

    checkpoint = f"--ckpt_path={whole / 'checkpoints' / 'last.ckpt'}"
    assert relit("test", *run, checkpoint) == 0
    assert relit("predict", checkpoint, "--predictions.folder=pairs") == 0
    data = set_up(Maps(root=str(maps_root), image_size=32), "test")
    Path("photographs").mkdir()
    numbers = (data.test_set.rows + 1).tolist()
    for row, number in enumerate(numbers):
        with Image.open(maps_root / "maps" / "val" / f"{number}.jpg") as pair:
            pair.crop((0, 0, 120, 120)).save(f"photographs/{row}.png")
    pictures = ["--data=Pictures", "--data.path=photographs"]
    assert relit("predict", checkpoint, *pictures, "--predictions.folder=maps") == 0
    model = Pix2Pix.load_from_checkpoint(whole / "checkpoints" / "last.ckpt", weights_only=True)
    for row in range(len(data.test_set)):
        source = data.test_set.__getitems__([row]).source.float() / 255
        expected_image = (model.translate(source)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        for name in (f"pairs/val/{numbers[row]}.png", f"maps/{row}.png"):
            with Image.open(name) as image:
                assert np.array_equal(np.asarray(image), expected_image), name


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_predict_with_the_authors_weights(relit: Relit, precision: str) -> None:
    theirs = shaken(AuthorsUNet(5, 2))
    torch.save(theirs.state_dict(), "latest_net_G.pth")
    Path("photographs").mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photographs/a.png")
    arguments = ["--config", CONFIGS / "pix2pix_maps_64.yaml", "--model.image_size=32", "--model.feature_maps=2"]
    arguments += ["--model.discriminator_feature_maps=2", "--model.patch_size=16", "--trainer.callbacks=null"]
    arguments += ["--model.pretrained=latest_net_G.pth", f"--trainer.precision={precision}"]
    pictures = ["--data=Pictures", "--data.path=photographs", "--data.tile=32", "--predictions.folder=maps"]
    assert relit("predict", *arguments, *pictures) == 0
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    expected = (by_the_image(theirs, image * 2 - 1)[0].permute(1, 2, 0) + 1) / 2 * 255
    with Image.open("maps/a.png") as written:
        assert np.abs(np.asarray(written) - expected.numpy()).max() <= 0.51


@pytest.mark.parametrize("generator", ["unet", "resnet"])
def test_batch_normalization_over_processes_is_refused(
    relit: Relit, maps_root: Path, generator: str, monkeypatch: Patch, capsys: Output
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    arguments = [f"--model.generator={generator}", "--model.blocks=1", "--trainer.sync_batchnorm=true"]
    assert relit("fit", *small_run(maps_root), *arguments) == 1
    sentence = "Pix2Pix normalizes each image by itself in evaluation, which --trainer.sync_batchnorm would undo: leave"
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()


def test_other_data_are_refused(digits_root: Path) -> None:
    model = tiny(channels=1)
    with pytest.raises(ModelError, match="learns from pairs of images, which Digits doesn't give: set --data Paired"):
        seeded_fit(model, Digits(root=str(digits_root)))
