"""Numbers and pictures in the pages, and what supports them: records, and the runs or commands that made the pictures.

A number in prose that is a result is followed by a comment that names its record:

    right for 89.2 %<!-- = autoencoders_transfer/mlp_finetuned test/accuracy --> of the test images
    a FID of 0.032<!-- = weights/conditional_gan_mnist.json figures > test/fid -->
    2.9 points<!-- = darts/random test/accuracy - darts/retrain test/accuracy -->
    84.2 %<!-- = darts_statistics/batch val/accuracy@2 --> after two epochs

The first form is the mean over the seeds of a value of a step's test (or, below `val/`, of its curve's last epoch, and
with `@3` of the third) for one of the recorded choices of settings. ` ± ` before the comment is their standard
deviation, or half the interval that the test of a single seed recorded. The second is a place in a JSON file. Two of
them with ` - ` between are a difference, whose ` ± ` is the standard deviation of the seeds' differences. A share
counts as itself, in percent, or as what it lacks to 100 %.

Among a page's results and known failures, each decimal number, percentage and number of points is marked so, unless its
paragraph (or item of a list) says why there is no record:

    The paper has 7.42. <!-- no record: cited -->
"""

import json
import os
import re
import statistics
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
NUMBER = r"(?P<number>[-−]?\d[\d,]*(?:\.\d+)?)(?: ± (?P<deviation>\d+(?:\.\d+)?))?(?: (?:%|points?))?"
CLAIM = re.compile(rf"{NUMBER}<!-- = (?P<source>.+?) -->")
PICTURE = re.compile(r'!\[[^\]]*\]\(([^)\s]+)\)|<img src="([^"]+)"')
MADE_BY = REPOSITORY / "docs" / "images" / "made_by.yaml"
RUN = re.compile(r"\bruns? `(\w+)/([\w-]+)`(?:, seed (\d+))?")
SECTIONS = re.compile(r"^## (?:Results|Known failure modes)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
EXEMPT = re.compile(r"<!-- no record: .+? -->")
NO_PROSE = re.compile(
    r"^```.*?^```|<!-- (?:results|differences)\b.*?<!-- end of \w+ -->|`[^`\n]*`|\]\([^)\s]*\)",
    re.DOTALL | re.MULTILINE,
)
A_RESULT = re.compile(r"(?<!= )(?<!arXiv:)\b(?:\d[\d,]*\.\d+|\d[\d,]*(?= ?%)|\d[\d,]*(?= points?\b))")


def unmarked(text: str) -> Iterator[str]:
    """The numbers among a page's results that name no record, where the paragraph doesn't say why."""
    for section in SECTIONS.findall(text):
        prose = CLAIM.sub("", NO_PROSE.sub("", section))
        for paragraph in re.split(r"\n(?=\n|- |\d+\. )", prose):
            if (numbers := A_RESULT.findall(paragraph)) and EXEMPT.search(paragraph) is None:
                yield f"{', '.join(numbers)} without a mark in “{' '.join(paragraph.split())[:60]} …”"


def unsupported(text: str) -> Iterator[str]:
    """The marked numbers of a page that no record has, each with what the records say."""
    for claim in CLAIM.finditer(text):
        digits = len(claim["number"].partition(".")[2])
        number = float(claim["number"].replace(",", "").replace("−", "-"))
        try:
            found = list(values_of(claim["source"]))
        except (KeyError, OSError, ValueError, TypeError) as error:
            yield f"{claim[0]}: there is no such record ({error})"
            continue
        meant = [spread for value, spread in found if _is_written(number, value, digits)]
        if not meant:
            said = ", ".join(f"{value:.6g}" for value, _ in found)
            yield f"{claim[0]}: the records say {said or 'nothing'}"
        elif claim["deviation"]:
            digits, deviation = len(claim["deviation"].partition(".")[2]), float(claim["deviation"])
            spreads = [spread for spread in meant if spread is not None]
            if not any(round(scale * spread, digits) == deviation for spread in spreads for scale in (1, 100)):
                said = ", ".join(f"{one:.4g}" for one in spreads)
                yield f"{claim[0]}: the standard deviations are {said or 'unknown'}"


def values_of(source: str) -> Iterator[tuple[float, float | None]]:
    """The values that a source may mean, with their standard deviations over seeds or half the interval of one seed."""
    for seeds, half in _by_seed(source):
        yield statistics.mean(seeds.values()), statistics.stdev(seeds.values()) if len(seeds) > 1 else half


def _by_seed(source: str) -> Iterator[tuple[dict[str, float], float | None]]:
    """For each choice of settings that a source may mean, the value of each seed, and half the interval of one seed."""
    terms = source.split(" - ")
    if len(terms) == 2:
        for (mine, _), (theirs, _) in product(*map(_by_seed, terms)):
            common = {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}
            yield common or {"": statistics.mean(mine.values()) - statistics.mean(theirs.values())}, None
        return
    place, _, name = source.partition(" ")
    if place.endswith(".json"):
        value: Any = json.loads((REPOSITORY / place).read_text(encoding="utf-8"))
        for key in name.split(" > "):
            value = value[key]
        yield {"": float(value)}, None
        return
    experiment, _, step = place.partition("/")
    for entry in _recorded(experiment)[step]:
        for test in {test for run in entry["seeds"].values() for test in run["tests"]} or {""}:
            found = {seed: _of_a_seed(run, test, name) for seed, run in entry["seeds"].items()}
            seeds = {seed: value for seed, value in found.items() if value is not None}
            if seeds:
                half = entry["seeds"][next(iter(seeds))]["tests"].get(test, {}).get("figures", {}).get(f"{name}_ci95")
                yield seeds, half


def _recorded(experiment: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / "results" / f"{experiment}.json").read_text(encoding="utf-8"))["steps"]


