"""What README.md and docs/ say: tables, commands, logged names and links are those of the code."""

import csv
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import EXPERIMENTS
from experiments.claims import made_by, unmarked, unsourced, unsupported
from experiments.records import altered, lost_commits
from lightning.pytorch import Trainer
from PIL import Image
from results_table import methods_index, with_tables

import lit_models
from tests.methods import RUNS
from tests.support.fixtures import Output, Patch, Relit
from tests.support.small_runs import small_run
from tests.support.tiny import CONFIGS

REPOSITORY = CONFIGS.parent
METHODS = sorted((REPOSITORY / "docs" / "methods").glob("*.md"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SECTIONS = ["Overview", "Usage", "What is logged", "Results", "Known failure modes"]


def pages(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))(test)


@pages
def test_what_is_generated_is_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert with_tables(text, REPOSITORY / "results") == text, "run scripts/results_table.py"


@pages
def test_results_in_prose_have_records_and_pictures_a_source(page: Path) -> None:
    text = page.read_text()
    assert [*unsupported(text), *unmarked(text), *unsourced(page, text)] == []


def test_the_values_of_weights_are_those_of_their_cards() -> None:
    text = (REPOSITORY / "weights" / "README.md").read_text()
    assert text.count("<!-- = ") > 10
    assert list(unsupported(text)) == []


def test_records_are_as_they_were_made_at_commits_of_the_history() -> None:
    results = REPOSITORY / "results"
    assert [*altered(results), *lost_commits(results)] == []


@pytest.mark.long
def test_a_picture_is_what_its_command_draws(relit: Relit, tmp_path: Path) -> None:
    """But for rounding, which differs between processors."""
    name = "docs/images/conditional_gan_mnist.png"
    _, *command = shlex.split(made_by()[name].strip("`"))
    assert relit(*command, f"--run.root={tmp_path}", "--run.id=one") == 0
    (drawn,) = tmp_path.glob("*/one/predictions/grid.png")
    ours, shown = (np.asarray(Image.open(path).convert("L")).astype(int) for path in (drawn, REPOSITORY / name))
    assert ours.shape == shown.shape
    assert np.abs(ours - shown).mean() < 1


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "results").glob("*/metrics.png")), ids=lambda path: path.parent.name
)
def test_curves_keep_their_colors(path: Path) -> None:
    """In a reduced palette the pale points of one run take the color of another."""
    assert Image.open(path).mode in ("RGB", "RGBA")


def test_pictures_with_a_source_are_there() -> None:
    assert all((REPOSITORY / path).is_file() for path in made_by())


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in (*re.findall(r"\]\(([^)\s]+)", text), *re.findall(r'<img src="([^"]+)"', text)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_the_readme_is_short_and_leads_to_all_that_it_leaves_out() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.encode()) <= 12_288
    assert len(text.splitlines()) <= 200
    reached, pages = set(), [REPOSITORY / "README.md"]
    while pages:
        page = pages.pop()
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            if "://" not in target and (linked := (page.parent / target).resolve()) not in reached:
                reached.add(linked)
                pages.append(linked)
    assert {path for path in PAGES if path.name != "README.md" or path.parent.name == "methods"} <= reached


