"""`scripts/reproduce.py`: what is run, and what is left alone."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import experiments
import numpy as np
import pytest
import reproduce
import results_table
import yaml
from analyses import best_epoch
from experiments import Budget, Experiment, Step
from experiments.listing import changes
from experiments.records import altered

from datamodules import DataWarning, Digits
from lit_models.runs import loggers
from tests.support.fixtures import Output, Patch, Relit
from tests.support.processes import started_here
from tests.support.tables import rows_of
from tests.support.tiny import CONFIGS
from tests.support.toy_experiment import COMMIT, DIGITS, QUICK, TOY, row_of


@pytest.fixture
def start(relit: Relit, monkeypatch: Patch) -> Callable[..., int]:
    """Runs the script, and what it would start as processes in this one."""
    reproduce.resolved.cache_clear()  # tests have files of the same relative path
    monkeypatch.setattr("subprocess.run", started_here(relit))
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", TOY)
    monkeypatch.setattr(loggers, "git_commit", lambda: COMMIT)

    def reproduce_(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["reproduce.py", *arguments])
        return reproduce.main()

    return reproduce_


def results() -> dict[str, Any]:
    return json.loads(Path("results/toy.json").read_text())


@pytest.mark.long
def test_a_chain_is_run_once_and_recorded(start: Relit, capfd: Output) -> None:
    command = ("toy", "--seeds", "2", "--steps", "plain", "--results", "results")
    assert start("toy", "--first_seed", "1", "--steps", "plain", "--results", "results") == 0
    assert capfd.readouterr().out.count("== relit fit") == 1
    assert [*results()["steps"]["plain"][0]["seeds"]] == ["1"]
    assert start(*command) == 0
    assert capfd.readouterr().out.count("== relit fit") == 1, "seed 1 is there"
    (plain,) = results()["steps"]["plain"]
    assert plain["changed"]["model.init_args.feature_maps"] == [2, 32]
    assert "model.init_args.label_noise" not in plain["changed"]
    assert plain["command"].startswith("relit fit --config configs/dcgan_digits.yaml --")
    assert "--model.feature_maps 2" in plain["command"]
    assert "--trainer.callbacks null" in plain["command"]
    assert plain["data"] == {
        "name": "digits",
        "whole": True,
        "train_images": 1297,
        "val_images": 200,
        "test_images": 300,
    }
    assert plain["settings"]["model"]["init_args"]["latent_dim"] == 4
    assert [*plain["seeds"]] == ["0", "1"]
    for seed, run in plain["seeds"].items():
        folder = Path("runs/dcgan_digits") / f"plain-cpu-seed{seed}"
        assert run["run"] == f"dcgan_digits/plain-cpu-seed{seed}"
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"] == int(seed)
        record = json.loads((folder / "run.json").read_text())
        assert run["training_seconds"] == record["training_seconds"] > 0
        assert run["commit"] == record["git_commit"] == COMMIT
        assert run["torch"] == record["torch"]
        assert run["steps"] == 3
        assert run["checkpoint"] == "last.ckpt: the end of training"
        assert run["peak_memory_bytes"]["process"] > 2**27
        (test,) = json.loads((folder / "tests.json").read_text())
        assert run["tests"]["test"]["figures"] == test["figures"]
        logged = [float(value) for row in rows_of(folder / "metrics.csv") if (value := row["test/generator_loss"])]
        assert logged == [pytest.approx(test["figures"]["test/generator_loss"])]
        assert [epoch for epoch, _ in run["curves"]["val/generator_loss"]] == [1]
    figures = [run["tests"]["test"]["figures"]["test/generator_loss"] for run in plain["seeds"].values()]
    assert figures[0] != figures[1]
    assert list(altered(Path("results"))) == [], "each record has its digest"

    before = results()
    capfd.readouterr()
    assert start(*command) == 0
    assert "== relit" not in capfd.readouterr().out, "neither a training nor a test is repeated"
    assert start(*command, "--", "--model.latent_dim", "8") == 1, "a run with other settings isn't taken for this one"
    assert "model.init_args.latent_dim is 4, not 8" in capfd.readouterr().err
    assert results() == before


@pytest.mark.long
def test_a_killed_run_goes_on(start: Relit, relit: Relit, capfd: Output) -> None:
    config = ("--config", CONFIGS / "dcgan_digits.yaml", *QUICK)
    assert relit("fit", *config, "--trainer.max_epochs=1", "--run.id=plain-cpu-seed0") == 0
    path = Path("runs/dcgan_digits/plain-cpu-seed0/run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": False}))
    config_of_run = path.with_name("config.yaml")
    config_of_run.write_text(config_of_run.read_text().replace("max_epochs: 1\n", "max_epochs: 2\n"))
    assert start("toy", "--steps", "plain", "--results", "results", "--", "--trainer.max_epochs", "2") == 0
    assert "--ckpt_path=last" in capfd.readouterr().out
    (plain,) = results()["steps"]["plain"]
    assert [epoch for epoch, _ in plain["seeds"]["0"]["curves"]["val/generator_loss"]] == [1, 2]


def test_a_failed_step_leaves_out_what_needs_it(start: Relit, monkeypatch: Patch, capfd: Output) -> None:
    steps = (
        Step("first", "", "", "dcgan_digits", DIGITS),
        Step("second", "", "", "latent_gan_mnist", DIGITS, uses={"--model.decoder_checkpoint": "first"}),
    )
    budget = {"cpu": Budget({"*": (*QUICK, "--trainer.max_epochs=1", "--model.image_size=64")})}
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", Experiment("", steps, (), budget))
    assert start("toy", "--results", "results") == 1
    said = capfd.readouterr().err
    assert "first, seed 0, has failed" in said
    assert "second, seed 0, was left out: it needs first" in said
    assert not Path("results").exists()


def test_an_earlier_run_fixes_the_length_of_a_step(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    """The authors of Prototypical Networks: `val.loss.argmin() + patience` of the losses by epoch."""
    loss = [0.9, 0.3, 0.5, 0.3, 0.4]
    lines = [f"{epoch},{10 * epoch + 9},{value}" for epoch, value in enumerate(loss)]
    (tmp_path / "metrics.csv").write_text("\n".join(["epoch,step,val/loss", *lines]))
    step = Step("all", "", "", "dcgan_digits", DIGITS, length_of="first")
    given: list[list[str]] = []
    monkeypatch.setattr(reproduce, "train", lambda folder, arguments: given.append(arguments) or 1)
    chain = reproduce.Chain("protonet", tmp_path)
    chain.train(step, Budget(patience=7), "id", 0, tmp_path, [])
    assert chain.failed == ["all, seed 0, was left out: it needs first."]
    chain.runs["first", 0] = tmp_path
    chain.train(step, Budget(patience=7), "id", 0, tmp_path, [])
    assert given[0][-1] == f"--trainer.max_epochs={int(np.argmin(loss)) + 7}"

    monkeypatch.setattr("sys.argv", ["best_epoch.py", str(tmp_path), "--plus", "200"])
    assert best_epoch.main() == 0
    assert capsys.readouterr().out == "201\n"
    monkeypatch.setattr("sys.argv", ["best_epoch.py", str(tmp_path), "--metric", "val/fid"])
    assert best_epoch.main() == 1
    assert "has no val/fid in its metrics.csv: name the folder of a run that validated" in capsys.readouterr().err


def test_what_follows_the_seed_is_no_change() -> None:
    """Runs whose own argument is the seed are seeds of one row."""
    step = Step("random", "", "", "dcgan_digits", DIGITS, ("--model.label_noise={seed}",))
    mine: dict[str, Any] = {"model": {"init_args": {"label_noise": 1, "feature_maps": 8}}}
    theirs: dict[str, Any] = {"model": {"init_args": {"label_noise": 0, "feature_maps": 16}}}
    changed = reproduce.changes(mine, theirs, step)
    assert changed == {"model.init_args.feature_maps": [8, 16]}
    command = "relit fit --config configs/x.yaml --model.feature_maps 8 --model.label_noise SEED"
    assert reproduce.command_line("configs/x.yaml", changed, step) == command


@pytest.mark.parametrize(
    ("train", "val", "test", "whole"),
    [
        (1297, 200, 300, True),
        (1497, 200, 300, True),  # trained on the validation images, too
        (1497, 200, 299, False),
        (1296, 200, 300, False),
        (200, 200, 300, False),
    ],
)
def test_whole_data(train: int, val: int, test: int, whole: bool) -> None:
    sizes = {"train_images": train, "val_images": val, "test_images": test}
    assert reproduce.is_whole(DIGITS, sizes) == whole


def test_pairs_that_are_evaluated_in_tiles_count_as_photographs() -> None:
    data = {"name": "Maps", "train_images": 1096, "val_images": 4941, "test_images": 4941}
    sizes = {"train_images": 1096, "val_images": 549, "test_images": 549}
    tiled = {"evaluation": "tiles", "load_size": 286, "image_size": 128}
    assert reproduce.photographs({"data": data, "settings": {"init_args": tiled}}) == sizes
    whole = {name: count for name, count in data.items() if name != "name"}
    assert reproduce.photographs({"data": data, "settings": {"init_args": {**tiled, "evaluation": "resized"}}}) == whole
    assert reproduce.photographs({"data": data}) == whole


def test_a_step_whose_runs_keep_no_best_checkpoint(start: Relit, monkeypatch: Patch, capfd: Output) -> None:
    step = Step("plain", "DCGAN", "dcgan", "dcgan_digits", DIGITS)
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", Experiment("", (step,), (), TOY.budgets))
    assert start("toy", "--results", "results") == 1
    assert "kept no best.ckpt to be tested: name a metric" in capfd.readouterr().err


def test_a_run_by_hand_is_recorded(start: Relit, relit: Relit, capfd: Output) -> None:
    config = ("--config", CONFIGS / "dcgan_digits.yaml", *QUICK, "--trainer.max_epochs=1", "--seed_everything=7")
    assert relit("fit", *config, "--run.id=mine") == 0
    assert relit("fit", *config, "--run.id=noisy", "--model.label_noise=0.1") == 0
    mine, noisy = "runs/dcgan_digits/mine", "runs/dcgan_digits/noisy"
    assert start("toy", "--results", "results", "--take", f"plain={mine}") == 0
    capfd.readouterr()
    recorded = results()
    recorded["steps"] |= {"of_old": recorded["steps"]["plain"]}
    Path("results/toy.json").write_text(json.dumps(recorded))
    assert start("toy", "--results", "results", "--take", f"noisy={noisy}", "--take", f"plain={mine}") == 0
    assert [*results()["steps"]] == ["plain", "noisy", "of_old"], "what is no longer declared is left alone, at the end"
    said = capfd.readouterr().out
    assert "== relit fit" not in said
    assert said.count("== relit test") == 1, "what has been tested isn't again"
    (plain,), (other,) = (results()["steps"][step] for step in ("plain", "noisy"))
    assert [*plain["seeds"]] == [*other["seeds"]] == ["7"]
    assert other["changed"]["model.init_args.label_noise"] == [0.1, 0.0]
    assert other["changed_from_own"] == other["changed"]
    assert Path("results/toy/metrics.png").is_file()

    shutil.rmtree("results/toy")
    shutil.move(mine, "elsewhere")
    assert start("toy", "--results", "results", "--take", f"noisy={noisy}") == 0
    drawn = {row["run"]: float(row["final"]) for row in rows_of(Path("results/toy/comparison.csv"))}
    curves = {name: entry["seeds"]["7"]["curves"] for name, entry in (("DCGAN", plain), ("DCGAN, noisy", other))}
    assert drawn == {name: curve["val/generator_loss"][-1][1] for name, curve in curves.items()}, (
        "what is recorded is drawn, its run being there or not"
    )
    shutil.move("elsewhere", mine)

    assert start("toy", "--results", "results", "--take", f"noisy={mine}") == 1
    assert "is no run of noisy: its model.init_args.label_noise is not 0.1" in capfd.readouterr().err
    assert start("toy", "--results", "results", "--take", "plain=runs/nothing") == 1
    assert "is not a run's folder" in capfd.readouterr().err
    record = json.loads(Path(mine, "run.json").read_text())
    Path(mine, "run.json").write_text(json.dumps({**record, "finished": False}))
    assert start("toy", "--results", "results", "--take", f"plain={mine}") == 1
    assert "hasn't finished" in capfd.readouterr().err


def test_uncommitted_changes_are_refused_or_said(start: Relit, monkeypatch: Patch, capfd: Output) -> None:
    command = ("toy", "--steps", "plain", "--results", "results")
    for commit, reason in ((f"{COMMIT}+changes", "has uncommitted changes"), (None, "is of an unknown commit")):
        monkeypatch.setattr(loggers, "git_commit", lambda commit=commit: commit)
        assert start(*command) == 1
        assert f"This copy of relit {reason}: commit them first, or add --allow_dirty" in capfd.readouterr().err
    assert not Path("runs").exists()
    monkeypatch.setattr(loggers, "git_commit", lambda: f"{COMMIT}+changes")
    assert start(*command, "--allow_dirty") == 0
    (plain,) = results()["steps"]["plain"]
    assert row_of(TOY.steps[0], TOY.figures[0], plain).changed[-1] == "uncommitted changes"
    monkeypatch.setattr(loggers, "git_commit", lambda: COMMIT)
    assert start("toy", "--results", "results", "--take", "plain=runs/dcgan_digits/plain-cpu-seed0") == 1
    assert "The training runs/dcgan_digits/plain-cpu-seed0 has uncommitted changes" in capfd.readouterr().err


def test_remarks_on_the_data_make_it_a_subset(start: Relit, monkeypatch: Patch, relit: Relit) -> None:
    """Another checksum, though the numbers of images are right."""

    def prepare(self: Any) -> None:
        prepare_data(self)
        warnings.warn("/data/x.gz has the checksum md5:1, not the published md5:2", DataWarning, stacklevel=1)

    prepare_data = Digits.prepare_data
    assert (
        relit("fit", "--config", CONFIGS / "dcgan_digits.yaml", *QUICK, "--trainer.max_epochs=1", "--run.id=one") == 0
    )
    monkeypatch.setattr(Digits, "prepare_data", prepare)
    assert start("toy", "--results", "results", "--take", "plain=runs/dcgan_digits/one") == 0
    (plain,) = results()["steps"]["plain"]
    assert plain["data"]["remarks"] == ["x.gz has the checksum md5:1, not the published md5:2"]
    assert plain["data"]["whole"] is False
    row = row_of(TOY.steps[0], TOY.figures[0], plain)
    assert row.data == "digits, **subset**: x.gz has the checksum md5:1, not the published md5:2"


def test_a_cut_of_the_epochs_shortens_a_schedule_of_steps(start: Relit, monkeypatch: Patch) -> None:
    """Whether a budget cuts them or the command line does; a length that is asked for stays."""
    step = Step("gp", "WGAN-GP", "wgan", "wgan_gp_digits", DIGITS)
    config = yaml.safe_load((CONFIGS / "wgan_gp_digits.yaml").read_text())
    epochs = config["trainer"]["max_epochs"]
    total = config["model"]["init_args"]["generator_scheduler"]["init_args"]["total_iters"]
    budgets = {"cpu": Budget({"*": (f"--trainer.max_epochs={epochs // 2}",)}), "paper": Budget()}
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", Experiment("", (step,), (), budgets))
    given: list[list[str]] = []
    monkeypatch.setattr(reproduce, "train", lambda folder, arguments: given.append(arguments) or 1)
    start("toy", "--results", "results")
    start("toy", "--results", "results", "--budget", "paper", "--", "--trainer.max_epochs", str(epochs // 2))
    start("toy", "--results", "results", "--", "--model.generator_scheduler.total_iters=7")
    start("toy", "--results", "results", "--budget", "paper")
    found = []
    for arguments in given:
        model = reproduce.resolved("fit", *arguments)["model"]["init_args"]
        found.append(
            [model[f"{player}_scheduler"]["init_args"]["total_iters"] for player in ("generator", "discriminator")]
        )
    half = round(total * (epochs // 2) / epochs)
    assert found == [[half, half], [half, half], [7, half], [total, total]]
    key = "model.init_args.generator_scheduler.init_args.total_iters"
    assert changes(step, budgets["cpu"])[key] == [half, total], "and --list says so"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["gans_mnist", "autoencoders_transfer", "darts", "resnet18"])
def test_smoke(start: Relit, name: str) -> None:
    """The whole chain of the smallest budget, in this process; scikit-learn's digits stand in for the data."""
    on_cpu = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    assert start(name, "--budget", "smoke", "--", *on_cpu) == 0
    experiment = experiments.EXPERIMENTS[name]
    steps = json.loads(Path(f"runs/smoke/{name}.json").read_text())["steps"]
    assert set(steps) == set(experiment.budgets["smoke"].only or (step.name for step in experiment.steps))
    for figure in experiment.figures:
        if figure.step in steps and figure.epoch is None and "sure" not in figure.metric:
            (entry,) = steps[figure.step]
            assert results_table.value_of(figure, entry["seeds"]["0"]) is not None, figure
