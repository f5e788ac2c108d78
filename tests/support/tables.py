"""CSV files as the tests read them."""

import csv
from pathlib import Path


def table_of(path: Path) -> list[list[str]]:
    """The rows of a file, with the names of its columns first."""
    with path.open(newline="") as file:
        return list(csv.reader(file))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a file by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
