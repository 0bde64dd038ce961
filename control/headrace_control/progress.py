"""How long steps say how far they are, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str | None], None]
"""Called with what is done, in the unit of the step's total, and a text that replaces the step's description."""


def silent(done: float, text: str | None) -> None:
    """Nobody listens."""
