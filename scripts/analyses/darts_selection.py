"""Runs DARTS's selection of cells as in the paper (section 3.2), and a random search at equal cost.

    python scripts/analyses/darts_selection.py -- --config configs/trainer/gpu.yaml
    python scripts/analyses/darts_selection.py --search configs/darts_search_cifar10_small.yaml \\
        --retrain configs/darts_retrain_cifar10_small.yaml --short_epochs 5 --root runs/darts_selection_small

1. Searches with several seeds.
2. Trains the cells of each search for a short while, on the half of the training images from which the search's weights
   learned. The cells with the highest accuracy on the other half, at the end of that training, are chosen.
3. Trains random cells for the same short while, until they have cost as much as steps 1 and 2, and chooses among them
   in the same way (Li & Talwalkar 2019, https://arxiv.org/abs/1902.07638).
4. Trains both choices in full, with one or several seeds, and tests them at the end of the training.

Test images are read in step 4 only, so they can't influence a choice. The cost is the time of training.

The runs lie in `<root>/<experiment of the configuration>/`, the record in `<root>/selection.json`. Repeat the command
to go on after an interruption: what has finished is kept, and killed runs go on from their last checkpoint. Arguments
after `--` go to every `relit fit` and `relit test`.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lit_models.cli.processes import interruptible, relit, train
from lit_models.errors import RunError
from lit_models.runs.reading import Run, read_run
from lit_models.support.files import write_atomically

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass
class Candidate:
    """Cells that may be chosen.

    Attributes:
        name: Names their runs.
        genotype: The arguments of `relit fit` that give the cells.
        validation: Accuracy on validation images at the end of the short training, from 0 to 1.
        search_seconds: Time of the search that found them; 0 for random cells.
        short_seconds: Time of the short training.
    """

    name: str
    genotype: list[str]
    validation: float
    search_seconds: float
    short_seconds: float

    @property
    def seconds(self) -> float:
        """All that they have cost."""
        return self.search_seconds + self.short_seconds


@dataclass
class Side:
    """The searched or the random cells.

    Attributes:
        name: "searched" or "random".
        candidates: Those among which one is chosen.
        tests: Accuracy on test images after the full training of the choice, by seed.
    """

    name: str
    candidates: list[Candidate] = field(default_factory=list)
    tests: dict[int, float] = field(default_factory=dict)

    @property
    def chosen(self) -> Candidate:
        """The best by validation; the earliest of equals."""
        return max(self.candidates, key=lambda candidate: candidate.validation)

    @property
    def seconds(self) -> float:
        """Cost of all candidates."""
        return sum(candidate.seconds for candidate in self.candidates)


class Selection:
    """The runs of one selection.

    Args:
        given: The command line.
        passed_on: Arguments of every `relit fit` and `relit test`.
    """

    def __init__(self, given: argparse.Namespace, passed_on: list[str]) -> None:
        self.given, self.passed_on = given, passed_on
        self.record = given.root / "selection.json"
        self.sides = [Side("searched"), Side("random")]
        self.settings = {
            "search": [str(path) for path in given.search],
            "retrain": [str(path) for path in given.retrain],
            "short": short_arguments(given),
            "arguments": passed_on,
        }
        if self.record.is_file():
            before = json.loads(self.record.read_text(encoding="utf-8"))["settings"]
            if changed := [name for name, value in self.settings.items() if before.get(name) != value]:
                raise RunError(
                    f"{given.root} holds a selection with other settings ({', '.join(changed)}): choose another --root."
                )

    def run(self) -> None:
        """Does all that hasn't been done.

        Raises:
            RunError: A run has failed.
        """
        searched, random = self.sides
        for seed in range(self.given.seeds):
            search = self.trained(self.given.search, f"search{seed}", [f"--seed_everything={seed}"])
            cells = [f"--model.genotype={(search.folder / 'genotype.json').absolute()}"]
            self.shortly_trained(searched, f"search{seed}", cells, seconds_of(search))
        while self.wants_more(random):
            number = len(random.candidates)
            cells = ["--model.genotype=random", f"--model.genotype_seed={number}"]
            self.shortly_trained(random, f"random{number}", cells, 0.0)
        for seed in range(self.given.repeats):
            for side in self.sides:
                if side.candidates:
                    self.fully_trained(side, seed)

    def wants_more(self, random: Side) -> bool:
        """Whether to train another random candidate."""
        if self.given.random != "equal":
            return len(random.candidates) < self.given.random
        searched = self.sides[0]
        known = random.candidates or searched.candidates
        expected = statistics.mean(candidate.short_seconds for candidate in known)
        # To the nearest number of candidates, and at least as many as there were searches.
        return len(random.candidates) < len(searched.candidates) or random.seconds + expected / 2 < searched.seconds

    def shortly_trained(self, side: Side, name: str, genotype: list[str], search_seconds: float) -> None:
        """Adds a candidate."""
        run = self.trained(self.given.retrain, f"short_{name}", [*genotype, *short_arguments(self.given)])
        if not (curve := run.curves.get("val/accuracy")):
            raise RunError(f"{run.folder} has no validation images to choose by: set --val_fraction 0.5.")
        candidate = Candidate(name, genotype, curve[-1][1], search_seconds, seconds_of(run))
        side.candidates.append(candidate)
        self.note(f"{name}: {100 * candidate.validation:.2f} % of validation images after the short training", side)

    def fully_trained(self, side: Side, seed: int) -> None:
        """Trains and tests the chosen cells."""
        # Named by the candidate, so that another choice (of more candidates) gets another run.
        name = f"full_{side.chosen.name}_seed{seed}"
        cells = [*side.chosen.genotype, f"--seed_everything={seed}"]
        run = self.trained(self.given.retrain, name, cells)
        if "test/accuracy" not in run.results:
            place = [f"--run.root={self.given.root}", f"--run.id={name}", "--ckpt_path=last"]
            if relit(["test", *self.configured(self.given.retrain), *cells, *place]) != 0:
                raise RunError(f"The test of {run.folder} has failed.")
            run = read_run(run.folder, name)
        side.tests[seed] = run.results["test/accuracy"]
        self.note(
            f"{side.name}, {side.chosen.name}, seed {seed}: test error {100 - 100 * side.tests[seed]:.2f} %", side
        )

    def trained(self, configs: list[Path], name: str, arguments: list[str]) -> Run:
        """A finished run; trains it if it isn't there."""
        folder = self.given.root / experiment_of(configs) / name
        if train(folder, [*self.configured(configs), *arguments]) != 0:
            raise RunError(f"{folder} has failed: repair the cause and repeat the command; finished runs are kept.")
        return read_run(folder, name)

    def configured(self, configs: list[Path]) -> list[str]:
        """The arguments of relit that all runs of a kind have."""
        return [*(f"--config={path}" for path in configs), *self.passed_on]

    def note(self, sentence: str, side: Side) -> None:
        """Prints what has been done, and writes the record."""
        print(f"[{side.name}: {side.seconds / 3600:.2f} h in {len(side.candidates)} candidates] {sentence}", flush=True)
        sides: dict[str, Any] = {}
        for one in self.sides:
            sides[one.name] = {**asdict(one), "seconds": one.seconds}
            if one.candidates:
                sides[one.name]["chosen"] = one.chosen.name
        content = {"settings": self.settings, "sides": sides}
        self.given.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.record, json.dumps(content, indent=1) + "\n")

    def table(self) -> str:
        """The outcome in Markdown."""
        lines = [
            "| cells | search / h | short training / h | validation accuracy / % | chosen |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        for side in self.sides:
            for one in side.candidates:
                hours = f"{one.search_seconds / 3600:.2f} | {one.short_seconds / 3600:.2f}"
                mark = "yes" if one is side.chosen else ""
                lines.append(f"| {one.name} | {hours} | {100 * one.validation:.2f} | {mark} |")
        lines += [
            "",
            "| side | candidates | cost / h | chosen | test error / % |",
            "| --- | ---: | ---: | --- | ---: |",
        ]
        for side in self.sides:
            if side.candidates:
                errors = [100 - 100 * accuracy for accuracy in side.tests.values()]
                spread = f" ± {statistics.stdev(errors):.2f} ({len(errors)} seeds)" if len(errors) > 1 else ""
                error = f"{statistics.mean(errors):.2f}{spread}" if errors else ""
                counts = f"{len(side.candidates)} | {side.seconds / 3600:.2f}"
                lines.append(f"| {side.name} | {counts} | {side.chosen.name} | {error} |")
        return "\n".join(lines)


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("search", "retrain"):
        default = [CONFIGS / f"darts_{kind}_cifar10.yaml"]
        about = f"configurations of the {kind}; later ones override (default: darts_{kind}_cifar10.yaml)"
        parser.add_argument(f"--{kind}", type=Path, nargs="+", default=default, metavar="CONFIG", help=about)
    parser.add_argument("--seeds", type=int, default=4, help="number of searches (default: %(default)s)")
    parser.add_argument(
        "--short_epochs", type=int, default=100, help="epochs of the short training (default: %(default)s)"
    )
    parser.add_argument(
        "--val_fraction",
        type=float,
        default=0.5,
        help="part of the training images by which cells are chosen; 0 to leave it to the configuration, or for data "
        "that come with validation images (default: %(default)s)",
    )
    parser.add_argument(
        "--random", type=number_or_equal, default="equal", help="random cells: a number, or %(default)s cost (default)"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="full trainings of each choice; 10 in the paper (default: %(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs/darts_selection"), help="folder of all runs (default: %(default)s)"
    )
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, passed_on = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    for name, least in (("seeds", 1), ("short_epochs", 1), ("repeats", 0)):
        if getattr(given, name) < least:
            parser.error(f"--{name} is {getattr(given, name)}; it must be at least {least}")
    if not 0 <= given.val_fraction < 1:
        parser.error(f"--val_fraction is {given.val_fraction}; it must be at least 0 and less than 1")
    for path in (*given.search, *given.retrain):
        if not path.is_file():
            parser.error(f"there is no configuration {path}")
    if not given.val_fraction and setting(given.retrain, "data", "init_args", "val_fraction") == 0:
        parser.error("--val_fraction is 0 and so is the configuration's: no images are left to choose by")
    try:
        selection = Selection(given, passed_on)
        selection.run()
    except RunError as error:
        print(f"darts_selection: {error}", file=sys.stderr)
        return 1
    print(f"\n{selection.table()}\n\nRecorded in {selection.record}.")
    return 0


