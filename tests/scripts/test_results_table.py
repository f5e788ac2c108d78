"""`scripts/results_table.py` and `scripts/experiments/claims.py`: what the tables and the pages say."""

import copy
import dataclasses
import json
import re
import statistics
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import reproduce
import results_table
from experiments import EXPERIMENTS, Figure, claims, records
from experiments.items import ITEMS, Item
from experiments.listing import listing

from lit_models.runs.published import Citation, Published
from tests.support.fixtures import Patch
from tests.support.toy_experiment import COMMIT, TOY, entry, row_of

NOT_ITEMS = ("resnet18/plain",)
"""Steps that are declared but that nothing has to show."""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("about 91 %<!-- = toy/plain test/accuracy --> of them", None),
        ("91.0 ± 1.4 %<!-- = toy/plain test/accuracy -->", None),
        ("an error of 9.0 %<!-- = 1 - toy/plain test/accuracy -->", None),
        ("an error of 9.0 ± 1.4 %<!-- = 1 - toy/plain test/accuracy -->", None),
        ("right for 9.0 %<!-- = toy/plain test/accuracy --> of them", "the records say 0.91, 0.6"),
        ("an accuracy of 91<!-- = toy/plain test/accuracy -->", "the records say 0.91, 0.6"),
        ("0.91 %<!-- = toy/plain test/accuracy -->", "the records say 0.91, 0.6"),
        ("0.91 ± 1.4<!-- = toy/plain test/accuracy -->", "the standard deviations are 0.01414"),
        ("most<!-- = toy/plain test/accuracy --> of them", "no number stands before it"),
        ("91 % of them <!-- = toy/plain test/accuracy -->", "no number stands before it"),
        ("0.6<!-- = results/toy.json steps > plain > 1 > seeds > 0 > tests > test > figures > test/accuracy -->", None),
        ("0.60<!-- = toy/plain test/accuracy --> after one epoch", None),
        ("30 points<!-- = toy/plain test/accuracy - toy/plain test/other -->", None),
        ("30 ± 1.4 points<!-- = toy/plain test/accuracy - toy/plain test/other -->", None),
        (
            "30 ± 2.4 points<!-- = toy/plain test/accuracy - toy/plain test/other -->",
            "the standard deviations are 0.01414",
        ),
        ("60 ± 1 %<!-- = toy/plain test/accuracy -->", None),
        ("60 ± 2 %<!-- = toy/plain test/accuracy -->", "the standard deviations are 0.01$"),
        ("10 %<!-- = toy/plain val/accuracy@1 --> after the first epoch", None),
        ("0.60<!-- = toy/plain val/accuracy@3 --> after the third", "the records say nothing"),
        ("91 %<!-- = toy/plain val/accuracy -->", None),
        ("10 ± 0 %<!-- = toy/plain val/accuracy@1 --> after one epoch", None),
        ("91 %<!-- = toy/plain val/accuracy@1 -->", "the records say 0.1"),
        ("0.5<!-- = results/judge.json rows > ten -->", None),
        ("92 %<!-- = toy/plain test/accuracy -->", "92 %<!-- .*: the records say 0.91, 0.6"),
        ("91 ± 2 %<!-- = toy/plain test/accuracy -->", "the standard deviations are 0.01414"),
        ("1<!-- = toy/plain test/nothing -->", "the records say nothing"),
        ("1<!-- = toy/nothing test/accuracy -->", "there is no such record"),
        ("1<!-- = nothing/plain test/accuracy -->", "there is no such record"),
    ],
)
def test_numbers_in_prose_have_records(tmp_path: Path, monkeypatch: Patch, text: str, fault: str | None) -> None:
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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("right for 91 % of the images", "91 without a mark in “right for 91 % of the images …”"),
        ("FID 0.25, and 3 points more", "0.25, 3 without a mark"),
        ("right for 91 %<!-- = toy/plain test/accuracy --> of them", None),
        ("The paper has 7.42. <!-- no record: cited -->", None),
        ("The paper has 7.42. <!-- no record: cited -->\n\nOurs has 7.5.", "7.5 without a mark"),
        ("- The paper has 7.42. <!-- no record: cited -->\n- Ours has 7.5.", "7.5 without a mark"),
        ("1. The paper has 7.42. <!-- no record: cited -->\n2. Ours has 7.5.", "7.5 without a mark"),
        ("Ours has 7.5. The paper has 7.42. <!-- no record: cited -->", "7.5 without a mark"),
        ("Ours has 7.5.\nThe paper has 7.42.\n<!-- no record: cited -->", "7.5 without a mark"),
        ("**Ours has 7.5.** *Theirs* has 7.42 <!-- no record: cited -->.", "7.5 without a mark"),
        ("The paper has 7.42. <!-- no record: cited --> Ours has 7.5.", "7.5 without a mark"),
        (
            "Theirs: 7.42. <!-- no record: cited --> Ours: 7.5. That is 1 % <!-- no record: by hand --> more.",
            "7.5 without",
        ),
        ("Miyato et al. 2018 report 7.42. <!-- no record: cited -->", None),
        ("Theirs: 7.42, 7.3; ours: 7.5<!-- = toy/plain test/loss --> (table 2). <!-- no record: cited -->", None),
        ("near 1.39<!-- no record: 2 ln 2 -->, but ours has 0.31", "0.31 without a mark"),
        ("ours has 0.31, but chance 1.39<!-- no record: 2 ln 2 -->", "0.31 without a mark"),
        ("chance has 50 %<!-- no record: of two classes -->, theirs 7.42 nats<!-- no record: cited -->", None),
        ("ninety percent. Theirs: 7.42 <!-- no record: cited -->", "ninety percent instead of digits"),
        ("right for 91\u00a0% and 92&nbsp;% of the images", "91, 92 without a mark"),
        ("an accuracy of .91", ".91 without a mark"),
        ("accuracy = 0.91", "0.91 without a mark"),
        ("with β = .91", None),
        ("an accuracy of `0.91`", "0.91 without a mark"),
        ("The FID falls from 369 after 2 epochs", "369 without a mark"),
        ("The FID of these samples has a FID\nof\n63", "63 without a mark"),
        ("a recall of **1**", "1 without a mark"),
        ("FID≈63", "63 without a mark"),
        ("a FID (63)", "63 without a mark"),
        ("It has 0.31… Theirs has 0.5. <!-- no record: cited -->", "0.31 without a mark"),
        ("with λ = 0.1 and `--model.rate 0.2`, [a page](x_0.5.md)", None),
        ("```sh\nrelit fit --model.rate 0.2\n```", None),
        ("<!-- results: dcgan -->\n| 0.25 |\n<!-- end of results -->", None),
        ("12 epochs, 3 seeds, arXiv:1909.09656", None),
        ("A FID of 63 after the last epoch", "63 without a mark"),
        ("*The FID (digits, block 2) is 105.*", "105 without a mark"),
        ("It needs 206 nats.", "206 without a mark"),
        ("the FID of 1,000 validation samples", None),
        ("right for ninety-one percent of them", "ninety-one percent instead of digits"),
        ("three percentage points more", "three percentage points instead of digits"),
        ("![an accuracy of 0.91](a.png)", "0.91 without a mark"),
        ("<!-- results: by eye -->\n0.25\n<!-- end of results -->", "0.25 without a mark"),
        ("<!-- results -->0.25<!-- end of all -->", "0.25 without a mark"),
        ("<!-- items -->\n0.25\n<!-- end of results -->", "0.25 without a mark"),
    ],
)
def test_numbers_without_a_mark_are_found(text: str, fault: str | None) -> None:
    for section in ("Results", "Results on digits", "Known failure modes"):
        found = list(claims.unmarked(f"## Usage\n\n50 %\n\n## {section}\n\n{text}\n\n## More\n\n60 %\n"))
        assert len(found) == (fault is not None)
        assert fault is None or fault in found[0]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("Its accuracy was 0.91 in a try.", 1),
        ("Its accuracy was 0.91 in a try. <!-- no record: a try -->", 0),
        ("| weights | accuracy 0.91 |\n| others | 5 epochs |", 1),
        ("The FID is 63.", 1),
        ("The rate is 0.91.", 0),
        ("half of the 95 % confidence interval of the accuracy", 0),
    ],
)
def test_numbers_near_a_score_are_marked_on_any_page(text: str, faults: int) -> None:
    assert len(list(claims.unmarked(f"# Page\n\n{text}\n"))) == faults


