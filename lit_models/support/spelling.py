"""The known name that a misspelt one most likely stands for."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a person most likely meant, whatever its case; None if none is close."""
    by_lower_case = {other.lower(): other for other in known}
    if name.lower() in by_lower_case:
        return by_lower_case[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    if not close and len(name) > 3:
        close = sorted((other for other in by_lower_case if other.startswith(name.lower())), key=len)
    return by_lower_case[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the closest known name, or nothing."""
    close = closest(name, [other for other in known if other != name])
    return f" Did you mean {close}?" if close else ""
