"""Prints how far two validation metrics order the epochs alike, for each training of an experiment.

    python scripts/analyses/rank_correlation.py gans_mnist val/wasserstein_distance val/fid

It reads the curves in `results/gans_mnist.json` and prints Spearman's rank correlation over epochs: 1 for the same
order, -1 for the opposite one, around 0 if one metric tells nothing about the other.
"""

import argparse
import json
import sys
from pathlib import Path

from scipy.stats import spearmanr

RESULTS = Path(__file__).parents[2] / "results"


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(path.stem for path in RESULTS.glob("*.json")))
    parser.add_argument("first", help="a validation metric, such as val/generator_loss")
    parser.add_argument("second", help="another one")
    given = parser.parse_args()
    record = json.loads((RESULTS / f"{given.experiment}.json").read_text(encoding="utf-8"))
    for step, entries in record["steps"].items():
        for seed, run in ((seed, run) for entry in entries for seed, run in entry["seeds"].items()):
            pairs = common_epochs(run["curves"], given.first, given.second)
            if len(pairs) > 2:
                value = spearmanr(*zip(*pairs, strict=True)).statistic
                print(f"{step}, seed {seed}: {value:.2f} over {len(pairs)} epochs")
            else:
                print(f"{step}, seed {seed}: no {given.first} and {given.second} of three epochs or more")
    return 0


def common_epochs(curves: dict[str, list[tuple[float, float]]], first: str, second: str) -> list[tuple[float, float]]:
    """The two metrics' values in the epochs that have both."""
    one, other = (dict(curves.get(name, [])) for name in (first, second))
    return [(one[epoch], other[epoch]) for epoch in one if epoch in other]


if __name__ == "__main__":
    sys.exit(main())
