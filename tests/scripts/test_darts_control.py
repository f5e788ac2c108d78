import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_models.runs.reading import read_run
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import started_here
from tests.support.tiny import CONFIGS

SCRIPTS = CONFIGS.parent / "scripts" / "analyses"
CONFIG = """
run: {experiment: small}
model:
  class_path: DARTSRetrain
  init_args: {image_size: 32, channels: 1, init_channels: 4, layers: 3, epochs: 2, auxiliary_weight: 0}
data: {class_path: Digits}
trainer: {limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1}
checkpoint: {monitor: val/accuracy, mode: max}
"""


@pytest.fixture
def control(relit: Relit, monkeypatch: Patch) -> Callable[..., Any]:
    """Runs the script, and what it would start as processes in this one."""

    def start(*arguments: str) -> Any:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr("sys.argv", ["darts_control.py", *arguments])
        monkeypatch.setattr("subprocess.run", started_here(relit, "--trainer.accelerator=cpu"))
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPTS / "darts_control.py"), run_name="__main__")
        return exit_.value.code

    return start


@pytest.mark.slow
def test_all_genotypes_are_trained_alike_and_only_once(control: Callable[..., Any], capfd: Output) -> None:
    Path("small.yaml").write_text(CONFIG)
    given = ("--config", "small.yaml", "--genotypes", "DARTS_V1", "--random", "2", "--csv", "control.csv")
    assert control(*given) == 0
    said = capfd.readouterr().out
    assert said.count("== relit fit") == said.count("== relit test") == 3
    names = ["DARTS_V1", "random0", "random1"]
    runs = {name: read_run(Path("runs/small") / name, name) for name in names}
    best = {name: max(value for _, value in run.curves["val/accuracy"]) for name, run in runs.items()}
    for name in names:
        test = runs[name].results["test/accuracy"]
        assert f"| {name} | {100 * best[name]:.1f} | {100 * test:.1f} |" in said
    searched = max(names[1:], key=lambda name: best[name])
    found = f"{100 * best[searched]:.1f} | {100 * runs[searched].results['test/accuracy']:.1f}"
    assert f"| random search: best of 2 | {found} |" in said
    assert f"| mean of 2 random | {50 * (best['random0'] + best['random1']):.1f} ± " in said
    assert len(Path("control.csv").read_text().splitlines()) == 4

    assert control(*given) == 0
    assert "== relit" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--random", "0"), "nothing to train"),
        (("--genotypes", "nowhere/genotype.json"), "there is no file nowhere/genotype.json"),
        (("--genotypes", "DARTS_V1", "DARTS_V1"), "would share a run folder"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    control: Callable[..., Any], given: tuple[str, ...], message: str, capfd: Output
) -> None:
    assert control(*given) == 2
    assert message in capfd.readouterr().err
