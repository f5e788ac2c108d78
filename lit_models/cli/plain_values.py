"""Words where a setting takes numbers, switches or a choice, refused before torch is imported.

All other values are left to the parser.
"""

import ast
import re
from collections.abc import Iterable

from lit_models.support.parser_messages import Refusal, sentence_of_wrong_value

WORD = re.compile(r"[A-Za-z_][\w.-]*")
SWITCHES = ("true", "false", "yes", "no", "on", "off", "y", "n")
NOTHING = ("null", "none")
"""Words for no value, which the parser allows everywhere."""


def wrong_word(key: tuple[str, ...], annotation: str, value: object) -> str | None:
    """A sentence on a word that no type of a setting allows; None for any other value.

    Args:
        key: The setting, such as ``("model", "latent_dim")``.
        annotation: Its type as the source spells it.
        value: Its value, as typed or as a file has it.
    """
    kinds = _alternatives(annotation)
    is_word = isinstance(value, str) and WORD.fullmatch(value) and value.lower() not in NOTHING
    if not kinds or not is_word or any(_allows(kind, str(value)) for kind in kinds):
        return None
    return sentence_of_wrong_value(Refusal(key, expected=kinds, value=str(value)))


def _alternatives(annotation: str) -> list[str]:
    """The types of an annotation as the parser spells them; none if there is one that takes words of any kind."""
    try:
        found = list(_types(ast.parse(annotation, mode="eval").body))
    except (SyntaxError, LookupError):
        return []
    return sorted(found, key="NoneType".__eq__)


def _types(node: ast.expr) -> Iterable[str]:
    """
    Raises:
        LookupError: One isn't a number, a switch, a choice or nothing.
    """
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_types(node.left), *_types(node.right)]
    if isinstance(node, ast.Constant) and node.value is None:
        return ["NoneType"]
    if isinstance(node, ast.Name) and node.id in ("int", "float", "bool"):
        return [node.id]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal":
            return [f"Literal[{', '.join(map(ast.unparse, parts))}]"]
        if node.value.id in ("Optional", "Union"):
            found = [kind for part in parts for kind in _types(part)]
            return [*found, "NoneType"] if node.value.id == "Optional" else found
    raise LookupError(ast.unparse(node))


def _allows(kind: str, word: str) -> bool:
    if kind == "NoneType":
        return False
    if kind == "bool":
        return word.lower() in SWITCHES
    if kind.startswith("Literal"):
        return word in map(str, ast.literal_eval(kind.removeprefix("Literal")))
    return word.lower() in ("nan", "inf", "infinity")
