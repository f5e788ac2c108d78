"""Weights to pass on: a ``.safetensors`` file and its card, a ``.json`` file of the same name in the same folder that
describes them.

Neither can hold code. What is read from them is checked before it is used: the card's method must be one of relit's,
its hyperparameters such as the method takes, its data set one of relit's, the weights those that such a model has, and
their SHA-256 the one on the card.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

import datamodules
from lit_models.errors import ModelError, RunError
from lit_models.module import Method
from lit_models.networks.weight_files import require_undamaged
from lit_models.registry import METHODS
from lit_models.support.arguments import parse_as_data, sentence_of_refusal
from lit_models.support.checkpoint_paths import require_card
from lit_models.support.renamed import with_new_names

Model = TypeVar("Model", bound=LightningModule)

FORMAT = "relit weights 1"
RESERVED = {
    "state_dict",
    "hyper_parameters",
    "config",
    "epoch",
    "global_step",
    "relit_version",
    "metrics_rows",
    "rows_logged",
    "random_states",
    "optimizer_classes",
    "should_stop",
    "means",
}
"""Checkpoint keys that have their own card field or are dropped, with those in a method's ``training_only``; other
JSON-serializable values become the card's ``state``."""


def method_of(checkpoint: dict[str, Any], path: Path) -> str:
    """The name of the method whose checkpoint it is.

    Raises:
        RunError: The checkpoint doesn't say, or it is no method of relit.
    """
    class_path = str(((checkpoint.get("config") or {}).get("model") or {}).get("class_path"))
    name = class_path.rpartition(".")[2]
    if name not in METHODS:
        name = str(checkpoint.get("method"))  # of a Trainer of the user's own
    if name not in METHODS:
        raise RunError(f"{path} is no checkpoint of one of relit's methods.")
    return name


def class_of_method(name: str) -> type[Method]:
    """The class of a method of relit."""
    return vars(import_module(METHODS[name]))[name]


def build_model(checkpoint: dict[str, Any], path: Path) -> Method:
    """The model of a checkpoint that has been read, in evaluation mode on the CPU.

    Args:
        checkpoint: As :func:`lit_models.support.checkpoint_files.read_checkpoint` returns it.
        path: Where it was read, for errors.

    Raises:
        RunError: It is no checkpoint of a method of relit.
    """
    model = class_of_method(method_of(checkpoint, path))(**checkpoint.get("hyper_parameters", {}))
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def model_of(kind: type[Model], path: Path, checkpoint: dict[str, Any], source: str | Path) -> Model:
    """:func:`build_model`, which must be of the class ``kind``.

    Raises:
        ModelError: ``source``, which was found at ``path``, is of another method.
    """
    method = method_of(checkpoint, path)
    if method != kind.__name__:
        raise ModelError(f"{source} holds a {method}, not a {kind.__name__}: call {method}.from_pretrained.")
    model = build_model(checkpoint, path)
    assert isinstance(model, kind)
    return model


def renamed_arguments(kind: type, path: Any) -> dict[str, Any]:
    """The arguments of a method that its checkpoint has under earlier names. (Lightning silently drops what
    ``__init__`` doesn't take.)

    Raises:
        ModelError: The checkpoint leaves it to the parser of ``LightningCLI`` to make the model. It would read texts
            among the arguments as YAML, and import the classes that they name.
        RunError: The file is damaged.
    """
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        return {}
    require_undamaged(Path(path))
    given = torch.load(path, map_location="meta", weights_only=True).get("hyper_parameters", {})
    if "_class_path" in given:
        raise ModelError(
            f"{path} leaves it to LightningCLI's parser to make the model, which could run code: make the "
            f"{kind.__name__} yourself, and give its load_state_dict the checkpoint's."
        )
    renamed = with_new_names(given, kind.__name__)
    return {name: value for name, value in renamed.items() if name not in given}


def state_of(checkpoint: dict[str, Any], method: str) -> dict[str, Any]:
    """A checkpoint's values besides weights and hyperparameters, such as the names of the classes; no tensors, and
    nothing that only training needs."""
    dropped = RESERVED | class_of_method(method).training_only
    own = {
        name: value
        for name, value in checkpoint.items()
        if name not in dropped | LIGHTNINGS and not name.startswith("pytorch-lightning")
    }
    return {name: value for name, value in own.items() if _is_plain(value)}


