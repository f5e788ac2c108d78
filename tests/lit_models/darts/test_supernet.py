"""The wide supernet against the same network written edge by edge (tests/support/darts_edgewise.py)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lit_models.darts.supernet import (
    BatchNorm,
    Supernet,
    WideOperations,
    from_grids,
    reduction_layers,
    statistics_kept,
    to_grids,
)
from tests.support.darts_edgewise import EdgewiseSupernet, edgewise_tensors, edgewise_twin

# Arguments of both: images of one channel, 3 classes, 4 channels, and cells of all kinds: a normal cell after the stem,
# a reduction cell after a normal one and one after a reduction cell, and a normal cell after a reduction cell.
SMALL = (1, 3, 4, 4)


def networks() -> tuple[Supernet, EdgewiseSupernet, list[Tensor]]:
    torch.manual_seed(0)
    supernet = Supernet(*SMALL).double()
    with torch.no_grad():
        for buffer in supernet.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        supernet.stem_scale.uniform_(0.5, 1.5)
        supernet.stem_bias.normal_()
    alphas = [torch.randn(14, 8, dtype=torch.float64).requires_grad_() for _ in range(2)]
    return supernet, edgewise_twin(supernet, *SMALL), alphas


# 16 is halved to 4; 12 to 3, where pixels can't be shared out over four grids; 20x12 isn't square.
@pytest.mark.parametrize("size", [(16, 16), (12, 12), (20, 12)], ids=str)
def test_equals_the_edgewise_form_with_its_gradients_and_running_means(size: tuple[int, int]) -> None:
    supernet, edgewise, alphas = networks()
    image, label = torch.randn(3, 1, *size, dtype=torch.float64), torch.tensor([0, 1, 2])
    outputs, gradients = [], []
    for network in (supernet, edgewise):
        logits = network(image, *alphas)
        names, parameters = zip(*network.named_parameters(), strict=True)
        loss = functional.cross_entropy(logits, label)
        found = torch.autograd.grad(loss, [*parameters, *alphas])
        outputs.append(logits.detach())
        gradients.append((dict(zip(names, found, strict=False)), found[-2:]))
    assert outputs[0].std() > 0.01
    assert torch.allclose(*outputs, atol=1e-12)
    (wide, wide_alphas), (plain, plain_alphas) = gradients
    cut = edgewise_tensors(supernet, wide)
    assert cut.keys() == plain.keys()
    for name, gradient in plain.items():
        assert gradient.abs().max() > 1e-8, f"{name} has no gradient"
        assert torch.allclose(cut[name], gradient, atol=1e-12), name
    for ours, theirs in zip(wide_alphas, plain_alphas, strict=True):
        assert theirs.abs().max() > 1e-4
        assert torch.allclose(ours, theirs, atol=1e-12)
    states = edgewise_tensors(supernet, dict(supernet.state_dict()))
    for name, value in edgewise.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(states[name], value, atol=1e-12), name
    supernet.eval()
    with torch.no_grad():
        assert torch.allclose(supernet(image, *alphas), outputs[1], atol=1e-12), "by the statistics of the batch"
        for module in supernet.modules():
            if isinstance(module, BatchNorm):
                module.eval_statistics = "running"
        assert torch.allclose(supernet(image, *alphas), edgewise.eval()(image, *alphas), atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_edges_of_a_state_are_independent(stride: int) -> None:
    """The weight of an operation on one edge reaches the channels of that edge only."""
    torch.manual_seed(0)
    operations = WideOperations(4, 3, stride)
    mixture = torch.rand(3, 8).requires_grad_()
    result = operations(torch.randn(2, 4, 8, 8), mixture)
    assert result.shape == (2, 12, 8 // stride, 8 // stride)
    for edge, part in enumerate(result.split(4, 1)):
        (gradient,) = torch.autograd.grad(part.square().sum(), mixture, retain_graph=True)
        reached = gradient.abs().sum(1) > 0
        assert reached.tolist() == [other == edge for other in range(3)]
        assert gradient[edge, 0] == 0, "none adds nothing"
        assert (gradient[edge, 1:].abs() > 0).all()


def test_grids_hold_every_other_pixel() -> None:
    image = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    grids = to_grids(image)
    for number, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(grids[2 * number : 2 * number + 2], image[..., row::2, column::2])
    assert torch.equal(from_grids(grids), image)


def test_statistics_can_be_kept() -> None:
    torch.manual_seed(0)
    supernet = Supernet(*SMALL)
    alphas = torch.zeros(2, 14, 8)
    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    with statistics_kept(supernet):
        kept = supernet(torch.randn(4, 1, 8, 8), *alphas)
    assert all(torch.equal(buffer, before[name]) for name, buffer in supernet.named_buffers())
    assert kept.isfinite().all()
    supernet(torch.randn(4, 1, 8, 8), *alphas)
    assert not any(torch.equal(buffer, before[name]) for name, buffer in supernet.named_buffers() if "running" in name)


def test_the_papers_size() -> None:
    supernet = Supernet(3, 10, 16, 8)
    assert sum(parameter.numel() for parameter in supernet.parameters()) == 1_930_618, (
        "1.93 million in the authors' log"
    )
    assert [cell.kind == "reduction" for cell in supernet.cells] == [layer in (2, 5) for layer in range(8)]
    assert reduction_layers(20) == {6, 13}


def test_initial_weights_are_spread_as_pytorch_spreads_them() -> None:
    torch.manual_seed(0)
    supernet = Supernet(3, 10, 16, 3)
    values = edgewise_tensors(supernet, dict(supernet.named_parameters()))
    edgewise = EdgewiseSupernet(3, 10, 16, 3)
    for name, parameter in edgewise.named_parameters():
        if parameter.numel() >= 400:
            ours, theirs = (value.detach().abs() for value in (values[name], parameter))
            assert float(ours.mean()) == pytest.approx(float(theirs.mean()), rel=0.2), name
            assert float(ours.max()) == pytest.approx(float(theirs.max()), rel=0.1), name


@pytest.mark.parametrize("size", [8, 12])
def test_bfloat16(size: int) -> None:
    supernet, _, alphas = networks()
    supernet, image = supernet.float(), torch.randn(4, 1, size, size)
    alphas = [alpha.detach().float() for alpha in alphas]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = supernet(image, *alphas)
    assert (logits - supernet(image, *alphas)).abs().max() < 0.1
