"""`scripts/reproduce.py` and `scripts/results_table.py`: what is run, what is left alone, and what the tables say."""

import copy
import csv
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import sys
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
from experiments import Budget, Data, Experiment, Figure, Step, claims
from experiments.listing import changes, keeps_and_cuts, key_of, listing
from experiments.schedules import lengths

from datamodules import DataWarning, Digits
from lit_models.runs import loggers
from lit_models.runs.published import Citation, Published, all_published, published_of
from lit_models.runs.reading import flat
from tests.support.tiny import CONFIGS

Relit = Callable[..., int]
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


@pytest.fixture
def start(relit: Relit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the script, and what it would start as processes in this one."""
    start_process = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "lit_models"]:
            return start_process(command, **options)
        return subprocess.CompletedProcess(command, relit(*command[3:]))

    reproduce.resolved.cache_clear()  # tests have files of the same relative path
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", TOY)
    monkeypatch.setattr(loggers, "git_commit", lambda: COMMIT)

    def reproduce_(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["reproduce.py", *arguments])
        return reproduce.main()

    return reproduce_


def results() -> dict[str, Any]:
    return json.loads(Path("results/toy.json").read_text())


@pytest.mark.long
def test_a_chain_is_run_once_and_recorded(start: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    command = ("toy", "--seeds", "2", "--steps", "plain", "--results", "results")
    assert start(*command) == 0
    assert capfd.readouterr().out.count("== relit fit") == 2
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
        with (folder / "metrics.csv").open() as file:
            logged = [float(value) for row in csv.DictReader(file) if (value := row["test/generator_loss"])]
        assert logged == [pytest.approx(test["figures"]["test/generator_loss"])]
        assert [epoch for epoch, _ in run["curves"]["val/generator_loss"]] == [1]
    figures = [run["tests"]["test"]["figures"]["test/generator_loss"] for run in plain["seeds"].values()]
    assert figures[0] != figures[1]

    before = results()
    capfd.readouterr()
    assert start(*command) == 0
    assert "== relit" not in capfd.readouterr().out, "neither a training nor a test is repeated"
    assert start(*command, "--", "--model.latent_dim", "8") == 1, "a run with other settings isn't taken for this one"
    assert "model.init_args.latent_dim is 4, not 8" in capfd.readouterr().err
    assert results() == before


@pytest.mark.long
def test_a_killed_run_goes_on(start: Callable[..., int], relit: Relit, capfd: pytest.CaptureFixture[str]) -> None:
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


def test_a_failed_step_leaves_out_what_needs_it(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
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


def test_an_earlier_run_fixes_the_length_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_where_an_option_is_in_a_configuration() -> None:
    options = ("--model.latent_dim", "--data.train_on_val", "--trainer.callbacks", "--checkpoint.monitor")
    keys = ["model.init_args.latent_dim", "data.init_args.train_on_val", "trainer.callbacks", "checkpoint.monitor"]
    assert [key_of(option) for option in options] == keys


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


def test_a_step_whose_runs_keep_no_best_checkpoint(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = Step("plain", "DCGAN", "dcgan", "dcgan_digits", DIGITS)
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", Experiment("", (step,), (), TOY.budgets))
    assert start("toy", "--results", "results") == 1
    assert "kept no best.ckpt to be tested: name a metric" in capfd.readouterr().err


def test_a_run_by_hand_is_recorded(start: Callable[..., int], relit: Relit, capfd: pytest.CaptureFixture[str]) -> None:
    config = ("--config", CONFIGS / "dcgan_digits.yaml", *QUICK, "--trainer.max_epochs=1", "--seed_everything=7")
    assert relit("fit", *config, "--run.id=mine") == 0
    assert relit("fit", *config, "--run.id=noisy", "--model.label_noise=0.1") == 0
    mine, noisy = "runs/dcgan_digits/mine", "runs/dcgan_digits/noisy"
    assert start("toy", "--results", "results", "--take", f"plain={mine}") == 0
    capfd.readouterr()
    assert start("toy", "--results", "results", "--take", f"noisy={noisy}", "--take", f"plain={mine}") == 0
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
    with Path("results/toy/comparison.csv").open() as file:
        drawn = {row["run"]: float(row["final"]) for row in csv.DictReader(file)}
    curves = {name: entry["seeds"]["7"]["curves"] for name, entry in (("plain", plain), ("noisy", other))}
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


def test_uncommitted_changes_are_refused_or_said(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
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


def test_remarks_on_the_data_make_it_a_subset(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, relit: Relit
) -> None:
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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("about 91 %<!-- = toy/plain test/accuracy --> of them", None),
        ("91.0 ± 1.4 %<!-- = toy/plain test/accuracy -->", None),
        ("an error of 9.0 %<!-- = toy/plain test/accuracy -->", None),
        ("0.60<!-- = toy/plain test/accuracy --> after one epoch", None),
        ("30 points<!-- = toy/plain test/accuracy - toy/plain test/other -->", None),
        ("0.5<!-- = results/judge.json rows > ten -->", None),
        ("92 %<!-- = toy/plain test/accuracy -->", "92 %<!-- .*: the records say 0.91, 0.6"),
        ("91 ± 2 %<!-- = toy/plain test/accuracy -->", "the standard deviations are 0.01414"),
        ("1<!-- = toy/plain test/nothing -->", "the records say nothing"),
        ("1<!-- = toy/nothing test/accuracy -->", "there is no such record"),
        ("1<!-- = nothing/plain test/accuracy -->", "there is no such record"),
    ],
)
def test_numbers_in_prose_have_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str | None
) -> None:
    monkeypatch.setattr(claims, "REPOSITORY", tmp_path)
    (tmp_path / "results").mkdir()
    entries = [entry([0.9, 0.92]), entry([0.6])]
    for run in entries[0]["seeds"].values():
        run["tests"]["test"]["figures"]["test/other"] = 0.61
    (tmp_path / "results" / "toy.json").write_text(json.dumps({"steps": {"plain": entries}}))
    (tmp_path / "results" / "judge.json").write_text(json.dumps({"rows": {"ten": 0.5}}))
    found = list(claims.unsupported(text))
    assert len(found) == (fault is not None)
    assert fault is None or re.search(fault, found[0])


def test_pictures_name_what_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "REPOSITORY", tmp_path)
    monkeypatch.setattr(claims, "MADE_BY", tmp_path / "made_by.yaml")
    (tmp_path / "made_by.yaml").write_text(
        "images/a.png: relit fit --config configs/here.yaml\nimages/b.png: python scripts/gone.py\n"
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "here.yaml").touch()
    text = '![a](../images/a.png) ![b](../images/b.png) <img src="../images/c.png"> ![d](https://x.org/d.png)'
    assert list(claims.unsourced(tmp_path / "docs" / "page.md", text)) == [
        "images/b.png is said to be made by scripts/gone.py, which isn't there",
        "images/c.png: docs/images/made_by.yaml doesn't say which run or command made it",
    ]


def test_schedules_end_with_the_training() -> None:
    """Lengths in steps go by epochs, images of a batch, and steps of the critic; lengths in epochs by epochs."""
    scheduler = {f"model.init_args.{player}_scheduler.init_args.total_iters": 5150 for player in ("a", "b")}
    sizes = {"data.init_args.batch_size": 64, "model.init_args.n_critic": 5}
    own = {"trainer.max_epochs": 30, "model.init_args.schedule_interval": "step", **sizes, **scheduler}
    for changed, expected in (
        ({"trainer.max_epochs": 15}, 2575),
        ({"data.init_args.batch_size": 128}, 2575),
        ({"model.init_args.n_critic": 1}, 25750),
        ({"trainer.max_epochs": 15, "model.init_args.n_critic": 1}, 12875),
        ({}, 5150),
    ):
        assert set(lengths(own, own | changed).values()) == {expected}, changed
    cosine = {"trainer.max_epochs": 60, "model.init_args.lr_scheduler.init_args.T_max": 60, **sizes}
    assert set(lengths(cosine, cosine | {"trainer.max_epochs": 6, "data.init_args.batch_size": 8}).values()) == {6}


def test_a_cut_of_the_epochs_shortens_a_schedule_of_steps(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_what_a_budget_keeps_and_cuts_is_what_it_does(relit: Relit, capsys: pytest.CaptureFixture[str]) -> None:
    """Each change that the list names is one of the resolved configurations."""
    experiment = experiments.EXPERIMENTS["gans_mnist"]
    assert keeps_and_cuts(experiment, experiment.budgets["cpu"]) == [
        "keeps all 6 trainings",
        "dcgan, sngan, wgan_gp, triplet_gan: feature_maps 32 of 64, precision bf16-mixed",
        "wgan_sn, wgan: feature_maps 32 of 64, epochs 30 (15), precision bf16-mixed",
        "note: WGAN and WGAN-SN take as many steps of the generator as WGAN-GP, 5,150",
    ]
    assert keeps_and_cuts(experiment, experiment.budgets["paper"]) == ["keeps all 6 trainings", "cuts nothing"]
    darts = experiments.EXPERIMENTS["darts"]
    for step in (darts.step("search_2nd"), darts.step("retrain")):
        budget = darts.budgets["cpu"]
        own = flat(reproduce.resolved("fit", f"--config={CONFIGS / step.config}.yaml"))
        config = f"--config={CONFIGS / budget.configs[step.name]}.yaml"
        planned = flat(reproduce.resolved("fit", config, *budget.of(step)))
        told = {key: values for key, values in changes(step, budget).items() if None not in values}
        assert len(told) > 3
        for key, (mine, theirs) in told.items():
            assert (planned[key], own[key]) == (mine, theirs), key
        cut = ("init_channels", "layers", "epochs", "max_epochs", "batch_size", "feature_maps")
        really = {key for key in own if key.rpartition(".")[2] in cut and own[key] != planned.get(key)}
        assert really <= {*told}


# --- tables -----------------------------------------------------------------------------------------------------------


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
                "tests": {"test": {"figures": {"test/accuracy": value, "test/accuracy_ci95": 0.01}}},
                "curves": {"val/accuracy": [[1, 0.1], [2, value]]},
            }
            for seed, value in enumerate(values)
        },
    }


def row_of(step: Step, figure: Figure, entry: dict[str, Any]) -> results_table.Row:
    return results_table.measured(results_table._unmeasured("toy", step, figure, None), step, figure, entry)


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure("plain", "", "test/accuracy", kind="percent"), "91.0 ± 1.4"),
        (Figure("plain", "", "test/accuracy", kind="error"), "9.00 ± 1.41"),
        (Figure("plain", "", "val/accuracy", epoch=2), "0.91 ± 0.01"),
        (Figure("plain", "", "val/accuracy", epoch=1), "0.10 ± 0.00"),
    ],
)
def test_mean_and_standard_deviation(figure: Figure, shown: str) -> None:
    values = [0.9, 0.92]
    assert f"{100 * statistics.stdev(values):.2f}" == "1.41"
    row = row_of(TOY.steps[0], figure, entry(values))
    assert (row.data, row.ours, row.seeds, row.time, row.hardware) == ("digits", shown, 2, "2 min", "a CPU")


def test_one_seed_shows_its_confidence_interval() -> None:
    figure = Figure("plain", "", "test/accuracy", kind="percent", interval="test/accuracy_ci95")
    assert row_of(TOY.steps[0], figure, entry([0.9])).ours == "90.00 ± 1.00 (95 % CI)"
    assert "95 %" not in row_of(TOY.steps[0], figure, entry([0.9, 0.8])).ours


def test_cuts_and_subsets_are_said() -> None:
    figure = Figure("noisy", "", "test/accuracy", kind="percent")
    changes: dict[str, Any] = {
        "model.init_args.feature_maps": [16, 64],
        "model.init_args.label_noise": [0.1, 0.0],
        "model.init_args.loss": ["hinge", "bce"],
        "trainer.log_every_n_steps": [3, None],
        "trainer.max_epochs": [5, 15],
    }
    cut = entry([0.5], **changes)
    cut["data"] |= {"whole": False, "train_images": 1000}
    row = row_of(TOY.steps[1], figure, cut)
    assert row.data == "digits, **subset**: 1,200 of 1,497 training and validation, 300 of 300 test images"
    assert row.ours == "50.0"
    assert row.cut == ("16 of 64 feature maps", "5 of 15 epochs"), "what makes the step what it is isn't a cut"
    assert row.changed == ("`loss` hinge",)
    longer = row_of(TOY.steps[0], figure, entry([0.5], **{"trainer.max_epochs": [30, 15]}))
    assert (longer.cut, longer.changed) == ((), ("`max_epochs` 30",))
    small = {**entry([0.5], **{"trainer.max_epochs": [3, 5]}), "changed_from_own": {"trainer.max_epochs": [3, 15]}}
    small["changed_from_own"]["checkpoint.every_n_steps"] = [50, None]
    assert row_of(TOY.steps[0], figure, small).cut == ("3 of 15 epochs",), "not of a small configuration's 5"


def recorded(tmp_path: Path) -> None:
    """Two trainings of the step "plain" with two figures each: the second one is shorter, and by another machine."""
    measured = {"steps": {"plain": [entry([0.5]), entry([0.6], **{"trainer.max_epochs": [1, 9]})]}}
    for one in measured["steps"]["plain"]:
        one["seeds"]["0"]["tests"]["test"]["figures"]["test/generator_loss"] = 0.25
        one["seeds"]["0"]["curves"]["val/generator_loss"] = [[1, 0.1]]
    measured["steps"]["plain"][1]["command"] += " --trainer.max_epochs 1"
    measured["steps"]["plain"][1]["seeds"]["0"]["hardware"] = "a GPU"
    (tmp_path / "toy.json").write_text(json.dumps(measured))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is the only experiment, and has a published figure."""
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": TOY})
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"toy": TOY})
    they, us = Citation("0.5", "they", "https://x.org"), Citation("0.6", "us")
    published = Published("a_loss", "loss", "test/generator_loss", (), {}, they, (us,))
    monkeypatch.setattr(results_table, "all_published", lambda: (published,))


