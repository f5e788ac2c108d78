"""Numbers and pictures in the pages, and what supports them: records, and the runs or commands that made the pictures.

A number in prose that is a result is followed by a comment that names its record:

    right for 89.2 %<!-- = autoencoders_transfer/mlp_finetuned test/accuracy --> of the test images
    a FID of 0.032<!-- = weights/conditional_gan_mnist.json figures > test/fid -->
    2.9 points<!-- = darts/random test/accuracy - darts/retrain test/accuracy -->
    84.2 %<!-- = darts_statistics/batch val/accuracy@2 --> after two epochs

The first form is the mean over the seeds of a value of a step's test (or, below `val/`, of its curve's last epoch, or
of the one behind an `@`) for one of the recorded choices of settings; ` ± ` before the comment is their standard
deviation. The second is a place in a JSON file. Two of them with ` - ` between are a difference. A share counts as
itself, in percent, or as what it lacks to 100 %.
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
        if not any(_is_written(number, value, digits) for value, _ in found):
            said = ", ".join(f"{value:.6g}" for value, _ in found)
            yield f"{claim[0]}: the records say {said or 'nothing'}"
        elif claim["deviation"]:
            digits, deviation = len(claim["deviation"].partition(".")[2]), float(claim["deviation"])
            spreads = [spread for value, spread in found if spread is not None]
            if not any(round(scale * spread, digits) == deviation for spread in spreads for scale in (1, 100)):
                said = ", ".join(f"{one:.4g}" for one in spreads)
                yield f"{claim[0]}: the standard deviations are {said or 'unknown'}"


def values_of(source: str) -> Iterator[tuple[float, float | None]]:
    """The values that a source may mean, with their standard deviations over several seeds."""
    terms = source.split(" - ")
    if len(terms) == 2:
        for (mine, _), (theirs, _) in product(*map(values_of, terms)):
            yield mine - theirs, None
        return
    place, _, name = source.partition(" ")
    if place.endswith(".json"):
        value: Any = json.loads((REPOSITORY / place).read_text(encoding="utf-8"))
        for key in name.split(" > "):
            value = value[key]
        yield float(value), None
        return
    experiment, _, step = place.partition("/")
    for entry in json.loads((REPOSITORY / "results" / f"{experiment}.json").read_text(encoding="utf-8"))["steps"][step]:
        for test in {test for run in entry["seeds"].values() for test in run["tests"]} or {""}:
            seeds = [value for run in entry["seeds"].values() if (value := _of_a_seed(run, test, name)) is not None]
            if seeds:
                yield statistics.mean(seeds), statistics.stdev(seeds) if len(seeds) > 1 else None


def _of_a_seed(run: dict[str, Any], test: str, name: str) -> float | None:
    if name.startswith("test/"):
        return run["tests"].get(test, {}).get("figures", {}).get(name)
    name, _, epoch = name.partition("@")
    curve = run["curves"].get(name)
    if not curve:
        return None
    return dict(curve).get(int(epoch)) if epoch else curve[-1][1]


def _is_written(number: float, value: float, digits: int) -> bool:
    """Whether a value, a share in percent or what it lacks to 100 % is written so."""
    return any(abs(one - number) <= 0.501 * 10**-digits for one in (value, 100 * value, 100 - 100 * value))


def made_by() -> dict[str, str]:
    """What made each picture, by its path in the repository."""
    return yaml.safe_load(MADE_BY.read_text(encoding="utf-8"))


def unsourced(page: Path, text: str) -> Iterator[str]:
    """The pictures of a page whose run or command isn't known, or names files that there aren't."""
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
