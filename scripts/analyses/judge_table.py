"""Scores the shipped generators of MNIST, real digits and ten memorized ones, for the table of docs/scores.md.

python scripts/analyses/judge_table.py    # needs MNIST; about a minute; writes results/judge.json
python scripts/results_table.py --seal    # then gives the record its digest and writes the table
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from experiments.judge import COLUMNS  # noqa: E402

from datamodules import MNIST  # noqa: E402
from lit_models.callbacks import GenerationScores  # noqa: E402
from lit_models.runs.loggers import environment  # noqa: E402
from lit_models.support.files import write_atomically  # noqa: E402
from lit_models.support.judge import read_judge  # noqa: E402
from lit_models.support.weights import build_model, read_weights  # noqa: E402

RECORD = REPOSITORY / "results" / "judge.json"
GENERATORS = {"shipped DCGAN": "dcgan_mnist", "shipped conditional GAN": "conditional_gan_mnist"}


def main() -> None:
    """Reads the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_atomically(RECORD, json.dumps(measured(), indent=1) + "\n")


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


if __name__ == "__main__":
    main()