LIGHTNINGS = {"loops", "callbacks", "optimizer_states", "lr_schedulers", "MixedPrecision", "hparams_name", "method"}
"""What Lightning keeps in a checkpoint to go on with the training; and the method, which has its place on a card."""


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def without_folders(value: Any) -> Any:
    """A setting without the folders of the machine that it was used on: of an absolute path only the name."""
    if isinstance(value, dict):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(part) for part in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def write_weights(checkpoint: dict[str, Any], path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the weights of a checkpoint and their card.

    Args:
        checkpoint: As :func:`lit_models.support.checkpoint_files.read_checkpoint` returns it.
        path: The ``.safetensors`` file to write.
        about: The card's entries about where the weights come from (see :func:`lit_models.cli.export.about`).

    Returns:
        The card.
    """
    # A copy each, in the usual order: safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint["state_dict"].items()
    }
    path.write_bytes(save(tensors, {"format": "pt"}))
    card = {
        "format": FORMAT,
        **about,
        "numbers": sum(math.prod(tensor.shape) for tensor in tensors.values()),
        "sha256": sha256(path),
    }
    write_card(card, path)
    return card


def write_card(card: dict[str, Any], path: Path) -> None:
    """Writes the card that belongs to the file ``path``."""
    path.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_weights(path: Path) -> dict[str, Any]:
    """What ``relit export`` wrote, as the checkpoint that it came from: ``state_dict``, ``hyper_parameters``, the
    method's own state, and ``config`` with model and data.

    Args:
        path: The ``.safetensors`` file, with its card in the same folder.

    Raises:
        RunError: One of the files is missing or isn't what it should be.
    """
    card = read_card(path)
    method_class = class_of_method(card["method"])
    given = with_new_names({**method_class.older_arguments, **card["hyperparameters"]}, card["method"])
    hyperparameters = checked_hyperparameters(method_class, given, path)
    if sha256(path) != card["sha256"]:
        raise RunError(f"{path} isn't the file that its card describes (its SHA-256 is another): fetch both again.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} can't be read as safetensors ({error}).") from error
    # On the "meta" device nothing is allocated, whatever sizes the card asks for.
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in method_class(**hyperparameters).state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise RunError(f"The weights in {path} aren't those of a {card['method']} with its card's hyperparameters.")
    return {
        **{name: value for name, value in card["state"].items() if name not in method_class.training_only},
        "state_dict": tensors,
        "hyper_parameters": hyperparameters,
        "config": {
            "run": {"experiment": card["experiment"]},
            "model": {"class_path": f"lit_models.{card['method']}", "init_args": hyperparameters},
            "data": with_new_names(card["data"]),
        },
        "epoch": card["epoch"],
        "global_step": card["step"],
        "pytorch-lightning_version": lightning.__version__,
    }


def read_card(path: Path) -> dict[str, Any]:
    """The card of a ``.safetensors`` file, with every entry checked that :func:`read_weights` uses.

    Raises:
        RunError: There is no such file or no card, or it isn't one.
    """
    card_path = require_card(path)
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{card_path} isn't valid JSON, so it is no card of weights.") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise RunError(f"{card_path} is no card of weights (its format isn't {FORMAT!r}): export them again.")
    kinds: dict[str, Any] = {
        "method": str,
        "experiment": (str, type(None)),
        "hyperparameters": dict,
        "state": dict,
        "data": (dict, type(None)),
        "epoch": int,
        "step": int,
        "sha256": str,
    }
    for name, kind in kinds.items():
        if name not in card or not isinstance(card[name], kind):
            raise RunError(f"{card_path} has no proper {name!r}: export the weights again.")
    if card["method"] not in METHODS:
        raise RunError(f"{card_path} is of the method {card['method']!r}, which this version of relit doesn't have.")
    if reserved := card["state"].keys() & (RESERVED | LIGHTNINGS):
        raise RunError(f"{card_path} has {', '.join(sorted(reserved))} in its state, where it can't be.")
    if card["experiment"] is not None and not re.fullmatch(r"[\w.+=@-]+", card["experiment"]):
        raise RunError(f"{card_path} names the experiment {card['experiment']!r}, which can't name a folder.")
    foreign = [name for name in _class_paths(card["data"]) if not _is_our_data(name)]
    if foreign:
        raise RunError(f"{card_path} names the data {foreign[0]!r}, which relit doesn't have.")
    return card


def checked_hyperparameters(method_class: type, values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Hyperparameters of a card, if the method takes them.

    Raises:
        RunError: A name or a type is wrong. (Optimizers and schedules, which are functions, can't be given.)
    """
    parser = ArgumentParser(exit_on_error=False)
    functions = {name for name in hyperparameter_names(method_class) if is_function(name)}
    parser.add_class_arguments(method_class, skip=functions)
    try:
        return parse_as_data(parser, values, defaults=False).as_dict()
    except Exception as error:  # jsonargparse raises whatever a type's own parser raises
        raise RunError(
            f"The card of {path} has hyperparameters that don't fit: {sentence_of_refusal(error)}"
        ) from error


def hyperparameter_names(method_class: type) -> list[str]:
    """The names of all arguments of a method, those of its bases included."""
    return list(ArgumentParser(exit_on_error=False).add_class_arguments(method_class))


def is_function(name: str) -> bool:
    """Whether an argument is a function, which a card can't hold: an optimizer or a schedule."""
    return name.endswith(("optimizer", "scheduler"))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of weights with their names, whatever file they lie in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "class_path":
                yield str(part)
            yield from _class_paths(part)
    elif isinstance(value, list):
        for part in value:
            yield from _class_paths(part)


def _is_our_data(class_path: str) -> bool:
    return re.sub(r"^datamodules\.", "", class_path) in datamodules.__all__
