"""Waiting for what another process does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")
