"""Tables of text for the terminal."""

import shutil
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart; the last one is cut to the width of a terminal."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    columns = shutil.get_terminal_size((120, 24)).columns
    left = sum(widths[:-1]) + 2 * (len(head) - 1)
    last = max(columns - left, 20)
    lines = []
    for row in [head, *rows]:
        final = row[-1] if len(row[-1]) <= last else f"{row[-1][: last - 1].rstrip(' ,')}…"
        cells = [f"{cell:{width}}" for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  ".join([*cells, final]).rstrip())
    return "\n".join([*lines, ""])
