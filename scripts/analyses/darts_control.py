"""Is the cell that DARTS found any better than a random one? Trains genotypes alike, and compares them.

    relit fit --config configs/darts_search_cifar10_small.yaml --run.id first_order
    python scripts/analyses/darts_control.py --random 4 \\
        --genotypes runs/darts_search_cifar10_small/first_order/genotype.json

Each genotype, those that are named and as many random ones, gets the same network around it, the same training and the
same test, of the epoch that is best on the validation images. The random ones are two controls (Li & Talwalkar 2019,
https://arxiv.org/abs/1902.07638): their mean is what no search gives, and the one of them that is best on the
validation images is what a random search gives that trains as many networks.

The search has cost more than a random cell, and the test images are read for all cells; darts_selection.py compares at
equal cost, and tests only what it has chosen on the validation images.

Runs lie in `<root>/<the configuration's experiment>/<genotype>` and are used again if they are there; what stands after
`--` goes to every `relit fit` and `relit test`.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from lit_models.cli.processes import relit, train
from lit_models.runs.reading import read_run

CONFIG = Path(__file__).parents[2] / "configs" / "darts_retrain_cifar10_small.yaml"


class Result(NamedTuple):
    """Best accuracy on the validation images, and that epoch's on the test images, from 0 to 1."""

    validation: float
    test: float


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="how to train (default: %(default)s)")
    parser.add_argument("--genotypes", nargs="+", default=[], help="names (DARTS_V1, DARTS_V2) or genotype.json files")
    parser.add_argument("--random", type=int, default=4, help="number of random genotypes (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures to this file, too")
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, passed_on = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    if given.random < 0 or not (given.random or given.genotypes):
        parser.error("nothing to train: name --genotypes, or ask for at least one --random")
    for genotype in given.genotypes:
        if genotype.endswith(".json") and not Path(genotype).is_file():
            parser.error(f"--genotypes: there is no file {genotype}; train the search first")

    experiment = yaml.safe_load(given.config.read_text(encoding="utf-8"))["run"]["experiment"]
    choices = {run_name(genotype): [f"--model.genotype={genotype}"] for genotype in given.genotypes}
    if len(choices) < len(given.genotypes):
        parser.error("--genotypes: two of them would share a run folder; put the files into folders of other names")
    randoms = [f"random{seed}" for seed in range(given.random)]
    choices |= {name: ["--model.genotype=random", f"--model.genotype_seed={seed}"] for seed, name in enumerate(randoms)}
    results = {}
    for name, which in choices.items():
        folder = given.root / experiment / name
        result = trained(folder, ["--config", str(given.config), *which, *passed_on])
        if result is None:
            print(f"{folder} has failed: mend it and repeat the command; finished runs are kept.", file=sys.stderr)
            return 1
        results[name] = result
    rows = [(name, 100 * result.validation, 100 * result.test) for name, result in results.items()]
    print("\n| genotype | best validation accuracy / % | its test accuracy / % |\n| --- | ---: | ---: |")
    for name, validation, test in rows:
        print(f"| {name} | {validation:.1f} | {test:.1f} |")
    if randoms:
        best = max(randoms, key=lambda name: results[name].validation)
        print(f"| random search: best of {len(randoms)} | {100 * results[best].validation:.1f} | ", end="")
        print(f"{100 * results[best].test:.1f} |")
    if len(randoms) > 1:
        columns = zip(*(results[name] for name in randoms), strict=True)
        means = [f"{100 * statistics.mean(column):.1f} ± {100 * statistics.stdev(column):.1f}" for column in columns]
        print(f"| mean of {len(randoms)} random | {' | '.join(means)} |")
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("genotype", "validation accuracy / %", "test accuracy / %"), *rows])
    return 0


def run_name(genotype: str) -> str:
    """What to call a genotype's run: a published one's name, or the run folder (or else the name) of a file."""
    path = Path(genotype)
    if not genotype.endswith(".json"):
        return genotype
    return path.absolute().parent.name if path.name == "genotype.json" else path.stem


def trained(folder: Path, arguments: list[str]) -> Result | None:
    """Trains and tests, unless that has been done; None if it fails."""
    if train(folder, arguments) != 0:
        return None
    if "test/accuracy" not in read_run(folder, folder.name).results:
        place = [f"--run.root={folder.parent.parent}", f"--run.id={folder.name}"]
        if relit(["test", *arguments, *place, "--ckpt_path=best"]) != 0:
            return None
    run = read_run(folder, folder.name)
    return Result(max(value for _, value in run.curves["val/accuracy"]), run.results["test/accuracy"])


if __name__ == "__main__":
    sys.exit(main())