def listed(results: Path) -> list[str]:
    """The lines that `--list` prints of the toy."""
    missing = [(row.step, row.figure) for row in results_table.all_rows(results) if not row.ours]
    return listing("toy", TOY, results, missing).splitlines()


@pytest.mark.usefixtures("toy")
def test_what_has_no_record_is_listed_by_the_command_alone(tmp_path: Path) -> None:
    rows = list(results_table.all_rows(tmp_path))
    assert [row.ours for row in rows] == [""] * 3
    assert [line.split() for line in listed(tmp_path)[1:3]] == [
        ["plain", "not", "recorded"],
        ["noisy", "not", "recorded"],
    ]
    text = results_table.with_tables("a\n<!-- results: all -->\nold\n<!-- end of results -->\nb", tmp_path)
    assert text == "a\n<!-- results: all -->\n\n<!-- end of results -->\nb"
    page = results_table.with_tables("<!-- results: dcgan -->\nold\n<!-- end of results -->", tmp_path)
    assert page.splitlines()[2:-2] == [
        *("Published values without a recorded training of relit:", ""),
        "| training | data | value | paper | others' runs |",
        "| --- | --- | --- | --- | --- |",
        '| DCGAN | digits | loss | [0.5](https://x.org "they") | 0.6 (us) |',
    ]
    recorded(tmp_path)
    assert listed(tmp_path)[1:5] == [
        "  plain  2 min  1 seed, by no budget",
        "  plain  2 min  1 seed, by no budget",
        "                epochs 1 of 9",
        "  noisy         not recorded",
    ]


