"""Which features the scores of a run go over, and what values mean: ``judge.json`` in the run folder.

By stage, ``val`` and ``test``: ``features`` and ``classifier`` (their names), ``data``, ``real_images``,
``generated_images``, and ``calibration``: the scores of other real images and of ten training images repeated, over the
same features, data and counts (``generated_images`` among a row's scores, if there are fewer).
"""

import json
from pathlib import Path
from typing import Any

JUDGE = "judge.json"
OF_THE_CLASSIFIER = ("inception_score", "inception_score_sd", "inception_score_real", "label_accuracy")
OF_THE_FEATURES = (
    *("fid", "kid", "precision", "recall", "density", "coverage", "memorized", "spread"),
    *("fid_floor", "fid_noise"),
)
SCORES = (*OF_THE_CLASSIFIER, *OF_THE_FEATURES)


def read_judge(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run folder's ``judge.json`` holds, by stage; nothing if there is none, or it isn't readable."""
    try:
        content = json.loads((folder / JUDGE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {stage: of for stage, of in content.items() if _is_readable(of)} if isinstance(content, dict) else {}


def _is_readable(of: Any) -> bool:
    """Whether an entry has what :func:`calibration_rows` takes of it; somebody may have edited the file."""
    if not isinstance(of, dict):
        return False
    rows = of.get("calibration", {})
    counts = [of.get("real_images"), of.get("generated_images")]
    readable = isinstance(rows, dict) and all(isinstance(scores, dict) for scores in rows.values())
    return readable and (not rows or ("data" in of and all(isinstance(count, int | float) for count in counts)))


def printed_name(metric: str, judge: dict[str, dict[str, Any]]) -> str:
    """A logged metric's name in tables and figures: with the features that it goes over, if it is a score.

    Example:
        >>> printed_name("val/fid", {"val": {"features": "digits, block 2", "classifier": "digits"}})
        'val/fid (digits, block 2)'
        >>> printed_name("val/loss", {"val": {"features": "digits, block 2"}})
        'val/loss'
    """
    stage, _, name = metric.partition("/")
    kind = "features" if name in OF_THE_FEATURES else "classifier" if name in OF_THE_CLASSIFIER else ""
    features = judge.get(stage, {}).get(kind)
    return f"{metric} ({features})" if features else metric


def calibration_rows(judge: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The calibration's scores, by a row's name and a metric's printed name."""
    return {
        f"{of['data']}: {kind}, {scores.get('generated_images', of['generated_images']):,.0f} to "
        f"{of['real_images']:,.0f}": {printed_name(f"{stage}/{name}", judge): value for name, value in scores.items()}
        for stage, of in judge.items()
        for kind, scores in of.get("calibration", {}).items()
    }


def judge_of_test(test: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is known of the features of a test in a run folder's ``tests.json``; nothing of an older relit's test."""
    new = {"test/memorized", "test/l1"} & test["figures"].keys()
    return read_judge(folder).get("test", {}) if new else {}
