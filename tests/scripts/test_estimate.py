"""Time of a step on paper: operations as counted by hand, and the formula's limits."""

import pytest
import torch
from benchmark.estimate import (
    MEBI,
    Machine,
    Network,
    Operations,
    Work,
    buckets_of,
    efficiencies,
    exchange_seconds,
    measured_machine,
    network_of,
    step_seconds,
)
from torch import nn


def test_operations_of_a_linear_layer() -> None:
    """A product of 5 x 7 and 7 x 3 numbers: 2 · 5 · 7 · 3 operations; of the weights' bytes, none grows with the batch.
    Transposing is none."""
    layer, x = nn.Linear(7, 3, bias=False), torch.ones(5, 7)
    with Operations(layer.parameters()) as counter, torch.no_grad():
        _ = layer(x).relu()
    product, relu = counter.work
    weights = 4 * 3 * 7
    # The transposed weights have another shape than the parameter.
    assert product == Work(210, 4 * 5 * (7 + 3) + weights, 0)
    assert relu == Work(0, 2 * 4 * 5 * 3, 0)
    with Operations(layer.parameters()) as counter, torch.no_grad():
        layer.weight.mul_(2)
    assert counter.work == [Work(0, 0, 2 * weights)]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_convolutions(groups: int, transposed: bool) -> None:
    """An image of 4 channels and 6x6 pixels, 3x3 kernels, 8 channels; two products of the same size backwards."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(4, 8, 3, padding=1, groups=groups, bias=False)
    x = torch.ones(2, 4, 6, 6, requires_grad=True)
    with Operations() as counter:
        layer(x).sum().backward()
    forward = 2 * 2 * 36 * 9 * 4 * 8 // groups
    assert [one.flops for one in counter.work if one.flops] == [forward, 2 * forward]
    layer.weight.requires_grad_(False)
    with Operations() as counter:
        layer(x).sum().backward()
    assert sum(one.flops for one in counter.work) == 2 * forward


def test_the_slowest_part_of_each_operation_counts() -> None:
    machine = Machine(flops=100.0, bandwidth=10.0, start=0.5, loop=3.0)
    arithmetic, memory, small = Work(500, 10, 10), Work(0, 30, 10), Work(1, 1, 0)
    assert step_seconds([arithmetic], machine) == 3 + 5
    assert step_seconds([memory], machine) == 3 + 4
    assert step_seconds([small], machine) == 3 + 0.5
    assert step_seconds([arithmetic, memory, small], machine, batches=4) == 3 + 20 + 13 + 0.5


@pytest.mark.parametrize(("gradients", "buckets"), [(1, 1), (MEBI, 1), (MEBI + 1, 2), (26 * MEBI, 2), (27 * MEBI, 3)])
def test_buckets(gradients: int, buckets: int) -> None:
    assert buckets_of(gradients) == buckets


def test_a_ring_of_processes() -> None:
    """Each of 4 sends three quarters of the gradients twice; a second backward pass sends all of them again."""
    network = Network(bandwidth=1.5 * MEBI, latency=0.1)
    assert exchange_seconds(MEBI, 1, 4, network) == pytest.approx(1.1)
    assert exchange_seconds(MEBI, 2, 4, network) == pytest.approx(2.2)
    assert exchange_seconds(MEBI, 1, 1, network) == pytest.approx(0.1)


def test_communication_hides_behind_half_of_a_step() -> None:
    assert efficiencies(2.0, 1.0) == (2 / 3, 1.0)
    assert efficiencies(2.0, 2.0) == (1 / 2, 2 / 3)


def test_a_network_by_two_all_reduces() -> None:
    true = Network(bandwidth=2e9, latency=1e-4)
    times = [size / true.bandwidth + true.latency for size in (4, 25 * MEBI)]
    found = network_of(*times, (4, 25 * MEBI))
    assert found.bandwidth == pytest.approx(true.bandwidth)
    assert found.latency == pytest.approx(true.latency)


@pytest.mark.long
def test_this_machine() -> None:
    machine = measured_machine(loop=0.004)
    assert 1e9 < machine.flops < 1e14
    assert 1e8 < machine.bandwidth < 1e13
    assert 1e-7 < machine.start < 1e-3
    assert machine.loop == 0.004