@pytest.mark.usefixtures("toy")
def test_a_training_is_a_row_and_its_figures_are_columns(tmp_path: Path) -> None:
    recorded(tmp_path)
    text = results_table.with_tables("<!-- results: dcgan -->\nold\n<!-- end of results -->", tmp_path)
    published = '[0.5](https://x.org "they") | 0.6 (us)'
    assert text.splitlines() == [
        *("<!-- results: dcgan -->", "", "**digits**; 1 seed:", ""),
        "| # | training | settings | loss | paper | others' runs | loss after an epoch | time | machine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| 1 | DCGAN |  | 0.25 | {published} | 0.10 | 2 min | a CPU |",
        f"| 2 | DCGAN | cut to 1 of 9 epochs | 0.25 | {published} | 0.10 | 2 min | a GPU |",
        *("", '<details markdown="1"><summary>Commands</summary>', ""),
        "1. `relit fit --config configs/dcgan_digits.yaml`",
        "2. `relit fit --config configs/dcgan_digits.yaml --trainer.max_epochs 1`",
        *("", "</details>", "", "<!-- end of results -->"),
    ]
    assert results_table.with_tables(text, tmp_path) == text
    overview = results_table.with_tables("<!-- results: all -->\n<!-- end of results -->", tmp_path)
    assert "## DCGAN\n\n[Method page](methods/dcgan.md)\n\n**digits**; 1 seed:" in overview


