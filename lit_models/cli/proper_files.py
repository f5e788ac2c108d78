"""Configuration files that the parser would read otherwise than they were meant."""

from pathlib import Path

import yaml

from lit_models.errors import UsageError


def require_proper_files(args: list[str]) -> None:
    """Refuses configuration files that the parser would read otherwise than they were meant.

    Raises:
        UsageError: One is empty, isn't UTF-8, or gives a setting twice, of which only the last would count.
    """
    for given, following in zip(args, [*args[1:], ""], strict=True):
        option, _, value = given.partition("=")
        name = value or (following if given.startswith("-") else "")
        is_meant = option in ("--config", "-c") or name.endswith((".yaml", ".yml"))  # such as --model FILE
        if not (is_meant and name and Path(name).is_file()):
            continue
        path = Path(name)
        content = path.read_bytes()
        if not content.strip():
            raise UsageError(f"The configuration file {path} is empty.")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
            raise UsageError(f"The configuration file {path} is {kind} text: save it as UTF-8.") from error
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            continue  # the parser says what is wrong
        if twice := _given_twice(node):
            key, line = twice
            raise UsageError(
                f"The configuration file {path} gives {key!r} twice, the second time in line {line}, of which only the "
                "last would count: put them together."
            )


def _given_twice(node: yaml.Node | None) -> tuple[str, int] | None:
    """The first key of a YAML document that stands twice in one mapping, with its line."""
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys and key.value != "<<":
                return key.value, key.start_mark.line + 1
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
            if found := _given_twice(value):
                return found
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_given_twice, node.value)), None)
    return None
