"""The parts of a method that are of use on their own, and so can be exported."""

from typing import NamedTuple


class Part(NamedTuple):
    """A method of a module that computes tensors from tensors, such as a generator or an encoder.

    A module lists its parts in a class attribute ``exports``; :mod:`lit_models.cli.export` knows the shapes and the
    meaning of the kinds of tensors.

    Attributes:
        name: What it is called, such as "encoder".
        method: Name of the module's method.
        inputs: Kinds of its arguments: "image", "source", "latent", "code" or "label".
        output: Kind of its result: "image", "logits" or "embedding".
    """

    name: str
    method: str
    inputs: tuple[str, ...]
    output: str
