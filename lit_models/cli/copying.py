"""``relit copy NAME [FILE]``: a configuration of relit's as a file of one's own."""

import shutil
from pathlib import Path

from lit_models.cli.command_parser import CommandParser
from lit_models.cli.names import configuration, configurations
from lit_models.errors import UsageError
from lit_models.support.spelling import did_you_mean


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(prog="relit copy", description="Writes a configuration of relit's for editing.")
    parser.add_argument("name", metavar="NAME", help="the configuration: `relit list experiments`")
    parser.add_argument("file", nargs="?", metavar="FILE", help="the file to write (default: NAME.yaml)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    given = parser.parse_args(args)
    source = configuration(given.name)
    if source is None:
        guess = did_you_mean(given.name, configurations())
        raise UsageError(f"There is no configuration {given.name}.{guess} `relit list experiments` lists them.")
    target = Path(given.file or source.name)
    if target.is_dir():
        target /= source.name
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target} should end in .yaml.")
    if target.exists() and not given.force:
        raise UsageError(f"{target} is there already: name another file, or add --force.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"{target} can't be written ({error.strerror}).") from error
    print(f"{target} is written. Next: edit it, then relit fit {target}")
    return 0
