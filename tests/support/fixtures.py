"""Types of the fixtures that tests name most often."""

from collections.abc import Callable

import pytest

Relit = Callable[..., int]
"""`relit`: runs a command in this process and returns its exit code."""
Output = pytest.CaptureFixture[str]
"""`capsys` and `capfd`."""
Patch = pytest.MonkeyPatch
"""`monkeypatch`."""
