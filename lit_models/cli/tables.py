"""Tables of text for the terminal."""

import shutil
import textwrap
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart; on a terminal, the last one is wrapped to its width."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    left = sum(widths[:-1]) + 2 * (len(head) - 1)
    columns = shutil.get_terminal_size((0, 0)).columns  # 0 into a file or a pipe
    lines = []
    for row in [head, *rows]:
        last = textwrap.wrap(row[-1], max(columns - left, 20), break_on_hyphens=False) if columns else [row[-1]]
        cells = [f"{cell:{width}}" for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  ".join([*cells, *last[:1]]).rstrip())
        lines += [f"{'':{left}}{part}" for part in last[1:]]
    return "\n".join([*lines, ""])
