"""Runs an experiment's whole chain of trainings and tests, and writes what came out to `results/<experiment>.json`.

    python scripts/reproduce.py --list
    python scripts/reproduce.py gans_mnist --list
    python scripts/reproduce.py gans_mnist --seeds 3 --budget cpu
    python scripts/reproduce.py gans_mnist --first_seed 1 --seeds 2
    python scripts/reproduce.py darts --budget paper -- --trainer.devices 4

What follows `--` goes to every `relit fit`. The experiments are in `scripts/experiments/`. The command can be
repeated: what has finished is left alone, what was killed goes on from its last checkpoint. The runs lie in
`<root>/<the configuration's experiment>/<step>-<budget>-seed<n>`.

A run that was trained by hand is recorded (and tested, if it hasn't been) by the following, which trains nothing. That
a run without run.json (of an older relit) has finished is the caller's word.

    python scripts/reproduce.py gans_mnist --take dcgan=runs/dcgan_mnist/20260101-120000 --take sngan=…

A record holds commit, version of torch, machine, training time (summed over restarts), memory, numbers of images and of
steps, and what chose the tested checkpoint. Uncommitted changes are refused. Where a budget changes the number of
epochs, schedules change with it.

The file of results keeps what is already in it, unless the same step is recorded again with the same settings and seed.
`scripts/results_table.py` makes the tables of README.md and docs/ from it. Budget "smoke" measures nothing: its
results go to `<root>/smoke/`.
"""

import argparse
import functools
import json
import math
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from analyses.best_epoch import best_epoch
from experiments import EXPERIMENTS, Budget, Data, Experiment, Step
from experiments.listing import keeps_and_cuts, key_of, listing
from experiments.records import sealed, write_results
from experiments.schedules import lengths
from results_table import all_rows

from datamodules.loading.pairs import tile_starts
from lit_models.cli import processes
from lit_models.cli.compare import compare, logged_as, mean_run
from lit_models.cli.processes import finished, in_a_process, interruptible, relit, train
from lit_models.errors import RunError
from lit_models.runs.reading import (
    Run,
    differences,
    flattened,
    limit_of_tests,
    read_epochs,
    read_mapping,
    read_tests,
)
from lit_models.support.judge import SCORES, judge_of_test, printed_name, read_judge

REPOSITORY = Path(__file__).parents[1]
ABOUT_THE_RUN = (
    *("seed_everything", "config", "ckpt_path", "run.", "wandb.", "predictions.", "verbose"),
    *("trainer.logger", "trainer.enable_", "data.init_args.root", "data.init_args.images.init_args.root"),
)
"""Settings that change nothing in what is learnt and measured."""

Settings = dict[str, Any]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS, nargs="?", help="what to run")
    parser.add_argument(
        "--list",
        action="store_true",
        help="list what is recorded of each training with its minutes, and what each budget keeps and cuts; of one "
        "experiment, or of all",
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: %(default)s)")
    parser.add_argument(
        "--first_seed",
        type=int,
        default=0,
        help="the first of them, where another machine trains others (default: %(default)s)",
    )
    parser.add_argument(
        "--budget", choices=("smoke", "cpu", "gpu", "paper"), default="cpu", help="(default: %(default)s)"
    )
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="only these steps (default: all of the budget's)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="folder of the results (default: results/ of the repository)")
    parser.add_argument(
        "--take", action="append", default=[], metavar="STEP=FOLDER", help="record this finished run; train nothing"
    )
    parser.add_argument(
        "--allow_dirty",
        action="store_true",
        help="record runs of uncommitted changes or of an unknown commit, too; their rows say so",
    )
    return parser


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser, arguments = _parser(), sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, passed_on = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    if given.list:
        return print_lists([given.experiment] if given.experiment else EXPERIMENTS, given.results)
    if given.experiment is None:
        parser.error("name an experiment (--list shows them)")
    known = [step.name for step in EXPERIMENTS[given.experiment].steps]
    if unknown := [
        name for name in (*(given.steps or ()), *(t.partition("=")[0] for t in given.take)) if name not in known
    ]:
        parser.error(f"{given.experiment} has no step {unknown[0]}; it has {', '.join(known)}")
    return reproduce(given, passed_on)


