"""Numbers and pictures in the pages, and what supports them: records, and the runs or commands that made the pictures.

A number in prose that is a result is followed by a comment that names its record:

    right for 89.2 %<!-- = autoencoders_transfer/mlp_finetuned test/accuracy --> of the test images
    a FID of 0.032<!-- = weights/conditional_gan_mnist.json figures > test/fid -->
    2.9 points<!-- = darts/random test/accuracy - darts/retrain test/accuracy -->
    an error of 31.37 %<!-- = 1 - darts/retrain test/accuracy -->
    84.2 %<!-- = darts_statistics/batch val/accuracy@2 --> after two epochs

The first form is the mean over the seeds of a value of a step's test (or, below `val/`, of its curve's last epoch, and
with `@3` of the third) for one of the recorded choices of settings. ` ± ` before the comment is their standard
deviation, or half the interval that the test of a single seed recorded. The second is a place in a JSON file. Two of
them with ` - ` between are a difference, whose ` ± ` is the standard deviation of the seeds' differences; `1 - ` before
one is what a share lacks. A number with `%` or `points` is 100 times what the record holds, any other is the value.

Among a page's results and known failures, each decimal number, percentage, number of points and integer value of a
score is marked so, or a comment says why there is no record. It exempts the number that it follows at once, or else
those of the sentence before it:

    near 1.39<!-- no record: 2 ln 2 -->, but DCGAN ends at 0.31<!-- = gans_mnist/dcgan val/discriminator_loss -->
    The paper has 7.42. <!-- no record: cited -->

So are the numbers in every other paragraph that names a score, on any page, except in the generated parts.
Percentages are written with digits and `%`: in words they couldn't be checked.
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
NUMBER = r"(?P<number>[-−]?\d[\d,]*(?:\.\d+)?)(?: ± (?P<deviation>\d+(?:\.\d+)?))?(?P<unit> (?:%|points?))?"
CLAIM = re.compile(rf"{NUMBER}<!-- = (?P<source>.+?) -->")
MARK = re.compile(r"<!-- *=.*?-->", re.DOTALL)
PICTURE = re.compile(
    r"""!\[[^\]]*\]\(\s*<?([^)>\s]+)|<img\b[^>]*?\bsrc\s*=\s*["']?([^"'>\s]+)|"""
    r"""^\[[^\]]+\]:\s*<?(\S+?\.(?:png|jpe?g|gif|svg|webp))>?""",
    re.MULTILINE | re.IGNORECASE,
)
MADE_BY = REPOSITORY / "docs" / "images" / "made_by.yaml"
RUN = re.compile(r"`(\w+)/([\w-]+)`(?:, seed (\d+))?")
RUNS = re.compile(r"\bruns of `(\w+)`")
SECTIONS = re.compile(r"^## (?:Results|Known failure modes)\b[^\n]*\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
EXEMPT = re.compile(r"<!-- no record: .+? -->")
EXEMPT_NUMBER = re.compile(r"\d[\d.,]*(?: ± [\d.]+)?(?: (?:%|points?|nats))?\Z")
SENTENCE_END = re.compile(r"""(?<!\bal)(?<!\bvs)(?<!\bcf)(?<!\be\.g)(?<!\bi\.e)[.!?…][)\]*_”"]*\s+(?=[^\sa-z])""")
SPACES = re.compile(r"&nbsp;|[\u00a0\u2009\u202f]")
MARKERS = (r"results: \w+", "items", "methods", "gallery", r"differences: \S+", "judge")
"""What stands at the start of a part that scripts/results_table.py generates."""
GENERATED = "|".join(rf"<!-- {one} -->\n.*?<!-- end of {one.partition(':')[0]} -->" for one in MARKERS)
NO_PROSE = re.compile(rf"^```.*?^```|{GENERATED}|`(?![\d.,]+ ?%?`)[^`\n]*`|\]\([^)\s]*\)", re.DOTALL | re.MULTILINE)
SCORE = r"\b(?:FID|KID|Inception Score|accuracy|nats|MAP@R|recall|precision|coverage|L1|SSIM|PSNR|top-[15])\b"
SCORED = re.compile(SCORE)
COUNTABLES = r"(?:samples|images|digits|faces|epochs|classes|draws)\b"
COUNTED = rf"(?!\d|[.,]\d|(?: (?!after|at|by|for|in|of|over|with)\w+){{0,2}} {COUNTABLES})"
INTEGER = r"\d+(?:,\d{3})*"
BETWEEN = (
    r"(?:of|is|was|are|were|has|had|to|at|from|by|than|between|only|just|near|about|around|below|above|under|over"
    r"|falls|fell|drops|dropped|rises|rose|reaches|reached)"
)
A_RESULT = re.compile(
    rf"(?<!= )(?<!arXiv:)\b(?:{INTEGER}\.\d+|{INTEGER}(?= ?%(?! (?:confidence|CI)))|{INTEGER}(?= (?:points?|nats)\b))"
    rf"|(?<![\w.= ])\.\d+|(?<!=) \.\d+"
    rf"|{SCORE}(?: \([^)]*\))?(?: =|:)?(?: {BETWEEN})* ?[(≈~]?({INTEGER}(?:\.\d+)?){COUNTED}"
)
IN_WORDS = re.compile(r"\b[\w.-]+[ -](?:per ?cent\b|percentage points?\b)", re.IGNORECASE)


def unmarked(text: str) -> Iterator[str]:
    """The numbers among a page's results, and in other paragraphs about scores, that name no record, nor why not."""
    kept = NO_PROSE.sub("", SPACES.sub(" ", text))
    sections = SECTIONS.findall(kept)
    prose = [*((section, True) for section in sections), (SECTIONS.sub("", kept), False)]
    for part, of_results in prose:
        for paragraph in re.split(r"\n(?=\n|- |\d+\. |\|)", CLAIM.sub("", part)):
            if not (of_results or SCORED.search(paragraph)):
                continue
            told = f"in “{' '.join(paragraph.split())[:60]} …”"
            rest = " ".join(without_exempt(paragraph).replace("*", "").split())
            if numbers := [one[1] or one[0] for one in A_RESULT.finditer(rest)]:
                yield f"{', '.join(numbers)} without a mark {told}"
            if words := IN_WORDS.findall(rest):
                yield f"{', '.join(words)} instead of digits and “%” {told}"


def without_exempt(paragraph: str) -> str:
    """A paragraph without what its comments exempt: the number right before a comment, or else the sentence."""
    kept, *rest = EXEMPT.split(paragraph)
    for following in rest:
        if number := EXEMPT_NUMBER.search(kept):
            kept = kept[: number.start()]
        else:
            ends = [one.end() for one in SENTENCE_END.finditer(kept.rstrip())]
            kept = kept[: ends[-1]] if ends else ""
        kept += following
    return kept


def unsupported(text: str) -> Iterator[str]:
    """The marked numbers of a page that no record has, each with what the records say."""
    for mark in MARK.findall(CLAIM.sub("", text)):
        yield f"{mark}: no number stands before it"
    for claim in CLAIM.finditer(text):
        digits = len(claim["number"].partition(".")[2])
        number = float(claim["number"].replace(",", "").replace("−", "-"))
        try:
            found = list(values_of(claim["source"]))
        except (LookupError, OSError, ValueError, TypeError) as error:
            yield f"{claim[0]}: there is no such record ({error})"
            continue
        scale = 100 if claim["unit"] else 1
        meant = [spread for value, spread in found if abs(scale * value - number) <= 0.501 * 10**-digits]
        if not meant:
            said = ", ".join(f"{value:.6g}" for value, _ in found)
            yield f"{claim[0]}: the records say {said or 'nothing'}"
        elif claim["deviation"]:
            digits, deviation = len(claim["deviation"].partition(".")[2]), float(claim["deviation"])
            spreads = [spread for spread in meant if spread is not None]
            if not any(round(scale * spread, digits) == deviation for spread in spreads):
                said = ", ".join(f"{one:.4g}" for one in spreads)
                yield f"{claim[0]}: the standard deviations are {said or 'unknown'}"


def values_of(source: str) -> Iterator[tuple[float, float | None]]:
    """The values that a source may mean, with their standard deviations over seeds or half the interval of one seed."""
    for seeds, half in _by_seed(source):
        yield statistics.mean(seeds.values()), statistics.stdev(seeds.values()) if len(seeds) > 1 else half


def _by_seed(source: str) -> Iterator[tuple[dict[str, float], float | None]]:
    """For each choice of settings that a source may mean, the value of each seed, and half the interval of one seed."""
    terms = source.split(" - ")
    if len(terms) == 2 and terms[0] == "1":
        for seeds, half in _by_seed(terms[1]):
            yield {seed: 1 - value for seed, value in seeds.items()}, half
        return
    if len(terms) == 2:
        for (mine, _), (theirs, _) in product(*map(_by_seed, terms)):
            common = {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}
            yield common or {"": statistics.mean(mine.values()) - statistics.mean(theirs.values())}, None
        return
    place, _, name = source.partition(" ")
    if place.endswith(".json"):
        value: Any = json.loads((REPOSITORY / place).read_text(encoding="utf-8"))
        for key in name.split(" > "):
            value = value[int(key) if isinstance(value, list) else key]
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
        if not (REPOSITORY / path).is_file():
            yield f"{path}: there is no such picture"
        named = re.findall(r"\b(?:configs|scripts|weights)/[\w/.]+\.\w+", known[path])
        yield from (
            f"{path} is said to be made by {one}, which isn't there" for one in named if not (REPOSITORY / one).exists()
        )
        for experiment, step, seed in RUN.findall(known[path]):
            if not _is_recorded(experiment, step, seed):
                yield f"{path} is said to be of {experiment}/{step}{seed and f', seed {seed}'}, which has no record"
        for experiment in RUNS.findall(known[path]):
            if not (REPOSITORY / "results" / f"{experiment}.json").is_file():
                yield f"{path} is said to be of runs of {experiment}, which has no record"


def _is_recorded(experiment: str, step: str, seed: str) -> bool:
    if not (REPOSITORY / "results" / f"{experiment}.json").is_file():
        return False
    entries = _recorded(experiment).get(step, [])
    return any(seed in entry["seeds"] or not seed for entry in entries)
