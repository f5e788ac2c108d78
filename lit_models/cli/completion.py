"""``relit completion bash|zsh|fish``: a static script that completes commands, options, classes and configurations.

Made from the sources, so that the shell needs no Python to complete: install it again after an update of relit.
"""

import argparse
import ast
import shlex
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from lit_models.cli.command_parser import CommandParser
from lit_models.cli.commands import COMMANDS, GROUPS, OPTIONS, TRAINER_COMMANDS
from lit_models.cli.helps import OWN_OPTIONS
from lit_models.cli.listing import KINDS
from lit_models.cli.names import configurations, experiments, published_weights
from lit_models.cli.parsers import PARSERS
from lit_models.cli.suggestions import trainer_arguments
from lit_models.support import sources
from lit_models.support.known_classes import classes_for

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": "relit completion bash > ~/.local/share/bash-completion/completions/relit",
    "zsh": "relit completion zsh > ~/.zfunc/_relit   # with fpath+=~/.zfunc before compinit",
    "fish": "relit completion fish > ~/.config/fish/completions/relit.fish",
}


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(
        prog="relit completion",
        description="Prints a script that completes relit's commands in a shell.",
        epilog="\n".join(["to install it:", *(f"  {line}" for line in INSTALL.values())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(args).shell
    scripts: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
    print(scripts[shell](), end="")
    return 0


def options(command: str) -> list[str]:
    """The options of a command that don't depend on a class."""
    module = COMMANDS[command].module
    if command in PARSERS:
        strings = [option for action in PARSERS[command]()._actions for option in action.option_strings]
        return [option for option in strings if option.startswith("--")]
    return _options_of_the_trainers(command) if module is None else [*_options_in(module), "--help"]


def _options_in(module: str) -> list[str]:
    """The options that a module or package of ``lit_models.cli`` adds to its parser, read from its source."""
    path = Path(__file__).parent / module
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
    ]
    names = [first.value for call in calls for first in call.args[:1] if isinstance(first, ast.Constant)]
    return [name for name in names if isinstance(name, str) and name.startswith("--")]


def _options_of_the_trainers(command: str) -> list[str]:
    names = [f"--{name}" for name in OPTIONS if name not in GROUPS or name in ("model", "data")]
    without = {"predict": {"--picture", "--verbose"}, "prepare": {"--ckpt_path", "--weights", "--verbose"}}
    names += ["--model.help", "--data.help"]
    names += [f"--trainer.{name}" for name in trainer_arguments()] + ["--trainer.callbacks+"]
    for group, (module, name) in OWN_OPTIONS.items():
        names += [f"--{group}.{argument.name}" for argument in sources.describe(module, name).arguments]
    if command == "predict":
        names += ["--class", "--count", "--grid"]
    dropped = without.get(command, {"--picture"}) | ({"--verbose"} if command == "fit" else set())
    return sorted(set(names) - dropped)


def values() -> dict[str, list[str]]:
    """What may follow an option, by option."""
    switch = ["true", "false"]
    return {
        "--config": list(configurations()),
        "-c": list(configurations()),
        "--model": list(sources.methods()),
        "--model.help": list(sources.methods()),
        "--data": list(sources.data_sets()),
        "--data.help": list(sources.data_sets()),
        "--weights": list(published_weights()),
        "--ckpt_path": ["last", "best"],
        "--trainer.callbacks": classes_for("trainer.callbacks")[1],
        "--trainer.callbacks+": classes_for("trainer.callbacks")[1],
        "--trainer.logger": classes_for("trainer.logger")[1],
        "--trainer.accelerator": ["auto", "cpu", "gpu", "mps"],
        "--trainer.precision": ["32-true", "16-mixed", "bf16-mixed", "64-true"],
        "--trainer.strategy": ["auto", "ddp"],
        "--trainer.profiler": ["simple", "advanced", "pytorch"],
        "--channels_last": switch,
        "--compile": switch,
        "--wandb.enabled": switch,
        "--lr_scaling": ["none", "linear", "sqrt"],
        "--checkpoint.mode": ["min", "max"],
    }


def arguments_by_class() -> dict[str, list[str]]:
    """The options that a method or a data set has, by its name."""
    found = {}
    for kind, classes in (("model", sources.methods()), ("data", sources.data_sets())):
        for name, module in classes.items():
            found[name] = [f"--{kind}.{argument.name}" for argument in sources.describe(module, name).arguments]
    return found


def classes_of_experiments() -> dict[str, list[str]]:
    """Method and data set of each configuration."""
    known = {**sources.methods(), **sources.data_sets()}
    found = {}
    for name, path in experiments().items():
        words = [
            line.split("class_path:")[1].strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if "class_path:" in line
        ]
        found[name] = [word for word in words if word in known]
    return found


def words_after(command: str) -> list[str]:
    """What may follow a command without an option."""
    return {
        "list": list(KINDS),
        "copy": list(configurations()),
        "completion": list(SHELLS),
        "help": [*COMMANDS, "trainer", "callbacks", *sources.methods(), *sources.data_sets(), *sources.callbacks()],
        "sweep": list(experiments()),
    }.get(command, list(experiments()) if command in TRAINER_COMMANDS else [])


def _of_classes(by_class: dict[str, list[str]], kinds: list[str]) -> list[str]:
    return sorted({option for kind in kinds for option in by_class[kind]})


@cache
def bash() -> str:
    """The script for bash 3.2 and later."""
    return "\n".join(
        [
            "# Completion of relit for bash; made by `relit completion bash`.",
            "_relit() {",
            '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '    local command="${COMP_WORDS[1]}"',
            "    local words='' given",
            "    COMPREPLY=()",
            "    # bash takes `=` for a separate word: --model=DC",
            '    [[ $word == = ]] && word=""',
            '    [[ $before == = ]] && before="${COMP_WORDS[COMP_CWORD-2]}"',
            "    if (( COMP_CWORD == 1 )); then",
            f"        words='{' '.join([*COMMANDS, '--help', '--version'])}'",
            "    elif [[ $word == -* ]]; then",
            *_cases('"$command"', ((command, f"words='{' '.join(options(command))}'") for command in COMMANDS)),
            "        # the arguments of the classes that are named, by themselves or by a configuration",
            '        for given in "${COMP_WORDS[@]:2}"; do',
            "            given=${given##*/}; given=${given%.yaml}",
            *_cases('"$given"', ((name, f"words+=' {' '.join(own)}'") for name, own in arguments_by_name().items())),
            "        done",
            "    else",
            *_cases('"$before"', ((option, f"words='{' '.join(known)}'") for option, known in values().items())),
            "        if [[ $before != -* ]]; then",
            *_cases('"$command"', ((command, f"words='{' '.join(words_after(command))}'") for command in COMMANDS)),
            "        fi",
            "    fi",
            '    COMPREPLY=( $(compgen -W "$words" -- "$word") )',
            "    # files where a name may be one, too",
            '    if [[ $word != -* ]] && (( COMP_CWORD > 1 )); then COMPREPLY+=( $(compgen -f -- "$word") ); fi',
            "}",
            "complete -o filenames -o nosort -F _relit relit 2>/dev/null || complete -o filenames -F _relit relit",
            "",
        ]
    )


@cache
def zsh() -> str:
    """The script for zsh."""
    commands = " ".join(shlex.quote(f"{name}:{command.summary}") for name, command in COMMANDS.items())
    return "\n".join(
        [
            "#compdef relit",
            "# Completion of relit for zsh; made by `relit completion zsh`.",
            "_relit() {",
            '    local word="$words[CURRENT]" before="$words[CURRENT-1]" command="$words[2]" given',
            "    local -a found",
            "    if (( CURRENT == 2 )); then",
            f"        found=({commands})",
            "        _describe command found",
            "        return",
            "    fi",
            "    if [[ $word == --*=* ]]; then",
            "        before=${word%%=*}",
            "        compset -P '*='",
            "    elif [[ $word == -* ]]; then",
            *_cases('"$command"', ((command, f"found=({' '.join(options(command))})") for command in COMMANDS)),
            "        # the arguments of the classes that are named, by themselves or by a configuration",
            '        for given in "${(@)words[3,-1]}"; do',
            "            given=${given##*=}; given=${given##*/}; given=${given%.yaml}",
            *_cases('"$given"', ((name, f"found+=({' '.join(own)})") for name, own in arguments_by_name().items())),
            "        done",
            "        compadd -a found",
            "        return",
            "    fi",
            *_cases('"$before"', ((option, f"found=({' '.join(known)})") for option, known in values().items())),
            "    if [[ $before != -* ]]; then",
            *_cases('"$command"', ((command, f"found=({' '.join(words_after(command))})") for command in COMMANDS)),
            "    fi",
            "    compadd -a found",
            "    _files  # where a name may be one, too",
            "}",
            "# Read by `source`, or called the first time by the completion system itself.",
            'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _relit "$@"; else compdef _relit relit; fi',
            "",
        ]
    )


def fish() -> str:
    """The script for fish."""
    lines = [
        "# Completion of relit for fish; made by `relit completion fish`.",
        "function __relit_names --description 'whether a class, or a configuration that uses it, is named'",
        "    for word in (commandline -opc)",
        "        contains -- (string replace -r '^.*[/=]' '' -- $word | string replace -r '\\.yaml$' '') $argv",
        "        and return",
        "    end",
        "    return 1",
        "end",
        "complete -c relit -n __fish_use_subcommand -f",
    ]
    lines += [
        f"complete -c relit -n __fish_use_subcommand -a {name} -d {_quoted(command.summary)}"
        for name, command in COMMANDS.items()
    ]
    known = values()
    for command in COMMANDS:
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        if words_after(command):
            lines.append(f"complete -c relit {seen} -a {_quoted(' '.join(words_after(command)))}")
        for option in options(command):
            follows = f" -r -a {_quoted(' '.join(known[option]))}" if option in known else ""
            lines.append(f"complete -c relit {seen} -l {option.removeprefix('--')}{follows}")
        if command in TRAINER_COMMANDS:
            lines.append(f"complete -c relit {seen} -s c -r -a {_quoted(' '.join(known['--config']))}")
    by_class = arguments_by_class()
    uses = classes_of_experiments()
    for name, arguments in by_class.items():
        naming = " ".join([name, *(experiment for experiment, classes in uses.items() if name in classes)])
        lines += [
            f"complete -c relit -n '__relit_names {naming}' -l {option.removeprefix('--')} -r" for option in arguments
        ]
    return "\n".join([*lines, ""])


def arguments_by_name() -> dict[str, list[str]]:
    """The options that come with a name: those of a class, and of the classes in a configuration."""
    by_class = arguments_by_class()
    return {**{name: _of_classes(by_class, kinds) for name, kinds in classes_of_experiments().items()}, **by_class}


def _cases(word: str, cases: Iterable[tuple[str, str]]) -> list[str]:
    """A shell's choice by a word."""
    return [
        f"        case {word} in",
        *(f"            {pattern}) {code} ;;" for pattern, code in cases),
        "        esac",
    ]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
