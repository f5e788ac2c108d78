"""Files that a killed process leaves whole."""

from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a killed process leaves the old one whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(text.encode())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
