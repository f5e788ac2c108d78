"""Turns a checkpoint of ``configs/digit_classifier_mnist.yaml`` into the file of weights that comes with relit.

python scripts/export_digit_classifier.py CHECKPOINT [FILE]
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from datamodules import MNIST
from lit_models.metrics.extractors import DIGIT_CLASSIFIER, export_digit_classifier, load_classifier


def main(checkpoint: Path, path: Path = DIGIT_CLASSIFIER) -> None:
    """Tests the classifier on MNIST's test images and writes its weights with what the test says."""
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False)
    (results,) = trainer.test(load_classifier(checkpoint), MNIST(eval_batch_size=500))
    card = {
        "data": "MNIST at 32x32 (55,000 training images)",
        "test_accuracy": f"{results['test/accuracy']:.4f}",
        "command": "relit fit --config configs/digit_classifier_mnist.yaml",
        "torch": torch.__version__,
    }
    export_digit_classifier(checkpoint, path, card)
    print(f"{path}: {path.stat().st_size:,} bytes, {card['test_accuracy']} of the test images right")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
