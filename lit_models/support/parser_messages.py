"""Turns the argument parser's refusal of a value into a sentence that names option, value and choices.

jsonargparse prints a refusal as an indented tree: a key, the branches of its union, in them a class, in it a key again.
"""

import re
import textwrap
from dataclasses import dataclass, field
from importlib import import_module

from lit_models.support import sources
from lit_models.support.extras import install_command
from lit_models.support.known_classes import classes_for, unknown_class
from lit_models.support.spelling import closest

UNION = "Does not validate against any of the Union subtypes"
RATES = ("lr", "learning_rate", "lrate")
OPTIMIZER_ARGUMENTS = ("beta1", "beta2", "betas", "eps", "momentum", "weight_decay")
PRECISIONS = {
    **dict.fromkeys(("fp16", "float16", "half", "amp", "mixed"), "16-mixed"),
    **dict.fromkeys(("bfloat16", "bf16-amp"), "bf16-mixed"),
    **dict.fromkeys(("fp32", "float32", "float", "single", "full"), "32-true"),
    **dict.fromkeys(("fp64", "float64", "double"), "64-true"),
}
"""What other programs call the Trainer's precisions."""


@dataclass
class Refusal:
    """A refused value.

    Attributes:
        key: The setting, such as ``model.latent_dim``.
        class_path: The class whose argument it is; empty at top level.
        expected: The types that it may have, as the parser spells them.
        value: The value as given.
        required: Arguments that are missing.
        unknown: The name of an argument that doesn't exist.
        reason: What else was said.
    """

    key: tuple[str, ...]
    class_path: str = ""
    expected: list[str] = field(default_factory=list)
    value: str | None = None
    required: list[str] = field(default_factory=list)
    unknown: str = ""
    reason: str = ""

    @property
    def depth(self) -> int:
        """How far it is from the top: the innermost branch of a union is the one that was meant."""
        says_most = bool(self.required or self.unknown) + bool(
            self.reason and "Not a valid subclass" not in self.reason
        )
        return 10 * len(self.key) + 5 * bool(self.class_path) + says_most


def read_refusal(message: str, key: tuple[str, ...] = (), class_path: str = "", value: str | None = None) -> Refusal:
    """The innermost refusal of a message."""
    text = textwrap.dedent(message).strip("\n")
    if found := re.match(r'\s*Parser key "([^"]+)":\s*', text):
        return read_refusal(
            text[found.end() :] if "\n" not in found[0] else _below(text), (*key, found[1]), class_path, value
        )
    if found := re.match(r"\s*Problem with given class_path '([\w.]+)':\s*", text):
        return read_refusal(_below(text), key, found[1], value)
    if re.match(r"\s*Type .* expects a function or a callable class: ", text):
        rest = text.split("expects a function or a callable class: ", 1)[1]
        named = re.search(r"class_path='([\w.]+)'", rest) or re.search(r"class_path='([\w.]+)'", value or "")
        rest = re.sub(r"\.? Got value: Namespace\(.*", "", rest, flags=re.DOTALL)
        return read_refusal(rest, key, named[1] if named else class_path, value)
    if UNION in text:
        branches, given = _branches(text)
        value = given or value
        found_in = [read_refusal(branch, key, class_path, value) for branch in branches]
        deepest = max(found_in, key=lambda one: one.depth, default=Refusal(key, class_path))
        if deepest.expected and not (deepest.required or deepest.unknown):
            alike = [one for one in found_in if one.key == deepest.key]
            deepest.expected = list(dict.fromkeys(name for one in [deepest, *alike] for name in one.expected))
        return deepest
    if found := re.search(r"the following arguments are required: ([\w., ]+)", text):
        return Refusal(key, class_path, value=value, required=found[1].split(", "))
    if found := re.search(r"Option '([\w.]+)' is not accepted", text):
        return Refusal(key, class_path, value=value, unknown=found[1])
    if found := re.match(r"\s*Expected an? (.+?)(?:\. Got value: (.*))?$", text, re.DOTALL):
        return Refusal(key, class_path, [found[1].strip()], found[2] or value)
    return Refusal(key, class_path, value=value, reason=" ".join(text.split()))


