"""Objects that run code when they are unpickled."""

from collections.abc import Callable
from typing import Any


class Malicious:
    """Calls a function with its arguments when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call
