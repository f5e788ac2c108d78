"""What papers report of the methods, and what others got when they ran the same again: `published.yaml`."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_models.support.yaml_loader import LOADER


@dataclass(frozen=True)
class Citation:
    """A value as somebody gives it, and where."""

    value: str
    source: str
    url: str | None = None


@dataclass(frozen=True)
class Published:
    """The published counterpart of a value of ours.

    Attributes:
        name: By which an experiment's value in `scripts/experiments/` cites it.
        label: What is measured, and its unit.
        metric: What a test of ours logs for it, perhaps in another unit.
        configs: Configurations whose tests measure it.
        data: What must stand in the settings of such a test's data.
        paper: What the paper reports.
        others: What others got.
    """

    name: str
    label: str
    metric: str
    configs: tuple[str, ...]
    data: dict[str, Any]
    paper: Citation | None
    others: tuple[Citation, ...]

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The paper's value first."""
        return (*([self.paper] if self.paper else []), *self.others)


@functools.cache
def all_published() -> tuple[Published, ...]:
    """Every published value, in the file's order."""
    content = yaml.load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"), LOADER)
    return tuple(
        Published(
            name,
            entry["label"],
            entry["metric"],
            tuple(entry["configs"]),
            entry["data"],
            Citation(**entry["paper"]) if "paper" in entry else None,
            tuple(Citation(**one) for one in entry.get("others", ())),
        )
        for name, entry in content.items()
    )


def published_of(config: str, data: dict[str, Any], metric: str) -> list[Published]:
    """What has been published of a test.

    Args:
        config: The experiment that was tested, a configuration's name.
        data: The settings of its data.
        metric: One of the test's.
    """
    found = (
        one for one in all_published() if one.metric == metric and config in one.configs and includes(data, one.data)
    )
    return list({(one.label, one.citations): one for one in found}.values())  # each citation once


def includes(settings: Any, part: Any) -> bool:
    """Whether all of the part stands in the settings.

    Example:
        >>> includes({"class_path": "MNIST", "init_args": {"image_size": 32, "root": None}}, {"class_path": "MNIST"})
        True
        >>> includes({"init_args": {"image_size": 32}}, {"init_args": {"image_size": 28}})
        False
    """
    if isinstance(part, dict):
        return isinstance(settings, dict) and all(
            name in settings and includes(settings[name], value) for name, value in part.items()
        )
    return settings == part