@pytest.mark.parametrize(
    "picture",
    [
        '<img src="../images/c.png">',
        '<img height="20" alt="digits" src="../images/c.png" />',
        "<img src='../images/c.png'>",
        "<IMG\n  width=3 src=../images/c.png>",
        "![digits](<../images/c.png>)",
        "![digits][c]\n\n[c]: ../images/c.png",
    ],
)
def test_pictures_are_found_however_they_are_written(tmp_path: Path, monkeypatch: Patch, picture: str) -> None:
    monkeypatch.setattr(claims, "REPOSITORY", tmp_path)
    monkeypatch.setattr(claims, "MADE_BY", tmp_path / "made_by.yaml")
    (tmp_path / "made_by.yaml").write_text("images/a.png: relit fit\n")
    (fault,) = claims.unsourced(tmp_path / "docs" / "page.md", picture)
    assert fault.startswith("images/c.png: docs/images/made_by.yaml doesn't say")


def test_pictures_name_what_made_them(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(claims, "REPOSITORY", tmp_path)
    monkeypatch.setattr(claims, "MADE_BY", tmp_path / "made_by.yaml")
    (tmp_path / "made_by.yaml").write_text(
        "images/a.png: relit fit --config configs/here.yaml\nimages/b.png: python scripts/gone.py\n"
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "here.yaml").touch()
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").touch()
    text = '![a](../images/a.png) ![b](../images/b.png) <img src="../images/c.png"> ![d](https://x.org/d.png)'
    assert list(claims.unsourced(tmp_path / "docs" / "page.md", text)) == [
        "images/b.png is said to be made by scripts/gone.py, which isn't there",
        "images/c.png: docs/images/made_by.yaml doesn't say which run or command made it",
    ]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "toy.json").write_text(json.dumps({"steps": {"plain": [entry([0.5])]}}))
    for run, missing in (
        ("toy/plain`, seed 0", 0),
        ("toy/plain`, seed 1", 1),
        ("toy/other`", 1),
        ("other/plain`", 1),
        ("toy/plain` and `toy/other`", 1),
    ):
        (tmp_path / "made_by.yaml").write_text(f'images/a.png: "a picture of the run `{run}"\n')
        found = list(claims.unsourced(tmp_path / "docs" / "page.md", "![a](../images/a.png)"))
        assert [one.rpartition(", ")[2] for one in found] == ["which has no record"] * missing, run
    for experiment, missing in (("toy", 0), ("other", 1)):
        (tmp_path / "made_by.yaml").write_text(f'images/a.png: "the recorded runs of `{experiment}`"\n')
        assert len(list(claims.unsourced(tmp_path / "docs" / "page.md", "![a](../images/a.png)"))) == missing
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "made_by.yaml").write_text("images/a.png: relit fit\n")
    found = list(claims.unsourced(tmp_path / "docs" / "page.md", "![a](../images/a.png)"))
    assert found == ["images/a.png: there is no such picture"]


