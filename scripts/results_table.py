"""Writes the generated parts of README.md and docs/: tables of results, the list of methods, the gallery, and the
numbered differences from the papers.

    python scripts/results_table.py            # after scripts/reproduce.py
    python scripts/results_table.py --check    # exit code 1 if something is out of date or has no source
    python scripts/results_table.py --seal     # also gives records without a digest theirs; look at them first

It also checks that each number in the prose of a method's results, or near the name of a score, is marked, and has the
record that its mark names (scripts/experiments/claims.py); that docs/images/made_by.yaml names the run or the command
behind each picture; and that no record was changed by hand or names a commit outside the history
(scripts/experiments/records.py).

Each part stands between two comments:

    <!-- results: dcgan --> … <!-- end of results -->          on a method's page: all its recorded trainings
    <!-- items --> … <!-- end of items -->                     docs/results.md: what is shown of each item, and by what
    <!-- results: all --> … <!-- end of results -->            docs/results.md: the main values of all methods
    <!-- methods --> … <!-- end of methods -->                 README.md: a row for each method's page
    <!-- gallery --> … <!-- end of gallery -->                 docs/gallery.md: the pictures of the methods' pages
    <!-- judge --> … <!-- end of judge -->                     docs/scores.md: the scores of images of known quality
    <!-- differences: lit_models/dcgan.py --> … <!-- end of differences -->

docs/methods/README.md gets a row for each page that it lacks.

The values come from results/*.json and lit_models/runs/published.yaml. Trainings without a record are not shown;
`scripts/reproduce.py --list` names them.
"""

import argparse
import ast
import json
import math
import os
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, Figure, Step
from experiments.claims import made_by, unmarked, unsourced, unsupported
from experiments.items import ITEMS, Item
from experiments.judge import judge_table
from experiments.listing import faults_of
from experiments.records import altered, lost_commits, seal_all

from lit_models.runs.published import Citation, Published, all_published

REPOSITORY = Path(__file__).parents[1]
INDEX = REPOSITORY / "docs" / "methods" / "README.md"
MARKED = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end of results -->", re.DOTALL)
METHODS = re.compile(r"<!-- methods -->\n.*?<!-- end of methods -->", re.DOTALL)
ITEM_TABLE = re.compile(r"<!-- items -->\n.*?<!-- end of items -->", re.DOTALL)
GALLERY = re.compile(r"<!-- gallery -->\n.*?<!-- end of gallery -->", re.DOTALL)
JUDGED = re.compile(r"<!-- judge -->\n.*?<!-- end of judge -->", re.DOTALL)
DIFFERENCES = re.compile(r"<!-- differences: (\S+) -->\n.*?<!-- end of differences -->", re.DOTALL)
CUTS = {
    "max_epochs": "epochs",
    "epochs": "epochs",
    "pretrain_epochs": "epochs of pretraining a layer",
    "finetune_epochs": "epochs of fine-tuning",
    "feature_maps": "feature maps",
    "discriminator_feature_maps": "feature maps of the discriminator",
    "init_channels": "channels",
    "layers": "cells",
    "num_classes": "classes",
    "total_iters": "steps of the schedule",
}
"""Arguments that are a cut when they are smaller than in the configuration, and what they count."""
TEN_REPEATED = "ten training images repeated"
UNTOLD = ("callbacks", "log_every_n_steps", "max_classes", "accelerator")
"""Changed arguments that a row leaves out: they change no figure, or `num_classes` and the subset imply them."""


