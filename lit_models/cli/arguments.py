"""Reads the command line before torch is imported: names become files, short forms become options, slips are refused.

Everything that depends on the types of arguments is left to the parser.
"""

import codecs
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lit_models.cli.attribution import with_its_file
from lit_models.cli.checked_paths import RUN, require_checkpoint, require_one_to_load, weights_file
from lit_models.cli.commands import COMMANDS, GROUPS, OPTIONS, SWITCHES, SYNONYMS, TRAINER_COMMANDS
from lit_models.cli.given_classes import GivenClasses
from lit_models.cli.names import configuration, configurations, experiments
from lit_models.cli.needs import missing_from
from lit_models.cli.plain_values import wrong_word
from lit_models.cli.proper_files import require_proper_files
from lit_models.cli.suggestions import (
    OPTIMIZER_ARGUMENTS,
    RATES,
    own_options,
    rate_options,
    trainer_arguments,
    unknown_in_group,
    unknown_setting,
    unknown_trainer_option,
)
from lit_models.errors import UsageError
from lit_models.runs.folder import checked_name
from lit_models.support import sources
from lit_models.support.checkpoint_paths import checkpoint_in
from lit_models.support.known_classes import classes_for, unknown_class
from lit_models.support.parser_messages import value_of_group
from lit_models.support.renamed import new_name
from lit_models.support.spelling import closest
from lit_models.support.yaml_loader import LOADER

OF_TOP_LEVEL = {
    "seed_everything": "bool | int",
    **dict.fromkeys(("compile", "channels_last"), "bool"),
    "lr_scaling": "Literal['none', 'linear', 'sqrt']",
}
"""The types of options without a group."""
LABELS = re.compile(r"\d+(,\d+)*")


def read_arguments(args: list[str]) -> list[str]:
    """The arguments of a command of the Trainer as its parser takes them.

    Args:
        args: The command and what follows it.

    Raises:
        UsageError: A command, an option, a configuration or a class can't be meant so.
    """
    command = checked_command(args)
    read: list[str] = [command]
    appended: list[str] = []
    typed = {word.partition("=")[0] for word in args}
    data_is_given = "--data" in typed
    is_shown_only = "--print_config" in typed
    samples = not typed.isdisjoint(("--class", "--count", "--data.labels"))
    option: str | None = None
    named: str | None = None
    rest = args[1:]
    config: list[dict[str, Any]] = []
    files: list[str] = []
    loaded: dict[str, str] = {}
    classes = GivenClasses()
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or re.fullmatch(r"-\d[\d.e-]*", word):
            path = _stray(word, option, command)
            if stem := path.stem if word in experiments() else None:
                if named is not None:
                    raise UsageError(f"{named} and {stem} are two experiments: one at a time.")
                named = stem
            files.append(path.stem)
            config.append(_checked_configuration(path, classes))
            read += ["--config", str(path)]
            continue
        option, equals, value = word.partition("=")
        option = _with_new_name(option, args, config)
        word = option + equals + value
        name = option.lstrip("-").rstrip("+")
        short = {"c": "config", "h": "help"}.get(name) if not option.startswith("--") else None
        name = short or name
        if not option.startswith("--") and short is None:
            remedy = f"as --{name}" if name.split(".")[0] in OPTIONS else f"and `relit {command} --help` lists them"
            raise UsageError(f"There is no option {option}: options begin with two dashes, {remedy}.")
        if not equals and rest and not _is_option(rest[0]) and name not in ("debug", "help", "print_config"):
            value = rest.pop(0)
            given = True
        else:
            given = bool(equals and value)
        if command == "predict" and name in ("class", "count"):
            appended += _samples(name, value, given)
            continue
        if command == "predict" and name == "grid":
            name, option, value, given = "predictions.grid", "--predictions.grid", value or "true", True
        _check_option(name, value, command, config)
        if not given and not equals and name in SWITCHES:
            value, given = "true", True
        if name == "config":
            path_or_text = _config_file(value if given else None)
            if isinstance(path_or_text, Path):
                files.append(path_or_text.stem)
                config.append(_checked_configuration(path_or_text, classes))
            else:
                classes.leave_to_the_parser()
            read += ["--config", str(path_or_text)]
            continue
        if name == "weights" and given:
            value = weights_file(value, must_exist=not is_shown_only)
        if name == "ckpt_path" and given and not is_shown_only:
            require_checkpoint(value)
        if name in ("ckpt_path", "weights", *RUN) and given:
            loaded[name] = value
        if name in ("run.experiment", "run.id") and given and value not in ("null", "none"):
            checked_name(value, option)
        if name == "predictions.folder" and Path(value).is_file():
            raise UsageError(f"--predictions.folder is {value}, which is a file: name a folder.")
        if name == "data.labels" and LABELS.fullmatch(value):
            value = f"[{value}]"
        if name in ("debug", "help", "print_config"):
            read.append(word)
        elif given and command == "predict" and name.startswith("data.") and samples and not data_is_given:
            appended += [option, value]
        elif given and own_options(name) and not (value.startswith("{") or Path(value).is_file()):
            raise UsageError(value_of_group(name))
        elif given:
            _check_class(name, value)
            if told := classes.unknown_option(name, value) or _wrong_word(name, value):
                raise UsageError(told)
            read.append(f"{option}={value}") if equals else read.extend([option, value])
        elif name.endswith(".help"):
            read.append(word)
        elif name in GROUPS and (own := own_options(name)):
            raise UsageError(
                f"--{name} is a group of options, which are given one by one, such as --{name}.{next(iter(own))}."
            )
        else:
            raise UsageError(f"--{name} needs a value.")
    require_proper_files(read)
    if told := _lacks(command, typed, config, files, loaded, classes):
        raise UsageError(with_its_file(told, read))
    if is_shown_only and loaded.keys().isdisjoint(("ckpt_path", "weights", "run.experiment")):
        read += _experiment(classes, config)
    if appended:
        read += [*([] if data_is_given else ["--data", "Samples"]), *appended]
    return read


