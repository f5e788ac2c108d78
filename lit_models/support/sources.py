"""Classes as their source describes them: docstrings and arguments, read without an import of torch.

Help, completion and suggestions come from here, so they appear at once.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from lit_models.registry import METHODS

OURS = ("lit_models", "datamodules")


@dataclass(frozen=True)
class Argument:
    """One argument of a class.

    Attributes:
        name: Its name.
        type: Its annotation as written; empty without one.
        default: Its default as written; None if the argument is required.
        description: Its text in the docstring.
    """

    name: str
    type: str
    default: str | None
    description: str


@dataclass(frozen=True)
class Described:
    """A class as its source describes it.

    Attributes:
        name: Its name.
        text: Its docstring up to the arguments.
        arguments: Its arguments, those of its base classes behind.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]

    @property
    def summary(self) -> str:
        """The first sentence on one line."""
        return first_sentence(self.text)


def methods() -> dict[str, str]:
    """The module of each method."""
    return dict(METHODS)


def data_sets() -> dict[str, str]:
    """The module of each data module that a command can be given."""
    import datamodules

    modules = datamodules._MODULES
    return {
        name: module
        for name, module in modules.items()
        if name != "ImageDataModule" and "LightningDataModule" in _ancestors(module, name)
    }


def callbacks() -> dict[str, str]:
    """The module of each callback of relit that a configuration may name."""
    module = _tree(_source_of("lit_models.callbacks"))
    value = next(node.value for node in module.body if _assigns(node, "_MODULES"))
    added_by_relit = (
        "Checkpoints",
        "ExactResume",
        "LearningRateScaling",
        "LossCurves",
        "Preemption",
        "PredictionWriter",
    )
    return {name: path for name, path in ast.literal_eval(value).items() if name not in added_by_relit}


