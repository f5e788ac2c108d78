"""Prints the epoch, counted from 0, in which a validation metric of a run was lowest.

    python scripts/analyses/best_epoch.py runs/protonet_omniglot_5way1shot/RUN --plus 200

`--plus 200` makes it the length of the training on all classes by the rule of Prototypical Networks' authors.
"""

import argparse
import sys
from pathlib import Path

from lit_models.errors import RunError
from lit_models.runs.reading import read_epochs


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--metric", default="val/loss", help="(default: %(default)s)")
    parser.add_argument("--plus", type=int, default=0, metavar="EPOCHS", help="is added (default: %(default)s)")
    given = parser.parse_args()
    try:
        print(best_epoch(given.run, given.metric) + given.plus)
    except RunError as error:
        print(f"best_epoch: {error}", file=sys.stderr)
        return 1
    return 0


def best_epoch(run: Path, metric: str = "val/loss") -> int:
    """The first epoch, counted from 0, in which the metric was lowest.

    Raises:
        RunError: The run logged no such metric.
    """
    curve = read_epochs(run / "metrics.csv").get(metric)
    if not curve:
        raise RunError(f"{run} has no {metric} in its metrics.csv: name the folder of a run that validated.")
    return int(min(curve, key=lambda point: point[1])[0]) - 1


if __name__ == "__main__":
    sys.exit(main())