@dataclass(frozen=True)
class Row:
    """One figure of one training; `ours` is empty if no record has it, `command` if no training made the images.

    Attributes:
        experiment: Its name, that of its file in scripts/experiments/.
        step: The step's name.
        page: The method's page.
        main: Whether docs/results.md shows the figure, too.
        cut: What is smaller than in the step's configuration.
        changed: What else differs from it.
        seeds: How many.
        time: Of a training.
        unlike: Why the published values can't be compared with ours, if they can't.
    """

    experiment: str
    step: str
    page: str
    main: bool
    method: str
    data: str
    figure: str
    paper: Citation | None = None
    others: tuple[Citation, ...] = ()
    ours: str = ""
    cut: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    seeds: int = 0
    time: str = ""
    hardware: str = ""
    command: str = ""
    unlike: str = ""


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a part is out of date")
    parser.add_argument("--seal", action="store_true", help="give records without a digest theirs")
    given = parser.parse_args()
    if given.check and given.seal:
        parser.error("--check changes nothing: leave out --seal.")
    results = REPOSITORY / "results"
    outdated = seal_all(results) if given.seal else []
    wrong = [*altered(results), *lost_commits(results)]
    # The index first, by which the other pages list the methods.
    others = {*(REPOSITORY / "docs").rglob("*.md")} - {INDEX}
    for path in (INDEX, REPOSITORY / "README.md", *sorted(others), REPOSITORY / "weights" / "README.md"):
        text = path.read_text(encoding="utf-8")
        new = with_tables(text, results)
        if path == INDEX:
            new = with_all_pages(new)
        if new != text:
            outdated.append(path)
            if not given.check:
                path.write_text(new, encoding="utf-8")
        faults = (*unsupported(new), *unmarked(new), *unsourced(path, new))
        wrong += [f"{path.relative_to(REPOSITORY)}: {one}" for one in faults]
    for path in outdated:
        print(f"{path.relative_to(REPOSITORY)}: {'out of date' if given.check else 'written'}")
    for one in wrong:
        print(one, file=sys.stderr)
    return 1 if given.check and (outdated or wrong) else 0


def with_tables(text: str, results: Path) -> str:
    """The text with each generated part brought up to date."""
    if not any(pattern.search(text) for pattern in (MARKED, METHODS, ITEM_TABLE, GALLERY, JUDGED, DIFFERENCES)):
        return text
    rows = list(all_rows(results))

    def tables(match: re.Match[str]) -> str:
        page = match[1]
        if page == "all":
            parts = overview([row for row in rows if row.main])
        elif (REPOSITORY / "docs" / "methods" / f"{page}.md").is_file():
            parts = page_tables([row for row in rows if row.page == page])
        else:
            raise SystemExit(f"`<!-- results: {page} -->` names no page of docs/methods/.")
        return "\n\n".join([f"<!-- results: {page} -->", *parts, "<!-- end of results -->"])

    def brought_up_to_date(part: str) -> str:
        part = MARKED.sub(tables, part)
        part = METHODS.sub(lambda _: f"<!-- methods -->\n{methods_table(rows)}\n<!-- end of methods -->", part)
        part = ITEM_TABLE.sub(lambda _: f"<!-- items -->\n{items_table(rows)}\n<!-- end of items -->", part)
        part = GALLERY.sub(lambda _: f"<!-- gallery -->\n{gallery()}\n<!-- end of gallery -->", part)
        part = JUDGED.sub(lambda _: f"<!-- judge -->\n{judged(results)}\n<!-- end of judge -->", part)
        return DIFFERENCES.sub(_differences, part)

    # What stands in a block of code is shown as it is.
    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else brought_up_to_date(part) for part in parts)


def judged(results: Path) -> str:
    """The table of what scores say of images of known quality."""
    return judge_table(json.loads((results / "judge.json").read_text(encoding="utf-8")))


def overview(rows: list[Row]) -> list[str]:
    """For each method's page with a record, a heading and its tables."""
    parts = []
    for page in dict.fromkeys(row.page for row in rows):
        mine = [row for row in rows if row.page == page]
        if any(row.ours for row in mine):
            parts += [f"## {title_of(page)}", f"[Method page](methods/{page}.md)", *page_tables(mine)]
    return parts


