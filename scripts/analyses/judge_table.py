"""Scores the shipped generators of MNIST, real digits and ten memorized ones, and writes the table of docs/scores.md.

python scripts/analyses/judge_table.py            # needs MNIST; about a minute; writes results/judge.json and the table
python scripts/results_table.py --seal            # then gives the record its digest
python scripts/analyses/judge_table.py --check    # exit code 1 if the table isn't that of results/judge.json
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from datamodules import MNIST
from lit_models.callbacks import GenerationScores
from lit_models.runs.loggers import environment
from lit_models.support.files import write_atomically
from lit_models.support.judge import read_judge
from lit_models.support.weights import build_model, read_weights

REPOSITORY = Path(__file__).parents[2]
RECORD = REPOSITORY / "results" / "judge.json"
PAGE = REPOSITORY / "docs" / "scores.md"
MARKED = re.compile(r"<!-- judge -->\n.*?<!-- end of judge -->", re.DOTALL)
GENERATORS = {"shipped DCGAN": "dcgan_mnist", "shipped conditional GAN": "conditional_gan_mnist"}
COLUMNS = {
    "fid": ("FID", 3),
    "kid": ("KID", 5),
    "inception_score": ("IS", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
    "memorized": ("memorized", 4),
    "spread": ("spread", 3),
    "label_accuracy": ("label accuracy", 4),
}


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the table is out of date")
    if not parser.parse_args().check:
        write_atomically(RECORD, json.dumps(measured(), indent=1) + "\n")
    text = PAGE.read_text(encoding="utf-8")
    shown = table(json.loads(RECORD.read_text(encoding="utf-8")))
    new = MARKED.sub(lambda _: f"<!-- judge -->\n{shown}\n<!-- end of judge -->", text)
    if not parser.parse_args().check:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    return int(new != text)


def measured() -> dict[str, Any]:
    """The scores by row, and what they go over."""
    record: dict[str, Any] = {}
    rows: dict[str, dict[str, float]] = {}
    for row, name in GENERATORS.items():
        path = REPOSITORY / "weights" / f"{name}.safetensors"
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                callbacks=[GenerationScores()],
                logger=False,
                enable_model_summary=False,
                default_root_dir=folder,
                use_distributed_sampler=False,
            )
            trainer.test(build_model(read_weights(path), path), MNIST(batch_size=64, image_size=32), verbose=False)
            judge = read_judge(Path(folder))["test"]
        logged = {metric.removeprefix("test/"): float(value) for metric, value in trainer.callback_metrics.items()}
        rows[row] = {score: logged[score] for score in COLUMNS if score in logged}
        record = {key: value for key, value in judge.items() if key != "calibration"} | environment(trainer)
        calibration = judge["calibration"]
    rows = {kind: {s: scores[s] for s in COLUMNS if s in scores} for kind, scores in calibration.items()} | rows
    return {**record, "rows": rows}


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [["images", *(label for label, _ in COLUMNS.values())], ["---"] * (len(COLUMNS) + 1)]
    for row, scores in record["rows"].items():
        values = (f"{scores[s]:.{digits}f}" if s in scores else "" for s, (_, digits) in COLUMNS.items())
        lines.append([row, *values])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