def _lacks(
    command: str,
    typed: set[str],
    config: list[dict[str, Any]],
    files: list[str],
    loaded: dict[str, str],
    classes: GivenClasses,
) -> str | None:
    """A sentence on what a command that runs lacks, as a whole; None for one that only shows or explains something.

    Raises:
        UsageError: It is given two things to load, or a checkpoint of no experiment.
        RunError: The experiment has no such checkpoint.
    """
    if any(option.split(".")[-1].lstrip("-") in ("print_config", "help", "h") for option in typed):
        return None
    loads = not loaded.keys().isdisjoint(("ckpt_path", "weights")) or any(
        content.get(name) for content in config for name in ("ckpt_path", "weights")
    )
    if told := missing_from(command, classes, loads, files):
        return told
    if loaded.get("ckpt_path") not in (None, "none", "null"):
        require_one_to_load(loaded, config, typed, classes)
    return None


def _experiment(classes: GivenClasses, config: list[dict[str, Any]]) -> list[str]:
    """The option that names the experiment of a run, for a configuration that is only printed."""
    sections = [values["run"] for values in config if isinstance(values.get("run"), dict)]
    named = next((str(section["experiment"]) for section in reversed(sections) if section.get("experiment")), None)
    name = classes.experiment(named)
    return [] if name == named else [f"--run.experiment={name}"]


def checked_command(args: list[str]) -> str:
    """The command, which must come first.

    Raises:
        UsageError: There is none, or none of that name.
    """
    command = args[0]
    if command.startswith("-"):
        later = next((word for word in args[1:] if word in COMMANDS), None)
        others = " ".join(word for word in args if word != later)
        remedy = f"relit {later} {others}" if later else f"relit fit {others}"
        raise UsageError(f"The command comes first, then its options: {remedy}")
    if command in COMMANDS:
        return command
    name = command.removesuffix(".yaml").rsplit("/", 1)[-1]
    if name in experiments() or command.endswith((".yaml", ".yml")):
        raise UsageError(f"{command} is a configuration, not a command: relit fit {command}")
    if command not in SYNONYMS:
        if method := closest(command, sources.methods(), cutoff=0.9):
            raise UsageError(f"{method} is a method, not a command: relit help {method} explains it.")
        if data := closest(command, sources.data_sets(), cutoff=0.9):
            raise UsageError(f"{data} is a data set, not a command: relit help {data} explains it.")
    near = closest(command, COMMANDS, cutoff=0.7) or SYNONYMS.get(closest(command, SYNONYMS, cutoff=0.8) or "")
    meant = SYNONYMS.get(command) or near or closest(command, COMMANDS, cutoff=0.5)
    guess = f" Did you mean `relit {meant}`?" if meant else ""
    raise UsageError(f"There is no command {command!r}.{guess} The commands are {', '.join(COMMANDS)}.")