def print_lists(names: Iterable[str], results: Path | None) -> int:
    """Prints what is recorded of experiments; returns an exit code."""
    results = results or REPOSITORY / "results"
    for name in names:
        rows = [row for row in all_rows(results) if row.experiment == name]
        recorded = {(row.step, row.figure) for row in rows if row.ours}
        missing = [(row.step, row.figure) for row in rows if (row.step, row.figure) not in recorded]
        print(f"{listing(name, EXPERIMENTS[name], results, missing)}\n")
    return 0


def reproduce(given: argparse.Namespace, passed_on: list[str]) -> int:
    """Trains, tests and records an experiment; returns an exit code.

    Args:
        given: The command line.
        passed_on: Further arguments of `relit fit`.
    """
    experiment = EXPERIMENTS[given.experiment]
    budget = experiment.budgets[given.budget]
    results = given.results or (given.root / "smoke" if given.budget == "smoke" else REPOSITORY / "results")

    measures_nothing = given.budget == "smoke" and not given.take
    chain = Chain(given.experiment, results, given.allow_dirty or measures_nothing)
    try:
        if not given.take:
            from lit_models.runs import loggers

            chain.require_commit(loggers.git_commit(), "This copy of relit")
        if given.take:
            for taken in given.take:
                name, _, folder = taken.partition("=")
                chain.take(experiment.step(name), Path(folder))
        else:
            print("\n  ".join([f"{experiment.title}: budget {given.budget}", *keeps_and_cuts(experiment, budget)]))
            chosen = given.steps or budget.only or [step.name for step in experiment.steps]
            steps = [step for step in experiment.steps if step.name in chosen]
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                for step in steps:
                    chain.train(step, budget, f"{given.budget}-seed{seed}", seed, given.root, passed_on)
            chain.analyze(budget)
        chain.draw()
    except RunError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    for failure in chain.failed:
        print(f"reproduce: {failure}", file=sys.stderr)
    return 1 if chain.failed else 0


