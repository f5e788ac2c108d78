import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analyses import darts_selection

from lit_models.darts.genotype import random_genotype
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tiny import CONFIGS

SECONDS = {"search": 100.0, "short": 30.0}
VALIDATION = {"search0": 0.5, "search1": 0.7, "search2": 0.6}
"""By candidate; all others have 0.4."""


class FakeRelit:
    """Writes run folders such as `relit fit` and `relit test` leave, in no time, and keeps what was asked for."""

    def __init__(self) -> None:
        self.fits: list[tuple[str, list[str]]] = []
        self.tests: list[list[str]] = []
        self.fail_at: str | None = None
        self.random_seconds = 40.0

    def train(self, folder: Path, arguments: list[str]) -> int:
        if (folder / "run.json").is_file():
            return 0
        if folder.name == self.fail_at:
            return 1
        self.fits.append((folder.name, list(arguments)))
        folder.mkdir(parents=True)
        kind, _, candidate = folder.name.partition("_")
        seconds = SECONDS["search"] if kind.startswith("search") else SECONDS["short"]
        if candidate.startswith("random"):
            seconds = self.random_seconds
        (folder / "run.json").write_text(json.dumps({"training_seconds": seconds, "finished": True}))
        (folder / "genotype.json").write_text(random_genotype(0).to_json())
        best = VALIDATION.get(candidate, 0.4)
        # The best epoch isn't the last: the last one counts.
        rows = f"0,0,0.99\n1,1,{best}\n" if kind == "short" else "0,0,\n"
        (folder / "metrics.csv").write_text(f"epoch,step,val/accuracy\n{rows}")
        return 0

    def relit(self, command: list[str]) -> int:
        assert command[0] == "test"
        self.tests.append(command)
        settings = dict(word.split("=", 1) for word in command if "=" in word)
        (folder,) = Path(settings["--run.root"]).glob(f"*/{settings['--run.id']}")
        seed = int(settings["--seed_everything"])
        # A test accuracy that would choose otherwise, if it were looked at.
        (folder / "metrics.csv").write_text(f"epoch,step,test/accuracy\n0,0,{0.9 + seed / 100}\n")
        return 0


@pytest.fixture
def fake(monkeypatch: Patch, tmp_path: Path) -> FakeRelit:
    monkeypatch.chdir(tmp_path)
    fake = FakeRelit()
    monkeypatch.setattr(darts_selection, "train", fake.train)
    monkeypatch.setattr(darts_selection, "relit", fake.relit)
    return fake


@pytest.fixture
def select(monkeypatch: Patch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["darts_selection.py", *arguments])
        return darts_selection.main()

    return run


def recorded(root: str = "runs/darts_selection") -> dict[str, Any]:
    return json.loads(Path(root, "selection.json").read_text())


def test_the_papers_selection(fake: FakeRelit, select: Callable[..., int], capsys: Output) -> None:
    assert select("--seeds", "3", "--repeats", "2", "--", "--trainer.accelerator=cpu") == 0
    names = [name for name, _ in fake.fits]
    assert names[:6] == ["search0", "short_search0", "search1", "short_search1", "search2", "short_search2"]
    sides = recorded()["sides"]
    assert sides["searched"]["chosen"] == "search1", "0.7 at the end, not 0.99 in between"
    assert sides["searched"]["seconds"] == 3 * (100 + 30)
    # 390 seconds buy 9.75 trainings of 40 seconds.
    assert len(sides["random"]["candidates"]) == 10
    assert sides["random"]["chosen"] == "random0", "the first of equals"
    assert names[-4:] == [f"full_{name}_seed{seed}" for seed in range(2) for name in ("search1", "random0")]

    arguments = dict(fake.fits)
    for name, given in arguments.items():
        assert "--trainer.accelerator=cpu" in given
        short = {"--data.val_fraction=0.5", "--model.epochs=100", "--trainer.max_epochs=100"}
        assert (short <= set(given)) == name.startswith("short_"), name
        kind = "search" if name.startswith("search") else "retrain"
        assert f"--config={CONFIGS / f'darts_{kind}_cifar10.yaml'}" in given
    assert "--seed_everything=2" in arguments["search2"]
    genotype = Path("runs/darts_selection/darts_search_cifar10/search1/genotype.json").absolute()
    for name in ("short_search1", "full_search1_seed0", "full_search1_seed1"):
        assert f"--model.genotype={genotype}" in arguments[name]
    assert "--model.genotype_seed=7" in arguments["short_random7"]

    tested = [next(word for word in command if word.startswith("--run.id=")) for command in fake.tests]
    assert tested == [f"--run.id={name}" for name in names[-4:]], "only what has been chosen is tested"
    assert all("--ckpt_path=last" in command for command in fake.tests)
    said = capsys.readouterr().out
    assert "| search1 | 0.03 | 0.01 | 70.00 | yes |" in said
    assert "| searched | 3 | 0.11 | search1 | 9.50 ± 0.71 (2 seeds) |" in said
    assert sides["random"]["tests"] == {"0": 0.9, "1": 0.91}


