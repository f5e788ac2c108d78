from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules import Digits
from lit_models import DigitClassifier
from tests.support.fixtures import Relit
from tests.support.tiny import quick_run, the_run
from tests.support.trainers import quiet_trainer

TINY = quick_run(
    "digit_classifier_mnist",
    "--data=Digits",
    data={"batch_size": 64},
    model={"widths": [3, 4]},
    trainer={"max_epochs": 1, "limit_train_batches": 3},
)


def test_the_network() -> None:
    """Two 3x3 convolutions and a halving a block, then a mean and a linear layer: 9·(1·16 + 16·16 + …) weights."""
    model = DigitClassifier().eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [16, 16, 32, 32, 64, 64]
    weights = 9 * (1 * 16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * 2 * (16 + 32 + 64) + 64 * 10 + 10
    assert sum(parameter.numel() for parameter in model.parameters()) == weights
    image = torch.rand(3, 1, 32, 32)
    assert torch.allclose(model(image), model.network.head(model.embed(image)))
    assert model.embed(image).shape == (3, 64)


@pytest.mark.long
def test_it_learns_digits_under_its_schedule(digits_root: Path) -> None:
    torch.manual_seed(0)
    model = DigitClassifier(widths=(8, 16, 16))
    trainer = quiet_trainer(max_epochs=3, use_distributed_sampler=False)
    trainer.fit(model, Digits(root=str(digits_root), batch_size=16))
    assert trainer.callback_metrics["val/accuracy"] > 0.8
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-5, "one cycle ends near 0"


def test_test_and_predict(relit: Relit) -> None:
    assert relit("fit", *TINY) == 0
    assert relit("test", *TINY, "--ckpt_path=last") == 0
    assert (the_run() / "figures" / "confusion_matrix.csv").is_file()
    checkpoint = the_run() / "checkpoints" / "last.ckpt"
    assert relit("predict", f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu") == 0
    rows = (the_run() / "predictions" / "classes.csv").read_text().splitlines()
    assert len(rows) == 1 + 300