def sentence_of_refused(refusal: Refusal) -> str | None:
    """A sentence on arguments that are missing or don't exist; None if the refusal is about something else."""
    option = "--" + ".".join(refusal.key) if refusal.key else ""
    name = refusal.class_path.rsplit(".", 1)[-1]
    if refusal.required:
        return _required(refusal, option, name)
    return _unknown(refusal, option, name) if refusal.unknown else None


def sentence_of_wrong_value(refusal: Refusal) -> str:
    """A sentence on a value of another type than the setting's."""
    option = "--" + ".".join(refusal.key) if refusal.key else refusal.class_path.rsplit(".", 1)[-1]
    value = _one_line(refusal.value)
    if option == "--trainer.precision":
        meant = PRECISIONS.get(value.lower()) or closest(value, dict.fromkeys(PRECISIONS.values()), cutoff=0.5)
        guess = f" Did you mean {meant}?" if meant else ""
        return f"{option} is {value}; it must be 32-true, 16-mixed, bf16-mixed or 64-true.{guess}"
    types = _types(refusal.expected)
    meant = closest(value, _choices(refusal.expected), cutoff=0.5)
    guess = f" Did you mean {meant}?" if meant else ""
    example = f" Write it as '[{value}]'." if types == "a list" and not value.startswith("[") else ""
    return f"{option} is {value}; it must be {types}.{guess}{example}"


def sentence_of_value(message: str) -> str | None:
    """A sentence on a refused value; None if the message isn't about one."""
    if 'Parser key "' not in message and UNION not in message:
        return None
    refusal = read_refusal(message)
    if told := sentence_of_refused(refusal):
        return told
    option = "--" + ".".join(refusal.key) if refusal.key else ""
    name = refusal.class_path.rsplit(".", 1)[-1]
    if missing := missing_package(message):
        return f"{name or option or 'This'} needs a package that isn't installed: {install_command(missing)}."
    if "cannot represent an object" in message:
        named = re.findall(r"class_path='([\w.]+)'", refusal.value or message)
        name = named[-1].rsplit(".", 1)[-1] if named else "A class"
        remedy = ": use --trainer.max_time" if name == "Timer" else ""
        return f"{name} can't be used from the command line{remedy}."
    if found := re.search(r"Not a valid subclass of (\w+)|Expected a dot import path string: (\S+)", message):
        return _wrong_class(refusal, option, found[2] or _one_line(refusal.value))
    if told := _not_found(message, option, refusal.class_path or _one_line(refusal.value)):
        return told
    if refusal.expected:
        return sentence_of_wrong_value(refusal)
    if found := re.search(r"negative dimension (-\d+)", refusal.reason):
        argument = re.search(rf"\b(\w+)={found[1]}\b", refusal.value or message)
        what = f"{argument[1]} is {found[1]}; it" if argument else f"A size is {found[1]}; it"
        return f"{what} must be at least 1."
    if re.search(r"can't allocate memory|[Oo]ut of memory", refusal.reason):
        sizes = [(int(size), key) for key, size in re.findall(r"\b(\w+)=(\d+)\b", refusal.value or "")]
        largest = f" ({max(sizes)[1]} is {max(sizes)[0]})" if sizes else ""
        return f"The model needs more memory than there is: lower its sizes{largest}."
    if (len(refusal.key) == 1 and "Unable to load config" in message) or "Unable to load config" in refusal.reason:
        return value_of_group(".".join(refusal.key))
    reason = refusal.reason or "it can't be used"
    named_class = re.search(r"class_path='([\w.]+)'", refusal.value or "")
    name = name or (named_class[1].rsplit(".", 1)[-1] if named_class else "A value")
    return f"{option or name}: {_short(reason)}"


def value_of_group(group: str) -> str:
    """A sentence on a group of options that is given a value, such as ``--run x``."""
    own = {"wandb": "--wandb.enabled true", "trainer": "--trainer.max_epochs 3", "run": "--run.experiment NAME"}
    own |= {"checkpoint": "--checkpoint.monitor val/loss", "predictions": "--predictions.folder FOLDER"}
    return f"--{group} is a group of options, which are given one by one: {own.get(group, f'--{group}.NAME VALUE')}."