def test_it_goes_on_where_it_was_interrupted(fake: FakeRelit, select: Callable[..., int]) -> None:
    fake.fail_at = "short_search1"
    assert select("--seeds", "2") == 1
    assert [one["name"] for one in recorded()["sides"]["searched"]["candidates"]] == ["search0"]
    fake.fail_at = None
    assert select("--seeds", "2") == 0
    names = [name for name, _ in fake.fits]
    assert len(names) == len(set(names)), "nothing is trained twice"
    once = (recorded(), len(names), len(fake.tests))
    assert select("--seeds", "2") == 0
    assert once == (recorded(), len(fake.fits), len(fake.tests))


def test_a_number_of_random_cells(fake: FakeRelit, select: Callable[..., int]) -> None:
    assert select("--seeds", "1", "--random", "0") == 0
    assert not any("random" in name for name, _ in fake.fits)
    assert select("--seeds", "1", "--random", "2") == 0
    assert sum(name.startswith("short_random") for name, _ in fake.fits) == 2


@pytest.mark.parametrize(("seconds", "count"), [(1000.0, 4), (129.0, 4), (130.0, 4), (100.0, 5), (20.0, 26)])
def test_the_cost_is_equal_to_the_nearest_candidate(
    fake: FakeRelit, select: Callable[..., int], seconds: float, count: int
) -> None:
    """Four searches with their short trainings cost 520 s; there are at least as many random cells as searches."""
    fake.random_seconds = seconds
    assert select() == 0
    assert len(recorded()["sides"]["random"]["candidates"]) == count


def test_other_settings_need_another_folder(fake: FakeRelit, select: Callable[..., int], capsys: Output) -> None:
    assert select("--seeds", "1") == 0
    assert select("--seeds", "1", "--short_epochs", "5") == 1
    assert "holds a selection with other settings (short): choose another --root." in capsys.readouterr().err
    assert select("--seeds", "2", "--repeats", "3") == 0, "more runs are no other settings"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--seeds", "0"), "--seeds is 0; it must be at least 1"),
        (("--search", "nowhere.yaml"), "there is no configuration nowhere.yaml"),
        (("--val_fraction", "1"), "--val_fraction is 1.0; it must be at least 0 and less than 1"),
        (("--val_fraction", "0"), "no images are left to choose by"),
        (("--random", "few"), "few is neither a number nor equal"),
    ],
)
def test_bad_arguments_are_a_sentence(
    fake: FakeRelit, select: Callable[..., int], given: tuple[str, ...], message: str, capsys: Output
) -> None:
    with pytest.raises(SystemExit):
        select(*given)
    assert message in capsys.readouterr().err
    assert not fake.fits


@pytest.mark.slow
def test_a_selection_on_the_digits(relit: Relit, select: Callable[..., int], monkeypatch: Patch, capfd: Output) -> None:
    """All of it with relit itself, each command in this process."""
    common = "trainer: {accelerator: cpu, limit_train_batches: 2, limit_val_batches: 1, limit_test_batches: 1}\n"
    sizes = "image_size: 32, channels: 1, init_channels: 2, layers: 3, epochs: 1"
    Path("search.yaml").write_text(
        "run: {experiment: a}\n"
        f"model: {{class_path: DARTSSearch, init_args: {{{sizes}}}}}\n"
        "data: {class_path: SearchDataModule, init_args: {images: {class_path: Digits}, batch_size: 8}}\n"
        f"{common}"
    )
    Path("retrain.yaml").write_text(
        "run: {experiment: b}\n"
        f"model: {{class_path: DARTSRetrain, init_args: {{{sizes}, auxiliary_weight: 0}}}}\n"
        f"data: {{class_path: Digits}}\n{common}"
    )
    monkeypatch.setattr("lit_models.cli.processes.in_a_process", lambda command, _: relit(*command[3:]))
    given = ("--search", "search.yaml", "--retrain", "retrain.yaml", "--seeds", "2", "--short_epochs", "1")
    assert select(*given, "--val_fraction", "0", "--random", "1") == 0
    said = capfd.readouterr().out
    assert said.count("== relit fit") == 2 + 2 + 1 + 2
    assert said.count("== relit test") == 2
    sides = recorded()["sides"]
    assert [len(side["candidates"]) for side in sides.values()] == [2, 1]
    assert all(0 <= side["tests"]["0"] <= 1 and side["seconds"] > 0 for side in sides.values())
    assert select(*given, "--val_fraction", "0", "--random", "1") == 0
    assert "== relit" not in capfd.readouterr().out
