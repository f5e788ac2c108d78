"""Errors and notes in one sentence for the person who started the run."""

import warnings


class DataError(Exception):
    """Data that are missing, damaged or unfit; the message says what is wrong and what to do."""


class DataWarning(UserWarning):
    """Data that are usable but not quite what the name promises (a subset, another checksum)."""


def note(message: str) -> None:
    """Warns of something about the data that doesn't stop the run."""
    warnings.warn(message, DataWarning, stacklevel=3)