def missing_package(message: str) -> str | None:
    """The package that pip should install, if a message is about a missing one."""
    if "tensorboard" in message and "available" in message:
        return "tensorboard"
    if found := re.search(r"pip install (?:-U |--upgrade )?['\"`]?([A-Za-z][\w.\[\]-]*)", message):
        return found[1]
    if found := re.search(
        r"requires [`'\"]?(\w+)[`'\"]? (?:to be|which is not|package)|Requirement '(\w+)[^']*' not met", message
    ):
        return found[1] or found[2]
    return None


def _not_found(message: str, option: str, given: str) -> str | None:
    """A sentence on a class whose module, or one that it imports, is missing; None if the message isn't about it."""
    text = " ".join(message.split())
    if found := re.search(r"[Nn]o module named '(\w+)[\w.]*'(, neither .*? of Python files)?", text):
        if found[1] != given.partition(".")[0]:
            return f"{option} is {given}, whose code imports {found[1]}, which isn't installed."
        return f"{option} is {given}, but there is no module {found[0][16:]}: check the spelling."
    if found := re.search(r"module '[\w.]+' has no attribute '(\w+)'", text):
        return f"{option} is {given}, but its module has no {found[1]}: check the spelling."
    return None


def _required(refusal: Refusal, option: str, name: str) -> str:
    argument = refusal.required[0]
    description = ""
    if text := next((one.description for one in _arguments_of(refusal.class_path) if one.name == argument), ""):
        description = re.sub(r"\s*Default: .*", "", sources.first_sentence(text)).strip()
        description = description[:1].lower() + description[1:] if description[1:2].islower() else description
    also = f" (and {', '.join(refusal.required[1:])})" if len(refusal.required) > 1 else ""
    needs = f"{name or 'This'} needs {option or '-'}.{argument}{also}" + (f": {description}" if description else ".")
    if name == "TensorBoardLogger":
        needs += " --config logger/tensorboard needs none, and keeps its files in the run's folder."
    return needs


def _unknown(refusal: Refusal, option: str, name: str) -> str:
    base = {"LightningModule": "model", "LightningDataModule": "data"}.get(name)
    if base:
        return f"--{base}.{refusal.unknown} needs a class to be an argument of: add --config FILE or --{base} CLASS."
    if name in ("Union", "Callable", ""):
        return f"{option}.{refusal.unknown} needs a class to be an argument of: add {option} CLASS."
    known = [argument.name for argument in _arguments_of(refusal.class_path) if argument.name != "params"]
    unknown = refusal.unknown
    optimizers = [argument for argument in known if argument.endswith("optimizer")]
    whole = f"{name} has no argument {unknown!r}."
    if unknown in RATES and optimizers:
        return f"{whole} Set {' and '.join(f'{option}.{argument}.lr' for argument in optimizers)}."
    if unknown in OPTIMIZER_ARGUMENTS and optimizers:
        return f"{whole} Set {' and '.join(f'{option}.{argument}.{unknown}' for argument in optimizers)}."
    if unknown == "betas" and "beta1" in known:
        return f"{whole} Set {option}.beta1 and {option}.beta2."
    if unknown in ("optimizer", "optim") and optimizers:
        return f"{whole} Set {' and '.join(f'{option}.{argument}' for argument in optimizers)}."
    if unknown in RATES and "lr" in known:
        return f"{whole} Did you mean {option}.lr?"
    if unknown in ("num_workers", "workers") and option == "--data":
        return f"{whole} relit's data sets load without worker processes."
    meant = closest(unknown, known)
    if meant:
        return f"{whole} Did you mean {option}.{meant}?"
    if option == "--trainer.callbacks":
        return (
            f"{whole} Options of a callback follow it: --trainer.callbacks+ NAME --trainer.callbacks.{unknown} VALUE."
        )
    return f"{whole} It has {', '.join(known)}." if known else whole


def _arguments_of(class_path: str) -> tuple[sources.Argument, ...]:
    """The arguments of a class as its source has them; none if it can't be found."""
    module, _, name = class_path.rpartition(".")
    ours = {**sources.methods(), **sources.data_sets()}
    if module.partition(".")[0] in sources.OURS and name in ours:
        return sources.describe(ours[name], name).arguments
    try:
        kind = getattr(import_module(module), name)
        return sources.describe(kind.__module__, kind.__name__).arguments
    except (ImportError, AttributeError, OSError, ValueError):
        return ()


