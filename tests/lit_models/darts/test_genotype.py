import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_models.darts.genotype import (
    DARTS_V1,
    DARTS_V2,
    OPERATIONS,
    Genotype,
    check_genotype,
    derive_genotype,
    random_genotype,
    read_genotype,
)
from lit_models.errors import ModelError


def derived_by_plain_loops(alpha: list[list[float]]) -> set[tuple[int, str, int]]:
    """Node, operation and state of each kept edge."""
    kept, row = set(), 0
    for node in range(4):
        edges = []
        for state in range(2 + node):
            exponentials = [np.exp(value) for value in alpha[row]]
            weights = [value / sum(exponentials) for value in exponentials]
            best, operation = max((weights[place], place) for place in range(1, 8))
            edges.append((best, OPERATIONS[operation], state))
            row += 1
        kept |= {(node, operation, state) for _, operation, state in sorted(edges)[-2:]}
    return kept


def as_set(cell: tuple[tuple[str, int], ...]) -> set[tuple[int, str, int]]:
    return {(number // 2, operation, state) for number, (operation, state) in enumerate(cell)}


@pytest.mark.parametrize("seed", range(20))
def test_derivation_by_plain_loops(seed: int) -> None:
    torch.manual_seed(seed)
    normal, reduction = 3 * torch.randn(2, 14, 8)
    genotype = derive_genotype(normal, reduction)
    assert as_set(genotype.normal) == derived_by_plain_loops(normal.tolist())
    assert as_set(genotype.reduction) == derived_by_plain_loops(reduction.tolist())
    assert check_genotype(json.loads(genotype.to_json()), "It") == genotype


def test_none_is_never_chosen_but_takes_its_share() -> None:
    alpha = torch.zeros(14, 8)
    # The last node's five edges, rows 9 to 13: the largest α, on the edge from state 0, counts for less than the others
    # because of `none` on the same edge.
    alpha[9, [0, 4]] = torch.tensor([5.0, 3.0])
    alpha[11, 5] = 1.0
    alpha[12, 3] = 2.0
    cell = derive_genotype(alpha, alpha).normal
    assert cell[-2:] == (("sep_conv_5x5", 2), ("skip_connect", 3))


def test_random_genotypes_are_seeded_and_legal() -> None:
    assert random_genotype(3) == random_genotype(3)
    genotypes = [random_genotype(seed) for seed in range(200)]
    assert len(set(genotypes)) > 195
    for genotype in genotypes:
        assert check_genotype(json.loads(genotype.to_json()), "It") == genotype
    pairs = [pair for genotype in genotypes for cell in genotype for pair in cell]
    counts = np.array([sum(operation == name for operation, _ in pairs) for name in OPERATIONS])
    assert counts[0] == 0
    assert abs(counts[1:] - len(pairs) / 7).max() < 5 * np.sqrt(len(pairs) / 7)
    last = [state for genotype in genotypes for cell in genotype for _, state in cell[-2:]]
    assert abs(np.bincount(last) - len(last) / 5).max() < 5 * np.sqrt(len(last) / 5)


def test_genotypes_by_name_file_and_content(tmp_path: Path) -> None:
    assert read_genotype("DARTS_V1") == DARTS_V1
    assert read_genotype("DARTS_V2") == DARTS_V2
    assert read_genotype("random", seed=4) == random_genotype(4)
    path = tmp_path / "genotype.json"
    path.write_text(DARTS_V2.to_json())
    assert read_genotype(str(path)) == DARTS_V2
    assert read_genotype(DARTS_V1.to_json()) == DARTS_V1


def with_pair(number: int, pair: Any) -> str:
    content = json.loads(DARTS_V2.to_json())
    content["normal"][number] = pair
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1, 2]", 'must be an object with the keys "normal" and "reduction".'),
        ('{"normal": []}', 'must be an object with the keys "normal" and "reduction".'),
        ('{"normal": [["sep_conv_3x3", 0]], "reduction": []}', "normal cell: it must be a list of 8 pairs"),
        (with_pair(2, ["conv_7x7", 0]), "node 3: there is no operation 'conv_7x7'; there are max_pool_3x3"),
        (with_pair(2, ["none", 0]), "node 3: there is no operation 'none'"),
        (with_pair(1, ["skip_connect", 2]), "node 2: its input is 2, but must be a state before it, 0 to 1."),
        (with_pair(1, ["skip_connect", True]), "node 2: its input is True"),
        (with_pair(1, ["skip_connect", 0]), "node 2: both of its inputs are state 0; they must differ."),
        (with_pair(7, "skip_connect"), 'node 5: "skip_connect" isn\'t a pair of an operation and a state.'),
        ("{", "can't be read"),
    ],
)
def test_wrong_genotypes_are_refused_in_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(content)
    with pytest.raises(ModelError) as error:
        read_genotype(str(path))
    assert sentence in str(error.value)
    assert str(path) in str(error.value)


def test_genotypes_are_plain_values() -> None:
    assert Genotype(*json.loads(DARTS_V2.to_json()).values()).normal[0] == ["sep_conv_3x3", 0]
