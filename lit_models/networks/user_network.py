"""User-defined networks as encoders, by the name ``MODULE.NAME`` of a class or function that makes one.

A checkpoint holds that name, and no name in a file may import code. So a network is made only if it has been named
elsewhere: in Python by :func:`register_encoder`, on the command line by ``--model.encoder MODULE.NAME``.
"""

import re
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from lit_models.errors import ModelError

CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MAKERS: dict[str, Callable[[], nn.Module]] = {}


class UserNetwork(nn.Module):
    """A registered network as an encoder.

    Shapes: ``(N, C, H, W)`` to ``(N, out_features)``. What the network returns is flattened but for its first axis.

    Args:
        name: As :func:`register_encoder` returns it.
        image_size: Height and width of the images.
        channels: Channels of the images.
    """

    def __init__(self, name: str, image_size: int, channels: int) -> None:
        super().__init__()
        self.network = _MAKERS[name]()
        if not isinstance(self.network, nn.Module):
            raise ModelError(f"The encoder {name} must make an nn.Module, and makes a {type(self.network).__name__}.")
        shape = (channels, image_size, image_size)
        was_training = self.network.training
        try:
            with torch.no_grad():
                self.out_features = self.eval()(torch.zeros(2, *shape)).shape[1]
        except Exception as error:  # whatever the network raises
            size = "x".join(map(str, shape))
            raise ModelError(f"The encoder {name} can't embed a batch of two images of {size} ({error}).") from error
        self.train(was_training)

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image).flatten(1)


def register_encoder(make: Callable[[], nn.Module]) -> str:
    """Lets methods build a network of yours; returns its name, the value of their argument ``encoder``.

    Call it, too, before you load a checkpoint with such a network.

    Args:
        make: A class, or a function, that takes no arguments and makes the network: of images ``(N, C, H, W)`` features
            ``(N, D)``. It must be defined at the top level of a module.

    Raises:
        ModelError: It isn't, so that a checkpoint couldn't name it.
    """
    name = f"{make.__module__}.{getattr(make, '__qualname__', '')}"  # an object that can be called may have none
    if not CLASS_PATH.fullmatch(name):
        raise ModelError(f"{name} can't be named in a checkpoint: define it at the top level of a module.")
    _MAKERS[name] = make
    return name


def import_encoder(name: str) -> None:
    """Registers the network of that name, which the user has given: its module is imported.

    Raises:
        ModelError: There is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.rpartition(".")
    try:
        make = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"The encoder {name} can't be imported ({error}): check the name.") from error
    if not callable(make):
        raise ModelError(f"The encoder {name} must be a class or a function, and is a {type(make).__name__}.")
    _MAKERS[name] = make


def is_user_encoder(name: str) -> bool:
    """Whether a name is that of a user-defined network."""
    return bool(CLASS_PATH.fullmatch(name))


def require_registered(name: str) -> None:
    """Refuses a user-defined network that only a file has named.

    Raises:
        ModelError: The user hasn't named it.
    """
    if name not in _MAKERS:
        raise ModelError(
            f"The encoder {name} isn't part of relit, and only you may name it: by --config FILE, by --model METHOD "
            f"--model.encoder {name}, or in Python by register_encoder."
        )