def _of_a_seed(run: dict[str, Any], test: str, name: str) -> float | None:
    if name.startswith("test/"):
        return run["tests"].get(test, {}).get("figures", {}).get(name)
    name, _, epoch = name.partition("@")
    curve = run["curves"].get(name, [])
    return dict(curve).get(int(epoch)) if epoch else curve[-1][1] if curve else None


def _is_written(number: float, value: float, digits: int) -> bool:
    """Whether a value, a share in percent or what it lacks to 100 % is written so."""
    return any(abs(one - number) <= 0.501 * 10**-digits for one in (value, 100 * value, 100 - 100 * value))


def made_by() -> dict[str, str]:
    """What made each picture, by its path in the repository."""
    return yaml.safe_load(MADE_BY.read_text(encoding="utf-8"))


def unsourced(page: Path, text: str) -> Iterator[str]:
    """The pictures of a page whose run or command isn't known, or that name files or records that there aren't."""
    known = made_by()
    for targets in PICTURE.findall(text):
        target = next(filter(None, targets))
        if "://" in target:
            continue
        path = os.path.relpath(page.parent / target, REPOSITORY)
        if path not in known:
            yield f"{path}: docs/images/made_by.yaml doesn't say which run or command made it"
            continue
        named = re.findall(r"\b(?:configs|scripts|weights)/[\w/.]+\.\w+", known[path])
        yield from (
            f"{path} is said to be made by {one}, which isn't there" for one in named if not (REPOSITORY / one).exists()
        )
        for experiment, step, seed in RUN.findall(known[path]):
            if not _is_recorded(experiment, step, seed):
                yield f"{path} is said to be of {experiment}/{step}{seed and f', seed {seed}'}, which has no record"


def _is_recorded(experiment: str, step: str, seed: str) -> bool:
    if not (REPOSITORY / "results" / f"{experiment}.json").is_file():
        return False
    entries = _recorded(experiment).get(step, [])
    return any(seed in entry["seeds"] or not seed for entry in entries)
