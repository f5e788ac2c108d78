"""The settings of a sweep, and the names that they give to its runs."""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = "seed_everything"
DIGITS = 6
"""Significant digits of sampled numbers, so that a run's name holds the exact value."""
LONGEST_ID = 120


@dataclass
class Sweep:
    """The settings of a sweep.

    Attributes:
        config: The experiment's name or YAML file.
        passed_on: Further arguments of `relit fit`.
        choices: Values by argument.
        ranges: Lower end, upper end and whether the scale is logarithmic, by argument.
        experiment: The experiment's folder.
        storage: The SQLite file.
        name: The study's name.
    """

    config: str
    passed_on: list[str]
    choices: dict[str, list[str]]
    ranges: dict[str, tuple[float, float, bool]]
    sampler: str
    metric: str
    direction: str
    value: str
    prune: int | None
    sampler_seed: int
    experiment: Path
    storage: Path
    name: str = ""
    digest: str = ""

    @property
    def folder(self) -> Path:
        """Where logs, locks and tables lie."""
        return self.storage.parent / self.name

    @property
    def seeds(self) -> list[str]:
        """The seeds that each trial of random and tpe is trained with."""
        return [] if self.sampler == "grid" else self.choices.get(SEED, [])

    @property
    def grid(self) -> list[dict[str, str]]:
        """All combinations of the choices."""
        return [dict(zip(self.choices, values, strict=True)) for values in itertools.product(*self.choices.values())]

    def arguments(self, settings: dict[str, str]) -> list[str]:
        """The arguments of `relit fit` with these settings."""
        return [
            *("--config", self.config),
            *(f"--{name}={value}" for name, value in settings.items()),
            *self.passed_on,
        ]

    def run_id(self, settings: dict[str, str]) -> str:
        """A name for the run with these settings: ``latent_dim=8+seed_everything=0``."""
        parts = [f"{name}={value}" for name, value in zip(short_names(settings), settings.values(), strict=True)]
        given = "+".join(parts)
        safe = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "._+=@-") else "-" for letter in given
        )
        if safe == given and len(given) <= LONGEST_ID:
            return given
        return f"{safe[: LONGEST_ID - 9]}@{hashlib.sha256(given.encode()).hexdigest()[:8]}"


def short_names(settings: dict[str, Any]) -> list[str]:
    """The shortest ends of dotted names that tell them apart.

    Example:
        >>> short_names({"model.a.lr": 1, "model.b.lr": 2, "model.width": 3})
        ['a.lr', 'b.lr', 'width']
    """

    def end(name: str, length: int) -> str:
        return ".".join(name.split(".")[-length:])

    found = []
    for name in settings:
        others = [other for other in settings if other != name]
        length = 1
        while any(end(other, length) == end(name, length) for other in others):
            length += 1
        found.append(end(name, length))
    return found


def text_of(value: Any) -> str:
    """A value as it stands in a run's name."""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
