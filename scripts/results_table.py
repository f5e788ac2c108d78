"""Writes what README.md and docs/methods/*.md take from elsewhere: the tables of results, from results/*.json and
lit_models/runs/published.yaml, and the numbered differences from the papers, from the methods' docstrings.

    python scripts/results_table.py            # after scripts/reproduce.py
    python scripts/results_table.py --check    # exit code 1 if something is out of date

A table stands between `<!-- results … -->` and `<!-- end of results -->`; `<!-- results: all -->` is the README's, and
`<!-- results: dcgan -->` holds what `scripts/experiments.py` reports on the page docs/methods/dcgan.md. What lies
between is written anew; what hasn't been measured is folded away at the end. Likewise
`<!-- differences: lit_models/dcgan.py -->` … `<!-- end of differences -->`.
"""

import argparse
import ast
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, Figure, Step

from lit_models.runs.published import Citation, Published, all_published

REPOSITORY = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end of results -->", re.DOTALL)
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
}
"""Arguments that are a cut when they are smaller than in the configuration, and what they count."""
UNTOLD = ("callbacks", "log_every_n_steps", "max_classes")
"""Changed arguments of which a row says nothing: they change no figure, or `num_classes` and the subset tell it."""


@dataclass(frozen=True)
class Row:
    """One figure of one step, for one choice of settings; without a number of ours if it hasn't been measured.

    Attributes:
        page: The method's page.
        main: Whether the README shows it.
        seeds: How many.
        time: Of a training.
    """

    page: str
    main: bool
    method: str
    data: str
    figure: str
    paper: str
    others: str
    ours: str
    seeds: str
    time: str
    hardware: str
    command: str


def main() -> int:
    """Reads the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a table is out of date")
    given = parser.parse_args()
    outdated = []
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs" / "methods").glob("*.md"))):
        text = path.read_text()
        if (new := with_tables(text, REPOSITORY / "results")) != text:
            outdated.append(path)
            if not given.check:
                path.write_text(new)
    for path in outdated:
        print(f"{path.relative_to(REPOSITORY)}: {'out of date' if given.check else 'written'}")
    return 1 if given.check and outdated else 0


def with_tables(text: str, results: Path) -> str:
    """The text with each marked table written anew."""
    rows = list(all_rows(results))

    def tables(match: re.Match[str]) -> str:
        page = match[1]
        if page != "all" and page not in {row.page for row in rows}:
            raise SystemExit(f"`<!-- results: {page} -->` names no page of scripts/experiments.py.")
        if page == "all":
            chosen = [linked(row) for row in rows if row.main]
        else:
            chosen = [row for row in rows if row.page == page]
        measured = [row for row in chosen if row.ours]
        missing = [row for row in chosen if not row.ours]
        parts = [*([measured_table(measured)] if measured else []), *([missing_table(missing)] if missing else [])]
        return "\n\n".join([f"<!-- results: {page} -->", *parts, "<!-- end of results -->"])

    return DIFFERENCES.sub(_differences, MARKED.sub(tables, text))


def linked(row: Row) -> Row:
    """The row with its method linked to its page; images that no method made have none."""
    return replace(row, method=f"[{row.method}](docs/methods/{row.page}.md)") if row.command else row


def measured_table(rows: list[Row]) -> str:
    """The figures that there are; the machine that most rows share is named once."""
    usual = Counter(row.hardware for row in rows).most_common(1)[0][0]
    cells = []
    for number, row in enumerate(rows):
        time = row.time if row.hardware == usual or not row.time else f"{row.time}, {row.hardware}"
        command = "as above" if number and rows[number - 1].command == row.command else row.command
        cells.append((*_first_cells(row), row.ours, row.seeds, time, command))
    header = (*FIRST_COLUMNS, "ours", "seeds", "a training takes", "command")
    return f"{usual}, where the row names no other machine:\n\n{markdown(header, cells)}"


def missing_table(rows: list[Row]) -> str:
    """What hasn't been measured, folded away."""
    table = markdown((*FIRST_COLUMNS, "command"), [(*_first_cells(row), row.command) for row in rows])
    count = f"{len(rows)} row{'s' if len(rows) > 1 else ''}"
    return f"<details><summary>{count} not measured yet</summary>\n\n{table}\n\n</details>"


FIRST_COLUMNS = ("method", "data", "figure", "paper", "others' runs")


