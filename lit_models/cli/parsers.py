"""The parsers of commands whose work needs torch, which is imported only after their arguments have been checked."""

import argparse
from pathlib import Path

from lit_models.cli.command_parser import CommandParser
from lit_models.errors import RunError
from lit_models.support.checkpoint_paths import WEIGHTS, require_card, require_checkpoint
from lit_models.support.weight_sources import require_weights

INIT_METHODS = ("cycle_gan", "dcgan", "pix2pix", "protonet", "resnet18", "vae")
"""The methods for which `relit init` writes configurations."""


def check(command: str, args: list[str]) -> None:
    """Ends the program with a sentence if one of these commands can't take its arguments, or with its help.

    Raises:
        RunError: A file or folder that it is given isn't there, or two arguments don't go together.
    """
    if command in PARSERS:
        end = args.index("--") if command == "sweep" and "--" in args else len(args)
        given = PARSERS[command]().parse_args(args[:end])
        if command in CHECKS:
            CHECKS[command](given)


def init_parser() -> argparse.ArgumentParser:
    """Of ``relit init``."""
    parser = CommandParser(
        prog="relit init",
        description="Looks at a folder of pictures, says what is in it, and writes a configuration for a method.",
    )
    parser.add_argument("folder", help="the folder")
    parser.add_argument("--method", choices=INIT_METHODS, help="the method; the first that fits if left out")
    parser.add_argument("--output", help="the YAML file; METHOD.yaml in the current folder if left out")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Of ``relit export``."""
    parser = CommandParser(
        prog="relit export",
        description="Writes a checkpoint's weights as safetensors, to be passed on and used with `relit predict "
        "--weights FILE`, or its networks as ONNX, for other programs; each with a card in JSON.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="its file, or a run's or experiment's folder (its best)"
    )
    parser.add_argument("--format", choices=["safetensors", "onnx"], default="safetensors")
    parser.add_argument("--part", help="for onnx: the only part to write, such as generator (default: each)")
    parser.add_argument("--output", metavar="NAME", help="files to write, without ending (default: the experiment)")
    parser.add_argument("--command", help="the command that trained it, for the card (default: what the run recorded)")
    parser.add_argument("--note", help="a remark for the card")
    parser.add_argument(
        "--hub-card",
        nargs="?",
        const="",
        metavar="OWNER/NAME",
        help="for safetensors: also write README.md, the card that the Hugging Face Hub shows",
    )
    parser.add_argument("--encoder", metavar="MODULE.NAME", help="the user-defined encoder of the model, if it has one")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def push_parser() -> argparse.ArgumentParser:
    """Of ``relit push``."""
    parser = CommandParser(
        prog="relit push",
        description="Publishes weights with their cards on the Hugging Face Hub, to be used as hf:OWNER/NAME.",
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", help="a .safetensors file that `relit export` wrote, or a run to export"
    )
    parser.add_argument("repository", metavar="OWNER/NAME", help="the Hub's repository; it is created if needed")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--note", help="a remark for the card of an exported run")
    parser.add_argument("--encoder", metavar="MODULE.NAME", help="the user-defined encoder of the model, if it has one")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def demo_parser() -> argparse.ArgumentParser:
    """Of ``relit demo``."""
    parser = CommandParser(
        prog="relit demo", description="Opens a page to play with trained models; the shipped ones by default."
    )
    parser.add_argument(
        "models", nargs="*", metavar="RUN|WEIGHTS", help="run folders, checkpoints, or weights by file or name"
    )
    parser.add_argument("--port", type=int, default=7860, help="port on this machine (default: %(default)s; 0: any)")
    return parser


def sweep_parser() -> argparse.ArgumentParser:
    """Of ``relit sweep``."""
    parser = CommandParser(
        prog="relit sweep",
        usage="relit sweep EXPERIMENT --vary NAME VALUE ... [options] [-- ARGUMENT OF relit fit ...]",
        description="Trains an experiment with many values of its arguments. Repeat the command to go on after an "
        "interruption; run it several times at once to share the work.",
    )
    parser.add_argument("experiment", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "--vary", nargs="+", action="append", default=[], metavar=("NAME", "VALUE"), help="an argument and its values"
    )
    parser.add_argument(
        "--range",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "LOW"),
        help="NAME LOW HIGH [log]: an argument and its range, for random and tpe; whole numbers if both ends are",
    )
    parser.add_argument("--sampler", choices=["grid", "random", "tpe"], default="grid")
    parser.add_argument("--metric", help="logged metric to sort by (default: the configuration's checkpoint.monitor)")
    parser.add_argument("--direction", choices=["minimize", "maximize"], help="which values of the metric are better")
    parser.add_argument(
        "--value", choices=["best", "last"], default="best", help="the run's best epoch or its last (default: best)"
    )
    parser.add_argument("--trials", type=int, help="trials in all (default: the full grid; 20 for random and tpe)")
    parser.add_argument(
        "--prune",
        type=int,
        metavar="EPOCHS",
        help="stop a run that is worse, after at least so many epochs, than the median of the others at that epoch",
    )
    parser.add_argument("--sampler_seed", type=int, default=0, help="seed of random and tpe (default: 0)")
    parser.add_argument("--retry_failed", action="store_true", help="try failed trials again")
    parser.add_argument("--name", help="the study's name (default: made of the settings, so that others get another)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--storage", type=Path, help="SQLite file (default: <root>/<experiment>/sweeps/sweeps.db)")
    return parser


PARSERS = {
    "init": init_parser,
    "export": export_parser,
    "push": push_parser,
    "demo": demo_parser,
    "sweep": sweep_parser,
}


def require_fitting_options(kind: str, part: str | None, hub_card: str | None) -> None:
    """Refuses options of ``relit export`` that are of the other format.

    Raises:
        RunError: One is.
    """
    if kind == "safetensors" and part is not None:
        raise RunError("--part chooses a network for --format onnx; safetensors hold all of them.")
    if kind != "safetensors" and hub_card is not None:
        raise RunError("--hub-card describes safetensors: leave --format out.")


def require_repository(name: str) -> None:
    """Refuses what is no name of a repository on the Hugging Face Hub.

    Raises:
        RunError: It isn't ``OWNER/NAME``.
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise RunError(f"{name!r} names no repository of the Hub: write OWNER/NAME.")


def unusable_port(port: int) -> RunError:
    """The error of a port that isn't free, or isn't one."""
    return RunError(f"Port {port} can't be used: choose another --port.")


def _check_export(given: argparse.Namespace) -> None:
    require_fitting_options(given.format, given.part, given.hub_card)
    if (path := require_checkpoint(Path(given.checkpoint))).suffix == WEIGHTS:
        require_card(path)


def _check_push(given: argparse.Namespace) -> None:
    require_repository(given.repository)
    require_weights(given.weights)


def _check_demo(given: argparse.Namespace) -> None:
    if not 0 <= given.port < 2**16:
        raise unusable_port(given.port)
    for source in given.models:
        require_weights(source)


CHECKS = {"export": _check_export, "push": _check_push, "demo": _check_demo}
"""Checks of paths and names. (`relit init` and `relit sweep` do theirs without torch.)"""
