"""Lengths of learning-rate schedules: where a budget changes the number of epochs, they change with it."""

from collections.abc import Mapping
from typing import Any

LENGTHS = ("total_iters", "total_steps", "T_max")


def lengths(own: Mapping[str, Any], planned: Mapping[str, Any]) -> dict[str, int]:
    """The lengths that the schedules of a planned run need to end where those of the configuration do.

    Args:
        own: The configuration's settings by their dotted names.
        planned: The run's.

    Example:
        >>> schedule = {"model.init_args.scheduler.init_args.total_iters": 5150}
        >>> lengths({"trainer.max_epochs": 30, **schedule}, {"trainer.max_epochs": 5, **schedule})
        {'model.init_args.scheduler.init_args.total_iters': 858}
    """

    def ratio(key: str) -> float:
        before, after = own.get(key), planned.get(key)
        return after / before if isinstance(before, int) and isinstance(after, int) and before > 0 < after else 1.0

    factor = ratio("trainer.max_epochs")
    if planned.get("model.init_args.schedule_interval") == "step":
        factor /= ratio("data.init_args.batch_size") * ratio("model.init_args.n_critic")
    return {
        key: max(1, round(value * factor))
        for key, value in own.items()
        if "schedul" in key and key.rpartition(".")[2] in LENGTHS and isinstance(value, int) and key in planned
    }
