"""``relit list``: what comes with relit, and the runs of this folder."""

import json
from typing import Any

import yaml

from lit_models.cli import runs_table
from lit_models.cli.command_parser import CommandParser
from lit_models.cli.minutes import measured_minutes, minutes_text
from lit_models.cli.names import experiments, published_weights
from lit_models.cli.tables import table
from lit_models.errors import UsageError
from lit_models.support import sources
from lit_models.support.spelling import did_you_mean
from lit_models.support.yaml_loader import LOADER

IMAGES = {
    "CelebA": ("202,599", "1.4 GB, by hand"),
    "CIFAR10": ("60,000", "170 MB"),
    "Digits": ("1,797", "none"),
    "LFW": ("13,233", "110 MB"),
    "Maps": ("2,194", "250 MB"),
    "MNIST": ("70,000", "12 MB"),
    "Omniglot": ("32,460", "16 MB"),
    "OmniglotEpisodes": ("32,460", "16 MB"),
    "STL10": ("13,000", "2.6 GB"),
    "TinyImageNet": ("110,000", "250 MB"),
}
"""Labeled images of the data sets, and the approximate size of their download (decimal units)."""
MEASURED_BY = {
    "GenerationScores": "FID, KID, precision, recall",
    "ClassificationReport": "accuracy by class",
    "TranslationScores": "L1, PSNR, SSIM, FID",
    "EmbeddingPlot": "embedding",
    "HistogramBaseline": "nats of a histogram",
}
"""What callbacks measure."""
Listed = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The head of a table and its rows."""
KINDS = ("methods", "data", "experiments", "weights", "callbacks", "runs")


def main(args: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = CommandParser(
        prog="relit list",
        description="Lists methods, data sets, experiments (configurations), published weights, callbacks, or the runs "
        "of this folder; without a word, the first four.",
    )
    parser.add_argument("kind", nargs="?", metavar=f"{{{','.join(KINDS)}}}", help="what to list")
    parser.add_argument("words", nargs="*", metavar="WORD", help="list lines with all of these words only")
    given = parser.parse_args(args)
    kind = {"data_sets": "data", "configs": "experiments", "configurations": "experiments"}.get(given.kind, given.kind)
    kind = {"models": "methods", "method": "methods", "experiment": "experiments"}.get(kind, kind)
    if kind is not None and kind not in KINDS:
        raise UsageError(f"There is no list of {given.kind}.{did_you_mean(kind, KINDS)} There are {', '.join(KINDS)}.")
    if kind == "runs":
        return runs_table.main(given.words)
    for number, one in enumerate(KINDS[:4] if kind is None else [kind]):
        head, rows = {
            "methods": list_methods,
            "data": list_data,
            "experiments": list_experiments,
            "weights": list_weights,
            "callbacks": list_callbacks,
        }[one]()
        rows = [row for row in rows if all(word.lower() in " ".join(row).lower() for word in given.words)]
        if not rows and given.words:
            raise UsageError(f"No line of `relit list {one}` has {' and '.join(given.words)}: leave some words out.")
        print("\n" * (number > 0) + table(head, rows), end="")
    if kind in (None, "experiments"):
        print("\nrelit fit NAME trains; relit copy NAME writes the file for editing; relit help NAME prints it.")
        print("Minutes are of a training on one CPU core with these settings; `relit help NAME` shows the settings.")
    if kind in (None, "data"):
        print("\nSizes of downloads are approximate.")
    return 0


def list_methods() -> Listed:
    """A row for each method."""
    rows: list[tuple[str, ...]] = [
        (name, sources.describe(module, name).summary) for name, module in sources.methods().items()
    ]
    return ("METHOD", "WHAT IT IS"), rows


def list_data() -> Listed:
    """A row for each data set."""
    rows: list[tuple[str, ...]] = [
        (name, *IMAGES.get(name, ("yours", "none")), sources.describe(module, name).summary)
        for name, module in sources.data_sets().items()
    ]
    return ("DATA", "IMAGES", "DOWNLOAD", "WHAT IT IS"), rows


def list_callbacks() -> Listed:
    """A row for each of relit's callbacks."""
    rows: list[tuple[str, ...]] = [
        (name, sources.describe(module, name).summary) for name, module in sources.callbacks().items()
    ]
    return ("CALLBACK", "WHAT IT DOES"), rows


def list_experiments() -> Listed:
    """A row for each configuration."""
    contents = {name: yaml.load(path.read_text(encoding="utf-8"), LOADER) for name, path in experiments().items()}
    minutes = measured_minutes(contents)
    rows: list[tuple[str, ...]] = []
    for name, content in contents.items():
        data = _class_in(content.get("data"))
        images = _class_in((content["data"].get("init_args") or {}).get("images")) or data
        shown = data if images == data else f"{images}, {data}"
        one_person = bool((content["data"].get("init_args") or {}).get("people"))
        size = "530" if one_person else IMAGES.get(images, ("yours", ""))[0]
        epochs = _epochs(content)
        rows.append(
            (
                name,
                _class_in(content["model"]),
                shown,
                size,
                epochs,
                minutes_text(minutes.get(name)),
                _measured(content),
            )
        )
    return ("EXPERIMENT", "METHOD", "DATA", "IMAGES", "EPOCHS", "MINUTES", "MEASURED"), rows


MAIN_FIGURES = (
    *("test/fid", "test/accuracy", "test/label_accuracy", "test/squared_error"),
    *("test/map_accuracy", "test/nats_importance_weighted"),
)
"""What a list shows of the tests on weights' cards."""


def list_weights() -> Listed:
    """A row for each file of published weights."""
    rows: list[tuple[str, ...]] = []
    for name, path in published_weights().items():
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        figures = card.get("figures", {})
        shown = [metric for metric in MAIN_FIGURES if metric in figures]
        values = ", ".join(f"{metric.removeprefix('test/')} {figures[metric]:.4g}" for metric in shown)
        data = _class_in(card.get("data"))
        rows.append((name, card["method"], data, f"{card['numbers'] / 1e6:.2f} M", values or "–"))
    return ("WEIGHTS", "METHOD", "DATA", "PARAMETERS", "TEST"), rows


def _class_in(part: Any) -> str:
    name = part.get("class_path") if isinstance(part, dict) else part
    return name.rsplit(".", 1)[-1] if isinstance(name, str) else ""


def _epochs(content: dict[str, Any]) -> str:
    trainer, arguments = content.get("trainer") or {}, content["model"].get("init_args") or {}
    if "EarlyStopping" in map(_class_in, trainer.get("callbacks") or []):
        return "early stop"
    if trainer.get("max_epochs") is not None:
        return str(trainer["max_epochs"])
    if arguments.get("epochs") is not None:
        return str(arguments["epochs"])
    own = [arguments[name] for name in ("pretrain_epochs", "finetune_epochs") if arguments.get(name) is not None]
    if len(own) == 2:
        sizes = arguments.get("hidden_sizes") or arguments.get("layer_sizes") or []
        return f"{len(sizes)}x{own[0]}+{own[1]}" if sizes else f"{own[0]}+{own[1]}"
    steps = trainer.get("max_steps")
    return f"{steps} steps" if steps else "–"


def _measured(content: dict[str, Any]) -> str:
    callbacks = (content.get("trainer") or {}).get("callbacks") or []
    monitor = (content.get("checkpoint") or {}).get("monitor")
    found = [monitor.removeprefix("val/").replace("_", " ")] if monitor and "fid" not in monitor else []
    found += [MEASURED_BY[name] for name in map(_class_in, callbacks) if name in MEASURED_BY]
    return ", ".join(dict.fromkeys(found)) or "losses"
