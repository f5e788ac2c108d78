"""Files of weights, read without executing anything in them."""

from pathlib import Path
from typing import Any

import torch

from lit_models.errors import RunError


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``, if it is made of tensors and plain values only.

    Raises:
        RunError: There is no such file, it is cut off, or it holds more.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler raise
        raise RunError(
            f"{path} can't be read as a checkpoint: it is cut off, or holds more than tensors and plain values "
            "(which could run code, so it is not opened)."
        ) from error
