"""Writes what README.md and docs/methods/*.md take from elsewhere: the tables of results, from results/*.json and
lit_models/published.yaml, and the numbered differences from the papers, from the methods' docstrings.

    python scripts/results_table.py            # after scripts/reproduce.py
    python scripts/results_table.py --check    # exit code 1 if something is out of date

A table stands between `<!-- results … -->` and `<!-- end of results -->`; `<!-- results: all -->` is the README's, and
`<!-- results: dcgan -->` holds what `scripts/experiments.py` reports on the page docs/methods/dcgan.md. What lies
between is written anew; what hasn't been measured says so. Likewise `<!-- differences: lit_models/dcgan.py -->` …
`<!-- end of differences -->`.
"""

import argparse
import ast
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, Figure, Step

from lit_models.published import Citation, all_published

REPOSITORY = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end of results -->", re.DOTALL)
HEADER = (
    "method",
    "data",
    "figure",
    "paper",
    "others' runs",
    "ours",
    "seeds",
    "hardware, time of a training",
    "command",
)
DIFFERENCES = re.compile(r"<!-- differences: (\S+) -->\n.*?<!-- end of differences -->", re.DOTALL)
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One figure of one step, for one choice of settings.

    Attributes:
        page: The method's page.
        main: Whether the README shows it.
        cells: What stands in the columns.
    """

    page: str
    main: bool
    cells: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether there is a number of ours."""
        return self.cells[HEADER.index("ours")] != UNMEASURED


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

    def table(match: re.Match[str]) -> str:
        page = match[1]
        if page != "all" and page not in {row.page for row in rows}:
            raise SystemExit(f"`<!-- results: {page} -->` names no page of scripts/experiments.py.")
        if page == "all":
            chosen = [(f"[{row.cells[0]}](docs/methods/{row.page}.md)", *row.cells[1:]) for row in rows if row.main]
        else:
            chosen = [row.cells for row in rows if row.page == page]
        lines = [HEADER, tuple("---" for _ in HEADER), *chosen]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"<!-- results: {page} -->\n{body}\n<!-- end of results -->"

    return DIFFERENCES.sub(_differences, MARKED.sub(table, text))


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
    """A row for each figure of each experiment and each choice of settings with which it was measured."""
    published = {one.place: one for one in all_published()}
    for name, experiment in EXPERIMENTS.items():
        path = results / f"{name}.json"
        entries = json.loads(path.read_text())["steps"] if path.is_file() else {}
        for figure in experiment.figures:
            step = experiment.step(figure.step)
            counterpart = published.get((name, figure.step, figure.label))
            paper = _cited(counterpart.paper) if counterpart and counterpart.paper else ""
            runs = "; ".join(map(_cited, counterpart.others)) if counterpart else ""
            measured = [row for row in (_measured(step, figure, e) for e in entries.get(figure.step, ())) if row]
            for data, ours, seeds, place, command in measured or [_unmeasured(name, step)]:
                cells = (step.method, data, figure.label, paper, runs, ours, seeds, place, command)
                yield Row(step.page, figure.main, cells)


def _unmeasured(experiment: str, step: Step) -> tuple[str, ...]:
    command = f"python scripts/reproduce.py {experiment} --budget paper --steps {' '.join((*_needs(step), step.name))}"
    return step.data.name, UNMEASURED, "", "", f"`{command}`"


def _needs(step: Step) -> list[str]:
    return list(dict.fromkeys(source.partition("/")[0] for source in step.uses.values()))


def _measured(step: Step, figure: Figure, entry: dict[str, Any]) -> tuple[str, ...] | None:
    """The cells for one choice of settings; None if no seed has the figure."""
    runs = {seed: run for seed, run in entry["seeds"].items() if value_of(figure, run) is not None}
    if not runs:
        return None
    values = [value for run in runs.values() if (value := value_of(figure, run)) is not None]
    half = [run["tests"][figure.test]["figures"][figure.interval] for run in runs.values()] if figure.interval else []
    seconds = [run["training_seconds"] for run in runs.values() if run["training_seconds"] is not None]
    time = _duration(statistics.mean(seconds)) if seconds else "time not recorded"
    machines = " / ".join(dict.fromkeys(run["hardware"] for run in runs.values()))
    cut = [
        f"`{key.rpartition('.')[2]}` {_shown(mine)} ({_shown(theirs)})"
        for key, (mine, theirs) in entry["changed"].items()
        if key.removeprefix("model.init_args.") not in _own(step) and key != "trainer.callbacks"
    ]
    ours = shown(figure, values, half)
    if cut:
        ours += f"; with {', '.join(cut)}"
    return _data(step, entry["data"]), ours, ", ".join(runs), f"{machines}; {time}", f"`{entry['command']}`"


def value_of(figure: Figure, run: dict[str, Any]) -> float | None:
    """The figure of one seed; None if it hasn't been measured."""
    if figure.epoch is None:
        return run["tests"].get(figure.test, {}).get("figures", {}).get(figure.metric)
    return dict(run["validation"].get(figure.metric, ())).get(figure.epoch)


def shown(figure: Figure, values: list[float], half_intervals: list[float]) -> str:
    """The mean with the standard deviation over the seeds; of one seed, with its confidence interval if it has one."""
    scale = 1 if figure.kind == "number" else 100
    numbers = [100 - 100 * value if figure.kind == "error" else scale * value for value in values]
    digits = 2 if figure.interval or figure.kind == "error" or max(map(abs, numbers)) < 10 else 1
    if figure.kind == "number" and max(map(abs, numbers)) < 0.1:
        digits = 4
    mean = f"{statistics.mean(numbers):.{digits}f}"
    if len(numbers) > 1:
        return f"{mean} ± {statistics.stdev(numbers):.{digits}f}"
    if half_intervals:
        return f"{mean} ± {scale * half_intervals[0]:.{digits}f} (95 % of the test's episodes)"
    return mean


def _own(step: Step) -> set[str]:
    """The model's arguments that make the step what it is."""
    return {argument.partition("=")[0].removeprefix("--model.") for argument in step.arguments}


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
