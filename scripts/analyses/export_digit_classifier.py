"""Turns a checkpoint of ``configs/digit_classifier_mnist.yaml`` into the file of weights that comes with relit.

Label smoothing makes a network less sure than it is right. So its logits are divided by the temperature that minimizes
the cross-entropy on the validation images (Guo et al. 2017, arXiv:1706.04599, section 4.2), which changes none of its
answers; without, the Inception Score of real digits would be 6 out of 10.

python scripts/analyses/export_digit_classifier.py CHECKPOINT [FILE]
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from scipy.optimize import minimize_scalar
from torch.nn import functional

from datamodules import MNIST
from lit_models import DigitClassifier
from lit_models.metrics.extractors import DIGIT_CLASSIFIER
from lit_models.support.named_extractors import export_digit_classifier, load_classifier


def main(checkpoint: Path, path: Path = DIGIT_CLASSIFIER) -> None:
    """Tests the classifier on MNIST's test images and writes its weights with the results."""
    data = MNIST(eval_batch_size=500)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False)
    (results,) = trainer.test(load_classifier(checkpoint), data)
    data.setup("fit")
    classifier = load_classifier(checkpoint)
    assert isinstance(classifier, DigitClassifier)
    temperature = best_temperature(classifier, data)
    card = {
        "data": "MNIST at 32x32 (55,000 training images)",
        "test_accuracy": f"{results['test/accuracy']:.4f}",
        "command": "relit fit --config configs/digit_classifier_mnist.yaml",
        "torch": torch.__version__,
        "temperature": f"{temperature:.4f}",
    }
    export_digit_classifier(checkpoint, path, card, 1 / temperature)
    print(f"{path}: {path.stat().st_size:,} bytes, {card['test_accuracy']} of the test images right")


@torch.no_grad()
def best_temperature(classifier: DigitClassifier, data: MNIST) -> float:
    """The number by which to divide the logits so that the validation images' cross-entropy is smallest."""
    images = data.val_set.__getitems__(torch.arange(len(data.val_set)))
    logits = torch.cat([classifier(part) for part in data.transform(images, training=False).image.split(500)]).double()
    found = minimize_scalar(
        lambda temperature: float(functional.cross_entropy(logits / temperature, images.label)),
        bounds=(0.01, 10),
        method="bounded",
    )
    return float(found.x)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