def test_the_readme_lists_every_method() -> None:
    assert methods_index().keys() == {path.stem for path in METHODS} - {"README"}
    rows = re.findall(r"^\| \[.+?\]\(docs/methods/(\w+)\.md\)", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert rows == list(methods_index())


def test_the_gallery_shows_every_picture_of_the_methods_pages() -> None:
    shown = set(re.findall(r"!\[[^\]]*\]\((\S+?)\)", (REPOSITORY / "docs" / "gallery.md").read_text()))
    for page in METHODS:
        for target in re.findall(r"!\[[^\]]*\]\((\S+?)\)", page.read_text()):
            assert os.path.relpath((page.parent / target).resolve(), REPOSITORY / "docs") in shown


def blocks_of_python(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/python_api.md"])
def test_python_examples_run(page: str, monkeypatch: Patch, tmp_path: Path) -> None:
    """The blocks of a page, one after the other, as a reader would paste them; trainings are cut to two batches."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(REPOSITORY / "weights")
    fit = Trainer.fit

    def short(trainer: Trainer, *arguments: Any, **named: Any) -> None:
        trainer.limit_train_batches, trainer.limit_val_batches = 2, 1
        assert trainer.fit_loop.max_epochs is not None
        trainer.fit_loop.max_epochs = 1
        fit(trainer, *arguments, **named)

    monkeypatch.setattr(Trainer, "fit", short)
    names: dict[str, Any] = {}
    for block in blocks_of_python(page):
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        assert names["images"].shape == (16, 1, 32, 32)
        assert 0 <= names["images"].min() <= names["images"].max() <= 1


def test_the_python_page_names_abilities_that_there_are() -> None:
    text = (REPOSITORY / "docs" / "python_api.md").read_text()
    table = re.search(r"^\| ability \|.*?\n\n", text, re.DOTALL | re.MULTILINE)
    assert table is not None
    stated: dict[str, set[str]] = {}
    for row in table[0].splitlines()[2:-1]:
        for ability in re.findall(r"`(\w+)`", row.split("|")[1]):
            stated[ability] = set(re.findall(r"`(\w+)`", row.split("|")[2]))
    for ability, methods in stated.items():
        has = {name for name in lit_models.METHODS if callable(getattr(getattr(lit_models, name), ability, None))}
        assert methods == has - ({"LayerwiseMLP"} if ability == "encode" else set()), ability


@pytest.mark.parametrize("page", [path for path in METHODS if path.stem != "README"], ids=lambda path: path.stem)
def test_a_method_page_has_all_sections(page: Path) -> None:
    text = page.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    known = [heading for heading in headings if not re.match(r"Differences from the papers?$|Choices$", heading)]
    assert known == SECTIONS
    assert len(headings) == len(SECTIONS) + 1, "differences from the paper, or the choices where there is none"
    assert f"<!-- results: {page.stem} -->" in text
    assert f"({page.name})" in (page.parent / "README.md").read_text(), "the index lists the page"


@pytest.mark.parametrize("module", sorted(set(lit_models.METHODS.values())))
def test_every_method_has_a_page(module: str) -> None:
    link = f"({'../../' + module.replace('.', '/')}.py)"
    linked = any(link in path.read_text() or link.split("/")[-1] in path.read_text() for path in METHODS)
    assert linked, f"no page in docs/methods/ links {link}"


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, ...]]:
    """The commands in the pages' shell blocks, each once."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    if words := shlex.split(part, comments=True):
                        found[tuple(words)] = None
    yield from found


COMMANDS = list(commands())
OF_SCRIPTS = [words for words in COMMANDS if words[:1] == ("python",) and words[1].endswith(".py")]
FILLED_IN = ("--config", "--ckpt_path", "--print_config")


def of_relit() -> Iterator[tuple[str, ...]]:
    """The commands of relit that set something; tests/test_configs.py prints the configurations as they are."""
    for words in COMMANDS:
        if words[:1] == ("relit",) and any(w.startswith("--") and w not in FILLED_IN for w in words[2:]):
            yield words


def test_configurations_in_commands_exist() -> None:
    named = [word for words in COMMANDS for word in words if word.startswith("configs/")]
    assert len(named) > 50
    assert all((REPOSITORY / word).is_file() for word in named)


@pytest.mark.parametrize("words", list(of_relit()), ids=lambda words: " ".join(words)[:100])
def test_a_command_of_relit_is_valid(relit: Relit, words: tuple[str, ...], capsys: Output) -> None:
    arguments = [str(REPOSITORY / word) if word.startswith("configs/") else word for word in words[1:]]
    if words[1] in ("compare", "demo", "export", "init", "push", "report", "sweep"):  # these have other parsers
        with suppress(SystemExit):
            relit(words[1], "--help")
        told = capsys.readouterr().out
        options = takewhile(lambda word: word != "--", words[2:])  # what follows is for `relit fit`
        assert {word.partition("=")[0] for word in options if word.startswith("--")} <= {*re.findall(r"--[\w-]+", told)}
        return
    assert relit(*arguments, *([] if "help" in words[2] else ["--print_config"])) == 0


def test_commands_of_scripts_name_what_exists() -> None:
    for _, script, *arguments in OF_SCRIPTS:
        assert (REPOSITORY / script).is_file(), script
        if Path(script).name == "reproduce.py" and not arguments[0].startswith("--"):
            assert arguments[0] in EXPERIMENTS
            options = [word for word in arguments if word.startswith("--") and len(word) > 2]
            assert set(options) <= {
                "--seeds",
                "--budget",
                "--steps",
                "--take",
                "--root",
                "--results",
                "--allow_dirty",
                "--list",
            }


# --- logged names -----------------------------------------------------------------------------------------------------


def documented(page: Path) -> list[str]:
    """Patterns of the names in the first column of a page's tables, with `{a,b}` spelt out."""
    names = []
    for cell in re.findall(r"^\| (`(?:\{|train|val|test|[a-z_]+`).*?) \| ", page.read_text(), re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cell):
            parts = [part.split(",") for part in re.split(r"[{}]", name)]
            names += ["".join(choice) for choice in product(*parts)]
    return [re.escape(name).replace(r"\[k\]", r"\d+") for name in names]


def test_documented_names_are_read_from_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("| logged | meaning |\n| --- | --- |\n| `{train,val}/layer[k]_loss`, `test/x` | a `word` |\n")
    assert documented(page) == [r"train/layer\d+_loss", r"val/layer\d+_loss", "test/x"]


def test_every_page_is_checked() -> None:
    assert RUNS.keys() == {path.stem for path in METHODS} - {"README"}


UNDEFINED = r"(val|test)/map_(recall|precision)_"
"""Of a kind of pixels that the few maps of the test don't have, or that isn't painted, nothing is logged."""


@pytest.mark.parametrize("page", RUNS)
def test_the_page_documents_what_is_logged(relit: Relit, digits_root: Path, page: str) -> None:
    """All that a training and a test log is explained, and all that is explained is logged."""
    logged: set[str] = set()
    for run in RUNS[page]:
        common = small_run(run, digits_root)
        assert relit("fit", *common) == 0
        assert relit("test", *common, "--ckpt_path=last") == 0
        (metrics,) = Path("runs").glob("*/*/metrics.csv")
        with metrics.open() as file:
            logged |= set(next(csv.reader(file))) - {"step", "epoch"}
        metrics.rename(metrics.with_suffix(".read"))
    own = documented(REPOSITORY / "docs" / "methods" / f"{page}.md")
    shared = documented(REPOSITORY / "docs" / "methods" / "README.md")
    unexplained = {name for name in logged if not any(re.fullmatch(one, name) for one in (*own, *shared))}
    assert not unexplained
    unheard = {one for one in own if not any(re.fullmatch(one, name) for name in logged)}
    assert not {one for one in unheard if not re.match(UNDEFINED, one)}
