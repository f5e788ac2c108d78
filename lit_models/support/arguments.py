"""Turns what the argument parser refuses into a sentence or two for the person who gave the arguments."""

import re
import sys
from argparse import ArgumentError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any

from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from yaml import YAMLError

from datamodules import DataError
from lit_models.errors import ModelError, RunError
from lit_models.support import sources
from lit_models.support.extras import install_command
from lit_models.support.parser_messages import missing_package, sentence_of_value
from lit_models.support.renamed import with_new_names
from lit_models.support.spelling import did_you_mean

TOP_LEVEL = [
    *("model", "data", "trainer", "ckpt_path", "config", "print_config", "seed_everything"),
    *("run", "wandb", "checkpoint", "predictions", "channels_last", "compile", "weights", "lr_scaling"),
]


OURS = ("lit_models", "datamodules")
TRUSTED_CLASSES = re.compile(
    r"(lit_models|datamodules|torch\.optim)\.[\w.]+|lightning\.pytorch\.cli\.ReduceLROnPlateau"
)
"""The classes that a file may name without the user's naming them: relit's, and torch's optimizers and schedules."""
NAMED_BY_TEXT = {"TorchDataset": ("train", "test")}
"""Arguments of relit's classes that name a class, which would be imported, by a text."""
TRUSTED_DATA = {
    *("CIFAR10", "CIFAR100", "Caltech101", "Caltech256", "CelebA", "Country211", "DTD", "EMNIST", "EuroSAT"),
    *("FGVCAircraft", "FakeData", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "ImageFolder", "Imagenette"),
    *("KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet", "Places365", "QMNIST", "RenderedSST2", "SEMEION"),
    *("STL10", "SUN397", "SVHN", "StanfordCars", "USPS"),
}
"""The data sets of torchvision that unpickle nothing but files whose checksums they know."""
PARSERS_OWN = ("jsonargparse", "typeshed_client", "docstring_parser")

set_loader("data", lambda text: text)  # a parser's mode in which no text is read as YAML
_load_yaml = get_loader("yaml")
set_loader("relit", lambda text: with_new_names(_load_yaml(text)), (YAMLError,))


def parse_as_data(
    parser: ArgumentParser, values: dict[str, Any], base: Namespace | None = None, defaults: bool = True
) -> Namespace:
    """Parses values that come out of a file, of which nothing may be run: no text in it is read as YAML, as the name of
    a file or of a class, and no module is imported but relit's own.

    Args:
        parser: The parser.
        values: The values, in which :func:`foreign_class` has found none.
        base: What has been parsed before, in which the values replace those of the same name.
        defaults: Whether the parser adds its defaults.

    Raises:
        RunError: A text stands where a class must be.
    """
    mode = parser.parser_mode
    try:
        parser.parser_mode = "data"
        with _only_our_imports():
            parsed = parser.parse_object(values, base, defaults=defaults)
    finally:
        parser.parser_mode = mode
    if place := _changed_text(values, parsed):
        raise RunError(f"{place} is a text that would be read as something else, which only a command line may do.")
    return parsed


def foreign_class(values: Any, named: Iterable[str] = ()) -> str | None:
    """The first class that values name and that is neither one of :data:`TRUSTED_CLASSES` nor from one of the modules
    ``named``; None if there is none. Nothing is imported to find out."""
    if isinstance(values, dict):
        path = values.get("class_path")
        if path is not None and not (isinstance(path, str) and _is_trusted(path, named)):
            return str(path)
        for name in NAMED_BY_TEXT.get(str(path).rpartition(".")[2], ()):
            text = _mapping(values.get("init_args")).get(name)
            if text is not None and not (isinstance(text, str) and _is_trusted_data(text, named)):
                return str(text)
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return next(filter(None, (foreign_class(value, named) for value in values)), None)
    return None