def test_records_that_were_changed_or_name_lost_commits_are_found(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"steps": {"plain": [entry([0.5, 0.6])]}}))
    one, several = tmp_path / "judge.json", tmp_path / "map_baselines.json"  # measurements without a training
    one.write_text(json.dumps({"git_commit": COMMIT, "rows": {"ten": {"fid": 0.5}}}))
    several.write_text(json.dumps({"64": {"commit": COMMIT, "l1": 0.5}, "128": {"commit": COMMIT, "l1": 0.5}}))
    assert len(list(records.altered(tmp_path))) == 6, "what the seeds share, each of them, and each measurement"
    assert records.seal_all(tmp_path) == [one, several, path]
    assert records.seal_all(tmp_path) == []
    assert list(records.altered(tmp_path)) == []
    good = path.read_text()
    for old, new, said in (
        ('"test/accuracy": 0.6', '"test/accuracy": 0.7', "the record of plain, seed 1, was changed"),
        ('"whole": true', '"whole": false', "the record of plain was changed"),
        ("[2, 0.5]", "[2, 0.6]", "the record of plain, seed 0, was changed"),
    ):
        path.write_text(good.replace(old, new))
        (found,) = records.altered(tmp_path)
        assert said in found
    path.write_text(good)
    for file, said in ((one, "the measurement was changed"), (several, "the record of 64 was changed")):
        sealed = file.read_text()
        file.write_text(sealed.replace("0.5", "0.6", 1))
        (found,) = records.altered(tmp_path)
        assert said.removeprefix("the ") in found
        file.write_text(sealed)
    monkeypatch.setattr(records, "_history", lambda: {COMMIT})
    assert list(records.lost_commits(tmp_path)) == []
    monkeypatch.setattr(records, "_history", lambda: {"b" * 40})
    assert len(list(records.lost_commits(tmp_path))) == 2 + 3
    monkeypatch.setattr(records, "_history", set)
    assert list(records.lost_commits(tmp_path)) == [], "where there is no history"


