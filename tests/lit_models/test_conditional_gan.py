import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import parametrize

from datamodules import LabeledImages, SampleRequest, Samples
from lit_models import ConditionalGAN
from lit_models.callbacks import SampleGrid
from lit_models.callbacks.predictions import PredictionWriter
from lit_models.callbacks.samples import columns_of_classes
from lit_models.errors import ModelError
from lit_models.losses.gan import discriminator_bce, discriminator_hinge
from lit_models.networks.label_maps import LearnedPattern
from lit_models.networks.resnet_gan import ConditionalBatchNorm2d
from lit_models.support.weights import build_model, read_weights
from tests.lit_models.test_adversarial import fit, loader
from tests.support.compare import assert_alike
from tests.support.fixtures import Output, Relit
from tests.support.tiny import CONFIGS, QUIET, the_run
from tests.support.trainers import quiet_trainer

VARIANTS: list[dict[str, Any]] = [
    {"condition": "latent", "discriminator": "concat", "label_encoding": "one_hot"},
    {"condition": "latent", "discriminator": "concat", "label_encoding": "pattern"},
    {"condition": "image", "discriminator": "concat", "label_encoding": "one_hot"},
    {
        "condition": "image",
        "discriminator": "concat",
        "label_encoding": "embedding",
        "spectral_norm": True,
        "loss": "hinge",
    },
    {"condition": "latent", "discriminator": "projection", "spectral_norm": True, "loss": "hinge"},
    {"condition": "image", "discriminator": "projection", "label_encoding": "pattern"},
]


def tiny(**arguments: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    defaults = {"image_size": 16, "num_classes": 5, "latent_dim": 3, "embedding_dim": 4, "feature_maps": 4}
    return ConditionalGAN(**{**defaults, **arguments})


def batch(size: int = 8) -> LabeledImages:
    return LabeledImages(torch.rand(size, 1, 16, 16), torch.arange(size) % 5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
class TestVariants:
    def test_the_label_changes_images_and_judgments(self, variant: dict[str, Any]) -> None:
        model = tiny(**variant)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0, 0.2)

        def sample(label: int) -> torch.Tensor:
            labels = torch.full((4,), label)
            return model.sample(4, labels, torch.Generator().manual_seed(0))

        images = [sample(label) for label in range(5)]
        assert torch.equal(images[2], sample(2))
        assert all((images[i] - images[j]).abs().max() > 1e-3 for i in range(5) for j in range(i))
        model.eval()
        scores = torch.stack([model.discriminator(images[0], torch.full((4,), label)) for label in range(5)])
        assert scores.shape == (5, 4)
        assert (scores.std(0) > 1e-4).all()

    def test_the_loss_that_is_asked_for(self, variant: dict[str, Any]) -> None:
        model, data, fake = tiny(**variant).eval(), batch(), torch.rand(8, 1, 16, 16)
        scores = model.discriminator(data.image * 2 - 1, data.label), model.discriminator(fake, data.label)
        function = discriminator_hinge if variant.get("loss") == "hinge" else discriminator_bce
        assert torch.equal(model.discriminator_loss(data, fake), function(*scores))


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_a_matching_aware_discriminator_sees_real_images_of_wrong_classes(loss: Literal["bce", "hinge"]) -> None:
    """Image by image: the real pairs count in full, the two kinds of fakes half each (Reed et al., GAN-CLS)."""
    model, data, fake = tiny(loss=loss, matching_aware=True).eval(), batch(), torch.rand(8, 1, 16, 16)
    seen: list[torch.Tensor] = []
    hook = model.discriminator.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    value = model.discriminator_loss(data, fake)
    hook.remove()
    wrong = seen[-1]
    assert ((wrong != data.label) & (wrong >= 0) & (wrong < 5)).all()
    expected = 0.0
    for i in range(8):
        label, other = data.label[i : i + 1], wrong[i : i + 1]
        pairs = (
            (data.image[i : i + 1] * 2 - 1, label),
            (fake[i : i + 1], label),
            (data.image[i : i + 1] * 2 - 1, other),
        )
        real, generated, mismatched = (model.discriminator(*pair).item() for pair in pairs)
        if loss == "hinge":
            terms = max(0, 1 - real), max(0, 1 + generated), max(0, 1 + mismatched)
        else:
            terms = math.log1p(math.exp(-real)), math.log1p(math.exp(generated)), math.log1p(math.exp(mismatched))
        expected += (terms[0] + terms[1] / 2 + terms[2] / 2) / 8
    assert math.isclose(float(value), expected, rel_tol=1e-5)


def test_every_wrong_class_is_shown_and_none_more_often() -> None:
    model = tiny(matching_aware=True)
    data = LabeledImages(torch.zeros(1, 1, 16, 16).expand(4000, -1, -1, -1), torch.full((4000,), 3))
    seen: list[torch.Tensor] = []
    model.discriminator = nn.Module()
    model.discriminator.forward = lambda image, label: (seen.append(label), image.mean((1, 2, 3)))[1]  # type: ignore[method-assign]
    model.discriminator_loss(data, data.image)
    counts = torch.bincount(seen[-1], minlength=5)
    assert counts[3] == 0
    assert ((counts[[0, 1, 2, 4]] - 1000).abs() < 150).all()


def test_the_projection_is_the_papers() -> None:
    """ψ(φ(x)) + e_y · φ(x), image by image."""
    model = tiny(discriminator="projection").eval()
    network, data = model.discriminator, batch()
    for i in range(8):
        feature = network.features(data.image[i : i + 1])[0].sum((1, 2))
        linear = network.unconditional
        expected = (linear.weight[0] * feature).sum() + linear.bias[0]
        expected = expected + (network.embedding.weight[data.label[i]] * feature).sum()
        assert torch.allclose(network(data.image, data.label)[i], expected, atol=1e-6)


def test_what_is_spectrally_normalized() -> None:
    def names(model: ConditionalGAN) -> set[str]:
        modules = model.discriminator.named_modules()
        return {name for name, module in modules if parametrize.is_parametrized(module, "weight")}

    assert names(tiny(discriminator="projection", spectral_norm=True)) == {
        *("features.0", "features.2", "unconditional", "embedding")
    }
    assert names(tiny(spectral_norm=True)) == {"body.layers.0", "body.layers.2", "body.layers.4"}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in tiny(spectral_norm=True).discriminator.modules())
    assert names(tiny()) == set()
    assert any(isinstance(m, nn.BatchNorm2d) for m in tiny().discriminator.modules())