class Chain:
    """An experiment on its way: which runs there are, what has failed, and the file of results.

    Args:
        name: The experiment's name.
        results: Folder of the results.
        allow_dirty: Whether runs of uncommitted changes are recorded.
    """

    def __init__(self, name: str, results: Path, allow_dirty: bool = False) -> None:
        self.name = name
        self.allow_dirty = allow_dirty
        self.experiment: Experiment = EXPERIMENTS[name]
        self.path = results / f"{name}.json"
        self.runs: dict[tuple[str, int], Path] = {}
        self.failed: list[str] = []

    @property
    def folder(self) -> Path:
        """Where the experiment's pictures go."""
        return self.path.with_suffix("")

    def require_commit(self, commit: str | None, whose: str) -> None:
        """Refuses what can't be trained again.

        Raises:
            RunError: Files differ from the commit, or there is none.
        """
        if self.allow_dirty or (commit and not commit.endswith("+changes")):
            return
        reason = "has uncommitted changes" if commit else "is of an unknown commit"
        raise RunError(f"{whose} {reason}: commit them first, or add --allow_dirty, which the row will say.")

    def train(self, step: Step, budget: Budget, run_id: str, seed: int, root: Path, passed_on: list[str]) -> None:
        """Trains, tests and records one step with one seed; what fails is noted in ``failed``."""
        arguments = [
            f"--config={REPOSITORY / 'configs' / budget.configs.get(step.name, step.config)}.yaml",
            *(argument.replace("{seed}", str(seed)) for argument in (*step.arguments, *budget.of(step))),
            f"--seed_everything={seed}",
            *passed_on,
        ]
        arguments = [argument.replace("--config=configs/", f"--config={REPOSITORY}/configs/") for argument in arguments]
        for option, source in step.uses.items():
            earlier, _, file = source.partition("/")
            if (earlier, seed) not in self.runs:
                self.failed.append(f"{step.name}, seed {seed}, was left out: it needs {earlier}.")
                return
            arguments.append(f"{option}={self.runs[earlier, seed].absolute() / file}")
        if step.length_of is not None:
            if (step.length_of, seed) not in self.runs:
                self.failed.append(f"{step.name}, seed {seed}, was left out: it needs {step.length_of}.")
                return
            epochs = best_epoch(self.runs[step.length_of, seed]) + budget.patience
            arguments.append(f"--trainer.max_epochs={epochs}")
        planned = resolved("fit", *arguments)
        own = [argument.replace("{seed}", str(seed)) for argument in step.arguments]
        before = flattened(resolved("fit", f"--config={REPOSITORY / 'configs' / step.config}.yaml", *own))
        for key, length in lengths(before, flattened(planned)).items():
            if flattened(planned)[key] == before[key] != length:
                arguments.append(f"--{key.replace('.init_args', '')}={length}")
        planned = resolved("fit", *arguments)
        # The configuration's experiment, also if a budget takes other data: steps of two experiments may have one name.
        folder = root / resolved("fit", arguments[0])["run"]["experiment"] / f"{step.name}-{run_id}"
        if finished(folder) and (other := changes(read_settings(folder), planned, step)):
            raise RunError(
                f"{folder} was trained with other settings ({_listed(other)}): name another --root, or record it with "
                f"--take {step.name}={folder}."
            )
        if train(folder, arguments) != 0:
            self.failed.append(f"{step.name}, seed {seed}, has failed: mend it and repeat the command.")
            return
        self.take(step, folder)

    def take(self, step: Step, folder: Path) -> None:
        """Tests a finished run where it hasn't been, and adds it to the file of results.

        Raises:
            RunError: It is no run, hasn't finished, or was made by another configuration than the step's.
        """
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} is not a run's folder: it has no config.yaml.")
        record = read_mapping(folder / "run.json")
        if record.get("finished") is False:
            raise RunError(f"{folder} hasn't finished: go on with `relit fit … --ckpt_path last` first.")
        self.require_commit(record.get("git_commit"), f"The training {folder}")
        settings = read_settings(folder)
        seed = settings["seed_everything"]
        own = [argument.replace("{seed}", str(seed)) for argument in step.arguments]
        expected = flattened(resolved("fit", f"--config={REPOSITORY / configuration_of(settings, step)}", *own))
        for key in (key_of(argument.partition("=")[0]) for argument in own):
            if flattened(settings).get(key) != expected[key]:
                raise RunError(f"{folder} is no run of {step.name}: its {key} is not {expected[key]}.")
        tests = {}
        for name, arguments in step.tests.items():
            test = tested(folder, step.checkpoint, arguments)
            if test is None:
                self.failed.append(f"The test {name} of {step.name}, seed {seed}, has failed.")
                return
            tests[name] = test
        self.runs[step.name, seed] = folder
        self._record(step, folder, settings, record, tests)

    def _record(
        self, step: Step, folder: Path, settings: Settings, record: Settings, tests: dict[str, Settings]
    ) -> None:
        entry = self._entry(step, folder, settings, next(iter(tests.values())))
        results = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {"steps": {}}
        entries = results["steps"].setdefault(step.name, [])
        alike = ("config", "changed", "data")
        place = next((n for n, o in enumerate(entries) if all(o[key] == entry[key] for key in alike)), len(entries))
        seed = settings["seed_everything"]
        seeds = {} if place == len(entries) else entries[place]["seeds"]
        seeds[str(seed)] = sealed(self._of_a_seed(step, folder, settings, record, tests))
        entry["seeds"] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
        entries[place : place + 1] = [sealed(entry)]
        self._write(results)
        print(f"{step.name}, seed {seed}, is recorded in {self.path}.")

    def _entry(self, step: Step, folder: Path, settings: Settings, test: Settings) -> Settings:
        """What the runs of all seeds have in common: configuration, data and settings."""
        config = configuration_of(settings, step)
        changed = changes(settings, resolved("fit", f"--config={REPOSITORY / config}"), step)
        own = REPOSITORY / "configs" / f"{step.config}.yaml"  # a budget may start from a smaller one
        sizes = photographs(test)
        remarks = remarks_on_data(resolved("test", f"--config={folder / 'config.yaml'}")["data"])
        told_elsewhere = ("seed_everything", "run", "wandb", "ckpt_path")  # the last is of a run that was resumed
        kept = {name: value for name, value in without_nulls(settings).items() if name not in told_elsewhere}
        for option in step.uses:  # a path on this machine
            kept = without(kept, key_of(option))
        return {
            "config": config,
            "changed": changed,
            "changed_from_own": changes(settings, resolved("fit", f"--config={own}"), step),
            "command": command_line(config, changed, step),
            "data": {
                "name": step.data.name,
                "whole": is_whole(step.data, sizes) and not remarks,
                **({"remarks": remarks} if remarks else {}),
                **sizes,
            },
            "settings": kept,
            "seeds": {},
        }

    def _of_a_seed(
        self, step: Step, folder: Path, settings: Settings, record: Settings, tests: dict[str, Settings]
    ) -> Settings:
        """The record of one run: where it is, what it took, its tests and its curves."""
        described = record or next(iter(tests.values()))
        return {
            "run": f"{folder.parent.name}/{folder.name}",
            "commit": record.get("git_commit"),
            "torch": described["torch"],
            "steps": steps_of(folder),
            "checkpoint": chosen_by(settings, step),
            "training_seconds": record.get("training_seconds"),
            "peak_memory_bytes": record.get("peak_memory_bytes"),
            "hardware": hardware(described),
            **({"judge": judge} if (judge := read_judge(folder).get("val")) else {}),
            "tests": {
                name: {
                    "commit": test["git_commit"],
                    **{key: test[key] for key in ("checkpoint", "step", "seconds", "peak_memory_bytes", "figures")},
                    **({"judge": judge} if (judge := judge_of_test(test, folder)) else {}),
                }
                for name, test in tests.items()
            },
            "curves": {
                name: [[int(epoch), float(f"{value:.6g}")] for epoch, value in curve if math.isfinite(value)]
                for name, curve in read_epochs(folder / "metrics.csv").items()
                if name.startswith("val/") or name in self.experiment.drawn
            },
        }

    def _write(self, results: Settings) -> None:
        order = [other.name for other in self.experiment.steps]
        declared = {name: results["steps"][name] for name in order if name in results["steps"]}
        steps = declared | results["steps"]  # steps that the experiment no longer declares come last
        write_results(self.path, {"experiment": self.name, "title": self.experiment.title, "steps": steps})

    def analyze(self, budget: Budget) -> None:
        """Runs the experiment's scripts on the runs of seed 0."""
        for analysis in self.experiment.analyses:
            if any((step, 0) not in self.runs for step in analysis.needs):
                continue
            self.folder.mkdir(parents=True, exist_ok=True)
            places = {f"{{run:{step}}}": str(folder) for (step, seed), folder in self.runs.items() if seed == 0}
            places["{folder}"] = str(self.folder)
            command = [*analysis.command, *budget.analysis]
            for place, value in places.items():
                command = [part.replace(place, value) for part in command]
            print(f"== python {shlex.join(command)}", flush=True)
            script = str(REPOSITORY / command[0])
            if in_a_process([sys.executable, script, *command[1:]]) != 0:
                self.failed.append(f"{command[0]} has failed.")

    def draw(self) -> None:
        """Draws the curves of all declared and recorded steps into one figure, if there are several.

        They are those of this call's settings, or else of a step's first ones. Several seeds are drawn as their mean
        and a band of one standard deviation."""
        steps = json.loads(self.path.read_text(encoding="utf-8"))["steps"] if self.path.is_file() else {}
        of_this_call = {f"{folder.parent.name}/{folder.name}": folder for folder in self.runs.values()}
        methods = {step.name: step.method for step in self.experiment.steps}
        runs = []
        for step, entries in steps.items():
            if step not in methods:
                continue
            label = methods[step] if list(methods.values()).count(methods[step]) == 1 else step
            chosen = (e for e in entries if any(record["run"] in of_this_call for record in e["seeds"].values()))
            seeds = next(chosen, entries[0])["seeds"]
            members = [
                recorded_run(f"{label}-seed{seed}" if len(seeds) > 1 else label, record, of_this_call)
                for seed, record in seeds.items()
            ]
            runs.append(mean_run(members) if len(members) > 1 else members[0])
        # Scores over features that weren't recorded can't be drawn with others.
        known = {printed for run in runs for printed in run.curves if printed not in map("val/{}".format, SCORES)}
        drawn = [printed for name in self.experiment.drawn for printed in logged_as(name, known)]
        if self.runs and len(runs) > 1 and drawn:
            compare(runs, self.folder, drawn)


