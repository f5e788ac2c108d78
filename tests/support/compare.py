"""Comparison of nested values, such as those of a checkpoint."""

from typing import Any

import pytest
import torch


def assert_alike(value: Any, other: Any, where: str = "value", rtol: float = 0.0, atol: float = 0.0) -> None:
    """Values are equal, down to those in their dictionaries and lists.

    Args:
        value: The value.
        other: What it must be.
        where: Its name, to which those of what is in it are added.
        rtol: By how much numbers and tensors may differ, relative to `other`.
        atol: By how much they may differ besides.
    """
    if isinstance(other, dict):
        assert value.keys() == other.keys(), where
        for key in other:
            assert_alike(value[key], other[key], f"{where}.{key}", rtol, atol)
    elif isinstance(other, list | tuple):
        assert len(value) == len(other), where
        for place, (one, expected) in enumerate(zip(value, other, strict=True)):
            assert_alike(one, expected, f"{where}.{place}", rtol, atol)
    elif isinstance(other, torch.Tensor):
        torch.testing.assert_close(value, other, rtol=rtol, atol=atol, msg=lambda text: f"{where}: {text}")
    elif isinstance(other, float):
        assert value == pytest.approx(other, rel=rtol, abs=atol), where
    else:
        assert value == other, where
