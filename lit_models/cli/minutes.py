"""How long the configurations that come with relit train, from the records of their trainings (``results/``)."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from lit_models.cli.names import shipped

WITHOUT_COST = (
    *("seed_everything", "run", "checkpoint", "wandb", "accelerator", "callbacks", "log_every_n_steps"),
    *("encoder_checkpoint", "decoder_checkpoint"),
)
"""Settings in which a recorded training may differ from its configuration, and still be a measurement of it."""

UNRECORDED = {"dcgan_digits": 2.0}
"""Minutes that were measured (on one core of an AMD EPYC), but of which ``results/`` has no record."""


def measured_minutes(configurations: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Minutes of a training on a CPU by configuration, the median over seeds.

    Only a training of the full data set counts, with the settings that the configuration has today.

    Args:
        configurations: What the configurations hold, by their names.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in sorted(shipped("results").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for record in (record for records in content.get("steps", {}).values() for record in records):
            name = record["config"].removeprefix("configs/").removesuffix(".yaml")
            today = configurations.get(name)
            if today is not None and record["data"].get("whole") and _agrees(today, record["settings"]):
                seconds[name] += [run["training_seconds"] or 0 for run in record["seeds"].values()]
    return UNRECORDED | {name: statistics.median(known) / 60 for name, known in seconds.items() if all(known)}


def _agrees(today: Any, recorded: Any) -> bool:
    """Whether a recorded setting has the configuration's value; class names count without their modules."""
    if isinstance(today, dict):
        return isinstance(recorded, dict) and all(
            _agrees(value, recorded.get(key)) for key, value in today.items() if key not in WITHOUT_COST
        )
    if isinstance(today, str) and isinstance(recorded, str):
        return today.rpartition(".")[2] == recorded.rpartition(".")[2]
    return bool(today == recorded)


def minutes_text(minutes: float | None) -> str:
    """Minutes as a table shows them.

    Example:
        >>> minutes_text(None), minutes_text(0.4), minutes_text(35.9)
        ('not measured', '<1', '36')
    """
    if minutes is None:
        return "not measured"
    return "<1" if minutes < 1 else f"{minutes:.0f}"