def _wrong_class(refusal: Refusal, option: str, value: str) -> str:
    key = ".".join(refusal.key)
    if re.fullmatch(r"\w+", value) and not value.isdecimal() and (told := unknown_class(key, value)):
        return told
    kind, known = classes_for(key)
    examples = f", such as {known[0]}" if known else ""
    return f"{option} is {value}, which isn't a {kind}: give the name of one{examples}."


def _types(expected: list[str]) -> str:
    """Types as a person would say them, joined by commas and "or"."""
    spoken: list[str] = []
    for one in expected:
        name = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", one.strip())
        if found := re.match(r"(?:typing\.)?Literal\[(.*)\]", name):
            spoken += found[1].replace("'", "").split(", ")
            continue
        plain = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
        plain |= dict.fromkeys(("Sequence", "list", "Iterable", "tuple"), "a list")
        plain |= {"dict": "settings", "NoneType": "null"}
        name = name.split("[")[0].rsplit(".", 1)[-1]
        spoken.append(plain.get(name, "a path" if "path" in name else f"a {name}"))
    spoken = [word for word in dict.fromkeys(spoken) if not word.startswith("transformer-engine")]
    if "a number" in spoken and "a whole number" in spoken:
        spoken.remove("a whole number")
    if len(spoken) > 1:  # these last
        last = [word for word in ("true or false", "null") if word in spoken]
        spoken = [word for word in spoken if word not in last] + [part for word in last for part in word.split(" or ")]
    if all(re.fullmatch(r"\w[\w.-]*", word) for word in spoken if word != "null") and len(spoken) > 2:
        return f"one of {', '.join(spoken)}"
    return spoken[0] if len(spoken) == 1 else f"{', '.join(spoken[:-1])} or {spoken[-1]}"


def _choices(expected: list[str]) -> list[str]:
    found = [re.match(r"(?:typing\.)?Literal\[(.*)\]", one.strip()) for one in expected]
    return [choice.strip("' ") for one in found if one for choice in one[1].split(",")]


def _below(text: str) -> str:
    return text.partition("\n")[2]


def _branches(text: str) -> tuple[list[str], str | None]:
    """What each branch of the outermost union said, and the value that it was given."""
    lines = text[text.rindex("\n", 0, text.index(UNION)) + 1 if "\n" in text[: text.index(UNION)] else 0 :].splitlines()
    depth = len(lines[0]) - len(lines[0].lstrip(" -"))
    depth = next((len(line) - len(line.lstrip()) for line in lines if line.strip() == "Errors:"), depth)
    start = next((n for n, line in enumerate(lines) if line.strip() == "Errors:"), len(lines))
    end = next(
        (n for n, line in enumerate(lines) if n > start and line.startswith(" " * depth + "Given value type:")),
        len(lines),
    )
    given = "\n".join(lines[end + 1 :]).strip().removeprefix("Given value: ")
    return _items(lines[start + 1 : end]), given or None


def _items(lines: list[str]) -> list[str]:
    """The items of an indented list."""
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip().startswith("- ")), default=0)
    items: list[list[str]] = []
    for line in lines:
        if line[indent:].startswith("- ") and not line[:indent].strip():
            items.append([" " * (indent + 2) + line[indent + 2 :]])
        elif items:
            items[-1].append(line)
    return ["\n".join(item) for item in items]


def _one_line(value: str | None) -> str:
    """A value that a person gave, without the parser's own classes."""
    text = " ".join((value or "").split())
    if found := re.match(r"NestedArg\(key='([^']*)', val=(.*)\)$", text):
        text = found[2]
    if found := re.match(r"Namespace\(class_path='([\w.]+)'", text):
        text = found[1]
    text = re.sub(r"Namespace\(class_path='([\w.]+)'.*", r"\1 …", text).strip("'\"")
    return _short(text, 80) or "nothing"


def _short(text: str, most: int = 300) -> str:
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    return text if len(text) <= most else f"{text[:most]}…"
