"""The table of docs/scores.md: what scores say of real digits, ten memorized ones and the shipped generators."""

from typing import Any

COLUMNS = {
    "fid": ("FID", 3),
    "kid": ("KID", 5),
    "inception_score": ("IS", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
    "memorized": ("memorized", 4),
    "spread": ("spread", 3),
    "label_accuracy": ("label accuracy", 4),
}
"""Each score's heading and decimals."""


def judge_table(record: dict[str, Any]) -> str:
    """The record of scripts/analyses/judge_table.py as Markdown."""
    lines = [["images", *(label for label, _ in COLUMNS.values())], ["---"] * (len(COLUMNS) + 1)]
    for row, scores in record["rows"].items():
        values = (f"{scores[s]:.{digits}f}" if s in scores else "" for s, (_, digits) in COLUMNS.items())
        lines.append([row, *values])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