def _first_cells(row: Row) -> tuple[str, ...]:
    return row.method, row.data, row.figure, row.paper, row.others


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table without the columns in which nothing stands."""
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cells[column] for column in kept) + " |" for cells in lines)


def _differences(match: re.Match[str]) -> str:
    return f"<!-- differences: {match[1]} -->\n{numbered_differences(match[1])}\n<!-- end of differences -->"


def numbered_differences(path: str) -> str:
    """The numbered list of a module's docstring that says what differs from the paper, in Markdown."""
    docstring = ast.get_docstring(ast.parse((REPOSITORY / path).read_text())) or ""
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
    published = {one.place: one for one in all_published()}
    calibrated: dict[tuple[str, ...], Row] = {}
    for name, experiment in EXPERIMENTS.items():
        path = results / f"{name}.json"
        entries = json.loads(path.read_text())["steps"] if path.is_file() else {}
        for step in experiment.steps:
            figures = [figure for figure in experiment.figures if figure.step == step.name]
            unmeasured = [
                _unmeasured(name, step, figure, published.get((name, step.name, figure.label))) for figure in figures
            ]
            chosen = [
                (row, figure, entry)
                for entry in entries.get(step.name, ())
                for row, figure in zip(unmeasured, figures, strict=True)
                if any(value_of(figure, run) is not None for run in entry["seeds"].values())
            ]
            found = [measured(row, step, figure, entry) for row, figure, entry in chosen]
            yield from found
            runs = [
                (figure, next(run for run in entry["seeds"].values() if value_of(figure, run) is not None))
                for _, figure, entry in chosen
            ]
            for row in calibration_rows(found, runs):
                calibrated.setdefault((row.page, row.method, row.data, row.figure), row)
            labels = {row.figure for row in found}
            yield from (row for row in unmeasured if row.figure not in labels)
    yield from calibrated.values()


def _unmeasured(experiment: str, step: Step, figure: Figure, published: Published | None) -> Row:
    steps = " ".join((*_needs(step), step.name))
    return Row(
        step.page,
        figure.main,
        step.method,
        step.data.name,
        figure.label,
        paper=_cited(published.paper) if published and published.paper else "",
        others="; ".join(map(_cited, published.others)) if published else "",
        ours="",
        seeds="",
        time="",
        hardware="",
        command=f"`python scripts/reproduce.py {experiment} --budget paper --steps {steps}`",
    )


def _needs(step: Step) -> list[str]:
    earlier = [source.partition("/")[0] for source in step.uses.values()]
    return list(dict.fromkeys([*earlier, *([step.length_of] if step.length_of else [])]))


def measured(row: Row, step: Step, figure: Figure, entry: dict[str, Any]) -> Row:
    """The row with what came out for one choice of settings."""
    runs = [run for run in entry["seeds"].values() if value_of(figure, run) is not None]
    values = [value for run in runs if (value := value_of(figure, run)) is not None]
    half = [run["tests"][figure.test]["figures"][figure.interval] for run in runs] if figure.interval else []
    seconds = [run["training_seconds"] for run in runs if run["training_seconds"] is not None]
    # Beside the paper's figure stands what is cut from the paper's configuration, not from a budget's small one.
    changed = entry.get("changed_from_own", entry["changed"])
    return replace(
        row,
        data=_data(step, entry["data"]),
        ours="<br>".join([shown(figure, values, half), *_settings(step, changed)]),
        seeds=str(len(runs)),
        time=_duration(statistics.mean(seconds)) if seconds else "not recorded",
        hardware=" / ".join(dict.fromkeys(run["hardware"] for run in runs)),
        command=f"`{entry['command']}`",
    )


def _settings(step: Step, changed: dict[str, list[Any]]) -> list[str]:
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
    told = (("cut", cuts), ("with", others))
    return [f"{what}: {', '.join(settings)}" for what, settings in told if settings]


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
            if figure.features and value is not None:
                ours = shown(figure, [value], [])
                yield replace(row, method=kind, paper="", others="", ours=ours, seeds="", time="", command="")


def shown(figure: Figure, values: list[float], half_intervals: list[float]) -> str:
    """The mean with the standard deviation over the seeds; of one seed, with its confidence interval if it has one."""
    scale = 1 if figure.kind == "number" else 100
    numbers = [100 - 100 * value if figure.kind == "error" else scale * value for value in values]
    digits = 2 if figure.interval or figure.kind == "error" or max(map(abs, numbers)) < 10 else 1
    if figure.kind == "number" and max(map(abs, numbers)) < 0.1:
        digits = 4
    if figure.digits is not None:
        digits = figure.digits
    mean = f"{statistics.mean(numbers):.{digits}f}"
    if len(numbers) > 1:
        return f"{mean} ± {statistics.stdev(numbers):.{digits}f}"
    if half_intervals:
        return f"{mean} ± {scale * half_intervals[0]:.{digits}f} (95 % of the test's episodes)"
    return mean


def _own(step: Step) -> set[str]:
    """The arguments that make the step what it is."""
    return {argument.partition("=")[0].removeprefix("--") for argument in step.arguments}


def _data(step: Step, data: dict[str, Any]) -> str:
    if data["whole"]:
        return data["name"]
    train = data["train_images"] + data["val_images"]
    return (
        f"{data['name']}, **subset**: {train:,} of {step.data.train:,} training and validation, "
        f"{data['test_images']:,} of {step.data.test:,} test images"
    )


def _cited(one: Citation) -> str:
    source = one.source.replace('"', "'")
    return f'[{one.value}]({one.url} "{source}")' if one.url else f"{one.value} ({source})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value).rpartition(".")[2] if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.exit(main())
