"""Which method of translation works on which data: three methods on three kinds of pairing, all at 64x64.

    python scripts/translation_grid.py --epochs 20 --csv translation_grid.csv

Methods: a plain GAN (no pairs in its loss, no source in its discriminator, no cycle), pix2pix (conditional) and
CycleGAN. Data: photographs and maps of the same place (paired), maps shifted at random by up to 8 pixels (loose), and
photographs and maps of any places (unpaired). Each cell is a run of ``configs/<experiment>.yaml`` with nothing changed
but the pairing of the training data and the number of epochs, tested on the same pairs by the same metrics; beside
them baselines that need no network.

Runs lie in ``<runs>/<experiment>/<pairing>``. Those that are finished are used again, those that were interrupted go
on: start the same command again.
"""

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from translation_baselines import SHOWN, baseline_scores

from lit_models import cli

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = {"plain GAN": "gan_translator_maps_64", "pix2pix": "pix2pix_maps_64", "CycleGAN": "cyclegan_maps_64"}
"""The experiment of each method."""
PAIRINGS = ("paired", "loose", "unpaired")
IMAGE_SIZE = 64


def cell_commands(method: str, pairing: str, epochs: int, runs: Path, *more: str) -> list[list[str]]:
    """What is left to do for one cell, as arguments of ``relit``: nothing, a test, or a training and a test.

    Args:
        method: A key of :data:`METHODS`.
        pairing: One of :data:`PAIRINGS`.
        epochs: Epochs of the training.
        runs: Folder of all experiments.
        *more: Further arguments.
    """
    run = cell_run(method, pairing, runs)
    if (run / "scores.json").is_file():
        return []
    common = [
        *("--config", str(CONFIGS / f"{METHODS[method]}.yaml"), f"--data.pairing={pairing}"),
        *(f"--trainer.max_epochs={epochs}", f"--run.root={runs}", f"--run.id={pairing}", *more),
    ]
    last = run / "checkpoints" / "last.ckpt"
    record = run / "run.json"
    commands = []
    if not (record.is_file() and json.loads(record.read_text())["finished"]):
        commands.append(["fit", *common, *([f"--ckpt_path={last}"] if last.is_file() else [])])
    return [*commands, ["test", *common, f"--ckpt_path={last}"]]


def cell_run(method: str, pairing: str, runs: Path) -> Path:
    """The run's folder of one cell."""
    return runs / METHODS[method] / pairing


def cell_scores(method: str, pairing: str, runs: Path) -> dict[str, Any]:
    """The test's metrics of one cell, from its run, and the ``training_seconds`` that it took."""
    run = cell_run(method, pairing, runs)
    seconds = json.loads((run / "run.json").read_text())["training_seconds"]
    return json.loads((run / "scores.json").read_text()) | {"training_seconds": seconds}


def fill(epochs: int, runs: Path, *more: str, command: Callable[[list[str]], int] = cli.run) -> None:
    """Runs what is left to do for all nine cells."""
    for method in METHODS:
        for pairing in PAIRINGS:
            for arguments in cell_commands(method, pairing, epochs, runs, *more):
                if command(arguments) != 0:
                    raise SystemExit(f"relit {' '.join(arguments)} failed")


def table(runs: Path) -> str:
    """The cells that are finished, in Markdown: of each metric a column for each pairing."""
    metrics = [*SHOWN, "map_recall_motorway", "map_precision_motorway"]
    lines = [f"| method, training data | {' | '.join(metrics)} |", f"| --- |{' ---: |' * len(metrics)}"]
    for method in METHODS:
        for pairing in PAIRINGS:
            if (cell_run(method, pairing, runs) / "scores.json").is_file():
                scores = cell_scores(method, pairing, runs)
                lines.append(f"| {method}, {pairing} | {' | '.join(cells(scores, metrics))} |")
    for name, values in baseline_scores(IMAGE_SIZE).items():
        lines.append(f"| {name} | {' | '.join(cells(values, metrics))} |")
    return "\n".join(lines)


def cells(scores: dict[str, Any], metrics: list[str]) -> list[str]:
    """The metrics as a table shows them; a dash for one that has no value."""
    values = [scores[metric] for metric in metrics]
    return ["–" if value is None or value != value else f"{value:.3f}" for value in values]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40, help="epochs of each training (default: 40)")
    parser.add_argument("--runs", type=Path, default=Path("runs/translation_grid"), help="folder of the runs")
    parser.add_argument("--accelerator", default="auto", help="Lightning's accelerator (default: auto)")
    parser.add_argument("--list", action="store_true", help="print the commands that are left, and stop")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all metrics of all cells to this file")
    args = parser.parse_args()
    more = [f"--trainer.accelerator={args.accelerator}", "--trainer.enable_model_summary=false"]
    if args.list:
        for method in METHODS:
            for pairing in PAIRINGS:
                for arguments in cell_commands(method, pairing, args.epochs, args.runs, *more):
                    print("relit", *arguments)
        return
    fill(args.epochs, args.runs, *more, "--trainer.enable_progress_bar=false")
    print(table(args.runs))
    if args.csv:
        rows = [
            {"method": method, "pairing": pairing, **cell_scores(method, pairing, args.runs)}
            for method in METHODS
            for pairing in PAIRINGS
        ]
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
