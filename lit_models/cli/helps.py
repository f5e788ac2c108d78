"""The pages of ``--help``, written from the sources of relit and Lightning, so they appear at once."""

import shutil
import textwrap
from collections.abc import Iterable
from itertools import pairwise

from lit_models.cli.commands import COMMANDS, OPTIONS
from lit_models.cli.names import experiments
from lit_models.cli.suggestions import trainer_arguments
from lit_models.errors import UsageError
from lit_models.support import sources
from lit_models.support.spelling import did_you_mean

OWN_OPTIONS = {
    "run": ("lit_models.runs.folder", "RunOptions"),
    "checkpoint": ("lit_models.runs.checkpoints", "Checkpoints"),
    "predictions": ("lit_models.callbacks.predictions", "PredictionWriter"),
    "wandb": ("lit_models.runs.loggers", "WandbOptions"),
}
OFTEN_USED = {
    "--model.latent_dim 32": "an argument of the method (relit help DCGAN)",
    "--data.batch_size 128": "an argument of the data set (relit help MNIST)",
    "--trainer.max_epochs 10": "epochs to train",
    "--trainer.accelerator gpu": "the kind of device: auto, cpu, gpu, mps",
    "--trainer.devices 2": "processes, each with its device",
    "--trainer.precision bf16-mixed": "bfloat16 where it is safe",
    "--trainer.fast_dev_run": "one batch of everything, to see whether it works",
    "--trainer.callbacks+ EarlyStopping": "one more callback (relit help callbacks)",
    "--seed_everything 1": "another seed",
    "--compile": "torch.compile; --channels_last for faster convolutions",
}
GROUPS_OF = {
    "fit": ("run", "checkpoint", "wandb"),
    "validate": ("run", "wandb"),
    "test": ("run", "wandb"),
    "predict": ("predictions", "run"),
    "prepare": (),
}


def main(args: list[str]) -> int:
    """``relit help [COMMAND|METHOD|DATA|trainer|callbacks]``."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    topic = args[0]
    if len(args) > 1:
        raise UsageError(f"`relit help` explains one thing at a time: relit help {topic}, then {args[1]}.")
    known = [*COMMANDS, "trainer", "callbacks", *sources.methods(), *sources.data_sets(), *sources.callbacks()]
    if topic in COMMANDS and COMMANDS[topic].module is not None:
        from lit_models.__main__ import main as relit

        return relit([topic, "--help"])
    if topic in COMMANDS:
        text = command_page(topic)
    elif topic == "trainer":
        text = trainer_page("fit")
    elif topic == "callbacks":
        text = _class_list("callbacks", sources.callbacks(), "relit help SampleGrid")
    elif topic in sources.methods():
        text = class_page("model", topic)
    elif topic in sources.data_sets():
        text = class_page("data", topic)
    elif topic in sources.callbacks():
        text = class_page("trainer.callbacks", topic)
    elif topic in experiments():
        text = experiments()[topic].read_text(encoding="utf-8")
    else:
        raise UsageError(f"There is no help on {topic!r}.{did_you_mean(topic, known)} `relit help` lists the commands.")
    print(text, end="")
    return 0


def asked_for(args: list[str]) -> str | None:
    """The page that a command line asks for; None if it asks for none, or for one that the parser writes."""
    command = args[0]
    model = next((word for option, word in pairwise(args) if option == "--model"), None)
    for place, word in enumerate(args[1:], start=1):
        option, _, value = word.partition("=")
        if option in ("-h", "--help"):
            if value == "all":
                return None
            if value == "trainer":
                return trainer_page(command)
            if value:
                raise UsageError(f"--help={value}: there are --help, --help=trainer and --help=all.")
            if model in sources.methods():
                return class_page("model", str(model))
            return command_page(command)
        kind = option.removeprefix("--").removesuffix(".help")
        if option in ("--model.help", "--data.help", "--trainer.callbacks.help"):
            name = value or (args[place + 1] if place + 1 < len(args) else "")
            classes = {"model": sources.methods, "data": sources.data_sets, "trainer.callbacks": sources.callbacks}[
                kind
            ]()
            if not name and kind == "model" and model in classes:
                name = str(model)
            if not name or name.startswith("-"):
                title = {"model": "methods", "data": "data sets"}.get(kind, "callbacks")
                return _class_list(title, classes, f"relit {command} {option} {next(iter(classes))}")
            if "." in name:
                return None
            if name not in classes:
                from lit_models.support.known_classes import unknown_class

                if kind == "trainer.callbacks" and name in sources.exported_names("lightning.pytorch.callbacks"):
                    return None
                raise UsageError(str(unknown_class(kind, name)))
            return class_page(kind, name)
    return None


def overview() -> str:
    """The page of ``relit --help``."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "usage: relit COMMAND [NAME | --config FILE] [--OPTION VALUE ...]",
        "",
        "The classic deep-learning methods for images, each run by one command from YAML.",
        "",
        "commands:",
    ]
    for name, command in COMMANDS.items():
        lines += [f"  {name:{width}}{command.summary}"]
    lines += [
        "",
        "examples:",
        "  relit fit dcgan_digits                        train; the run is in runs/",
        "  relit fit vae_mnist --trainer.max_epochs 3    train with a value changed",
        "  relit test vae_mnist --ckpt_path last         test what was just trained",
        "  relit predict --weights conditional_gan_mnist --class 7 --count 10",
        "  relit list experiments                        list all names",
        "",
        "options:",
        "  --version     print relit's version",
        "  --help        explain a command: relit fit --help, relit help DCGAN",
        "",
    ]
    return "\n".join(lines)


