"""``relit completion bash|zsh|fish``: a static script that completes commands, options, classes and configurations.

Made from the sources, so that the shell needs no Python to complete: install it again after an update of relit.
"""

import argparse
from collections.abc import Callable
from functools import cache

from lit_models.cli.arguments import trainer_arguments
from lit_models.cli.commands import COMMANDS, GROUPS, OPTIONS, TRAINER_COMMANDS
from lit_models.cli.helps import OWN_OPTIONS
from lit_models.cli.listing import KINDS
from lit_models.cli.names import configurations, experiments, published_weights
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
    parser = argparse.ArgumentParser(
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
    names = [f"--{name}" for name in OPTIONS if name not in GROUPS or name in ("model", "data")]
    without = {"predict": {"--picture", "--verbose"}, "prepare": {"--ckpt_path", "--weights", "--verbose"}}
    names += ["--model.help", "--data.help"]
    names += [f"--trainer.{name}" for name in trainer_arguments()] + ["--trainer.callbacks+"]
    for group, (module, name) in OWN_OPTIONS.items():
        names += [f"--{group}.{argument.name}" for argument in sources.describe(module, name).arguments]
    if command == "predict":
        names += ["--class", "--count", "--grid"]
    dropped = without.get(command, {"--picture"}) | ({"--weights", "--verbose"} if command == "fit" else set())
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
    }.get(command, list(experiments()) if command in TRAINER_COMMANDS else [])


def _of_classes(by_class: dict[str, list[str]], kinds: list[str]) -> list[str]:
    return sorted({option for kind in kinds for option in by_class[kind]})


@cache
def bash() -> str:
    """The script for bash 3.2 and later."""
    by_class = arguments_by_class()
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
            "        case $command in",
            *(f"            {command}) words='{' '.join(options(command))}' ;;" for command in TRAINER_COMMANDS),
            "            *) words='--help' ;;",
            "        esac",
            "        # the arguments of the classes that are named, by themselves or by a configuration",
            '        for given in "${COMP_WORDS[@]:2}"; do',
            "            given=${given##*/}; given=${given%.yaml}",
            "            case $given in",
            *(
                f"                {name}) words+=' {' '.join(_of_classes(by_class, kinds))}' ;;"
                for name, kinds in classes_of_experiments().items()
            ),
            *(f"                {name}) words+=' {' '.join(arguments)}' ;;" for name, arguments in by_class.items()),
            "            esac",
            "        done",
            "    else",
            '        case "$before" in',
            *(f"            {option}) words='{' '.join(known)}' ;;" for option, known in values().items()),
            "            -*) ;;",
            '            *) case "$command" in',
            *(f"                {command}) words='{' '.join(words_after(command))}' ;;" for command in COMMANDS),
            "            esac ;;",
            "        esac",
            "    fi",
            '    COMPREPLY=( $(compgen -W "$words" -- "$word") )',
            "    # files where a name may be one, too",
            '    if [[ $word != -* ]] && (( COMP_CWORD > 1 )); then COMPREPLY+=( $(compgen -f -- "$word") ); fi',
            "}",
            "complete -o filenames -o nosort -F _relit relit 2>/dev/null || complete -o filenames -F _relit relit",
            "",
        ]
    )


def zsh() -> str:
    """The script for zsh, which runs bash's."""
    return "\n".join(
        [
            "#compdef relit",
            "# Completion of relit for zsh; made by `relit completion zsh`.",
            "autoload -Uz bashcompinit && bashcompinit",
            bash(),
        ]
    )


def fish() -> str:
    """The script for fish."""
    lines = ["# Completion of relit for fish; made by `relit completion fish`.", "complete -c relit -f"]
    lines += [
        f"complete -c relit -n __fish_use_subcommand -a {name} -d {_quoted(command.summary)}"
        for name, command in COMMANDS.items()
    ]
    lines += [
        f"complete -c relit -n '__fish_seen_subcommand_from {command}' -a {_quoted(' '.join(words_after(command)))}"
        for command in COMMANDS
        if words_after(command)
    ]
    known = values()
    for command in TRAINER_COMMANDS:
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        for option in options(command):
            follows = f" -x -a {_quoted(' '.join(known[option]))}" if option in known else ""
            lines.append(f"complete -c relit {seen} -l {option.removeprefix('--')}{follows}")
    for name, arguments in arguments_by_class().items():
        seen = f"-n 'string match -q -- \"* {name} *\" (commandline)'"
        lines += [f"complete -c relit {seen} -l {option.removeprefix('--')} -x" for option in arguments]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
