from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from datamodules import Digits, LabeledImages
from lit_models import DARTSRetrain
from lit_models.darts.genotype import DARTS_V1, DARTS_V2, EDGES, OPERATIONS, Genotype, random_genotype
from lit_models.darts.network import AuxiliaryHead, DerivedCell, drop
from tests.support.darts_edgewise import EdgewiseCell
from tests.support.fixtures import Output, Relit
from tests.support.tiny import assert_refused, quick_run, the_run
from tests.support.trainers import quiet_trainer

TINY: dict[str, Any] = {"channels": 1, "init_channels": 2, "layers": 3, "epochs": 4}


# --- the network ------------------------------------------------------------------------------------------------------


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_network_has_3_35_million_parameters() -> None:
    assert parameters(DARTSRetrain(auxiliary_weight=0)) == 3_349_342, "as the authors' code counts them"
    # 128 · 576 + 2 · 128 + 768 · 128 · 4 + 2 · 768 + 768 · 10 + 10
    assert parameters(DARTSRetrain()) == 3_349_342 + 476_426


def derived_cell_and_its_edgewise_twin(
    cell: tuple[tuple[str, int], ...], reduction: bool, reduction_before: bool
) -> tuple[DerivedCell, EdgewiseCell, Tensor]:
    """A cell and the same as a cell of the supernet, in which all weight is on the chosen operations."""
    channels = (6, 8)
    derived = DerivedCell(cell, channels, 4, reduction, reduction_before)
    edgewise = EdgewiseCell(channels, 4, reduction, reduction_before)
    mixture = torch.zeros(14, 8)
    pairs = list(zip(derived.inputs, edgewise.inputs, strict=True))
    for number, (operation, state) in enumerate(cell):
        row = EDGES.index((number // 2, state))
        mixture[row, OPERATIONS.index(operation)] = 1
        pairs.append((derived.operations[number], edgewise.edges[row][OPERATIONS.index(operation)]))
    for ours, theirs in pairs:
        # The supernet's normalization has no factors and biases, which are 1 and 0 in a new network.
        values = {name: value for name, value in ours.state_dict().items() if name in theirs.state_dict()}
        theirs.load_state_dict(values)
    return derived, edgewise, mixture


@pytest.mark.parametrize(
    ("reduction", "reduction_before"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_a_cell_is_the_supernets_with_all_weight_on_the_chosen_operations(
    reduction: bool, reduction_before: bool
) -> None:
    torch.manual_seed(0)
    kept = ("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
    for seed in range(3):
        # Poolings are left out: the supernet normalizes them.
        cell = tuple(
            (operation if operation in kept else kept[number % 5], state)
            for number, (operation, state) in enumerate(random_genotype(seed).normal)
        )
        derived, edgewise, mixture = derived_cell_and_its_edgewise_twin(cell, reduction, reduction_before)
        before_last, last = torch.randn(3, 6, 8, 8), torch.randn(3, 8, 8, 8)
        if reduction_before:
            before_last = torch.randn(3, 6, 16, 16)
        expected = edgewise(before_last, last, mixture)
        found = derived(before_last, last, None)
        assert found.shape == (3, 16, 8 // (1 + reduction), 8 // (1 + reduction))
        assert torch.allclose(found, expected, atol=1e-5)


def test_poolings_by_hand() -> None:
    cell = tuple(("max_pool_3x3" if number % 2 else "avg_pool_3x3", number % 2) for number in range(8))
    derived = DerivedCell(cell, (2, 2), 2, False, False)
    first, second = torch.randn(2, 3, 2, 5, 5)
    inputs = [function(x) for function, x in zip(derived.inputs, (first, second), strict=True)]
    found = derived(first, second, None)
    for row, column in ((0, 0), (2, 3), (4, 4)):
        rows, columns = (slice(max(0, place - 1), place + 2) for place in (row, column))
        expected = inputs[0][..., rows, columns].mean((2, 3)) + inputs[1][..., rows, columns].amax((2, 3))
        assert torch.allclose(found[:, :2, row, column], expected, atol=1e-5)


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.rand(2000, 3, 2, 2) + 1
    result = drop(x, torch.tensor(0.2))
    kept = result.flatten(1).any(1)
    assert 0.77 < float(kept.float().mean()) < 0.83
    assert torch.allclose(result[kept], x[kept] / 0.8)
    assert not result[~kept].any()
    assert torch.equal(drop(x, torch.tensor(0.0)), x)


def test_drop_path_spares_the_identity_and_evaluation() -> None:
    torch.manual_seed(0)
    skip = (("skip_connect", 0), ("skip_connect", 1)) * 4
    derived = DerivedCell(skip, (2, 2), 2, False, False)
    first, second = torch.randn(2, 3, 2, 4, 4)
    assert torch.equal(derived(first, second, torch.tensor(0.9)), derived(first, second, None))
    derived = DerivedCell(DARTS_V2.normal, (2, 2), 2, False, False)
    assert not torch.equal(derived(first, second, torch.tensor(0.9)), derived(first, second, None))
    model = DARTSRetrain(**TINY, auxiliary_weight=0).eval()
    model.drop_path_probability.fill_(0.9)
    image = torch.rand(2, 1, 32, 32)
    assert torch.equal(model(image), model(image))


def test_the_auxiliary_classifier_sees_8x8_as_the_authors_does_and_larger_maps_too() -> None:
    torch.manual_seed(0)
    head = AuxiliaryHead(4, 10).eval()
    feature = torch.randn(2, 4, 8, 8)
    pooled = functional.avg_pool2d(feature.relu(), 5, 3, 0, count_include_pad=False)
    assert pooled.shape[-1] == 2
    code = head[6](head[5](head[3](head[2](pooled)).relu())).relu()
    assert code.shape == (2, 768, 1, 1)
    assert torch.allclose(head(feature), head[10](code.flatten(1)), atol=1e-6)
    assert head(torch.randn(2, 4, 16, 16)).shape == (2, 10)


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_loss_has_the_auxiliary_one_with_its_weight() -> None:
    torch.manual_seed(0)
    model = DARTSRetrain(**TINY, drop_path=0)
    model.log = model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    model._trainer = type("T", (), {"optimizers": model.configure_optimizers()[0]})()  # type: ignore[assignment]
    image, label = torch.rand(4, 1, 32, 32), torch.tensor([1, 2, 3, 4])
    loss = model.training_step(LabeledImages(image, label), 0)
    logits, auxiliary = model.network(image)
    expected = functional.cross_entropy(logits, label) + 0.4 * functional.cross_entropy(auxiliary, label)
    assert torch.allclose(loss, expected)
    assert model.network.eval()(image)[1] is None


def test_the_papers_training(digits_root: Path) -> None:
    """Cosine to 0, clipping at 5, drop-path raised by the epoch, every parameter trained."""
    torch.manual_seed(0)
    model = DARTSRetrain(**TINY, gradient_clip_norm=0.01)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen: list[tuple[float, float, float]] = []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
            norm = torch.stack([p.grad.norm() for p in pl_module.parameters() if p.grad is not None]).norm()
            rate = optimizer.param_groups[0]["lr"]
            seen.append((rate, float(pl_module.drop_path_probability), float(norm)))

    quiet_trainer(
        max_epochs=4,
        callbacks=[Watch()],
        limit_train_batches=1,
        limit_val_batches=0,
        default_root_dir=digits_root / "nowhere",
    ).fit(model, Digits(root=str(digits_root), batch_size=8))
    rates, dropped, _ = zip(*seen, strict=True)
    assert rates == pytest.approx([0.025 * share for share in (1, 0.8535534, 0.5, 0.1464466)])
    assert dropped == pytest.approx([0, 0.05, 0.1, 0.15])
    group = model.optimizers().param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 3e-4)
    change = torch.cat([(p.detach() - before[name]).flatten() for name, p in model.named_parameters()]).norm()
    assert 0 < float(change) < 0.01, "clipped gradients make small steps"
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


FIT = quick_run(
    "darts_retrain_cifar10_small",
    "--data=Digits",
    model={"channels": 1, "init_channels": 2, "layers": 3, "epochs": 1},
    data={"batch_size": 8},
    trainer={"limit_train_batches": 2, "limit_val_batches": 1},
)


def test_a_searchs_genotype_is_trained_and_its_checkpoint_stands_alone(relit: Relit) -> None:
    found = random_genotype(7)
    Path("genotype.json").write_text(found.to_json())
    assert relit("fit", *FIT, "--model.genotype=genotype.json") == 0
    run = the_run()
    assert (run / "genotype.json").read_text() == found.to_json()
    assert (run / "figures" / "cells.png").is_file()
    Path("genotype.json").unlink()
    model = DARTSRetrain.load_from_checkpoint(run / "checkpoints" / "last.ckpt").eval()
    assert model.cells == found
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 10)


def test_named_and_random_genotypes() -> None:
    assert DARTSRetrain(**TINY, genotype="DARTS_V1").cells == DARTS_V1
    assert DARTSRetrain(**TINY).cells == DARTS_V2
    cells = {DARTSRetrain(**TINY, genotype="random", genotype_seed=seed).cells for seed in range(5)}
    assert len(cells) == 5
    assert all(isinstance(one, Genotype) for one in cells)


def test_a_wrong_genotype_is_a_sentence(relit: Relit, capsys: Output) -> None:
    Path("wrong.json").write_text("[]")
    sentence = "The genotype wrong.json must be an object with the keys"
    assert_refused(relit, capsys, "fit", *FIT, "--model.genotype=wrong.json", sentence=sentence)
