"""Cells as DARTS finds them: for each of four nodes two inputs, each with an operation.

A cell has two inputs, states 0 and 1 (the outputs of the two cells before it), and four nodes, states 2 to 5. Node i
gets an edge from every state before it, which makes 14 edges; their order, everywhere, is node by node, and within a
node from state 0 on. The output is the concatenation of the four nodes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_models.errors import ModelError
from lit_models.losses.precision import in_float64

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The candidates on each edge (Liu et al. 2019, section 3.1.1), in the order of α's columns."""
NODES = 4
EDGES = tuple((node, state) for node in range(NODES) for state in range(2 + node))
"""The node (from 0) and the state (from 0) that each edge joins, in the order of α's rows."""
CELLS = ("normal", "reduction")

Cell = tuple[tuple[str, int], ...]
"""Eight pairs of an operation and the state it is applied to: two for each node."""


class Genotype(NamedTuple):
    """The architecture of both kinds of cells.

    Attributes:
        normal: The cell that keeps the size of its input.
        reduction: The cell that halves it, at a third and at two thirds of the depth.
    """

    normal: Cell
    reduction: Cell

    def to_json(self) -> str:
        """As ``{"normal": [["sep_conv_3x3", 0], …], "reduction": […]}``."""
        cells = ",\n".join(f"  {json.dumps(kind)}: {json.dumps(cell)}" for kind, cell in self._asdict().items())
        return f"{{\n{cells}\n}}\n"


# As listed in the authors' code, cnn/genotypes.py.
DARTS_V1 = Genotype(
    normal=(
        *(("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
        *(("skip_connect", 0), ("sep_conv_3x3", 1)),
        *(("skip_connect", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 0), ("skip_connect", 2)),
    ),
    reduction=(
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        *(("skip_connect", 2), ("max_pool_3x3", 0)),
        *(("max_pool_3x3", 0), ("skip_connect", 2)),
        *(("skip_connect", 2), ("avg_pool_3x3", 0)),
    ),
)
"""Found by the paper's first-order search on CIFAR-10."""
DARTS_V2 = Genotype(
    normal=(
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 1), ("skip_connect", 0)),
        *(("skip_connect", 0), ("dil_conv_3x3", 2)),
    ),
    reduction=(
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        *(("skip_connect", 2), ("max_pool_3x3", 1)),
        *(("max_pool_3x3", 0), ("skip_connect", 2)),
        *(("skip_connect", 2), ("max_pool_3x3", 1)),
    ),
)
"""Found by the paper's second-order search on CIFAR-10."""
NAMED = {"DARTS_V1": DARTS_V1, "DARTS_V2": DARTS_V2}


def derive_genotype(normal: Tensor, reduction: Tensor) -> Genotype:
    """The discrete architecture that α stands for (section 2.4): each node keeps the two edges whose best operation has
    the largest weight, and on each the best operation; ``none`` doesn't count.

    Args:
        normal: ``(14, 8)``: α of the normal cells, before the softmax.
        reduction: ``(14, 8)``: α of the reduction cells, before the softmax.
    """
    return Genotype(_derive_cell(normal), _derive_cell(reduction))


def _derive_cell(alpha: Tensor) -> Cell:
    # Edges are compared by their softmax: `none`, though it can't be chosen, takes its share of an edge's weight.
    strength, operation = in_float64(alpha.detach()).softmax(1)[:, 1:].max(1)
    cell: list[tuple[str, int]] = []
    for node in range(NODES):
        rows = [row for row, (receiver, _) in enumerate(EDGES) if receiver == node]
        best = sorted(rows, key=lambda row: -float(strength[row]))[:2]
        cell += [(OPERATIONS[1 + int(operation[row])], EDGES[row][1]) for row in sorted(best)]
    return tuple(cell)


def random_genotype(seed: int) -> Genotype:
    """An architecture drawn uniformly: two different inputs for each node, and any operation but ``none`` on each."""
    generator = torch.Generator().manual_seed(seed)

    def cell() -> Cell:
        pairs: list[tuple[str, int]] = []
        for node in range(NODES):
            states = torch.randperm(2 + node, generator=generator)[:2].sort().values.tolist()
            chosen = torch.randint(1, len(OPERATIONS), (2,), generator=generator).tolist()
            pairs += [(OPERATIONS[operation], state) for operation, state in zip(chosen, states, strict=True)]
        return tuple(pairs)

    return Genotype(cell(), cell())


def read_genotype(name: str, seed: int = 0) -> Genotype:
    """The genotype that a name or a file stands for.

    Args:
        name: ``DARTS_V1``, ``DARTS_V2``, ``random``, the path of a JSON file that a search wrote, or such JSON itself.
        seed: Seed of ``random``.

    Raises:
        ModelError: There is none.
    """
    if name in NAMED:
        return NAMED[name]
    if name == "random":
        return random_genotype(seed)
    try:
        content = json.loads(
            name if name.lstrip().startswith("{") else Path(name).expanduser().read_text(encoding="utf-8")
        )
    except FileNotFoundError as error:
        raise ModelError(
            f"genotype is {name!r}, but there is no such file: give the genotype.json of a search, or one of the names "
            f"{', '.join(NAMED)} and random."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"The genotype {name} can't be read ({error}): give the genotype.json of a search.") from error
    return check_genotype(content, f"The genotype {name}")


def check_genotype(content: Any, what: str) -> Genotype:
    """Makes a genotype of lists, as a JSON file or a checkpoint holds it.

    Args:
        content: ``{"normal": [["sep_conv_3x3", 0], …], "reduction": […]}``.
        what: How error messages call it.

    Raises:
        ModelError: It isn't one.
    """
    if not isinstance(content, dict) or set(content) != set(CELLS):
        raise ModelError(f'{what} must be an object with the keys "normal" and "reduction".')
    return Genotype(*(_checked_cell(content[kind], f"{what}, {kind} cell") for kind in CELLS))


def _checked_cell(pairs: Any, what: str) -> Cell:
    if not isinstance(pairs, Sequence) or len(pairs) != 2 * NODES:
        raise ModelError(f"{what}: it must be a list of {2 * NODES} pairs, two for each of the {NODES} nodes.")
    for number, pair in enumerate(pairs):
        node = number // 2
        place = f"{what}, node {node + 2}"
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ModelError(f"{place}: {json.dumps(pair)} isn't a pair of an operation and a state.")
        operation, state = pair
        if operation not in OPERATIONS[1:]:
            raise ModelError(f"{place}: there is no operation {operation!r}; there are {', '.join(OPERATIONS[1:])}.")
        if type(state) is not int or not 0 <= state < 2 + node:
            raise ModelError(f"{place}: its input is {state!r}, but must be a state before it, 0 to {1 + node}.")
        if number % 2 and state == pairs[number - 1][1]:
            raise ModelError(f"{place}: both of its inputs are state {state}; they must differ.")
    return tuple((operation, state) for operation, state in pairs)