def page_tables(rows: list[Row]) -> list[str]:
    """For each data set and experiment, a table of its trainings and of what others published, and their commands.

    Experiments have different figures: in one table, most cells would be empty.
    """
    parts = []
    for data, experiment in dict.fromkeys((row.data, row.experiment) for row in rows if row.ours):
        mine = [row for row in rows if row.ours and (row.data, row.experiment) == (data, experiment)]
        parts += [training_table(data, mine), commands(mine)]
    if published := [row for row in rows if not row.ours and (row.paper or row.others)]:
        cells = [(row.method, row.data, row.figure, *_cited(row), row.unlike) for row in published]
        header = ("training", "data", "value", "paper", "others' runs", "why not")
        parts += ["Published values that no recorded training of relit can be compared with:", markdown(header, cells)]
    return parts or ["No value has been recorded yet; `python scripts/reproduce.py --list` names what is missing."]


Training = tuple[str, tuple[str, ...], tuple[str, ...], str]


def training_of(row: Row) -> Training:
    """What the rows of one training share."""
    return row.method, row.cut, row.changed, row.command


def training_table(data: str, rows: list[Row]) -> str:
    """One row a training, figures as columns; the settings that all share stand above."""
    trainings: dict[Training, dict[str, Row]] = {}
    for row in rows:
        trainings.setdefault(training_of(row), {})[row.figure] = row
    firsts = [next(iter(values.values())) for values in trainings.values()]
    ran = [row for row in firsts if row.command]  # the others are images that no method made
    cut, changed = _shared([row.cut for row in ran]), _shared([row.changed for row in ran])
    seeds, hardware = {row.seeds for row in ran}, {row.hardware for row in ran}
    above = [
        *([f"cut to {', '.join(cut)}"] if cut else []),
        *([f"with {', '.join(changed)}"] if changed else []),
        *([f"{ran[0].seeds} seed{'' if seeds == {1} else 's'}"] if len(seeds) == 1 else []),
        *(hardware if len(hardware) == 1 else []),
    ]
    figures = dict.fromkeys(row.figure for row in rows)
    cells = []
    for number, (row, values) in enumerate(zip(firsts, trainings.values(), strict=True), 1):
        own = [f"cut to {', '.join(rest)}"] if (rest := [one for one in row.cut if one not in cut]) else []
        own += [f"with {', '.join(rest)}"] if (rest := [one for one in row.changed if one not in changed]) else []
        cells.append(
            (
                *(str(number) if row.command else "", row.method, "; ".join(own)),
                *(cell for figure in figures for cell in _value(values.get(figure))),
                str(row.seeds) if row.command and len(seeds) > 1 else "",
                row.time,
                row.hardware if len(hardware) > 1 else "",
            )
        )
    columns = (column for figure in figures for column in (figure, "paper", "others' runs"))
    header = ("#", "training", "settings", *columns, "seeds", "time", "machine")
    bold = f"**{data.replace('**', '')}**"
    return f"{'; '.join([bold, *above])}:\n\n{markdown(header, cells)}"


def _shared(settings: list[tuple[str, ...]]) -> list[str]:
    """The settings that are in all of them, in the first one's order."""
    return [one for one in settings[0] if all(one in other for other in settings)]


def _value(row: Row | None) -> tuple[str, str, str]:
    return (row.ours, *_cited(row)) if row else ("", "", "")


def _cited(row: Row) -> tuple[str, str]:
    """The paper's value and those of others' runs, with their sources."""

    def cited(one: Citation) -> str:
        source = one.source.replace('"', "'")
        return f'[{one.value}]({one.url} "{source}")' if one.url else f"{one.value} ({source})"

    return cited(row.paper) if row.paper else "", "; ".join(map(cited, row.others))


def commands(rows: list[Row]) -> str:
    """The commands of a table's trainings, folded away."""
    trainings = {training_of(row): row for row in rows if row.command}
    lines = [f"{number}. `{row.command}`" for number, row in enumerate(trainings.values(), 1)]
    return "\n".join(['<details markdown="1"><summary>Commands</summary>', "", *lines, "", "</details>"])