def exported_names(module: str) -> list[str]:
    """The classes that a package exports by ``__all__`` or, without it, imports (``lightning.pytorch.callbacks``)."""
    body = _tree(_source_of(module)).body
    for node in body:
        if _assigns(node, "__all__"):
            names = [element.value for element in ast.walk(node.value) if isinstance(element, ast.Constant)]
            return sorted(str(name) for name in names if str(name)[:1].isupper())
    imported = [alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return sorted(name for name in imported if name[:1].isupper())


def _assigns(node: ast.stmt, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name


def optimizers() -> list[str]:
    """The optimizers that a configuration may name: torch's, and relit's."""
    text = _source_of("torch.optim").read_text(encoding="utf-8")
    torchs = re.findall(r"^from torch\.optim\.\w+ import (\w+)", text, re.MULTILINE) or ["Adam", "AdamW", "SGD"]
    ours = [node.name for node in _tree(_source_of("lit_models.optimizers")).body if isinstance(node, ast.ClassDef)]
    return sorted({*torchs, *ours} - {"Optimizer"})


def schedules() -> list[str]:
    """The learning-rate schedules of torch."""
    return [name for name in exported_names("torch.optim.lr_scheduler") if name != "LRScheduler"]


@cache
def describe(module: str, name: str) -> Described:
    """Describe a class from its source, with the arguments of its base classes."""
    node = _class_node(module, name)
    docstring = ast.get_docstring(node) or ""
    text, documented = _split(docstring)
    arguments: dict[str, Argument] = {}
    filled_in: set[str] = set()  # by a subclass, which passes them to the base class itself
    positional = 0
    for owner, base in _line(module, name):
        own = next((part for part in base.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
        fields = [part for part in base.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
        known = _split(ast.get_docstring(base) or "")[1]
        if own is not None:
            known = {**known, **_split(ast.get_docstring(own) or "")[1]}
        documented = {**known, **documented}
        if own is None and not (fields and _is_dataclass(base)):
            continue
        if own is None:
            for field in fields:
                assert isinstance(field.target, ast.Name)
                arguments.setdefault(field.target.id, _argument(field.target.id, field.annotation, field.value, {}))
            break
        parameters = _parameters(own.args)
        filled_in |= {parameter.arg for parameter, _ in parameters[:positional]} - arguments.keys()
        for parameter, default in parameters:
            if parameter.arg not in filled_in:
                arguments.setdefault(parameter.arg, _argument(parameter.arg, parameter.annotation, default, {}))
        if own.args.kwarg is None or owner.split(".")[0] not in OURS:
            break
        positional, named = _passed_to_base(own)
        filled_in |= named - arguments.keys()
    return Described(
        name,
        text,
        tuple(
            Argument(argument.name, argument.type, argument.default, documented.get(argument.name, ""))
            for argument in arguments.values()
        ),
    )


def first_sentence(text: str) -> str:
    """The first sentence of a text, on one line and without markup."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    paragraph = plain(paragraph)
    end = re.search(r"(?<![.\s]\w)(?<!e\.g)(?<! al)\.(?=\s+[A-Z(]|$)|:$", paragraph)
    return (paragraph[: end.start()] if end else paragraph).rstrip(".:") + "."


def plain(text: str) -> str:
    """A docstring's text as it reads on a terminal."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return text.replace("``", "`")


def _argument(name: str, annotation: ast.expr | None, default: ast.expr | None, documented: dict[str, str]) -> Argument:
    kind = "" if annotation is None else ast.unparse(annotation)
    value = None if default is None else ast.unparse(default)
    return Argument(name, kind, value, documented.get(name, ""))


def _parameters(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    return [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]


def _passed_to_base(init: ast.FunctionDef) -> tuple[int, set[str]]:
    """How many arguments ``super().__init__`` is given by position, and the names of the others."""
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            named = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            return len([one for one in node.args if not isinstance(one, ast.Starred)]), named
    return 0, set()


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _line(module: str, name: str) -> list[tuple[str, ast.ClassDef]]:
    """A class and its bases within relit, each with its module, in the order in which arguments are looked up."""
    found = [(module, _class_node(module, name))]
    for base in _bases(module, name):
        if base[0].split(".")[0] in OURS:
            found += [one for one in _line(*base) if one not in found]
    return found


def _ancestors(module: str, name: str) -> set[str]:
    names: set[str] = set()
    for owner, base in _bases(module, name):
        names.add(base)
        if owner.split(".")[0] in OURS:
            names |= _ancestors(owner, base)
    return names


def _bases(module: str, name: str) -> list[tuple[str, str]]:
    imported = _imported_names(_source_of(module))
    bases = [ast.unparse(base).split("[")[0] for base in _class_node(module, name).bases]
    return [(imported.get(base, module if "." not in base else ""), base) for base in bases]


@cache
def _imported_names(path: Path) -> dict[str, str]:
    """The module of each name that a file imports for its classes: at the top, or in an ``if`` or ``try`` there."""
    places = (ast.ImportFrom, ast.If, ast.Try)
    return {
        alias.asname or alias.name: node.module or ""
        for statement in _tree(path).body
        if isinstance(statement, places)
        for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _class_node(module: str, name: str) -> ast.ClassDef:
    found = next(
        (node for node in _tree(_source_of(module)).body if isinstance(node, ast.ClassDef) and node.name == name), None
    )
    return found if found is not None else ast.ClassDef(name, [], [], [], [])


def _split(docstring: str) -> tuple[str, dict[str, str]]:
    """A docstring's text up to its arguments, and the text of each of them."""
    text, _, rest = docstring.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    indent = re.match(r" *", section)
    depth = len(indent[0]) if indent else 4
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        start = re.match(rf" {{{depth}}}(\*{{0,2}}\w+)(?: ?\([^)]*\))?: *(.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name:
            found[name] += " " + line.strip() if line.strip() else "\n\n"
    return text.strip(), {key: plain(" ".join(value.split("\n\n")[0].split())) for key, value in found.items()}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _source_of(module: str) -> Path:
    """The file of a module, whose packages aren't imported."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    path = Path(spec.origin).parent.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