def _wrong_word(name: str, value: object) -> str | None:
    """A sentence on a word where a top-level setting, or one of a group, takes none."""
    group, _, leaf = name.partition(".")
    annotation = OF_TOP_LEVEL.get(name, "")
    if leaf and (argument := own_options(group).get(leaf)):
        annotation = argument.type
    return wrong_word((group, leaf) if leaf else (group,), annotation, value)


def _is_option(word: str) -> bool:
    return word.startswith("--") or word in ("-c", "-h")


def _stray(word: str, option: str | None, command: str) -> Path:
    """The configuration that a word without an option names."""
    path = Path(word)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return path
    if found := configuration(word):
        return found
    if option is not None and re.fullmatch(r"-?[\d.,]+", word):
        several = "classes as 3,7" if option == "--class" else "values as a list, '[1,2]'"
        raise UsageError(f"{word} follows the value of {option}: write several {several}.")
    if word in COMMANDS:
        raise UsageError(f"One command at a time: {word} follows {command}.")
    if method := closest(word, sources.methods(), cutoff=0.9):
        raise UsageError(f"{word} isn't a configuration. A method is given by --model {method}.")
    if data := closest(word, sources.data_sets(), cutoff=0.9):
        raise UsageError(f"{word} isn't a configuration. A data set is given by --data {data}.")
    if path.suffix == ".ckpt":
        raise UsageError(f"{word} isn't a configuration. A checkpoint is given by --ckpt_path {word}.")
    if checkpoint_in(path) or (path.parts[:1] == ("runs",) and len(path.parts) > 1):
        raise UsageError(f"{word} isn't a configuration. A run is given by --ckpt_path {word}.")
    if path.suffix == ".safetensors":
        raise UsageError(f"{word} isn't a configuration. Weights are given by --weights {word}.")
    if (path / "config.yaml").is_file():
        raise UsageError(f"{word} is the folder of a run: --config {path / 'config.yaml'}, or --ckpt_path FILE.")
    if re.fullmatch(r"[\w.]+=.*", word):
        name = word.partition("=")[0]
        if name.split(".")[0] not in OPTIONS:
            raise UsageError(unknown_setting(name, command))
        raise UsageError(f"Options begin with two dashes: --{word}")
    if word.startswith(("–", "—")):
        raise UsageError(f"{word} begins with a dash of print: type --{word.lstrip('–—-')}.")
    several = f" Several values of {option} are a list, '[a,b]'." if option not in (None, "--config") else ""
    raise UsageError(_no_configuration(word) + several)


def _config_file(value: str | None) -> Path | str:
    if not value:
        raise UsageError("--config needs the name of a configuration or a YAML file: `relit list experiments`.")
    path = Path(value).expanduser()
    if path.is_file():
        return path
    if value.lstrip().startswith("{") or "\n" in value:
        return value  # the settings themselves
    if found := configuration(value):
        return found
    if (path / "config.yaml").is_file():
        raise UsageError(f"{value} is the folder of a run: --config {path / 'config.yaml'}")
    if path.is_dir():
        raise UsageError(f"{value} is a folder; --config takes the name of a configuration or a YAML file.")
    raise UsageError(_no_configuration(value))


def _no_configuration(value: str) -> str:
    path = Path(value)
    files = [str(path.parent / other.name) for other in sorted(path.parent.glob("*.yaml"))] if path.suffix else []
    name = value.removeprefix("configs/").removesuffix(".yaml")
    words = sorted(name.split("_"))
    reordered = next((other for other in configurations() if sorted(other.split("_")) == words), None)
    meant = closest(value, files, cutoff=0.8) or reordered or closest(name, configurations(), cutoff=0.6)
    if meant is None and (method := closest(name, sources.methods(), cutoff=0.9)):
        return f"There is no configuration {value}. A method is given by --model {method}."
    guess = f" Did you mean {meant}?" if meant else ""
    return f"There is no configuration {value}.{guess} `relit list experiments` lists those that come with relit."


def _samples(name: str, value: str, given: bool) -> list[str]:
    option = {"class": "data.labels", "count": "data.count"}[name]
    if not given or not LABELS.fullmatch(value) or (name == "count" and not value.isdecimal()):
        what = "a class's number, or several as 3,7" if name == "class" else "a whole number"
        raise UsageError(f"--{name} needs {what}{f', not {value}' if given else ''}.")
    return [f"--{option}", f"[{value}]" if name == "class" else value]