def methods_table(rows: list[Row]) -> str:
    """A row for each method's page: what it does, on which data, and one value next to the paper's."""
    cells = []
    for page, (name, does) in methods_index().items():
        mine = [row for row in rows if row.page == page]
        data = list(dict.fromkeys(row.data.split(",")[0] for row in mine))
        measured = [row for row in mine if row.ours and row.main and row.command]
        # The method before its relatives on the page, whole data before a part.
        measured.sort(key=lambda row: (not row.method.startswith(name), "**subset**" in row.data))
        value = "not recorded yet"
        if best := next((row for row in measured if row.paper), next(iter(measured), None)):
            known = any(row.paper for row in mine if (row.step, row.figure) == (best.step, best.figure))
            paper = "not comparable" if known else "–"
            paper = f"[{best.paper.value}]({best.paper.url})" if best.paper else paper
            smaller = any(step.smaller for step in EXPERIMENTS[best.experiment].steps if step.name == best.step)
            mark = "†" if best.cut or smaller or "**" in best.data else ""
            value = f"{best.figure.removesuffix(' / %')}{' (%)' if best.figure.endswith('/ %') else ''}: "
            on = f" on {best.data.split(',')[0]}" if len(data) > 1 else ""
            ours = best.ours.partition(" ±")[0] if "CI" in best.ours else best.ours  # ± is over seeds here
            value += f"{ours}{mark}{on} / {paper}"
        cells.append((f"[{name}](docs/methods/{page}.md)", does, ", ".join(data), value))
    return markdown(("method", "what it does", "data", "ours / paper"), cells)


def items_table(rows: list[Row]) -> str:
    """What is shown of each item, on which page, by which records, and the command that makes them."""
    names, recorded = methods_index(), {(row.experiment, row.step) for row in rows if row.ours}
    cells, counts = [], dict.fromkeys(("whole", "part", "not shown"), 0)
    for item in ITEMS:
        state, details = state_of(item, rows)
        counts[state] += 1
        steps: dict[str, list[str]] = {}
        for record in item.records:
            experiment, _, step = record.partition("/")
            steps.setdefault(experiment, []).append(step)
        files = [name for name in steps if any((name, step) in recorded for step in steps[name])]
        cells.append(
            (
                *(item.what, f"[{names[item.page][0]}](methods/{item.page}.md#results)"),
                *(f"**{state}**" if state == "whole" else state, details),
                ", ".join(f"[{name}](../results/{name}.json)" for name in files),
                "<br>".join(f"`reproduce.py {name} --steps {' '.join(steps[name])}`" for name in steps),
            )
        )
    total = ", ".join(f"{count} {state}" for state, count in counts.items())
    header = ("item", "page", "state", "details", "record", "command")
    return f"Of {len(ITEMS)} items: {total}.\n\n{markdown(header, cells)}"


def state_of(item: Item, rows: list[Row]) -> tuple[str, str]:
    """Whether an item is shown on all of its data, in part or not at all, and why.

    Of each training the best record counts: on all data before a part, without faults, with most seeds.
    """
    best: dict[str, Row] = {}
    for row in rows:
        name = f"{row.experiment}/{row.step}"
        if row.ours and row.command and name in item.records:
            known = best.get(name)
            if known is None or _rank(row) > _rank(known):
                best[name] = row
    if not best:
        return "not shown", "no training recorded"
    kept = best.values()
    lacks = [
        *([f"{len(best)} of {len(item.records)} trainings"] if len(best) < len(item.records) else []),
        *(["a subset of the data"] if any("**subset**" in row.data for row in kept) else []),
        *(["a commit that isn't known"] if any(map(_faulty, kept)) else []),
    ]
    seeds = sorted({row.seeds for row in kept})
    counted = f"{seeds[0]} seed{'' if seeds == [1] else 's'}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    smaller = ["cut"] if any(row.cut for row in kept) else []
    splits = ["own test split"] if any("**own test split**" in row.data for row in kept) else []
    return ("part" if lacks else "whole"), "; ".join([*lacks, counted, *smaller, *splits])


def _faulty(row: Row) -> bool:
    return any("commit" in setting for setting in row.changed)