@pytest.mark.parametrize("encoding", ["one_hot", "embedding"])
@pytest.mark.parametrize("condition", ["latent", "image"])
def test_the_label_enters_as_constant_maps(encoding: str, condition: str) -> None:
    """The first convolution of an image and constant maps, by numpy."""
    model = tiny(label_encoding=encoding, condition=condition)
    networks = [(model.discriminator, model.discriminator.body.layers[0], torch.rand(5, 1, 16, 16))]
    if condition == "image":
        networks.append((model.generator, model.generator.painter[0], torch.rand(5, 2, 16, 16)))
    for network, convolution, image in networks:
        code = np.eye(5) if encoding == "one_hot" else network.label_channel.embedding.weight.detach().numpy()
        assert code.shape == (5, 5 if encoding == "one_hot" else 4)
        for label in range(5):
            maps = np.stack([np.full((16, 16), component) for component in code[label]])
            joined = np.concatenate([image[label].numpy(), maps]).astype(np.float32)
            assert convolution.in_channels == len(joined)
            seen: list[torch.Tensor] = []
            hook = convolution.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
            if network is model.discriminator:
                network(image[label : label + 1], torch.tensor([label]))
            else:
                network.decoder.forward = lambda _, image=image, label=label: image[label : label + 1]
                network.eval()(torch.zeros(1, 3), torch.tensor([label]))
            hook.remove()
            assert np.array_equal(seen[0][0].detach().numpy(), joined)


def test_label_maps_follow_the_networks_precision() -> None:
    model = tiny(condition="image").to(torch.bfloat16)
    image = model.generator(torch.rand(5, 3, dtype=torch.bfloat16), torch.arange(5))
    assert image.dtype == model.discriminator(image, torch.arange(5)).dtype == torch.bfloat16


