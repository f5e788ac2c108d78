"""The settings of a training that its checkpoint hands on when the run is resumed by the checkpoint alone."""

from typing import Any

from jsonargparse import Namespace

from lit_models.support.arguments import foreign_class

OF_THE_TRAINER = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "precision", "callbacks", "overfit_batches"),
    *("limit_train_batches", "limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "log_every_n_steps"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "deterministic"),
)
"""Not among them: what depends on the machine, such as devices, and what a run shows."""
OTHERS = ("seed_everything", "channels_last", "lr_scaling")


def settings_of_training(
    saved: dict[str, Any], args: list[str], given: Namespace, defaults: Namespace
) -> tuple[dict[str, Any], list[str]]:
    """The settings that a checkpoint hands on, without those that were given.

    Args:
        saved: The configuration in the checkpoint.
        args: The command line.
        given: What came of it and of its configuration files.
        defaults: What would have come of an empty command line. A setting that differs was given.

    Returns:
        The settings, as data in which no class is foreign, and the classes of callbacks that aren't relit's, which are
        left out.
    """
    typed = {arg.partition("=")[0].removeprefix("--") for arg in args}
    values: dict[str, Any] = {}
    foreign: list[str] = []
    groups = {"trainer": OF_THE_TRAINER, "checkpoint": tuple(vars(defaults.checkpoint))}
    for group, names in groups.items():
        part = saved.get(group)
        if not isinstance(part, dict):
            continue
        free = [n for n in names if given[group][n] == defaults[group][n] and f"{group}.{n}" not in typed]
        own = {name: part[name] for name in free if name in part}
        if isinstance(own.get("callbacks"), list):
            foreign = [name for callback in own["callbacks"] if (name := foreign_class(callback))]
            own["callbacks"] = [one for one in own["callbacks"] if isinstance(one, dict) and not foreign_class(one)]
        elif own.get("callbacks") is not None:
            del own["callbacks"]
        values[group] = own
    free = [name for name in OTHERS if given[name] == defaults[name] and name not in typed]
    values |= {name: saved[name] for name in free if name in saved}
    return values, foreign