def _rank(row: Row) -> tuple[bool, bool, int]:
    return "**subset**" not in row.data, not _faulty(row), row.seeds


def with_all_pages(text: str) -> str:
    """The index of the methods' pages; those that it lacks come last, with the first sentence of their overview."""
    listed = methods_index()
    lines = []
    for path in sorted(INDEX.parent.glob("*.md")):
        if path != INDEX and path.stem not in listed:
            overview = re.search(
                r"^## Overview\n\n(.+?)[.:](?:\s|$)", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
            )
            does = " ".join(overview[1].split()) if overview else ""
            lines.append(f"| [{title_of(path.stem)}]({path.name}) | {does[:1].lower()}{does[1:]} |\n")
    *_, last = re.finditer(r"^\| \[.+?\]\(\w+\.md\) \| .+? \|\n", text, re.MULTILINE)
    return text[: last.end()] + "".join(lines) + text[last.end() :]


def methods_index() -> dict[str, tuple[str, str]]:
    """Each page's name and what the method does, as docs/methods/README.md lists them."""
    text = INDEX.read_text(encoding="utf-8")
    return {
        page: (name, does)
        for name, page, does in re.findall(r"^\| \[(.+?)\]\((\w+)\.md\) \| (.+?) \|$", text, re.MULTILINE)
    }


def title_of(page: str) -> str:
    """The heading of a method's page."""
    return (
        (REPOSITORY / "docs" / "methods" / f"{page}.md")
        .read_text(encoding="utf-8")
        .partition("\n")[0]
        .removeprefix("# ")
    )