def recorded_run(name: str, record: Settings, folders: dict[str, Path]) -> Run:
    """A record of results/ as a run to draw; its folder is one of ``folders`` if it is there."""
    judge = {"val": record.get("judge", {})}
    curves = {
        printed_name(metric, judge): [(epoch, value) for epoch, value in curve]
        for metric, curve in record["curves"].items()
    }
    return Run(name, folders.get(record["run"], Path(record["run"])), curves, {}, record["training_seconds"])


def tested(folder: Path, which: str, arguments: tuple[str, ...]) -> Settings | None:
    """What the test of a run's checkpoint says; it is run if it hasn't been. None if it fails."""
    checkpoint = folder / "checkpoints" / f"{which}.ckpt"
    if which == "best" and not checkpoint.is_file():
        raise RunError(
            f"{folder} kept no best.ckpt to be tested: name a metric by `checkpoint.monitor` in its configuration, or "
            'give its step in scripts/experiments/ `checkpoint="last"`.'
        )
    config = f"--config={folder / 'config.yaml'}"
    settings = resolved("test", config, *arguments)
    wanted = (checkpoint.name, steps_of(folder, which), settings["data"], limit_of_tests(settings))

    def known() -> Iterator[Settings]:
        for test in read_tests(folder):
            if (test["checkpoint"], test["step"], test["settings"], test.get("limit_test_batches")) == wanted:
                yield test

    if next(known(), None) is None and relit(["test", config, f"--ckpt_path={checkpoint}", *arguments]) != 0:
        return None
    return next(known())


