"""Files that a killed process leaves intact."""

from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a file; a killed process leaves the old one intact."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(text.encode())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