def _check_option(name: str, value: str, command: str, config: list[dict[str, Any]]) -> None:
    first = name.split(".")[0].split("[")[0]
    if first in OPTIONS and (first in GROUPS or "." not in name):
        group = name.split(".")
        if (
            first in ("run", "checkpoint", "predictions", "wandb")
            and len(group) == 2
            and group[1] not in (known := own_options(first))
        ):
            raise UsageError(unknown_in_group(first, group[1], known))
        if first == "trainer" and len(group) >= 2 and group[1] not in (*trainer_arguments(), "help"):
            if group[1] == "default_root_dir":
                raise UsageError(f"There is no option --{name}: runs are written below --run.root.")
            if group[1] in (*RATES, *OPTIMIZER_ARGUMENTS):
                raise UsageError(
                    f"There is no option --{name}: it belongs to the optimizer. "
                    f"{rate_options(_method_of(config), '--', 'lr' if group[1] in RATES else group[1])}"
                )
            raise UsageError(unknown_trainer_option(group[1], f"--{name}"))
        if name == "picture" and command != "prepare":
            raise UsageError("--picture is an option of `relit prepare`.")
        if name == "verbose" and command not in ("validate", "test"):
            raise UsageError("--verbose is an option of `relit validate` and `relit test`; elsewhere, leave it out.")
        return
    raise UsageError(unknown_setting(name, command, method=_method_of(config)))


def _method_of(config: list[dict[str, Any]]) -> str | None:
    path = _class_in("model", config)
    return None if path is None else path.rsplit(".", 1)[-1]


def _class_in(part: str, config: list[dict[str, Any]]) -> str | None:
    """The class that configurations give for the model or the data."""
    for values in reversed(config):
        given = values.get(part)
        if isinstance(given, dict) and isinstance(given.get("class_path"), str):
            return given["class_path"]
    return None


def _with_new_name(option: str, args: list[str], config: list[dict[str, Any]]) -> str:
    """An option whose argument had another name in an earlier version; those of a user's own class are left alone."""
    part = option.lstrip("-").partition(".")[0]
    if part not in ("model", "data", "trainer"):
        return option
    pairs = [*zip(args, [*args[1:], ""], strict=True), *(arg.partition("=")[::2] for arg in args if "=" in arg)]
    owner = next((value for name, value in pairs if name == f"--{part}"), None) or _class_in(part, config) or ""
    is_users = "." in owner and owner.partition(".")[0] not in sources.OURS
    return new_name(option, owner if is_users else None)


def _check_class(key: str, value: str) -> None:
    """Refuses the name of a class that is none of those that the setting takes."""
    if key in ("trainer.callbacks", "trainer.logger") and re.fullmatch(r"\w+(,\w+)+", value):
        each = " ".join(f"--{key}+ {name}" for name in value.split(","))
        raise UsageError(f"--{key} takes one class at a time: {each}")
    if key in ("model", "data") and value.endswith(".py"):
        module = value.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise UsageError(f"--{key} takes a class, not a file: --{key} {module}.NAME for the class NAME in {value}.")
    if key in ("model", "data") and value in experiments():
        raise UsageError(f"--{key} takes a class, and {value} is a configuration: relit fit {value}")
    if not re.fullmatch(r"[A-Za-z_]\w*", value) or value.lower() in ("null", "none", "true", "false"):
        return
    if Path(value).is_file() or key.count(".") > 1:
        return
    kind, known = classes_for(key)
    if kind == "schedule" and value == "ReduceLROnPlateau":  # torch's can't go by a metric that is logged
        raise UsageError(
            f"Write --{key} lightning.pytorch.cli.ReduceLROnPlateau, with the metric that it goes by as its monitor: "
            f"--{key}.monitor val/loss."
        )
    if known and value not in known and not _is_loaded(value, kind):
        raise UsageError(unknown_class(key, value) or f"There is no {kind} {value}.")


def _is_loaded(name: str, kind: str) -> bool:
    """Whether the program that calls relit has a class of that name and kind, which needs no module's name then."""
    if "lightning.pytorch" not in sys.modules:
        return False
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    bases: dict[str, type[Any]] = {"method": LightningModule, "data set": LightningDataModule, "callback": Callback}
    return kind in bases and any(name == other.__name__ for other in _below(bases[kind]))


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for other in kind.__subclasses__():
        yield other
        yield from _below(other)