def command_page(command: str) -> str:
    """The first screen of a command's help: what people use."""
    groups = GROUPS_OF[command]
    lines = [
        f"usage: relit {command} [--config FILE ...] [--NAME VALUE ...]",
        "",
        f"{COMMANDS[command].summary[0].upper()}{COMMANDS[command].summary[1:]}: {COMMANDS[command].example}",
        "",
    ]
    names = ["config", "model", "data"]
    names += {"prepare": ["picture"]}.get(command, ["ckpt_path", "weights"])
    values = {"config": "NAME|FILE", "model": "CLASS", "data": "CLASS", "picture": "FILE"}
    lines += ["what to run:"]
    rows = [(f"--{name} {values.get(name, 'FILE')}", OPTIONS[name]) for name in names]
    if command == "predict":
        rows += [
            ("--count 10", "How many images to make."),
            ("--class 7", "The class of the images, or several as 3,7; for models with classes."),
            ("--grid", "One picture with all images."),
        ]
    lines += _rows(rows)
    if command == "fit":
        lines += ["", "often used:", *_rows(OFTEN_USED.items())]
    for group in groups:
        described = sources.describe(*OWN_OPTIONS[group])
        title = {"run": "the run's folder", "checkpoint": "checkpoints", "wandb": "Weights & Biases"}.get(group, group)
        lines += ["", f"{title}:"]
        lines += _rows(
            (f"--{group}.{argument.name} {_value_of(argument)}", sources.first_sentence(argument.description))
            for argument in described.arguments
        )
    lines += ["", "everything:"]
    lines += _rows(
        [
            ("--help=trainer", "options of the Trainer"),
            ("--help=all", "every option with its type, as the parser has it (slow)"),
            ("--model.help", "methods; --model.help DCGAN a method's arguments"),
            ("--data.help", "data sets; --data.help MNIST a data set's arguments"),
            ("--print_config", OPTIONS["print_config"]),
            ("--debug", OPTIONS["debug"]),
        ]
    )
    return "\n".join([*lines, ""])


