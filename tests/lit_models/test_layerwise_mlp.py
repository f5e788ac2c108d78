import math
import os
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import Codes, Digits, LabeledImages
from lit_models import LayerwiseMLP
from lit_models.errors import RunError
from lit_models.layerwise_mlp import MLP, Decoder, mask
from lit_models.support import phase_data
from lit_models.support.phase_data import allocate_codes
from tests.support.data_modules import digits_of
from tests.support.fixtures import Patch
from tests.support.trainers import Rates, quiet_trainer, trainer_of

# Layers of 2 epochs each and 3 of fine-tuning, 10 batches each.
TINY: dict[str, Any] = {
    "image_size": 32,
    "channels": 1,
    "widths": [12, 8, 6],
    "code_layer": 2,
    "pretrain_epochs": 2,
    "finetune_epochs": 3,
}


def batch_of(model: LayerwiseMLP, size: int = 5) -> LabeledImages:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(size, *model.image_shape, generator=generator)
    return LabeledImages(image, torch.randint(model.num_classes, (size,), generator=generator))


def trained(root: Path, model: LayerwiseMLP, *callbacks: Callback, **trainer: Any) -> LayerwiseMLP:
    quiet_trainer(
        max_epochs=model.planned_epochs, callbacks=list(callbacks), use_distributed_sampler=False, **trainer
    ).fit(model, Digits(root=str(root), batch_size=128))
    return model


# --- the networks -----------------------------------------------------------------------------------------------------


def test_a_classifier_of_the_size_for_stl10() -> None:
    model = LayerwiseMLP(pretrain_epochs=0)
    shapes = [tuple(parameter.shape) for name, parameter in model.named_parameters() if name.endswith("weight")]
    widths = [27_648, 1024, 1000, 500, 256, 128, 64, 10]
    assert shapes == [(width, below) for below, width in pairwise(widths)]
    assert model.embed(torch.rand(2, 3, 96, 96)).shape == (2, 256)
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 10)


