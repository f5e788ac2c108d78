"""Entry point of the ``relit`` command, also as ``python -m lit_models``; quick where torch isn't needed."""

import io
import os
import sys
from importlib import import_module
from importlib.metadata import version

# relit only writes figures to files. A notebook's shell hands its own backend on, which may not be installed here.
os.environ["MPLBACKEND"] = "agg"


def main(args: list[str] | None = None) -> int:
    """Runs ``relit``; returns the exit code: 0 on success, 2 if the arguments are wrong, 1 for any other error."""
    from lit_models.cli import arguments, helps, parsers
    from lit_models.cli.commands import COMMANDS, NEED_EVERY_PACKAGE
    from lit_models.errors import RunError, UsageError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # Windows: pipes of a few letters only
            stream.reconfigure(errors="replace")
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(helps.overview(), end="")
        return 0 if args else 2
    if args[0] in ("--version", "-V"):
        print(f"relit {version('relit')}")
        return 0
    try:
        command = arguments.checked_command(args)
        module = COMMANDS[command].module
        if module is not None:
            parsers.check(command, args[1:])
        else:
            if text := helps.asked_for(args):
                print(text, end="")
                return 0
            args = arguments.read_arguments(args)
        if command in NEED_EVERY_PACKAGE:
            from lit_models.cli.versions import refusal

            if told := refusal():
                print(f"relit: {told}", file=sys.stderr)
                return 1
        if module is not None:
            return import_module(f"lit_models.cli.{module}").main(args[1:])
        from lit_models.cli.command import run

        return run(args)
    except UsageError as error:
        print(f"relit: {error}", file=sys.stderr)
        return 2
    except RunError as error:  # a file or folder that isn't there
        print(f"relit: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `relit … | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:  # while it was importing, or drawing
        print("relit: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