def test_published_values_stand_only_in_rows_that_compare(tmp_path: Path, monkeypatch: Patch) -> None:
    citation = Citation("0.5", "they", "https://x.org")
    published = Published("a_loss", "loss", "test/accuracy", (), {}, citation, ())
    monkeypatch.setattr(results_table, "all_published", lambda: (published,))
    figure = Figure("plain", "loss", "test/accuracy", published="a_loss")
    whole, part = entry([0.25]), entry([0.125])
    part["data"]["whole"] = False
    shown, listed = ("0.25", True, ""), ("", True, "recorded on a subset only")
    for unlike, entries, expected in (
        ("", [], [("", True, "no training recorded")]),
        ("", [part], [("0.12", False, ""), listed]),
        ("", [whole, part], [shown, ("0.12", False, "")]),
        ("other tasks", [whole], [("0.25", False, "other tasks"), ("", True, "other tasks")]),
    ):
        toy = dataclasses.replace(TOY, steps=TOY.steps[:1], figures=(dataclasses.replace(figure, unlike=unlike),))
        monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": toy})
        (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": entries}}))
        rows = list(results_table.all_rows(tmp_path))
        assert [(row.ours, row.paper is not None, row.unlike) for row in rows] == expected


def test_one_seed_shows_the_interval_over_the_images() -> None:
    """1.96 standard errors of a share of 300 images."""
    figure = Figure("plain", "", "test/accuracy", kind="percent", of_images=True)
    assert row_of(TOY.steps[0], figure, entry([0.9])).ours == "90.0 ± 3.4 (95 % CI)"
    assert row_of(TOY.steps[0], figure, entry([0.9, 0.92])).ours == "91.0 ± 1.4"
    error = dataclasses.replace(figure, kind="error")
    assert row_of(TOY.steps[0], error, entry([0.9])).ours == "10.00 ± 3.39 (95 % CI)"


def test_items_are_of_declared_steps_and_name_them_all() -> None:
    declared = {f"{name}/{step.name}" for name, one in EXPERIMENTS.items() for step in one.steps}
    named = {record for item in ITEMS for record in item.records}
    assert named <= declared
    # The autoencoders' experiment trains the VAE again, for the ways between digits.
    assert declared - named - set(NOT_ITEMS) == set()
    assert len({item.what for item in ITEMS}) == len(ITEMS)


def test_the_state_of_an_item(tmp_path: Path, monkeypatch: Patch) -> None:
    figures = tuple(Figure(step.name, "accuracy", "test/accuracy") for step in TOY.steps)
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": dataclasses.replace(TOY, figures=figures)})
    item = Item("a toy", "dcgan", ("toy/plain", "toy/noisy"))
    whole, part, dirty = entry([0.5, 0.6]), entry([0.5]), entry([0.5])
    part["data"]["whole"] = False
    for run in dirty["seeds"].values():
        run["tests"]["test"]["commit"] = f"{COMMIT}+changes"
    cut = entry([0.5], **{"trainer.max_epochs": [1, 9]})
    for steps, expected in (
        ({}, ("not shown", "no training recorded")),
        ({"plain": [whole]}, ("part", "1 of 2 trainings; 2 seeds")),
        ({"plain": [whole], "noisy": [cut]}, ("whole", "1 to 2 seeds; cut")),
        ({"plain": [whole], "noisy": [part]}, ("part", "a subset of the data; 1 to 2 seeds")),
        ({"plain": [part, whole], "noisy": [part, whole]}, ("whole", "2 seeds")),
        ({"plain": [dirty], "noisy": [whole]}, ("part", "a commit that isn't known; 1 to 2 seeds")),
    ):
        (tmp_path / "toy.json").write_text(json.dumps({"steps": steps}))
        assert results_table.state_of(item, list(results_table.all_rows(tmp_path))) == expected


def test_training_images_in_place_of_the_published_test_images(monkeypatch: Patch) -> None:
    """Such a training counts as one on all data, although papers' values aren't shown next to it."""
    plain = TOY.steps[0]
    step = dataclasses.replace(plain, data=dataclasses.replace(plain.data, own_test=300))
    figure = Figure("plain", "accuracy", "test/accuracy")
    own, other = entry([0.5]), entry([0.5])
    for record in (own, other):
        record["data"] |= {"whole": False, "train_images": record["data"]["train_images"] - 300}
    own["data"]["remarks"] = ["ToySet's 300 test images are not the published ones: their labels differ."]
    row = row_of(step, figure, own)
    assert row.data == "digits, **own test split**: 300 of the 1,497 training images"
    assert "**subset**" in row_of(step, figure, other).data, "nothing says that these aren't the published ones"
    assert "**subset**" in row_of(plain, figure, own).data, "this data set can be had whole"
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": TOY})
    row = dataclasses.replace(row, experiment="toy", step="plain")
    item = Item("a toy", "dcgan", ("toy/plain",))
    assert results_table.state_of(item, [row]) == ("whole", "1 seed; own test split")


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
def toy(monkeypatch: Patch) -> None:
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
        *("Published values that no recorded training of relit can be compared with:", ""),
        "| training | data | value | paper | others' runs | why not |",
        "| --- | --- | --- | --- | --- | --- |",
        '| DCGAN | digits | loss | [0.5](https://x.org "they") | 0.6 (us) | no training recorded |',
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
def test_scores_of_known_images_are_those_of_their_record_on_any_page(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps({"rows": {"ten": {"fid": 1.8909, "recall": 0.0}}}))
    text = "a\n<!-- judge -->\n| ten | 0.001 |\n<!-- end of judge -->\nb"
    lines = results_table.with_tables(text, tmp_path).splitlines()
    assert lines[:2] == ["a", "<!-- judge -->"]
    assert lines[2].startswith("| images | FID | KID |")
    assert lines[4] == "| ten | 1.891 |  |  |  | 0.000 |  |  |  |  |  |"
    assert lines[5:] == ["<!-- end of judge -->", "b"]


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
    whole = only_cut["steps"]["plain"][0]
    part = deepcopy(whole)
    part["data"]["whole"] = False
    part["seeds"]["0"]["tests"]["test"]["figures"]["test/generator_loss"] = 0.125
    (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": [part, whole]}}))
    assert row().endswith("| loss: 0.25† / [0.5](https://x.org) |"), "of whole data before a part of them"


def test_scores_over_other_features_are_not_shown_and_calibration_rows_are(tmp_path: Path, monkeypatch: Patch) -> None:
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


def test_scores_of_a_column_have_the_same_decimals() -> None:
    score = Figure("plain", "FID", "test/accuracy", features="digits, block 2")
    assert [results_table.shown(score, [value]) for value in (0.0798, 0.102, 1.891, 0.0)] == [
        "0.08",
        "0.10",
        "1.89",
        "0.00",
    ]
    error = Figure("plain", "squared error", "test/accuracy")
    assert results_table.shown(error, [0.0407]) == "0.0407", "other small values keep theirs"


def test_each_experiment_has_a_table_on_a_page(tmp_path: Path, monkeypatch: Patch) -> None:
    """With rows of its own for real images, as its figures are its own."""
    digits = "digits, block 2"
    judge = {"features": digits, "calibration": {"other real images": {"accuracy": 0.125}}}
    toys = {}
    for name, label in (("one", "FID"), ("two", "FID")):
        figures = (
            Figure("plain", label, "test/accuracy", features=digits),
            Figure("plain", f"of {name}", "test/other"),
        )
        toys[name] = dataclasses.replace(TOY, steps=TOY.steps[:1], figures=figures)
        record = entry([0.5])
        record["seeds"]["0"]["tests"]["test"]["judge"] = judge
        record["seeds"]["0"]["tests"]["test"]["figures"]["test/other"] = 0.75
        (tmp_path / f"{name}.json").write_text(json.dumps({"steps": {"plain": [record]}}))
    monkeypatch.setattr(results_table, "EXPERIMENTS", toys)
    text = results_table.with_tables("<!-- results: dcgan -->\n<!-- end of results -->", tmp_path)
    for name in toys:
        assert f"| # | training | FID | of {name} | time |\n" in text
    assert text.count("\n| 1 | DCGAN | 0.50 | 0.75 | 2 min |\n|  | other real images | 0.12 |  |  |\n") == 2


def test_one_image_repeated_is_not_called_ten(tmp_path: Path, monkeypatch: Patch) -> None:
    figure = Figure("plain", "FID (digits, block 2)", "test/fid", features="digits, block 2")
    toy = dataclasses.replace(TOY, steps=TOY.steps[:1], figures=(figure,))
    monkeypatch.setattr(results_table, "EXPERIMENTS", {"toy": toy})
    for score, name in ((1.0, "one training image repeated"), (1.5, "ten training images repeated")):
        record = entry([0.5])
        test = record["seeds"]["0"]["tests"]["test"]
        test["figures"]["test/fid"] = 2.0
        calibration = {"ten training images repeated": {"fid": 9.5, "inception_score": score}}
        test["judge"] = {"features": "digits, block 2", "calibration": calibration}
        (tmp_path / "toy.json").write_text(json.dumps({"steps": {"plain": [record]}}))
        assert [row.method for row in results_table.all_rows(tmp_path)] == ["DCGAN", name]


def test_records_without_a_digest_get_one_only_on_demand(tmp_path: Path, monkeypatch: Patch, capsys: Any) -> None:
    for folder in ("results", "docs/methods", "docs/images", "weights"):
        (tmp_path / folder).mkdir(parents=True)
    for page in ("README.md", "docs/methods/README.md", "weights/README.md"):
        (tmp_path / page).write_text("| [DCGAN](dcgan.md) | draws |\n")
    monkeypatch.setattr(results_table, "REPOSITORY", tmp_path)
    monkeypatch.setattr(results_table, "INDEX", tmp_path / "docs" / "methods" / "README.md")
    monkeypatch.setattr(records, "_history", set)
    record = tmp_path / "results" / "toy.json"
    record.write_text(json.dumps({"steps": {"plain": [entry([0.5])]}}))
    unsealed = record.read_text()
    for arguments, kept, code in (
        ([], True, 0),
        (["--check"], True, 1),
        (["--seal"], False, 0),
        (["--check"], False, 0),
    ):
        monkeypatch.setattr("sys.argv", ["results_table.py", *arguments])
        assert results_table.main() == code, arguments
        assert (record.read_text() == unsealed) is kept, arguments
        assert ("has no digest" in capsys.readouterr().err) is kept, arguments


def test_a_record_from_before_the_argument_on_which_a_figure_depends_is_not_shown(
    tmp_path: Path, monkeypatch: Patch
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
