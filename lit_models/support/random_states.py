"""The states of this process's random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, the GPU's included, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    name, keys, *position = cast(tuple[Any, ...], np.random.get_state())
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), *position],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what :func:`random_state` returned, here or on a machine with other devices."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if state.get("mps") is not None and torch.backends.mps.is_available():  # earlier checkpoints have no such state
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def separate_random_numbers(seed: int) -> Iterator[None]:
    """Draws torch's random numbers from a seed within the block; the run's own then go on where they were."""
    state = random_state()
    try:
        torch.manual_seed(seed)
        yield
    finally:
        set_random_state(state)