@functools.cache
def resolved(command: str, *arguments: str) -> Settings:
    """The full configuration that relit makes of these arguments.

    Raises:
        RunError: It refuses them.
    """
    return processes.resolved(arguments, command)


def steps_of(folder: Path, which: str = "last") -> int:
    """The optimizer steps behind a checkpoint of a run; of a GAN those of the generator."""
    from lit_models.support.checkpoint_files import read_checkpoint

    return int(read_checkpoint(folder / "checkpoints" / f"{which}.ckpt")["global_step"])


def chosen_by(settings: Settings, step: Step) -> str:
    """Which checkpoint is tested, and what chose it.

    Example:
        >>> step = EXPERIMENTS["gans_mnist"].steps[0]
        >>> chosen_by({"checkpoint": {"monitor": "val/fid", "mode": "min"}}, step)
        'best.ckpt: smallest val/fid'
    """
    if step.checkpoint == "last":
        return "last.ckpt: the end of training"
    choice = settings.get("checkpoint") or {}
    return f"best.ckpt: {'largest' if choice.get('mode') == 'max' else 'smallest'} {choice.get('monitor')}"


def remarks_on_data(settings: Settings) -> list[str]:
    """What a data module of these settings says of its files: that they are a subset, or have another checksum."""
    from jsonargparse import ArgumentParser

    import datamodules

    for name in datamodules.__all__:
        getattr(datamodules, name)  # class names are looked up among what is imported
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(datamodules.ImageDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": settings})).data
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", datamodules.DataWarning)
        data.prepare_data()
        data.setup("fit")
    told = [str(one.message) for one in caught if issubclass(one.category, datamodules.DataWarning)]
    return [text.rpartition("/")[2] for text in told if "subset" in text or "not the published" in text]


def read_settings(folder: Path) -> Settings:
    """The resolved configuration of a run."""
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def configuration_of(settings: Settings, step: Step) -> str:
    """The file in configs/ that a run was started with, going by its experiment: the step's, or a budget's.

    Raises:
        RunError: Neither.
    """
    name = settings["run"]["experiment"]
    experiments = [one for one in EXPERIMENTS.values() if step in one.steps]
    allowed = {
        step.config,
        *(b.configs[step.name] for e in experiments for b in e.budgets.values() if step.name in b.configs),
    }
    if name not in allowed:
        raise RunError(f"The run is of the experiment {name}, but {step.name} takes {', '.join(sorted(allowed))}.")
    return f"configs/{name}.yaml"


def changes(settings: Settings, others: Settings, step: Step) -> dict[str, list[Any]]:
    """Which settings that matter differ, each with both values."""
    known = flattened(settings)
    mine = flattened(without_nulls(settings))
    # What was set to null is a change; what an older relit didn't know isn't.
    theirs = {key: value for key, value in flattened(without_nulls(others)).items() if key in mine or key in known}
    ignored = (*ABOUT_THE_RUN, *(key_of(option) for option in (*step.uses, *seeded(step))))
    return dict(sorted(differences([mine, theirs], ignored, agrees).items()))


def agrees(mine: Any, other: Any) -> bool:
    """Whether a setting of a run is that of another, as far as the run's relit knew of it (a callback's arguments)."""
    if isinstance(mine, dict) and isinstance(other, dict):
        return all(name in other and agrees(value, other[name]) for name, value in mine.items())
    if isinstance(mine, list) and isinstance(other, list):
        return len(mine) == len(other) and all(map(agrees, mine, other))
    return mine == other


def command_line(config: str, changed: dict[str, list[Any]], step: Step) -> str:
    """The command that trains with these settings."""
    parts = ["relit", "fit", "--config", config]
    for key, (value, _) in changed.items():
        name = key.replace(".init_args", "").removesuffix(".class_path")
        if key.endswith(".class_path"):
            value = value.rpartition(".")[2]
        parts += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    for option, source in step.uses.items():
        earlier, _, file = source.partition("/")
        parts += [option, f"runs/{earlier.upper()}/{file}".rstrip("/")]
    for option in seeded(step):
        parts += [option, "SEED"]
    return shlex.join(parts)


def seeded(step: Step) -> list[str]:
    """The step's own arguments whose values are the seed."""
    return [argument.partition("=")[0] for argument in step.arguments if "{seed}" in argument]


def photographs(test: Settings) -> dict[str, int]:
    """How many images each split has; where held-out ones are evaluated in tiles, whole ones."""
    sizes = {name: count for name, count in test["data"].items() if name.endswith("_images")}
    data = test.get("settings", {}).get("init_args", {})
    if data.get("evaluation") != "tiles":
        return sizes
    tiles = len(tile_starts(data["load_size"], data["image_size"])) ** 2
    return {name: count if name == "train_images" else count // tiles for name, count in sizes.items()}


def is_whole(data: Data, sizes: dict[str, int]) -> bool:
    """Whether a run's images are all that the data set has. Those of validation may be among those of training."""
    train, val = sizes["train_images"], sizes["val_images"]
    return data.train in (train, train + val) and sizes["test_images"] == data.test


def hardware(record: Settings) -> str:
    """The machine of a run, in words."""
    precision = {"32-true": "fp32", "bf16-mixed": "bf16"}.get(record["precision"], record["precision"])
    if record["accelerator"]:
        return f"{record['processes']} x {record['accelerator']}, {precision}"
    threads = record["threads"] * record["processes"]
    return f"{record['processor']}, {threads} thread{'s' if threads > 1 else ''}, {precision}"


def without_nulls(value: Any) -> Any:
    """The same without what is null in it, so that an argument that an older relit didn't have makes no difference."""
    if isinstance(value, dict):
        return {name: without_nulls(part) for name, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def without(settings: Settings, key: str) -> Settings:
    """The settings without the one at a dotted key."""
    name, _, rest = key.partition(".")
    if not rest:
        return {other: value for other, value in settings.items() if other != name}
    return {other: without(value, rest) if other == name else value for other, value in settings.items()}


def _listed(changed: dict[str, list[Any]]) -> str:
    return ", ".join(f"{key} is {mine}, not {theirs}" for key, (mine, theirs) in changed.items())


if __name__ == "__main__":
    sys.exit(interruptible(main))
