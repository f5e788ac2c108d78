"""The method and the data set that a command line gives, whose arguments are checked before torch is imported."""

import re
from pathlib import Path
from typing import Any

from lit_models.cli.plain_values import wrong_word
from lit_models.support import sources
from lit_models.support.parser_messages import Refusal, sentence_of_refused
from lit_models.support.renamed import with_new_names

PARTS = ("model", "data")
IMAGES = "data.images"
"""The data module that another one is made of, as an option."""
ONLY_PREDICTED = ("Pictures", "Samples", "SupportQuery")
"""Data modules that stand for what is predicted, not for what a model was trained on."""
OF_ANY_CLASS = ("class_path", "init_args", "dict_kwargs", "help")


class GivenClasses:
    """Follows the configurations and options of a command line in their order, as the parser does.

    Only classes of relit are followed. What else is given (a user's own class, settings in place of a file's name) is
    left to the parser.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, str | None] = dict.fromkeys(PARTS)
        self.given: dict[str, set[str]] = {part: set() for part in PARTS}
        self.is_given = dict.fromkeys(PARTS, False)
        self.before_any: dict[str, str] = {}
        self.in_files: dict[str, str] = {}
        self.typed: dict[str, str] = {}

    def leave_to_the_parser(self) -> None:
        """After something that isn't read here, any class may be given with any argument."""
        self.chosen = dict.fromkeys(PARTS)
        self.is_given = dict.fromkeys(PARTS, True)

    def unknown_in(self, path: Path, content: dict[str, Any]) -> str | None:
        """A sentence on the first argument in a configuration that its class doesn't have."""
        for part in PARTS:
            section = content.get(part)
            if section is None:
                continue
            self._note_files(part, section)
            self._choose(part, section.get("class_path", self.chosen[part]) if isinstance(section, dict) else section)
            arguments = with_new_names(section).get("init_args") if isinstance(section, dict) else None
            for name, value in arguments.items() if isinstance(arguments, dict) else ():
                if told := self._unknown(part, str(name)) or self._wrong_word(part, str(name), value):
                    return f"{path}: {told.replace('--', '')}"
        return None

    def unknown_option(self, name: str, value: str) -> str | None:
        """A sentence on an option whose argument its class doesn't have."""
        part, _, argument = name.partition(".")
        if part not in PARTS:
            return None
        if argument in ("", "class_path"):
            self._choose(part, value)
        if name in (*PARTS, IMAGES):
            self.typed[name] = value.rpartition(".")[2]
        first = re.split(r"[.\[+]", argument.removeprefix("init_args."))[0]
        if first in ("", *OF_ANY_CLASS):
            return None
        return self._unknown(part, first) or (self._wrong_word(part, first, value) if first == argument else None)

    def missing(self, part: str) -> str | None:
        """A sentence on the arguments that a class needs and that nothing has given."""
        name = self.chosen[part]
        arguments = sources.describe(_module_of(part, name), name).arguments if name is not None else ()
        required = [one.name for one in arguments if one.default is None and one.name not in self.given[part]]
        return self._told(part, required=required) if required else None

    def without_owner(self, part: str) -> str | None:
        """A sentence on an argument of which no class was given; None if there is no such argument."""
        base = {"model": "LightningModule", "data": "LightningDataModule"}[part]
        argument = self.before_any.get(part)
        return None if argument is None else sentence_of_refused(Refusal((part,), base, unknown=argument))

    def may_be_pretrained(self) -> bool:
        """Whether the model may be given weights by an argument."""
        return "pretrained" in self.given["model"] or (self.is_given["model"] and self.chosen["model"] is None)

    def experiment(self, named: str | None) -> str | None:
        """The experiment of a run: the name that a file gives it, unless the command line has put another class in the
        place of one of the file's; then that of its model with that of its data.

        Args:
            named: The name that the files give.
        """
        is_swapped = any(
            name not in ONLY_PREDICTED and self.in_files.get(part, name) != name for part, name in self.typed.items()
        )
        if named is not None and not is_swapped:
            return named
        names = {**self.in_files, **self.typed}
        return "_".join(names[part].lower() for part in PARTS if part in names) if "model" in names else named

    def _note_files(self, part: str, section: Any) -> None:
        name = section.get("class_path") if isinstance(section, dict) else section
        if isinstance(name, str):
            self.in_files[part] = name.rpartition(".")[2]
        images = (section.get("init_args") or {}).get("images") if isinstance(section, dict) else None
        if part == "data" and isinstance(images, dict) and "class_path" in images:
            self.in_files[IMAGES] = str(images["class_path"]).rpartition(".")[2]

    def _choose(self, part: str, name: Any) -> None:
        package, _, last = str(name).rpartition(".")
        is_ours = package.partition(".")[0] in ("", *sources.OURS) and last in _classes(part)
        self.chosen[part], self.is_given[part] = last if is_ours else None, True

    def _unknown(self, part: str, argument: str) -> str | None:
        name = self.chosen[part]
        if not self.is_given[part]:
            self.before_any.setdefault(part, argument)
        if name is None:
            return None
        self.given[part].add(argument)
        known = {one.name for one in sources.describe(_module_of(part, name), name).arguments}
        return None if argument in known else self._told(part, unknown=argument)

    def _wrong_word(self, part: str, argument: str, value: object) -> str | None:
        name = self.chosen[part]
        known = sources.describe(_module_of(part, name), name).arguments if name is not None else ()
        annotation = next((one.type for one in known if one.name == argument), "")
        return wrong_word((part, argument), annotation, value)

    def _told(self, part: str, **what: Any) -> str | None:
        name = str(self.chosen[part])
        return sentence_of_refused(Refusal((part,), f"{_module_of(part, name)}.{name}", **what))


def _classes(part: str) -> dict[str, str]:
    return sources.methods() if part == "model" else sources.data_sets()


def _module_of(part: str, name: str) -> str:
    return _classes(part)[name]
