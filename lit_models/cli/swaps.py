"""What the command line makes of a configuration: paths, names, and a model or data module put in its place."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

from datamodules import Samples
from datamodules.loading.paths import expanded
from lit_models.cli.given_classes import IMAGES, ONLY_PREDICTED
from lit_models.errors import RunWarning
from lit_models.module import Generative, Reconstructing
from lit_models.support.renamed import with_new_names
from lit_models.support.yaml_loader import LOADER


def typed(args: list[str], option: str) -> bool:
    """Whether an option itself stands on the command line (``--data X`` or ``--data=X``, but not ``--data.path X``)."""
    return any(arg == f"--{option}" or arg.startswith(f"--{option}=") for arg in args)


def note_swaps(args: list[str], config: Namespace, files: list[Path]) -> bool:
    """Says which arguments of the configuration files go over to another class, and which are dropped.

    Args:
        args: The command line.
        config: What came of it.
        files: The configuration files, in order.

    Returns:
        Whether a class of theirs was replaced on the command line.
    """
    swapped = False
    for part in ("model", "data", IMAGES):
        before, after = _section(files, part), _part(config, part)
        if not typed(args, part) or before is None or after is None:
            continue
        old, new = (name.rpartition(".")[2] for name in (before["class_path"], after.class_path))
        if old == new or new in ONLY_PREDICTED:
            continue
        swapped = True
        given = before.get("init_args") or {}
        now = after.get("init_args", Namespace()).as_dict()
        own = {name for name in given if any(arg.startswith(f"--{part}.{name}") for arg in args)}
        kept = [
            f"{name} = {_short(given[name])}"
            for name in given
            if name not in own and name in now and now[name] == given[name]
        ]
        dropped = [f"{name} = {_short(given[name])}" for name in given if name not in now]
        told = [f"{', '.join(names)} {verb}" for names, verb in ((kept, "kept"), (dropped, "dropped")) if names]
        if told:
            rank_zero_warn(
                f"--{part} {new} in place of the configuration's {old}: {'; '.join(told)}.", category=RunWarning
            )
    return swapped


def warn_of_ignored_batch_size(args: list[str], config: Namespace) -> None:
    """Says that ``--data.batch_size`` does nothing where batches are drawn by class."""
    arguments = config.data.get("init_args") if config.data is not None else None
    if typed(args, "data.batch_size") and arguments and arguments.get("classes_per_batch") is not None:
        rank_zero_warn(
            "--data.batch_size has no effect, as --data.classes_per_batch and --data.samples_per_class make the "
            "training batches.",
            category=RunWarning,
        )


def _part(config: Namespace, part: str) -> Namespace | None:
    """The class and the arguments of a part."""
    if part != IMAGES:
        return config[part]
    arguments = config.data.get("init_args") if config.data is not None else None
    images = arguments.get("images") if arguments is not None else None
    return images if isinstance(images, Namespace) else None


def _section(files: list[Path], part: str) -> dict[str, Any] | None:
    """The class and the arguments of a part that the files give, later ones over earlier ones."""
    found: dict[str, Any] | None = None
    for file in files:
        content = with_new_names(yaml.load(file.read_text(encoding="utf-8"), LOADER) or {})
        section = content.get(part.partition(".")[0])
        if part == IMAGES:
            section = (section.get("init_args") or {}).get("images") if isinstance(section, dict) else None
        if isinstance(section, dict) and "class_path" in section:
            found = section
    return found


def _short(value: Any) -> str:
    text = str(value.get("class_path", value) if isinstance(value, dict) else value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def expand_paths(config: Namespace) -> None:
    """Replaces ``~`` and ``$NAME`` in the paths that aren't a data module's or a model's."""
    for name in ("ckpt_path", "weights", "picture", "run.root", "predictions.folder"):
        path = config.get(name)
        if isinstance(path, str) and re.search(r"^~|\$", path):
            config[name] = str(expanded(path))


def experiment_name(config: Namespace) -> str | None:
    """The name of an experiment that has none: that of its model, with that of its data; None without a model."""
    names = [part.class_path.rsplit(".", 1)[-1].lower() for part in (config.model, config.data) if part is not None]
    return "_".join(names) if config.model is not None else None


def draws_from_nothing(args: list[str], config: Namespace) -> bool:
    """Whether `predict` asks the model for new images, and not for what it makes of the given ones."""
    if not _generates_from_scratch(config):
        return False
    if not typed(args, "data"):
        return True  # the data are those that the model was trained on
    model_class = class_of(config.model.class_path)
    if issubclass(model_class, Reconstructing):
        return False
    data = config.data.class_path.rpartition(".")[2]
    rank_zero_warn(
        f"{model_class.__name__} draws images from nothing: the pictures of {data} aren't used.",
        category=RunWarning,
    )
    return True


def class_of(class_path: str) -> type:
    """The class of a configuration's ``class_path``."""
    module, name = class_path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _generates_from_scratch(config: Namespace) -> bool:
    """Whether the model makes images from nothing, so that the data it was trained on don't matter to `predict`."""
    model_class = class_of(config.model.class_path)
    return issubclass(model_class, Generative) and not issubclass(class_of(config.data.class_path), Samples)
