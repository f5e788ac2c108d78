"""`relit predict`: classes and counts as people type them, and the run that is predicted from."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_models.cli.arguments import read_arguments
from tests.support.tiny import TINY, the_run

Relit = Callable[..., int]
WEIGHTS = "predict --weights conditional_gan_mnist"


@pytest.mark.parametrize(
    ("typed", "data"),
    [
        ("--class 7 --count 10", "--data Samples --data.labels [7] --data.count 10"),
        ("--class=3,7", "--data Samples --data.labels [3,7]"),
        ("--data.labels 7", "--data Samples --data.labels [7]"),
        ("--data.labels [7] --data.count 3", "--data Samples --data.labels [7] --data.count 3"),
        ("--data.labels='[1,2]' --data.seed=4", "--data Samples --data.labels [1,2] --data.seed 4"),
        ("--data.seed 4 --count 8", "--data Samples --data.seed 4 --data.count 8"),
        ("--data Samples --data.labels 7 --count 10", "--data Samples --data.labels [7] --data.count 10"),
    ],
)  # fmt: skip
def test_classes_and_counts_ask_for_samples(typed: str, data: str) -> None:
    read = read_arguments(shlex.split(f"{WEIGHTS} {typed}"))
    assert shlex.join(read[3:]).replace("'", "") == data
    assert read[:2] == ["predict", "--weights"]


def test_a_configuration_before_them_does_not_replace_them() -> None:
    read = read_arguments(shlex.split("predict --data.labels 7 conditional_gan_digits --ckpt_path last"))
    assert read[1] == "--config"
    assert read[-4:] == ["--data", "Samples", "--data.labels", "[7]"]


def test_samples_come_from_the_configurations_run(relit: Relit, capsys: pytest.CaptureFixture[str]) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1") == 0
    run = the_run().resolve()
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    capsys.readouterr()
    assert relit("predict", *TINY, "--ckpt_path=last", "--count=2", *quiet) == 0
    assert len(list((run / "predictions").glob("*.png"))) == 2
    captured = capsys.readouterr()
    assert "in place of" not in captured.err
    assert captured.out == f"The predictions are in {run / 'predictions'}: 2 files\n"
    assert relit("predict", "--ckpt_path=runs/dcgan_digits", "--count=2", "--grid", *quiet) == 0, "its newest run"
    assert capsys.readouterr().out == f"The predictions are in {run / 'predictions_2'}: 1 file\n"
    assert [path.name for path in Path("runs").iterdir()] == ["dcgan_digits"]