def gallery() -> str:
    """The pictures of the methods' pages, each once, below the first method that shows it."""
    docs = REPOSITORY / "docs"
    parts, seen = [], set()
    for page, (name, _) in methods_index().items():
        path = docs / "methods" / f"{page}.md"
        shown_here = []
        for caption, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            picture = os.path.relpath((path.parent / target).resolve(), docs)
            if picture not in seen:
                seen.add(picture)
                source = made_by().get(os.path.normpath(os.path.join("docs", picture)), "an unknown run")
                made = "Made by" if re.match(r"`(relit|python) ", source) else "From"
                shown_here.append(f"![{caption}]({picture})\n\n*{caption[:1].upper()}{caption[1:]}.* {made} {source}.")
        if shown_here:
            parts += [f"## {name}", f"[Method page](methods/{page}.md)", *shown_here]
    return "\n\n".join(parts)


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table without the columns in which nothing stands."""
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cells[column] for column in kept) + " |" for cells in lines)


def _differences(match: re.Match[str]) -> str:
    return f"<!-- differences: {match[1]} -->\n{numbered_differences(match[1])}\n<!-- end of differences -->"


def numbered_differences(path: str) -> str:
    """The numbered list of a module's docstring that says what differs from the paper, in Markdown."""
    docstring = ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))) or ""
    found = re.search(
        r"^(?:Differences from|What differs|.*Choices:)[^\n]*\n\n(1\. .*?)(?:\n\n|\Z)",
        docstring,
        re.DOTALL | re.MULTILINE,
    )
    if found is None:
        raise SystemExit(f"The docstring of {path} lists no differences from the paper (`Differences from …`, `1. …`).")
    return re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", found[1]).replace("``", "`")


def all_rows(results: Path) -> Iterator[Row]:
    """A row for each figure of each step and each choice of settings with which it was measured; those of one training
    follow each other."""
    published = {one.name: one for one in all_published()}
    calibrated: dict[tuple[str, ...], Row] = {}
    for name, experiment in EXPERIMENTS.items():
        path = results / f"{name}.json"
        entries = json.loads(path.read_text(encoding="utf-8"))["steps"] if path.is_file() else {}
        for step in experiment.steps:
            figures = [figure for figure in experiment.figures if figure.step == step.name]
            unmeasured = [_unmeasured(name, step, one, published.get(one.published or "")) for one in figures]
            chosen = [
                (row, figure, entry)
                for entry in entries.get(step.name, ())
                for row, figure in zip(unmeasured, figures, strict=True)
                if not is_outdated(figure, entry)
                and any(value_of(figure, run) is not None for run in entry["seeds"].values())
            ]
            found = [measured(row, step, figure, entry) for row, figure, entry in chosen]
            yield from found
            runs = [
                (figure, next(run for run in entry["seeds"].values() if value_of(figure, run) is not None))
                for _, figure, entry in chosen
            ]
            for row in calibration_rows(found, runs):
                calibrated.setdefault((row.experiment, row.page, row.method, row.data, row.figure), row)
            yield from without_comparison(unmeasured, found)
    yield from calibrated.values()


def without_comparison(unmeasured: list[Row], found: list[Row]) -> Iterator[Row]:
    """The rows of a step that no record has, and those whose published values stand in none of the measured rows."""
    for row in unmeasured:
        ours = [one for one in found if one.figure == row.figure]
        if not ours:
            yield replace(row, unlike=row.unlike or "no training recorded")
        elif (row.paper or row.others) and not any(one.paper or one.others for one in ours):
            own = all("**own test split**" in one.data for one in ours)
            yield replace(row, unlike=row.unlike or ("other test images" if own else "recorded on a subset only"))


def _unmeasured(experiment: str, step: Step, figure: Figure, published: Published | None) -> Row:
    return Row(
        experiment,
        step.name,
        step.page,
        figure.main,
        step.method,
        step.data.name,
        figure.label,
        paper=published.paper if published else None,
        others=published.others if published else (),
        unlike=figure.unlike,
    )


def measured(row: Row, step: Step, figure: Figure, entry: dict[str, Any]) -> Row:
    """The row with what came out for one choice of settings."""
    runs = [run for run in entry["seeds"].values() if value_of(figure, run) is not None]
    values = [value for run in runs if (value := value_of(figure, run)) is not None]
    half = [half_interval(figure, run, entry["data"]["test_images"]) for run in runs]
    comparable = entry["data"]["whole"] and not figure.unlike
    seconds = [run["training_seconds"] for run in runs if run["training_seconds"] is not None]
    # Next to the paper's value: what is cut from the paper's configuration, not from a budget's small one.
    changed = entry.get("changed_from_own", entry["changed"])
    cut, others = _settings(step, changed)
    return replace(
        row,
        data=_data(step, entry["data"]),
        paper=row.paper if comparable else None,
        others=row.others if comparable else (),
        ours=shown(figure, values, half),
        cut=cut,
        changed=(*others, *faults_of(entry)),
        seeds=len(runs),
        time=_duration(statistics.mean(seconds)) if seconds else "not recorded",
        hardware=" / ".join(dict.fromkeys(run["hardware"] for run in runs)),
        command=entry["command"],
    )


def half_interval(figure: Figure, run: dict[str, Any], images: int) -> float | None:
    """Half of the 95 % confidence interval of a seed's figure over its test's episodes or images, if it has one."""
    if figure.interval:
        return run["tests"][figure.test]["figures"][figure.interval]
    value = value_of(figure, run)
    return 1.96 * math.sqrt(value * (1 - value) / images) if figure.of_images and value is not None else None


def _settings(step: Step, changed: dict[str, list[Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is cut from the step's configuration, and what else differs from it."""
    cuts, others = [], []
    for key, (mine, theirs) in changed.items():
        name = key.rpartition(".")[2]
        untold = name in UNTOLD or (key.startswith("checkpoint.") and step.checkpoint == "last")
        if step.length_of is not None and name == "max_epochs":
            others.append(f"{mine} epochs")  # fixed by an earlier step, not a cut
            continue
        if key.replace(".init_args", "", 1) in _own(step) or untold:
            continue
        if name in CUTS and isinstance(mine, int) and isinstance(theirs, int) and mine < theirs:
            cuts.append(f"{mine} of {theirs} {CUTS[name]}")
        else:
            others.append(f"`{name}` {_shown(mine)}")
    return tuple(cuts), tuple(others)


def is_outdated(figure: Figure, entry: dict[str, Any]) -> bool:
    """Whether a record is from before the argument on which the figure depends."""
    if figure.argument is None:
        return False
    group, name = figure.argument.split(".")
    return name not in entry["settings"][group]["init_args"]


def value_of(figure: Figure, run: dict[str, Any]) -> float | None:
    """The figure of one seed; None if it hasn't been measured."""
    if figure.features and judge_of(figure, run).get("features") != figure.features:
        return None
    if figure.epoch is None:
        return run["tests"].get(figure.test, {}).get("figures", {}).get(figure.metric)
    return dict(run["curves"].get(figure.metric, ())).get(figure.epoch)


def judge_of(figure: Figure, run: dict[str, Any]) -> dict[str, Any]:
    """What was recorded of the features that a figure of one seed goes over; nothing by an older relit."""
    recorded = run if figure.epoch is not None else run["tests"].get(figure.test, {})
    return recorded.get("judge", {})


def calibration_rows(rows: list[Row], figures: list[tuple[Figure, dict[str, Any]]]) -> Iterator[Row]:
    """For each score in the rows, what other real images score and what ten training images repeated do.

    Args:
        rows: Measured ones.
        figures: The figure of each, and one of its runs.
    """
    for row, (figure, run) in zip(rows, figures, strict=True):
        for kind, scores in judge_of(figure, run).get("calibration", {}).items():
            value = scores.get(figure.metric.partition("/")[2])
            # Earlier records of data of one class repeated a single image, of which the Inception Score is 1.
            if kind == TEN_REPEATED and scores.get("inception_score", math.inf) < 1 + 1e-6:
                kind = "one training image repeated"
            if figure.features and value is not None:
                ours = shown(figure, [value])
                yield Row(row.experiment, row.step, row.page, row.main, kind, row.data, row.figure, ours=ours)


def shown(figure: Figure, values: list[float], half_intervals: Sequence[float | None] = (None,)) -> str:
    """The mean with the standard deviation over the seeds; of one seed, with its confidence interval if it has one."""
    scale = 1 if figure.kind == "number" else 100
    numbers = [100 - 100 * value if figure.kind == "error" else scale * value for value in values]
    digits = 2 if figure.interval or figure.kind == "error" or max(map(abs, numbers)) < 10 else 1
    # Scores of generated images have the same decimals in all rows of a column, be they good or bad.
    if figure.kind == "number" and not figure.features and max(map(abs, numbers)) < 0.1:
        digits = 4
    if figure.digits is not None:
        digits = figure.digits
    mean = f"{statistics.mean(numbers):.{digits}f}"
    if len(numbers) > 1:
        return f"{mean} ± {statistics.stdev(numbers):.{digits}f}"
    if half_intervals[0] is not None:
        return f"{mean} ± {scale * half_intervals[0]:.{digits}f} (95 % CI)"
    return mean


def _own(step: Step) -> set[str]:
    """The arguments that make the step what it is."""
    return {argument.partition("=")[0].removeprefix("--") for argument in step.arguments}


def _data(step: Step, data: dict[str, Any]) -> str:
    if data["whole"]:
        return data["name"]
    remarks = data.get("remarks", [])
    train = data["train_images"] + data["val_images"]
    own = step.data.own_test
    others = any("not the published" in remark for remark in remarks)
    if others and (train, data["test_images"]) == (step.data.train - own, own):
        return f"{data['name']}, **own test split**: {own:,} of the {step.data.train:,} training images"
    if remarks:
        told = (re.sub(r"^\w+ is a subset: ", "", remark).rstrip(".") for remark in remarks)
        return f"{data['name']}, **subset**: {'; '.join(told)}"
    return (
        f"{data['name']}, **subset**: {train:,} of {step.data.train:,} training and validation, "
        f"{data['test_images']:,} of {step.data.test:,} test images"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value).rpartition(".")[2] if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.exit(main())