@pytest.mark.usefixtures("toy")
def test_shared_settings_stand_above(tmp_path: Path) -> None:
    changes = {"trainer.max_epochs": [1, 9], "model.init_args.loss": ["hinge", "bce"]}
    entries = [entry([0.5, 0.6], **changes), entry([0.5, 0.7], **changes, **{"model.init_args.feature_maps": [8, 64]})]
    for number, one in enumerate(entries):
        one["command"] += f" {number}"
        for run in one["seeds"].values():
            run["tests"]["test"]["figures"]["test/generator_loss"] = 0.25
    (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": entries}}))
    text = results_table.with_tables("<!-- results: dcgan -->\n<!-- end of results -->", tmp_path)
    assert "**digits**; cut to 1 of 9 epochs; with `loss` hinge; 2 seeds; a CPU:\n" in text
    assert "| 2 | DCGAN | cut to 8 of 64 feature maps | 0.25 ± 0.00 |" in text


@pytest.mark.usefixtures("toy")
def test_the_list_of_methods_has_a_value_and_the_papers(tmp_path: Path) -> None:
    def row() -> str:
        text = results_table.with_tables("<!-- methods -->\nold\n<!-- end of methods -->", tmp_path)
        assert text.count("\n| [") == len(results_table.methods_index())
        return next(line for line in text.splitlines() if line.startswith("| [DCGAN]"))

    assert row().endswith("| digits | not recorded yet |")
    recorded(tmp_path)
    assert row().endswith("| digits | loss: 0.25 / [0.5](https://x.org) |")
    only_cut = json.loads((tmp_path / "toy.json").read_text())
    del only_cut["steps"]["plain"][0]
    (tmp_path / "toy.json").write_text(json.dumps(only_cut))
    assert row().endswith("| digits | loss: 0.25† / [0.5](https://x.org) |")


# --- the declared experiments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("published", all_published(), ids=lambda one: one.name)
def test_a_published_value_is_cited_by_a_declared_one(relit: Relit, published: Published) -> None:
    """The report shows it with the tests that make the value, and with no others of the experiment."""
    cited = [
        (one, figure)
        for one in experiments.EXPERIMENTS.values()
        for figure in one.figures
        if figure.published == published.name
    ]
    assert cited
    for experiment, figure in cited:
        step = experiment.step(figure.step)
        assert (published.metric, published.label) == (figure.metric, figure.label)
        budgets = [budget for name, budget in experiment.budgets.items() if name != "smoke"]
        assert {step.config, *(one.configs.get(step.name, step.config) for one in budgets)} <= set(published.configs)
        own = [argument for argument in step.arguments if argument.startswith("--data.")]  # in its runs, too
        for test, arguments in step.tests.items():
            config = f"--config={CONFIGS / step.config}.yaml"
            data = reproduce.resolved("test", config, *own, *arguments)["data"]
            assert (published in published_of(step.config, data, figure.metric)) == (test == figure.test)


def test_every_citation_names_a_published_value() -> None:
    cited = {figure.published for one in experiments.EXPERIMENTS.values() for figure in one.figures}
    assert cited - {None} == {one.name for one in all_published()}


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_an_experiment_is_consistent(name: str) -> None:
    experiment = experiments.EXPERIMENTS[name]
    steps = [step.name for step in experiment.steps]
    assert len(set(steps)) == len(steps)
    assert set(experiment.budgets) == {"smoke", "cpu", "gpu", "paper"}
    assert all(figure.step in steps for figure in experiment.figures)
    for figure in experiment.figures:
        assert figure.test in experiment.step(figure.step).tests
        assert (figure.epoch is None) == figure.metric.startswith("test/")
    for budget in experiment.budgets.values():
        assert {*budget.arguments, *budget.configs, *(budget.only or ())} <= {"*", *steps}
        for step in experiment.steps:
            assert (CONFIGS / f"{budget.configs.get(step.name, step.config)}.yaml").is_file()
    for number, step in enumerate(experiment.steps):
        assert all(source.partition("/")[0] in steps[:number] for source in step.uses.values())


@pytest.mark.parametrize("budget", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
@pytest.mark.slow
def test_all_arguments_are_valid(relit: Relit, capsys: pytest.CaptureFixture[str], name: str, budget: str) -> None:
    experiment = experiments.EXPERIMENTS[name]
    for step in experiment.steps:
        config = experiment.budgets[budget].configs.get(step.name, step.config)
        arguments = [*step.arguments, *experiment.budgets[budget].of(step)]
        arguments = [a.replace("{seed}", "0").replace("=configs/", f"={CONFIGS}/") for a in arguments]
        assert relit("fit", f"--config={CONFIGS / config}.yaml", *arguments, "--print_config") == 0
        resolved = flat(yaml.safe_load(capsys.readouterr().out))
        assert {key_of(argument.partition("=")[0]) for argument in step.arguments} <= {*resolved}
        for test in step.tests.values():
            assert relit("test", f"--config={CONFIGS / config}.yaml", *test, "--print_config") == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["gans_mnist", "autoencoders_transfer", "darts", "resnet18"])
def test_smoke(start: Callable[..., int], name: str) -> None:
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


def test_scores_over_other_features_are_not_shown_and_calibration_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure("plain", "FID (digits, block 2)", "test/accuracy", features="digits, block 2")
    toy = dataclasses.replace(TOY, steps=TOY.steps[:1], figures=(figure,))
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": toy})
    old, new = entry([0.5]), entry([0.25])
    calibration = {"other real images": {"accuracy": 0.125}, "ten training images repeated": {"accuracy": 9.5}}
    judge = {"features": "digits, block 2", "calibration": calibration}
    new["seeds"]["0"]["tests"]["test"]["judge"] = judge
    for entries, expected in (
        ([old], [("DCGAN", "")]),
        ([old, new], [("DCGAN", "0.25"), ("other real images", "0.12"), ("ten training images repeated", "9.50")]),
    ):
        (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": entries}}))
        assert [(row.method, row.ours) for row in results_table.all_rows(tmp_path)] == expected
    text = results_table.with_tables("<!-- results: all -->\n<!-- end of results -->", tmp_path)
    assert "\n|  | ten training images repeated | 9.50 |" in text
    assert "\n| 1 | DCGAN | 0.25 | 2 min |" in text


def test_a_record_from_before_the_argument_on_which_a_figure_depends_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"by any means": "model.mean", "by tiles": "data.tiles"}
    figures = tuple(Figure("plain", label, "test/accuracy", argument=name) for label, name in arguments.items())
    toy = dataclasses.replace(TOY, steps=TOY.steps[:1], figures=figures)
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": toy})
    old = entry([0.5])
    old["settings"] = {"model": {"init_args": {"mean": 1}}, "data": {"init_args": {"mean": 1}}}
    new = copy.deepcopy(old)
    new["settings"]["data"]["init_args"]["tiles"] = None
    for entries, expected in (([old], ["0.50", ""]), ([old, new], ["0.50", "0.50", "0.50"])):
        (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": entries}}))
        assert [row.ours for row in results_table.all_rows(tmp_path)] == expected
