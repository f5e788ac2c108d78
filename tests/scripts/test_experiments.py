"""The declared experiments: consistent, valid, and with a place for every published value."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import experiments
import pytest
import reproduce
import yaml
from experiments.claims import values_of
from experiments.listing import changes, keeps_and_cuts, key_of
from experiments.schedules import lengths

from lit_models.runs.published import Published, all_published, published_of
from lit_models.runs.reading import flattened
from tests.support.fixtures import Output, Relit
from tests.support.tiny import CONFIGS

REPOSITORY = Path(__file__).parents[2]


def test_where_an_option_is_in_a_configuration() -> None:
    options = ("--model.latent_dim", "--data.train_on_val", "--trainer.callbacks", "--checkpoint.monitor")
    keys = ["model.init_args.latent_dim", "data.init_args.train_on_val", "trainer.callbacks", "checkpoint.monitor"]
    assert [key_of(option) for option in options] == keys


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


def test_what_a_budget_keeps_and_cuts_is_what_it_does(relit: Relit, capsys: Output) -> None:
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
        own = flattened(reproduce.resolved("fit", f"--config={CONFIGS / step.config}.yaml"))
        config = f"--config={CONFIGS / budget.configs[step.name]}.yaml"
        planned = flattened(reproduce.resolved("fit", config, *budget.of(step)))
        told = {key: values for key, values in changes(step, budget).items() if None not in values}
        assert len(told) > 3
        for key, (mine, theirs) in told.items():
            assert (planned[key], own[key]) == (mine, theirs), key
        cut = ("init_channels", "layers", "epochs", "max_epochs", "batch_size", "feature_maps")
        really = {key for key in own if key.rpartition(".")[2] in cut and own[key] != planned.get(key)}
        assert really <= {*told}


@cache
def tested_data(*arguments: str) -> dict[str, Any]:
    """The settings of the data of a test, which several published values may have."""
    return reproduce.resolved("test", *arguments)["data"]


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
            data = tested_data(config, *own, *arguments)
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
    record = CONFIGS.parent / "results" / f"{name}.json"
    assert not record.exists() or {*json.loads(record.read_text())["steps"]} <= {*steps}, "a record that no page shows"
    for figure in experiment.figures:
        assert figure.test in experiment.step(figure.step).tests
        assert (figure.epoch is None) == figure.metric.startswith("test/")
    for budget in experiment.budgets.values():
        assert {*budget.arguments, *budget.configs, *(budget.only or ())} <= {"*", *steps}
        for step in experiment.steps:
            assert (CONFIGS / f"{budget.configs.get(step.name, step.config)}.yaml").is_file()
            if budget.only is None or step.name in budget.only:
                own = {argument.partition("=")[0]: argument for argument in step.arguments}
                for argument in budget.of(step):  # else the run isn't taken for the step's
                    assert own.get(argument.partition("=")[0], argument) == argument, step.name
    for number, step in enumerate(experiment.steps):
        assert all(source.partition("/")[0] in steps[:number] for source in step.uses.values())


@pytest.mark.parametrize("budget", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
@pytest.mark.slow
def test_all_arguments_are_valid(relit: Relit, capsys: Output, name: str, budget: str) -> None:
    experiment = experiments.EXPERIMENTS[name]
    for step in experiment.steps:
        config = experiment.budgets[budget].configs.get(step.name, step.config)
        arguments = [*step.arguments, *experiment.budgets[budget].of(step)]
        arguments = [a.replace("{seed}", "0").replace("=configs/", f"={CONFIGS}/") for a in arguments]
        assert relit("fit", f"--config={CONFIGS / config}.yaml", *arguments, "--print_config") == 0
        resolved = flattened(yaml.safe_load(capsys.readouterr().out))
        assert {key_of(argument.partition("=")[0]) for argument in step.arguments} <= {*resolved}
        for test in step.tests.values():
            assert relit("test", f"--config={CONFIGS / config}.yaml", *test, "--print_config") == 0


def test_reported_nats_are_fewer_than_those_of_independent_pixels() -> None:
    """A VAE whose bound doesn't clear the histogram's bar isn't reported by its nats."""
    steps = [figure.step for figure in experiments.EXPERIMENTS["vae"].figures if figure.metric == "test/nats_histogram"]
    recorded = json.loads((REPOSITORY / "results" / "vae.json").read_text())["steps"]
    compared = 0
    for step in filter(recorded.__contains__, steps):
        baselines = [value for value, _ in values_of(f"vae/{step} test/nats_histogram")]
        for name in ("test/nats", "test/nats_importance_weighted"):
            nats = [value for value, _ in values_of(f"vae/{step} {name}")]
            assert all(value < min(baselines) for value in nats), step
            compared += len(nats)
    assert compared >= 3