@pytest.mark.parametrize("condition", ["latent", "image"])
def test_checkpoints_without_an_encoding_are_read_as_patterns(condition: str, tmp_path: Path) -> None:
    """Checkpoints, and settings, from before the argument existed."""
    old = tiny(label_encoding="pattern", condition=condition, ema_decay=0.9)
    fit(old, 2).save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"].pop("label_encoding") == "pattern"
    torch.save(checkpoint, tmp_path / "old.ckpt")
    new = ConditionalGAN.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert new.hparams["label_encoding"] == "pattern"
    assert_alike(new.state_dict(), old.state_dict())
    images = [m.sample(5, generator=torch.Generator().manual_seed(0)) for m in (old, new)]
    assert torch.equal(*images)
    resumed = tiny(condition=condition, ema_decay=0.9)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(resumed, loader(2), ckpt_path=tmp_path / "old.ckpt")
    assert trainer.global_step == 4
    assert not torch.equal(resumed.discriminator.body.layers[0].weight, old.discriminator.body.layers[0].weight)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    again = ConditionalGAN.load_from_checkpoint(tmp_path / "new.ckpt", weights_only=True)
    assert isinstance(again.discriminator.label_channel, LearnedPattern)


def test_the_shipped_weights_draw_different_images_of_a_digit() -> None:
    path = Path(__file__).parents[2] / "weights" / "conditional_gan_mnist.safetensors"
    model = build_model(read_weights(path), path)
    images = model.sample(16, 4, torch.Generator().manual_seed(0)).flatten(1)
    assert torch.pdist(images).mean() > 6  # 8.8 between real images of a class; 3.0 by a generator that ignores z


def test_samples_take_the_classes_in_turn() -> None:
    model = tiny()
    images = model.sample(7, generator=torch.Generator().manual_seed(0))
    assert images.shape == (7, 1, 16, 16)
    assert 0 <= images.min() <= images.max() <= 1
    classes = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert torch.equal(images, model.sample(7, classes, torch.Generator().manual_seed(0)))


def test_predictions_take_the_classes_in_turn_over_all_batches() -> None:
    model, number = tiny(), torch.arange(13, 17)
    request = SampleRequest(number, torch.full((4,), -1), torch.zeros(4, dtype=torch.long))
    expected = model.sample(4, torch.tensor([3, 4, 0, 1]), request.generator())
    assert torch.equal(model.predict_step(request, 0), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 5], "no class 5: the labels go from 0 to 4"),
        ([-1, 2], "no class -1"),
        ([1], "2 images need one label or 2 labels, not 1"),
        ([[0, 1]], "one label or 2 labels, not 1 x 2"),
        (1.0, "torch.float32; classes are integers"),
        ([True, False], "torch.bool; classes are integers"),
    ],
)
def test_wrong_labels_are_refused(labels: Any, message: str) -> None:
    for given in (labels, torch.tensor(labels)):
        with pytest.raises(ModelError, match=message):
            tiny().sample(2, given)


@pytest.mark.parametrize("labels", [[[0], [1, 2]], "12", {0: 1}, [0, None]])
def test_labels_of_the_wrong_kind_are_refused(labels: Any) -> None:
    with pytest.raises(ModelError, match=r"labels are .* must be one class, or a flat list of 2"):
        tiny().sample(2, labels)


def test_labels_are_a_number_a_list_or_a_tensor() -> None:
    model = tiny()

    def images(labels: Any) -> torch.Tensor:
        return model.sample(3, labels, torch.Generator().manual_seed(0))

    expected = images(torch.tensor([4, 4, 4]))
    for labels in (4, [4, 4, 4], (4, 4, 4), torch.tensor(4), torch.tensor([4, 4, 4], dtype=torch.uint8), np.int64(4)):
        assert torch.equal(images(labels), expected)
    assert not torch.equal(images([4, 0, 4]), expected)
    assert model.sample(0).shape == model.sample(0, []).shape == (0, 1, 16, 16)


def test_columns_of_the_grid_are_classes(tmp_path: Path) -> None:
    """A column per class by default, in the grids of training and in the order of ``relit predict``."""
    assert SampleGrid(count=7).labels(tiny()).tolist() == [0, 1, 2, 3, 4, 0, 1]
    grid = SampleGrid(count=11)
    fit(tiny(), 2, grid, default_root_dir=tmp_path)
    assert Image.open(tmp_path / "samples" / "epoch_0001.png").size == (5 * 18 + 2, 3 * 18 + 2)
    assert [columns_of_classes(classes) for classes in (0, 1, 2, 10, 32, 33)] == [8, 8, 2, 10, 32, 8]


