"""What `reproduce.py --list` shows: the state of each training, and exactly what each budget keeps and cuts."""

import ast
import functools
import re
import statistics
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from experiments.declaration import Budget, Experiment, Step
from experiments.schedules import lengths
from lit_models.registry import METHODS
from lit_models.runs.reading import differences, flattened, read_mapping
from lit_models.support import sources

REPOSITORY = Path(__file__).parents[2]
WIDTH = 110
UNTOLD = ("callbacks", "log_every_n_steps", "limit_val_batches", "devices", "accelerator", "benchmark")
"""Settings that change nothing in what is learnt."""
NAMES = {
    "max_epochs": "epochs",
    "finetune_epochs": "epochs of fine-tuning",
    "pretrain_epochs": "epochs a layer",
    "limit_train_batches": "batches an epoch",
    "total_iters": "steps of the schedule",
}

Settings = dict[str, Any]


def listing(name: str, experiment: Experiment, results: Path, missing: Iterable[tuple[str, str]]) -> str:
    """An experiment for a terminal.

    Args:
        name: Its name.
        experiment: Its declaration.
        results: Folder of the results.
        missing: Steps and the labels of their values that have no record.
    """
    entries = read_mapping(results / f"{name}.json").get("steps", {})
    lines = _wrapped(f"{name}: {experiment.title}", "")
    rows = [row for step in experiment.steps for row in _states(experiment, step, entries.get(step.name, []))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for step, minutes, state, settings in rows:
        head = f"  {step.ljust(widths[0])}  {minutes.rjust(widths[1])}  {state.ljust(widths[2])}".rstrip()
        lines += [head, *_wrapped(settings, " " * (widths[0] + widths[1] + 6))]
    lacking: dict[str, list[str]] = {}
    for step, label in missing:
        if step in entries:
            lacking.setdefault(step, []).append(label)
    lines += [line for step, labels in lacking.items() for line in _wrapped(f"{step} lacks: {'; '.join(labels)}", "  ")]
    for budget_name, budget in experiment.budgets.items():
        lines.append(f"  --budget {budget_name}")
        lines += [part for line in keeps_and_cuts(experiment, budget) for part in _wrapped(line, "      ")]
        if measured := _measured(experiment, budget, entries):
            lines += _wrapped(measured, "      ")
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ") if text else []


# --- states -----------------------------------------------------------------------------------------------------------


def _states(experiment: Experiment, step: Step, entries: list[Settings]) -> list[tuple[str, str, str, str]]:
    """For each choice of settings with which a step is recorded: step, minutes, state, and the settings."""
    if not entries:
        return [(step.name, "", "not recorded", "")]
    rows = []
    for entry in entries:
        state = [_counted(len(entry["seeds"]), "seed")]
        state += [] if entry["data"]["whole"] else ["subset"]
        state += faults_of(entry)
        changed = _changed(entry)
        by = [name for name, budget in experiment.budgets.items() if _made_by(entry, step, budget)]
        state.append(f"budget {'/'.join(by)}" if by else "by no budget")
        told = {key: values for key, values in _own(step, changed).items() if not _is_untold(key)}
        rows.append((step.name, minutes_of(entry), ", ".join(state), _told(told)))
    return rows


def faults_of(entry: Settings) -> list[str]:
    """What a record can't vouch for: the commits of its trainings and of their tests."""
    runs = entry["seeds"].values()
    trained = _faults([run["commit"] for run in runs])
    tested = _faults([test["commit"] for run in runs for test in run["tests"].values()])
    return [*trained, *(f"{fault} in the test" for fault in tested if fault not in trained)]


def _faults(commits: list[str | None]) -> list[str]:
    return [
        *(["uncommitted changes"] if any(commit and commit.endswith("+changes") for commit in commits) else []),
        *(["unrecorded commit"] if None in commits else []),
    ]


def minutes_of(entry: Settings) -> str:
    """The mean training time of the seeds."""
    seconds = [run["training_seconds"] for run in entry["seeds"].values() if run["training_seconds"] is not None]
    if not seconds:
        return "? min"
    mean = statistics.mean(seconds)
    return f"{mean:.0f} s" if mean < 60 else f"{mean / 60:.0f} min"


def _changed(entry: Settings) -> dict[str, list[Any]]:
    """The settings in which a record differs from its step's configuration."""
    return entry["changed_from_own"] if "changed_from_own" in entry else entry["changed"]


def _own(step: Step, changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The changes without those that make the step what it is."""
    own = {key_of(argument.partition("=")[0]) for argument in step.arguments}
    return {key: values for key, values in changed.items() if key not in own}


def _made_by(entry: Settings, step: Step, budget: Budget) -> bool:
    """Whether a budget's command makes a recorded row."""
    if budget.only is not None and step.name not in budget.only:
        return False
    recorded = _changed(entry)
    wanted = changes(step, budget)
    own = {key_of(option.partition("=")[0]) for option in (*step.uses, *step.arguments)}
    names = {key for key in (*recorded, *wanted) if not _is_untold(key)} - own
    if step.length_of is not None:
        names.discard("trainer.max_epochs")
    missing: list[Any] = [None, None]
    for key in names:
        mine, theirs = recorded.get(key, missing)[0], wanted.get(key, missing)[0]
        if not _alike(mine, theirs) and not (key in wanted and theirs is None):  # a default, which isn't known here
            return False
    return True


def _alike(mine: Any, other: Any) -> bool:
    return mine == other or _value(mine) == _value(other)


def _measured(experiment: Experiment, budget: Budget, entries: dict[str, list[Settings]]) -> str:
    found = {}
    for step in experiment.steps:
        for entry in entries.get(step.name, []):
            if _made_by(entry, step, budget) and (seconds := _seconds(entry)):
                found[step.name] = statistics.mean(seconds)
    kept = [step.name for step in experiment.steps if budget.only is None or step.name in budget.only]
    if not found:
        return ""
    return f"measured: {sum(found.values()) / 60:.0f} min a seed for {len(found)} of {_counted(len(kept), 'training')}"


def _seconds(entry: Settings) -> list[float]:
    return [run["training_seconds"] for run in entry["seeds"].values() if run["training_seconds"] is not None]


# --- budgets ----------------------------------------------------------------------------------------------------------


def keeps_and_cuts(experiment: Experiment, budget: Budget) -> list[str]:
    """What a budget keeps and cuts of the steps' configurations, by its arguments; a line for steps that are alike."""
    kept = [step for step in experiment.steps if budget.only is None or step.name in budget.only]
    count = _counted(len(experiment.steps), "training")
    if len(kept) == len(experiment.steps):
        lines = [f"keeps {'all ' if len(kept) > 1 else ''}{count}"]
    else:
        lines = [f"keeps {len(kept)} of {count}: {', '.join(step.name for step in kept)}"]
    alike: dict[str, list[str]] = {}
    for step in kept:
        alike.setdefault(_told(changes(step, budget)) or "cuts nothing", []).append(step.name)
    if len(alike) == 1:
        lines.append(next(iter(alike)))
    else:
        lines += [f"{', '.join(names)}: {told}" for told, names in alike.items()]
    return [*lines, *([f"note: {budget.note}"] if budget.note else [])]


def changes(step: Step, budget: Budget) -> dict[str, list[Any]]:
    """The settings in which a budget's run of a step differs from the step's configuration, with both values."""
    own = _configured(step.config)
    theirs = _configured(budget.configs.get(step.name, step.config))
    for argument in step.arguments:
        own, theirs = own | _argument(argument), theirs | _argument(argument)
    for argument in budget.of(step):
        theirs = theirs | _argument(argument)
    for part in ("data", "data.init_args.images"):
        if not _alike(theirs.get(f"{part}.class_path"), own.get(f"{part}.class_path")):  # which has other arguments
            own, theirs = (
                {key: value for key, value in settings.items() if not key.startswith(f"{part}.init_args.")}
                for settings in (own, theirs)
            )
    theirs = theirs | {key: length for key, length in lengths(own, theirs).items() if theirs[key] == own[key]}
    ignored = ("run.", "wandb.", "seed_everything", "checkpoint.", *_arguments_of_classes_on_one_side(own, theirs))
    found = differences([theirs, own], ignored, _alike)
    return {key: values for key, values in found.items() if not _is_untold(key)}


def _arguments_of_classes_on_one_side(*sides: dict[str, Any]) -> list[str]:
    """Beginnings of the names of what an optimizer or another class takes that only one side names."""
    named = [{key.removesuffix("class_path") for key in side if key.endswith(".class_path")} for side in sides]
    return [f"{place}init_args." for place in named[0] ^ named[1]]


def _is_untold(key: str) -> bool:
    return key.startswith("checkpoint.") or any(part in UNTOLD for part in key.split("."))


@functools.cache
def _configured(name: str) -> dict[str, Any]:
    """A configuration's settings, with the method's defaults."""
    settings = flattened(read_mapping(REPOSITORY / "configs" / f"{name}.yaml"))
    method = settings["model.class_path"].rpartition(".")[2]
    defaults = {}
    for argument in sources.describe(METHODS[method], method).arguments:
        try:
            defaults[f"model.init_args.{argument.name}"] = ast.literal_eval(argument.default or "")
        except (ValueError, SyntaxError):  # an optimizer, or nothing
            continue
    nested = {key.partition(".init_args.")[2].partition(".")[0] for key in settings}
    return {key: value for key, value in defaults.items() if key.rpartition(".")[2] not in nested} | settings


def _argument(argument: str) -> dict[str, Any]:
    """The settings that an argument of `relit fit` changes, by their dotted names."""
    option, _, value = argument.partition("=")
    if option == "--config":
        return flattened(read_mapping(REPOSITORY / value))
    key = key_of(option)
    # `--data=Digits`: a class.
    return {f"{option[2:]}.class_path" if option in ("--data", "--model") else key: yaml.safe_load(value)}


def key_of(option: str) -> str:
    """The dotted name in a configuration of an option's value."""
    part, _, name = option.removeprefix("--").partition(".")
    return f"{part}.init_args.{name}" if part in ("model", "data") else f"{part}.{name}".rstrip(".")


def _told(changed: dict[str, list[Any]]) -> str:
    """Changes in words: cuts first.

    Example:
        >>> _told({"trainer.precision": ["bf16-mixed", None], "model.init_args.feature_maps": [32, 64]})
        'feature_maps 32 of 64, precision bf16-mixed'
    """
    cuts: dict[str, None] = {}
    others: dict[str, None] = {}
    for key, (mine, theirs) in changed.items():
        name = _name_of(key)
        if _is_number(mine) and _is_number(theirs) and mine < theirs:
            cuts[f"{name} {mine:g} of {theirs:g}"] = None
        elif key.endswith("limit_train_batches"):
            cuts[f"{mine} {name}"] = None
        else:
            before = f" ({_value(theirs)})" if theirs is not None and mine is not None else ""
            others[f"{name} {_value(mine)}{before}"] = None
    return ", ".join([*cuts, *others])


def _name_of(key: str) -> str:
    """A setting's name, with its owner's if that isn't the method, the data or the trainer."""
    *owners, name = key.removesuffix(".class_path").replace(".init_args", "").split(".")
    name = NAMES.get(name, name)
    return f"{owners[1]}.{name}" if len(owners) > 1 and name not in NAMES.values() else name


def _value(value: Any) -> str:
    if value is None:
        return "default"
    return value.rpartition(".")[2] if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", str(value)) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