def test_forward_by_plain_loops() -> None:
    torch.manual_seed(0)
    mlp = MLP(12, [5, 4], num_classes=3, dropout=0.5, contrast_normalization=True).eval()
    image = torch.rand(2, 3, 2, 2)
    for logits, pixels in zip(mlp(image), image, strict=True):
        code = pixels.flatten().tolist()
        mean = sum(code) / 12
        std = math.sqrt(sum((value - mean) ** 2 for value in code) / 12 + 10 / 255**2)
        code = [(value - mean) / std for value in code]
        for layer in [*mlp.layers, mlp.head]:
            weight, bias = layer.weight.tolist(), layer.bias.tolist()
            code = [sum(w * c for w, c in zip(row, code, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
            if layer is not mlp.head:
                code = [max(value, 0.0) for value in code]
        assert np.allclose(logits.tolist(), code, atol=1e-5)


def test_contrast_normalization_can_be_left_out() -> None:
    image = torch.rand(4, 1, 3, 3)
    plain = MLP(9, [2], 2, dropout=0.0, contrast_normalization=False)
    assert torch.equal(plain.input(image), image.flatten(1))
    normalized = MLP(9, [2], 2, dropout=0.0, contrast_normalization=True)
    assert torch.allclose(normalized.input(image), normalized.input(0.5 * image + 0.2), atol=0.02)
    assert normalized.input(torch.full((1, 1, 3, 3), 0.7)).abs().max() < 1e-4, "a flat image stays flat"


def test_dropout_is_for_fine_tuning_only() -> None:
    torch.manual_seed(0)
    mlp = MLP(4, [1000, 900], 2, dropout=0.2, contrast_normalization=False)
    image = torch.rand(3, 1, 2, 2)
    assert not torch.equal(mlp(image), mlp(image))
    assert torch.equal(mlp.encode(image, 2), mlp.encode(image, 2)), "codes for pretraining have none"
    with torch.no_grad():
        mlp.layers[0].bias.fill_(100.0)
        mlp.layers[1].weight.copy_(torch.eye(900, 1000))
        mlp.layers[1].bias.zero_()
        mlp.head.weight.fill_(1 / 900)
        before = mlp.eval()(image)[0, 0].item()
        after = mlp.train()(image)[0, 0].item()
    # A unit comes through both layers with probability 0.8², and then counts 1 / 0.8² times.
    assert after == pytest.approx(before, rel=0.1)
    assert after != before


# --- pretraining a layer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_reconstruction_loss_by_numpy(layer: int, tied: bool) -> None:
    torch.manual_seed(0)
    model = LayerwiseMLP(**{**TINY, "tied_weights": tied})
    batch = batch_of(model)
    code = batch.image.flatten(1).double().numpy()
    code = (code - code.mean(1, keepdims=True)) / np.sqrt(code.var(1, keepdims=True) + 10 / 255**2)
    for below in range(layer - 1):
        encoder = model.mlp.layers[below]
        code = np.maximum(code @ encoder.weight.detach().numpy().T + encoder.bias.detach().numpy(), 0)
    encoder, decoder = model.mlp.layers[layer - 1], model.decoders[layer - 1]
    torch.nn.init.normal_(decoder.bias)
    hidden = np.maximum(code @ encoder.weight.detach().numpy().T + encoder.bias.detach().numpy(), 0)
    back = encoder.weight.detach().numpy().T if tied else decoder.weight.detach().numpy()
    expected = ((hidden @ back.T + decoder.bias.detach().numpy() - code) ** 2).mean()
    assert model.reconstruction_loss(batch, layer).item() == pytest.approx(expected, rel=1e-4)
    codes = Codes(torch.from_numpy(code).float())
    assert model.reconstruction_loss(codes, layer).item() == pytest.approx(expected, rel=1e-4)


def test_a_sigmoid_decoder_of_the_first_layer_tells_the_pixels_by_cross_entropy() -> None:
    torch.manual_seed(0)
    model = LayerwiseMLP(**{**TINY, "decoder": "sigmoid"})
    batch = batch_of(model)
    with torch.no_grad():
        logits = model.decoders[0](model.mlp.encode(batch.image, 1), model.mlp.layers[0]).double().numpy()
    told, pixels = 1 / (1 + np.exp(-logits)), batch.image.flatten(1).double().numpy()
    expected = -(pixels * np.log(told) + (1 - pixels) * np.log(1 - told)).mean()
    assert model.reconstruction_loss(batch, 1).item() == pytest.approx(expected, rel=1e-5)
    linear = LayerwiseMLP(**TINY)
    linear.load_state_dict(model.state_dict())
    assert torch.equal(model.reconstruction_loss(batch, 2), linear.reconstruction_loss(batch, 2))


def test_masking_noise() -> None:
    torch.manual_seed(0)
    code = torch.rand(200, 500) + 1
    masked = mask(code, 0.25)
    kept = masked != 0
    assert torch.equal(masked[kept], code[kept]), "what is kept isn't scaled"
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.01)
    assert kept.float().mean(0).std() < 0.05, "each component is drawn apart"
    assert mask(code, 0.0) is code


def test_the_denoising_autoencoder_reconstructs_clean_codes_and_is_judged_without_noise() -> None:
    torch.manual_seed(0)
    model = LayerwiseMLP(**{**TINY, "mask_fraction": 0.4})
    codes = Codes(torch.rand(6, 12))
    encoder, decoder = model.mlp.layers[1], model.decoders[1]
    torch.manual_seed(3)
    loss = model.reconstruction_loss(codes, 2)
    torch.manual_seed(3)
    corrupted = mask(codes.code, 0.4)
    assert not torch.equal(corrupted, codes.code)
    expected = (decoder(encoder(corrupted).relu(), encoder) - codes.code).square().mean()
    assert torch.allclose(loss, expected)
    model.eval()
    clean = (decoder(encoder(codes.code).relu(), encoder) - codes.code).square().mean()
    assert torch.allclose(model.reconstruction_loss(codes, 2), clean)


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_learns_in_its_phases_and_in_no_other(tied: bool) -> None:
    torch.manual_seed(0)
    model = LayerwiseMLP(**{**TINY, "tied_weights": tied, "dropout": 0.0, "widths": [40, 30, 20]})
    batch = batch_of(model, 50)
    optimizers = model.configure_optimizers()
    assert len(optimizers) == 4
    learning = []
    for layer in (1, 2, 3, None):
        model.zero_grad()
        loss = (
            torch.nn.functional.cross_entropy(model(batch.image), batch.label)
            if layer is None
            else model.reconstruction_loss(batch, layer)
        )
        loss.backward()
        learning.append({name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0})
        held = {id(p) for group in optimizers[-1 if layer is None else layer - 1].param_groups for p in group["params"]}
        assert {name for name, p in model.named_parameters() if id(p) in held} == learning[-1]
    for number, names in enumerate(learning[:3]):
        decoder = ["bias"] if tied else ["bias", "weight"]
        assert names == {
            *(f"mlp.layers.{number}.{kind}" for kind in ("weight", "bias")),
            *(f"decoders.{number}.{kind}" for kind in decoder),
        }
    assert learning[3] == {name for name, _ in model.named_parameters() if name.startswith("mlp.")}
    assert set.union(*learning) == {name for name, _ in model.named_parameters()}


def test_a_decoder_starts_as_its_layers_transpose_but_is_its_own() -> None:
    layer = torch.nn.Linear(30, 40)
    decoder = Decoder(layer, tied_weights=False)
    assert decoder.weight is not None
    assert torch.equal(decoder.weight, layer.weight.T)
    with torch.no_grad():
        decoder.weight.zero_()
    assert layer.weight.any()
    assert not decoder.bias.any()


def test_pretraining_a_narrow_layer_turns_no_unit_off(digits_root: Path) -> None:
    """With random decoders, all twelve units are off for all images after the first epoch."""
    torch.manual_seed(0)
    model = trained(digits_root, LayerwiseMLP(**TINY), StopAfter(epochs=2))
    image = digits_of(digits_root, "train", 300).image
    assert (model.mlp.encode(image, 1) > 0).any(0).all()
    assert model.eval().reconstruction_loss(LabeledImages(image, torch.zeros(0)), 1) < 0.6, (
        "with all units off it is 0.97"
    )


def test_optimizers_are_adam_at_1e_3() -> None:
    for optimizer in LayerwiseMLP(**TINY).configure_optimizers():
        assert isinstance(optimizer, torch.optim.Adam)
        assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-3, 0)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_the_plan() -> None:
    model = LayerwiseMLP(**TINY)
    assert model.planned_epochs == 9
    assert [model.layer_at(epoch) for epoch in range(9)] == [1, 1, 2, 2, 3, 3, None, None, None]
    scratch = LayerwiseMLP(**{**TINY, "pretrain_epochs": 0})
    assert scratch.planned_epochs == 3
    assert [scratch.layer_at(epoch) for epoch in range(3)] == [None] * 3
    assert len(scratch.decoders) == 0


def test_the_control_starts_from_the_same_weights() -> None:
    states = []
    for epochs in (0, 2):
        torch.manual_seed(5)
        states.append(LayerwiseMLP(**{**TINY, "pretrain_epochs": epochs}).mlp.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class StopAfter(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


class Watch(Callback):
    """Keeps the weights after each epoch, and what the batches were."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.kinds: list[set[str]] = []
        self.moments: list[list[int]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kinds.append(set())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.kinds[-1].add(f"{type(batch).__name__} {tuple(batch[0].shape[1:])}")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self.kinds[-1].add(f"val {type(batch).__name__} {tuple(batch[0].shape[1:])}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append(deepcopy(pl_module.state_dict()))
        self.moments.append([len(optimizer.state) for optimizer in trainer.optimizers])


def test_each_phase_trains_its_layer_on_cached_codes_and_leaves_the_others_alone(digits_root: Path) -> None:
    watch = Watch()
    torch.manual_seed(0)
    model = LayerwiseMLP(**TINY)
    start = deepcopy(model.state_dict())
    trained(digits_root, model, watch, check_val_every_n_epoch=1)
    images, codes = "LabeledImages (1, 32, 32)", {2: "Codes (12,)", 3: "Codes (8,)"}
    for epoch, (kinds, state) in enumerate(zip(watch.kinds, watch.states, strict=True)):
        layer = model.layer_at(epoch)
        kind = codes.get(layer or 0, images)
        assert kinds == {kind, f"val {kind}"}
        before = watch.states[epoch - 1] if epoch else start
        changed = {name for name in state if not torch.equal(state[name], before[name])}
        pretrained = {f"mlp.layers.{(layer or 0) - 1}.", f"decoders.{(layer or 0) - 1}."}
        expected = {name for name in state if name.startswith("mlp." if layer is None else tuple(pretrained))}
        assert changed == expected
    assert watch.moments[1] == [4, 0, 0, 0]
    assert watch.moments[3] == [0, 4, 0, 0], "the moments of a phase that is over are let go"
    assert watch.moments[8] == [0, 0, 0, 8]


def test_cached_codes_change_nothing_but_the_speed(digits_root: Path) -> None:
    states = []
    for cached in (True, False):
        torch.manual_seed(0)
        states.append(
            trained(digits_root, LayerwiseMLP(**{**TINY, "cache_codes": cached, "dropout": 0.0})).state_dict()
        )
    torch.manual_seed(0)
    start = LayerwiseMLP(**TINY).state_dict()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-4), name
        assert not torch.allclose(value, start[name], atol=1e-3), f"{name} was not trained"


def test_codes_in_a_file_change_nothing_and_leave_nothing(
    digits_root: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    states = []
    for limit in (1 << 30, 100):
        monkeypatch.setattr(phase_data, "LARGEST_IN_MEMORY", limit)
        torch.manual_seed(0)
        states.append(trained(digits_root, LayerwiseMLP(**TINY), default_root_dir=tmp_path).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_are_allocated_in_memory_or_in_a_file(tmp_path: Path, monkeypatch: Patch, dtype: torch.dtype) -> None:
    in_memory = allocate_codes((3, 5), dtype, torch.device("cpu"), tmp_path / "none")
    assert (in_memory.shape, in_memory.dtype) == ((3, 5), dtype)
    monkeypatch.setattr(phase_data, "LARGEST_IN_MEMORY", 0)
    mapped = allocate_codes((3, 5), dtype, torch.device("cpu"), tmp_path)
    assert (mapped.shape, mapped.dtype) == ((3, 5), dtype)
    values = torch.randn(3, 5).to(dtype)
    mapped[:2] = values[:2]
    mapped[2:] = values[2:]
    assert torch.equal(mapped.index_select(0, torch.tensor([2, 0])), values[[2, 0]])
    with pytest.raises(RunError, match=r"GiB of codes can't be written to .*none"):
        allocate_codes((3, 5), dtype, torch.device("cpu"), tmp_path / "none")


def test_augmented_images_are_cached_plain(tmp_path: Path, digits_root: Path) -> None:
    """The codes are those of the images as they are, though the trainer is in training."""
    model = LayerwiseMLP(**TINY)

    class Inverted(Digits):
        def augment(self, batch: LabeledImages) -> LabeledImages:
            return batch._replace(image=1 - batch.image)

    class Compare(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            images = Digits(root=str(digits_root))
            images.setup("fit")
            rows = next(iter(trainer.train_dataloader.batches.epoch(trainer.current_epoch)))
            plain = images.transform(images.train_set.__getitems__(rows), training=False)
            if batch_idx == 0 and trainer.current_epoch < 2:
                assert torch.allclose(batch.image, 1 - plain.image)
            elif batch_idx == 0 and trainer.current_epoch == 2:
                assert torch.allclose(batch.code, model.mlp.encode(plain.image, 1), atol=1e-5)
                raise KeyboardInterrupt

    trainer = quiet_trainer(max_epochs=9, callbacks=[Compare()])
    with pytest.raises(SystemExit):
        trainer.fit(model, Inverted(root=str(digits_root), batch_size=128))


def test_without_our_data_modules_the_layers_below_run_again(digits_root: Path) -> None:
    plain = digits_of(digits_root, "train", 64)
    batches = [LabeledImages(plain.image[rows], plain.label[rows]) for rows in torch.arange(64).split(16)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    model = LayerwiseMLP(**{**TINY, "pretrain_epochs": 1, "finetune_epochs": 1})
    before = deepcopy(model.state_dict())
    trainer = quiet_trainer(max_epochs=4)
    trainer.fit(model, loader)
    assert not any(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_schedule_is_for_fine_tuning(digits_root: Path) -> None:
    model = LayerwiseMLP(**TINY, finetune_schedule="cosine")
    rates = Rates()
    trained(digits_root, model, rates, limit_train_batches=1)
    assert [rate[-1] for rate in rates.all] == pytest.approx([1e-3] * 7 + [7.5e-4, 2.5e-4])
    assert all(rate[:3] == [1e-3] * 3 for rate in rates.all)


def test_bfloat16_codes_take_half_the_memory(digits_root: Path) -> None:
    types = []

    class Types(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            types.append(batch[0].dtype)

    model = trained(digits_root, LayerwiseMLP(**TINY), Types(), precision="bf16-mixed", limit_train_batches=1)
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 4 + [torch.float32] * 3
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# --- two processes, and one that is killed ----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(200)
def test_two_ranks_with_unequal_shares_measure_what_one_process_measures(digits_root: Path) -> None:
    class Seven(Digits):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            self.test_set.rows = cast(Tensor, self.test_set.rows)[:7]

    torch.manual_seed(0)
    model = LayerwiseMLP(**TINY)
    results = []
    for devices in (1, 2):
        results.append(trainer_of(devices).test(model, Seven(root=str(digits_root), batch_size=3), verbose=False)[0])
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert 0 < results[0]["test/accuracy"] < 1
