"""Finding out what exists: `relit list`, `copy`, `runs` and the pages of help. None of them imports torch."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

import datamodules
import lit_models
from lit_models.__main__ import main
from lit_models.cli import minutes
from lit_models.cli.commands import COMMANDS, TRAINER_COMMANDS
from lit_models.cli.listing import IMAGES
from lit_models.cli.names import experiments, published_weights
from lit_models.support import sources
from tests.support.fixtures import Output, Patch


def printed(capsys: Output, *args: str) -> list[str]:
    assert main(list(args)) == 0
    return capsys.readouterr().out.splitlines()


def first_words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.strip()]


def test_none_of_them_imports_torch(tmp_path: Path) -> None:
    commands = [["list"], ["copy", "dcgan_digits", "mine.yaml"], ["runs"], ["help", "fit"], ["help", "DCGAN"]]
    commands += [["fit", "--help"], ["fit", "--help=trainer"], ["fit", "--model.help"], ["completion", "bash"]]
    code = (
        f"import sys; from lit_models.__main__ import main\nfor args in {commands!r}: assert main(args) == 0, args\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=tmp_path, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(lit_models.__file__).parents[1])}


def test_every_method_and_data_set_is_listed_with_a_sentence(capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for kind, known in (("methods", lit_models.METHODS), ("data", sources.data_sets())):
        _, *lines = printed(capsys, "list", kind)
        rows = dict(zip(first_words(lines), filter(None, lines), strict=True))
        assert list(known) == [name for name in rows if name in known]
        for name, module in known.items():
            assert rows[name].endswith(sources.describe(module, name).summary), "complete"
    assert set(sources.data_sets()) <= set(datamodules.__all__)
    assert set(IMAGES) <= set(sources.data_sets())


def test_every_experiment_is_listed_with_method_data_and_minutes(capsys: Output) -> None:
    rows = {line.split()[0]: line for line in printed(capsys, "list", "experiments") if line}
    for name, path in experiments().items():
        content = yaml.safe_load(path.read_text())
        assert content["model"]["class_path"].rsplit(".", 1)[-1] in rows[name].split()
        assert content["data"]["class_path"].rsplit(".", 1)[-1] in rows[name]
        assert re.search(r" (not measured|<1|\d+) ", rows[name]), rows[name]
    assert " 70,000 " in rows["dcgan_mnist"]
    assert " 15 " in rows["dcgan_mnist"], "epochs"


def test_lists_fit_a_terminal(capsys: Output, monkeypatch: Patch) -> None:
    whole = " ".join("\n".join(printed(capsys, "list", "methods")).split())
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(capsys, "list", "methods")
    assert max(map(len, lines)) <= 80
    assert " ".join("\n".join(lines).split()) == whole, "nothing is cut"


def test_words_choose_lines(capsys: Output) -> None:
    names = first_words(printed(capsys, "list", "experiments", "digits", "vae"))
    assert names[:2] == ["EXPERIMENT", "vae_digits"]
    assert "dcgan_digits" not in names


def test_weights_are_listed_with_what_was_tested(capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    rows = {line.split()[0]: line for line in printed(capsys, "list", "weights")}
    assert set(published_weights()) < set(rows)
    card = json.loads(published_weights()["digit_classifier_mnist"].with_suffix(".json").read_text())
    assert f"accuracy {card['figures']['test/accuracy']:.4g}" in rows["digit_classifier_mnist"]
    assert "squared_error 0.0" in rows["autoencoder_mnist"]
    assert "map_accuracy 0.8" in rows["pix2pix_maps_128_small"]


def test_minutes_count_only_with_the_settings_of_today(tmp_path: Path, monkeypatch: Patch) -> None:
    today = {"model": {"class_path": "VAE", "init_args": {"latent_dim": 8}}, "trainer": {"max_epochs": 3}}
    settings = {"model": {"class_path": "lit_models.VAE", "init_args": {"latent_dim": 8, "channels": 1}}}

    def record(seconds: list[float | None], epochs: int = 3, whole: bool = True) -> dict[str, object]:
        return {
            "config": "configs/vae.yaml",
            "data": {"whole": whole},
            "settings": {**settings, "trainer": {"max_epochs": epochs, "accelerator": "cpu"}},
            "seeds": {str(seed): {"training_seconds": value} for seed, value in enumerate(seconds)},
        }

    monkeypatch.setattr(minutes, "shipped", lambda _: tmp_path)

    def measured(*records: dict[str, object]) -> float | None:
        (tmp_path / "one.json").write_text(json.dumps({"steps": {"vae": records}}))
        return minutes.measured_minutes({"vae": today}).get("vae")

    assert measured(record([60, 180, 300])) == 3
    assert measured(record([60], epochs=1)) is None
    assert measured(record([60], whole=False)) is None
    assert measured(record([None])) is None
    assert measured(record([60], epochs=1), record([120])) == 2


def test_copy_writes_the_file_and_replaces_none(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    source = experiments()["dcgan_digits"].read_bytes()
    assert printed(capsys, "copy", "dcgan_digits") == [
        "dcgan_digits.yaml is written. Next: edit it, then relit fit dcgan_digits.yaml"
    ]
    assert Path("dcgan_digits.yaml").read_bytes() == source
    printed(capsys, "copy", "configs/dcgan_digits.yaml", "new/mine.yaml")
    assert Path("new/mine.yaml").read_bytes() == source
    printed(capsys, "copy", "trainer/gpu", "new")
    assert Path("new/gpu.yaml").is_file()
    Path("new/mine.yaml").write_text("mine")
    assert main(["copy", "dcgan_digits", "new/mine.yaml"]) == 2
    assert Path("new/mine.yaml").read_text() == "mine"
    printed(capsys, "copy", "dcgan_digits", "new/mine.yaml", "--force")
    assert Path("new/mine.yaml").read_bytes() == source
    assert main(["copy", "dcgan_digits", "mine.txt"]) == 2


def make_run(folder: Path, epochs: int = 2, finished: bool | None = True, monitor: str | None = "val/fid") -> None:
    folder.mkdir(parents=True)
    config = {"checkpoint": {"monitor": monitor, "mode": "min"}, "trainer": {"max_epochs": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{epoch},{epoch},{9 - epoch},{5 + (epoch - 1) ** 2}" for epoch in range(epochs)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/loss,val/fid", *rows]) + "\n")
    if finished is not None:
        (folder / "run.json").write_text(json.dumps({"finished": finished, "training_seconds": 90.4}))


def test_runs_with_state_best_value_and_age(tmp_path: Path, monkeypatch: Patch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed(capsys, "runs") == ["There are no runs in runs/. Start one: relit fit dcgan_digits"]
    elsewhere = ["There are no runs of other in runs/: --root names another folder."]
    assert printed(capsys, "runs", "other") == elsewhere
    make_run(Path("runs/a/finished"), epochs=3)
    make_run(Path("runs/a/stopped"), finished=False)
    make_run(Path("runs/a/running"), finished=False, monitor=None)
    make_run(Path("runs/b/half"), finished=None)
    Path("runs/b/half/metrics.csv").write_text("epoch,step,val/fid\n0,0,3.5\n1,1")
    make_run(Path("runs/b/broken"))
    Path("runs/b/broken/config.yaml").write_text("{")
    Path("runs/b/broken/run.json").write_text("")
    Path("runs/b/no_run").mkdir()
    long_ago = time.time() - 3 * 3600
    for path in Path("runs/a/stopped").iterdir():
        os.utime(path, (long_ago, long_ago))
    with Path("runs/a/running/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = printed(capsys, "runs")
    rows = {line.split()[0].removeprefix("runs/"): line for line in lines}
    assert lines[1].startswith("runs/a/stopped"), "the newest last"
    assert re.search(r"finished +3/5 +90 s +\d+ s +val/fid 5$", rows["a/finished"])
    assert re.search(r"stopped +2/5 +90 s +3 h +val/fid 5$", rows["a/stopped"])
    assert re.search(r"running +2/5 .* val/loss 8 \(last\)$", rows["a/running"])
    assert re.search(r"begun +1/5 +– .* val/fid 3.5$", rows["b/half"])
    assert "b/broken" in rows
    assert "b/no_run" not in rows
    assert first_words(printed(capsys, "runs", "b"))[1:] == ["runs/b/half", "runs/b/broken"]
    found = json.loads("\n".join(printed(capsys, "runs", "--json", "a")))
    assert [run["state"] for run in found] == ["stopped", "finished", "stopped"], "no process holds the lock now"


def test_the_overview_names_every_command_and_its_first_line_is_complete(capsys: Output) -> None:
    text = "\n".join(printed(capsys, "--help"))
    for name, command in COMMANDS.items():
        assert f"  {name} " in text
        assert command.summary in text
    assert main(["help"]) == 0
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_the_first_screen_of_help(command: str, capsys: Output) -> None:
    lines = printed(capsys, command, "--help")
    assert len(lines) < 80, "of 505"
    assert max(map(len, lines)) <= 120
    text = "\n".join(lines)
    assert "--model CLASS" in text
    assert "--help=trainer" in text
    assert "<class" not in text
    assert printed(capsys, "help", command) == lines


def test_the_trainers_options_are_behind_their_name(capsys: Output) -> None:
    text = "\n".join(printed(capsys, "fit", "--help=trainer"))
    assert "--trainer.max_epochs" in text
    assert "default_root_dir" not in text
    assert "--trainer.max_epochs 10" in "\n".join(printed(capsys, "fit", "--help"))


@pytest.mark.parametrize("name", [*lit_models.METHODS, *sources.data_sets(), *sources.callbacks()])
def test_whole_docstrings_and_every_argument_are_shown(name: str, capsys: Output) -> None:
    text = "\n".join(printed(capsys, "help", name))
    modules = {**sources.methods(), **sources.data_sets(), **sources.callbacks()}
    described = sources.describe(modules[name], name)
    shown = " ".join(text.split())
    for paragraph in sources.plain(described.text).split("\n\n"):
        assert " ".join(paragraph.split()) in shown
    assert described.summary.endswith((".", ":")), described.summary
    for argument in described.arguments:
        assert f".{argument.name}" in text


@pytest.mark.parametrize("name", [*lit_models.METHODS, *sources.data_sets(), *sources.callbacks()])
def test_the_arguments_of_help_are_those_of_the_parser(name: str) -> None:
    """Help reads the sources; jsonargparse, which reads the command line, imports the class."""
    modules = {**sources.methods(), **sources.data_sets(), **sources.callbacks()}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(getattr(import_module(modules[name]), name), "one", fail_untyped=False)
    described = sources.describe(modules[name], name).arguments
    taken = parser.get_defaults().get("one")
    assert {argument.name for argument in described} == set(vars(taken) if taken is not None else ())
    assert not [argument for argument in described if "**" in argument.description]


def test_a_method_can_be_asked_for_in_three_ways(capsys: Output) -> None:
    page = printed(capsys, "help", "DCGAN")
    assert printed(capsys, "fit", "--model.help", "DCGAN") == page
    assert printed(capsys, "fit", "--model", "DCGAN", "--help") == page
    assert page[0] == "usage: relit fit --model DCGAN [--model.NAME VALUE ...]"
    assert any("dcgan_digits" in line for line in page), "its configurations"
