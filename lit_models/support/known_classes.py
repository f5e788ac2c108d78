"""The classes that settings take, by kind: what the parser can be given, and what a wrong name most likely means."""

from lit_models.support import sources
from lit_models.support.spelling import did_you_mean


def unknown_class(key: str, name: str) -> str | None:
    """A sentence on a class that a setting can't take, None if the setting takes classes of any kind.

    Args:
        key: The setting, such as ``model`` or ``trainer.callbacks``.
        name: The name that was given.
    """
    kind, known = classes_for(key)
    if not known:
        return None
    others = {"method": sources.methods(), "data set": sources.data_sets()}
    for other, names in others.items():
        if other != kind and name in names:
            option = {"method": "--model", "data set": "--data"}[other]
            return f"--{key} takes a {kind}, but {name} is a {other}: use {option} {name}."
    more = {
        "method": "`relit list methods` lists them.",
        "data set": "`relit list data` lists them.",
    }.get(kind, f"There are {', '.join(known)}.")
    guess = did_you_mean(name, known)
    return (
        f"There is no {kind} {name!r}.{guess}"
        if guess and len(known) > 12
        else (f"There is no {kind} {name!r}.{guess} {more}")
    )


def classes_for(key: str) -> tuple[str, list[str]]:
    """What kind of class a setting takes, and the names of those that come with relit, Lightning and torch."""
    if key == "model":
        return "method", sorted(sources.methods())
    if key in ("data", "data.images"):
        return "data set", sorted(sources.data_sets())
    last = key.split(".")[-1]
    if key.startswith("trainer.plugins"):
        packages = ("lightning.pytorch.plugins", "lightning.fabric.plugins.environments")
        return "plugin", sorted(name for package in packages for name in sources.exported_names(package))
    if key.startswith("trainer.callbacks"):
        return "callback", sorted({*sources.callbacks(), *lightning_callbacks()})
    if key.startswith("trainer.logger"):
        return "logger", [name for name in sources.exported_names("lightning.pytorch.loggers") if name != "Logger"]
    if key == "trainer.profiler":
        return "profiler", ["simple", "advanced", "pytorch"]
    if last.endswith("optimizer"):
        return "optimizer", sources.optimizers()
    if last.endswith("scheduler"):
        return "schedule", sources.schedules()
    return "class", []


def lightning_callbacks() -> list[str]:
    """Lightning's callbacks that a run can use."""
    abstract = ("BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "LambdaCallback", "ProgressBar")
    return [name for name in sources.exported_names("lightning.pytorch.callbacks") if name not in abstract]
