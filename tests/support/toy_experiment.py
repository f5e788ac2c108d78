"""A small experiment, and what a file of results holds of one."""

from typing import Any

import results_table
from experiments import Budget, Data, Experiment, Figure, Step

QUICK = (
    *("--model.feature_maps=2", "--model.latent_dim=4", "--trainer.limit_train_batches=3"),
    *("--trainer.callbacks=null", "--checkpoint.monitor=null", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
)
COMMIT = 40 * "a"
DIGITS = Data("digits", 1_497, 300)
NOISY = ("--model.label_noise=0.1", "--trainer.callbacks=null")
TOY = Experiment(
    title="Two toys",
    steps=(
        Step("plain", "DCGAN", "dcgan", "dcgan_digits", DIGITS, checkpoint="last"),
        Step("noisy", "DCGAN, noisy", "dcgan", "dcgan_digits", DIGITS, NOISY, checkpoint="last"),
    ),
    figures=(
        Figure("plain", "loss", "test/generator_loss", published="a_loss"),
        Figure("plain", "loss after an epoch", "val/generator_loss", epoch=1),
        Figure("noisy", "loss", "test/generator_loss", main=False),
    ),
    budgets={"cpu": Budget({"*": (*QUICK, "--trainer.max_epochs=1")})},
    drawn=("val/generator_loss",),
)


def entry(values: list[float], **changes: Any) -> dict[str, Any]:
    """What a file of results holds of a step, for seeds 0, 1, …"""
    return {
        "config": "configs/dcgan_digits.yaml",
        "changed": changes,
        "command": "relit fit --config configs/dcgan_digits.yaml",
        "data": {"name": "digits", "whole": True, "train_images": 1297, "val_images": 200, "test_images": 300},
        "seeds": {
            str(seed): {
                "commit": COMMIT,
                "training_seconds": 100.0 + 20 * seed,
                "hardware": "a CPU",
                "tests": {"test": {"commit": COMMIT, "figures": {"test/accuracy": value, "test/accuracy_ci95": 0.01}}},
                "curves": {"val/accuracy": [[1, 0.1], [2, value]]},
            }
            for seed, value in enumerate(values)
        },
    }


def row_of(step: Step, figure: Figure, entry: dict[str, Any]) -> results_table.Row:
    return results_table.measured(results_table._unmeasured("toy", step, figure, None), step, figure, entry)