@pytest.mark.parametrize(
    ("labels", "columns", "expected"), [(None, None, 5), ([3, 1], None, 2), (4, None, 8), ([3, 1], 3, 3)]
)
def test_columns_of_predicted_grids(labels: Any, columns: int | None, expected: int, tmp_path: Path) -> None:
    model, data = tiny(), Samples(count=12, labels=labels)
    writer = PredictionWriter(str(tmp_path), grid=True, columns=columns)
    trainer = quiet_trainer(callbacks=[writer])
    trainer.predict(model, data, return_predictions=False)
    grid = torch.from_numpy(np.array(Image.open(tmp_path / "grid.png"))).float()[..., 0] / 255
    assert grid.shape == (-(-12 // expected) * 18 + 2, expected * 18 + 2)
    classes = [0, 1, 2, 3, 4] if labels is None else [labels] if isinstance(labels, int) else labels
    wanted = torch.tensor([classes[i % len(classes)] for i in range(12)])
    images = model.sample(12, wanted, torch.Generator().manual_seed(0))
    for i in (0, 1, expected, 11):
        y, x = (18 * place + 2 for place in divmod(i, expected))
        assert (grid[y : y + 16, x : x + 16] - images[i, 0]).abs().max() < 1 / 255


def test_the_projections_embedding_is_glorots() -> None:
    """Uniform within √(6 / (classes + features)) (Glorot & Bengio 2010), as the authors' code has it."""
    weight = tiny(discriminator="projection", feature_maps=64, num_classes=50).discriminator.embedding.weight
    assert weight.shape == (50, 128)
    bound = (6 / (50 + 128)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


SMALL = (
    *("--config", CONFIGS / "conditional_gan_digits.yaml", "--model.feature_maps=2", "--model.latent_dim=3"),
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1", *QUIET),
)


@pytest.mark.long
def test_from_a_run_to_25_samples_of_one_digit(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *SMALL) == 0
    grid = Image.open(the_run() / "samples" / "epoch_0001.png")
    assert grid.size == (10 * 34 + 2, 10 * 34 + 2)
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    predict = ["predict", f"--ckpt_path={checkpoint}", "--data=Samples", "--trainer.enable_progress_bar=false"]
    grid_of_5 = ["--predictions.grid=true", "--predictions.columns=5"]
    assert relit(*predict, "--data.count=25", "--data.labels=4", *grid_of_5) == 0
    grid = Image.open(the_run() / "predictions" / "grid.png")
    assert grid.size == (5 * 34 + 2, 5 * 34 + 2)
    model = ConditionalGAN.load_from_checkpoint(checkpoint, map_location="cpu")
    first = model.sample(25, torch.full((25,), 4), torch.Generator().manual_seed(0))[0, 0]
    assert np.abs(np.asarray(grid)[2:34, 2:34, 0] / 255 - first.numpy()).max() < 1 / 255

    capsys.readouterr()
    assert relit(*predict, "--data.labels=[12]") == 1
    assert "There is no class 12: the labels go from 0 to 9." in capsys.readouterr().err
    assert relit(*predict, "--data.labels=[-4]") == 1
    assert "labels holds -4" in capsys.readouterr().err


RESNET: dict[str, Any] = {
    "architecture": "resnet", "image_size": 32, "discriminator": "projection", "spectral_norm": True, "loss": "hinge",
}  # fmt: skip


def test_resnet_has_conditional_batch_norm_and_a_projection() -> None:
    torch.manual_seed(0)
    model = ConditionalGAN(channels=3, num_classes=3, latent_dim=4, feature_maps=2, **RESNET)
    batch = LabeledImages(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 2]))
    fake = model.generate(batch)
    assert fake.shape == (4, 3, 32, 32)
    model.discriminator_loss(batch, fake.detach()).backward()
    model.generator_loss(batch, fake).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    norms = [m for m in model.generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
    assert len(norms) == 6, "two in each block; the last one is plain"
    with torch.no_grad():
        norms[0].shift.weight[1] += 1
    latent = torch.randn(1, 4).expand(2, 4)
    with torch.no_grad():
        of_each = model.generator.eval()(latent, torch.tensor([0, 1]))
    assert not torch.allclose(*of_each)


def test_fresh_latents_come_with_fresh_classes() -> None:
    torch.manual_seed(0)
    model = ConditionalGAN(image_size=16, num_classes=3, latent_dim=2, feature_maps=2)
    batch = LabeledImages(torch.rand(300, 1, 16, 16), torch.zeros(300, dtype=torch.long))
    again = model.redrawn(batch)
    assert again.image is batch.image
    assert torch.bincount(again.label, minlength=3).min() > 60
    assert len(again.label.unique()) == 3