def _checked_configuration(path: Path, classes: GivenClasses) -> dict[str, Any]:
    """What a configuration holds, of which the outline is checked: the parser judges the values.

    Raises:
        UsageError: It isn't a configuration of relit's.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except UnicodeDecodeError as error:
        if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise UsageError(f"{path} is UTF-16 text: save it as UTF-8.") from error
        raise UsageError(f"{path} isn't a YAML file: it doesn't hold text.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        marked = error if isinstance(error, yaml.MarkedYAMLError) else yaml.MarkedYAMLError()
        place = f", line {marked.problem_mark.line + 1}" if marked.problem_mark is not None else ""
        problem = marked.problem or "it can't be read"
        if "'\\t'" in problem or "cannot start any token" in problem:
            problem = "a line begins with a tab or another character that YAML doesn't allow there; indent by spaces"
        raise UsageError(f"{path} isn't valid YAML{place}: {problem}.") from error
    if content is None:
        raise UsageError(f"{path} is empty; a configuration has settings such as `model:` and `data:`.")
    if not isinstance(content, dict):
        raise UsageError(f"{path} isn't a configuration: it holds {_kind_of(content)} in place of settings.")
    for key in TRAINER_COMMANDS:
        if key in content:
            raise UsageError(f"{path}: There is no setting {key}: what is below it belongs to the top level.")
    for key in content:
        if str(key).split(".")[0] not in OPTIONS:
            raise UsageError(f"{path}: {unknown_setting(str(key), dashes='')}")
    for group in ("run", "checkpoint", "predictions", "wandb"):
        part = content.get(group)
        for key in part if isinstance(part, dict) else ():
            if key not in (known := own_options(group)):
                raise UsageError(f"{path}: {unknown_in_group(group, str(key), known, dashes='')}")
    for key in ("model", "data"):
        part = content.get(key)
        if isinstance(part, dict):
            _check_keys(path, key, part)
        name = part.get("class_path") if isinstance(part, dict) else part
        if isinstance(name, str):
            _check_class_in(path, key, name)
        arguments = part.get("init_args") if isinstance(part, dict) else None
        for argument, value in arguments.items() if isinstance(arguments, dict) else ():
            name = value.get("class_path") if isinstance(value, dict) else value
            if isinstance(name, str) and str(argument).endswith(("optimizer", "scheduler")):
                _check_class_in(path, f"{key}.{argument}", name)
    trainer = content.get("trainer")
    if isinstance(trainer, dict):
        for key in trainer:
            if str(key).split(".")[0] not in trainer_arguments() and key != "default_root_dir":
                raise UsageError(
                    f"{path}: {unknown_trainer_option(str(key), f'trainer.{key}').replace('option', 'setting', 1)}"
                )
        for key in ("callbacks", "logger"):
            given = trainer.get(key)
            for one in given if isinstance(given, list) else [given]:
                name = one.get("class_path") if isinstance(one, dict) else one
                if isinstance(name, str):
                    _check_class_in(path, f"trainer.{key}", name)
    if told := classes.unknown_in(path, content):
        raise UsageError(told)
    leaves = {name: value for name, value in content.items() if name in OF_TOP_LEVEL}
    for group in ("trainer", "run", "checkpoint", "predictions", "wandb"):
        part = content.get(group)
        leaves |= {f"{group}.{name}": value for name, value in part.items()} if isinstance(part, dict) else {}
    for name, value in leaves.items():
        if told := _wrong_word(name, value):
            raise UsageError(f"{path}: {told.replace('--', '')}")
    return content


def _check_keys(path: Path, part: str, given: dict[str, Any]) -> None:
    """Refuses slips in the two keys by which a configuration gives a class and its arguments."""
    own = ("class_path", "init_args", "dict_kwargs")
    others = {"class": "class_path", "name": "class_path", "type": "class_path"}
    others |= dict.fromkeys(("args", "arguments", "params", "kwargs"), "init_args")
    for key in map(str, given):
        meant = others.get(key) or closest(key, own, cutoff=0.7)
        if key not in own and meant:
            raise UsageError(f"{path}: There is no setting {part}.{key}. Did you mean {part}.{meant}?")
        if key.partition(".")[0] not in own and "class_path" in given:
            raise UsageError(f"{path}: {part}.{key} is next to class_path; put it below {part}.init_args.")


def _check_class_in(path: Path, key: str, name: str) -> None:
    try:
        _check_class(key, name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _kind_of(content: Any) -> str:
    return "a list" if isinstance(content, list) else "text" if isinstance(content, str) else "a number"
