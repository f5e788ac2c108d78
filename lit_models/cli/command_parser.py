"""The parser of the commands that run without the Trainer; it refuses in one sentence, as all of relit does."""

import argparse
import re
from typing import NoReturn

from lit_models.cli.commands import COMMANDS
from lit_models.support.spelling import did_you_mean


class CommandParser(argparse.ArgumentParser):
    """argparse's parser with relit's messages."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"relit: {self._explained(message)}\n")

    def _explained(self, message: str) -> str:
        command = COMMANDS.get(self.prog.removeprefix("relit "))
        example = f": {command.example}" if command is not None else ""
        if found := re.match(r"the following arguments are required: (.+)", message):
            names = [name if name.startswith("-") else name.upper() for name in found[1].split(", ")]
            return f"`{self.prog}` needs {' and '.join(names)}{example}"
        if found := re.match(r"unrecognized arguments: ([^-\s]\S*)", message):
            return f"`{self.prog}` has no use for {found[1]}. `{self.prog} --help` shows what it takes."
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            guess = did_you_mean(found[1].partition("=")[0], options)
            return f"There is no option {found[1]}.{guess} `{self.prog} --help` lists them."
        if found := re.match(r"argument (\S+): expected .*argument", message):
            return f"{found[1].split('/')[-1]} needs a value."
        if found := re.match(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            choices = found[3].replace("'", "").split(", ")
            guess = did_you_mean(found[2], choices)
            return f"{found[1].split('/')[-1]} is {found[2]}; it must be one of {', '.join(choices)}.{guess}"
        if found := re.match(r"argument (\S+): invalid (int|float) value: '(.*)'", message):
            kind = {"int": "a whole number", "float": "a number"}[found[2]]
            return f"{found[1].split('/')[-1]} is {found[3]}; it must be {kind}."
        return f"`{self.prog}`: {message}."