def number_or_equal(text: str) -> int | str:
    """The value of `--random`."""
    if text == "equal":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor equal")
    return int(text)


def short_arguments(given: argparse.Namespace) -> list[str]:
    """What a short training has in place of the configuration's."""
    epochs = given.short_epochs
    held_out = [f"--data.val_fraction={given.val_fraction}"] if given.val_fraction else []
    return [*held_out, f"--model.epochs={epochs}", f"--trainer.max_epochs={epochs}"]


def experiment_of(configs: list[Path]) -> str:
    """The experiment that the configurations name.

    Raises:
        RunError: There is none.
    """
    if not (name := setting(configs, "run", "experiment")):
        raise RunError(f"{configs[-1]} names no run.experiment.")
    return str(name)


def setting(configs: list[Path], *keys: str) -> Any:
    """A value of the last configuration that has it; None if there is none."""
    for path in reversed(configs):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in keys:
            content = content.get(key) if isinstance(content, dict) else None
        if content is not None:
            return content
    return None


def seconds_of(run: Run) -> float:
    """Time of a run's training."""
    if run.seconds is None:
        raise RunError(f"{run.folder} has no training time in its run.json: remove the folder to train it again.")
    return run.seconds


if __name__ == "__main__":
    sys.exit(interruptible(main))