def trainer_page(command: str) -> str:
    """The Trainer's options, a sentence for each."""
    lines = [f"usage: relit {command} … [--trainer.NAME VALUE ...]", "", "options of the Trainer:"]
    lines += _rows(
        (f"--trainer.{name} {_value_of(argument)}", sources.first_sentence(argument.description))
        for name, argument in trainer_arguments().items()
    )
    return "\n".join([*lines, ""])


def class_page(kind: str, name: str) -> str:
    """A class's docstring and arguments."""
    modules = {"model": sources.methods, "data": sources.data_sets, "trainer.callbacks": sources.callbacks}[kind]()
    described = sources.describe(modules[name], name)
    usage = {"trainer.callbacks": f"relit fit … --trainer.callbacks+ {name}"}.get(kind, f"relit fit --{kind} {name}")
    lines = [f"usage: {usage} [--{kind}.NAME VALUE ...]", ""]
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    for paragraph in sources.plain(described.text).split("\n\n"):
        listed = any(
            line.lstrip().startswith(("-", "*", "|", ">>>")) or line.startswith("  ") for line in paragraph.splitlines()
        )
        lines += [paragraph if listed else _filled(paragraph, width), ""]
    lines += ["arguments:" if described.arguments else "It has no arguments."]
    lines += _rows(
        (f"--{kind}.{argument.name} {_value_of(argument)}", _description_of(argument))
        for argument in described.arguments
    )
    used_in = [other for other, path in experiments().items() if _names_class(path.read_text(encoding="utf-8"), name)]
    if used_in:
        shown = ", ".join(used_in[:8]) + (" …" if len(used_in) > 8 else "")
        lines += ["", *textwrap.wrap(f"configurations: {shown}", width, subsequent_indent="  ")]
    return "\n".join([*lines, ""])


def _filled(paragraph: str, width: int) -> str:
    return textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False, break_long_words=False)


def _names_class(text: str, name: str) -> bool:
    return f"class_path: {name}\n" in text


def _class_list(title: str, classes: dict[str, str], example: str) -> str:
    rows = [(name, sources.describe(module, name).summary) for name, module in classes.items()]
    return "\n".join([f"{title}:", *_rows(rows), "", f"more of one: {example}", ""])


def _description_of(argument: sources.Argument) -> str:
    text = argument.description or {
        "generator_optimizer": "The generator's optimizer, a class and its arguments (--model.generator_optimizer.lr).",
        "discriminator_optimizer": "The discriminator's optimizer, in the same way.",
        "optimizer": "The optimizer, a class and its arguments (--model.optimizer.lr).",
    }.get(argument.name, "")
    if argument.default is None:
        return f"{text} Required.".strip()
    short = argument.default if len(argument.default) <= 30 else "…"
    return f"{text} Default: {short}.".strip() if short not in ("None", "…") else text


def _value_of(argument: sources.Argument) -> str:
    """What stands for an argument's value in help."""
    kind = argument.type.replace("Optional[", "").replace(" | None", "")
    if "Literal" in kind:
        choices = [part.strip("'\" ") for part in kind.split("[", 1)[1].rstrip("]").split(",")]
        if len(choices) <= 5:
            return "|".join(choices)
    for start, shown in (("bool", "true|false"), ("int", "N"), ("float", "X"), ("list", "[…]"), ("tuple", "[…]")):
        if kind.startswith(start):
            return shown
    return "VALUE"


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second one wrapped to the width of the terminal."""
    rows = list(rows)
    if not rows:
        return []
    columns = min(shutil.get_terminal_size((100, 24)).columns, 120)
    left = min(max(len(name) for name, _ in rows) + 4, 38)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(columns - left, 24), break_on_hyphens=False) or [""]
        if len(name) + 4 > left:
            lines += [f"  {name}", *(f"{'':{left}}{part}" for part in wrapped)]
        else:
            lines += [f"  {name:{left - 2}}{wrapped[0]}", *(f"{'':{left}}{part}" for part in wrapped[1:])]
    return lines