def modules_named(values: Any) -> set[str]:
    """The modules whose classes a configuration names."""
    if isinstance(values, (dict, Namespace)):
        content = values if isinstance(values, dict) else vars(values)
        own = {str(content["class_path"]).rpartition(".")[0]} if content.get("class_path") is not None else set()
        return own.union(*map(modules_named, content.values()))
    if isinstance(values, (list, tuple)):
        return set().union(*map(modules_named, values))
    return set()


def _is_trusted(class_path: str, named: Iterable[str]) -> bool:
    module = class_path.rpartition(".")[0]
    return not module or bool(TRUSTED_CLASSES.fullmatch(class_path)) or module in named


def _mapping(values: Any) -> dict[str, Any]:
    return values if isinstance(values, dict) else {}


def _is_trusted_data(name: str, named: Iterable[str]) -> bool:
    module, _, last = name.rpartition(".")
    return module in named or (module in ("", "torchvision.datasets") and last in TRUSTED_DATA)


def _changed_text(values: Any, parsed: Any, place: str = "") -> str | None:
    """The place of the first text among the values that parsing has made something else of, None if there is none."""
    if isinstance(values, str):
        return None if isinstance(parsed, str) and parsed == values else place
    if isinstance(values, dict):
        content = parsed if isinstance(parsed, dict) else vars(parsed) if isinstance(parsed, Namespace) else {}
        pairs = [
            (value, content[key], f"{place}.{key}".lstrip("."))
            for key, value in values.items()
            if key in content and key != "class_path"  # short names are completed
        ]
    elif isinstance(values, (list, tuple)) and isinstance(parsed, (list, tuple)):
        pairs = [(value, part, f"{place}[{n}]") for n, (value, part) in enumerate(zip(values, parsed, strict=False))]
    else:
        return None
    return next(filter(None, (_changed_text(*pair) for pair in pairs)), None)


class _OnlyOurs(MetaPathFinder):
    """Refuses to find any module but relit's own."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] not in OURS + PARSERS_OWN:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextmanager
def _only_our_imports() -> Iterator[None]:
    guard = _OnlyOurs()
    sys.meta_path.insert(0, guard)
    try:
        yield
    finally:
        sys.meta_path.remove(guard)


def error_of_ours(error: BaseException) -> BaseException | None:
    """The error of this project that ``error`` is, or that a library has wrapped in its own; None if there is none.

    jsonargparse wraps what a class raises when it is made.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (DataError, ModelError, RunError)):
        cause = cause.__cause__
    return cause


def sentence_of_refusal(error: BaseException) -> str:
    """An argument's refusal by the parser, by a class of this project or by a type's parser, without a traceback."""
    if ours := error_of_ours(error):
        return str(ours)
    if isinstance(error, ArgumentError):
        return _sentence_of_arguments(error.message or str(error))
    if explained := sentence_of_value(str(error)):
        return explained
    if isinstance(error, ModuleNotFoundError) and (package := missing_package(str(error))):
        return f"A package isn't installed: {install_command(package)}."
    first_lines = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(first_lines.split())}"


def _sentence_of_arguments(message: str) -> str:
    if found := re.search(r"does not accept option '([\w.]+)'", message):
        return f"There is no setting {found[1]!r}.{did_you_mean(found[1], _settings(found[1]))}"
    if found := re.search(r"unrecognized arguments: (.*)", message):
        option = found[1].split()[0].split("=")[0]
        return f"There is no option {option}.{did_you_mean(option, ['--' + name for name in _settings(option[2:])])}"
    if found := re.search(r"argument --([\w.]+): expected one argument", message):
        return f"--{found[1]} needs a value."
    if found := re.search(r"Problems parsing config: (.*)", message, re.DOTALL):
        return f"The configuration isn't valid YAML: {' '.join(found[1].split())}."
    return sentence_of_value(message) or " ".join(message.split())


def _settings(given: str) -> list[str]:
    """Names that a misspelt setting could have meant: top-level ones, or the Trainer's for ``trainer.…``."""
    if given.startswith("trainer."):
        trainer = sources.describe("lightning.pytorch.trainer.trainer", "Trainer")
        return [f"trainer.{argument.name}" for argument in trainer.arguments]
    return TOP_LEVEL
