"""What is tried again, when, and how often altogether."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.client.failures import Failure, Repeat, refuse_argument

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

BUDGET_TOKENS_MAX = 10.0
"""Retries that a client may make in a row before its calls have earned more."""


@dataclass(frozen=True)
class Call(Generic[Request, Answer, Result]):
    """One thing to ask, apart from how it is carried."""

    request: Callable[[float], Request]
    """Makes the request of an attempt, told the seconds that are left."""
    read: Callable[[Answer], Result]
    is_idempotent: bool = True
    id: str = ""


@dataclass(frozen=True)
class Retries:
    """What a client does about failures that may pass.

    A call is made again when its connection was refused; when it was lost before an answer, or the server said "later"
    (503 with Retry-After, UNAVAILABLE), unless it is a write that is not the same when it is made twice. Pushes are:
    the newest event time wins, whoever comes last. A deletion is only if it says its `event_ts`.
    """

    attempts_max: int = 4
    """Of one call; 1 for no retries."""
    first_pause: float = 0.05
    """Seconds; each pause may be twice the one before. A random part of it is waited."""
    pause_max: float = 2.0
    """Seconds."""
    budget: float = 0.1
    """Retries for each call, in the long run: a server in trouble is not given many times its load."""

    def __post_init__(self) -> None:
        is_sound = self.attempts_max >= 1 and self.first_pause >= 0 and self.pause_max >= 0 and 0 <= self.budget <= 1
        if not is_sound:
            refuse_argument(
                f"{self} is no plan of retries", "1 attempt or more, no negative pause, a budget from 0 to 1"
            )


class RetryBudget:
    """A bucket of tokens: each call puts a part of one in, each retry takes one out."""

    def __init__(self, per_call: float) -> None:
        self._per_call = per_call
        self._tokens = BUDGET_TOKENS_MAX if per_call > 0 else 0.0
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._tokens = min(BUDGET_TOKENS_MAX, self._tokens + self._per_call)

    def spend(self) -> bool:
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Attempts:
    """The attempts of one call, within its deadline."""

    def __init__(self, call: Call[Any, Any, Any], retries: Retries, budget: RetryBudget, seconds: float) -> None:
        self.seconds = seconds
        self._call = call
        self._retries = retries
        self._budget = budget
        self._until = time.monotonic() + seconds
        self._made = 0
        budget.earn()

    def left(self) -> float:
        """Seconds until the deadline, never none: what is late is noticed by waiting for it."""
        return max(self._until - time.monotonic(), 1e-3)

    def pause_after(self, failure: Failure) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            HeadraceError: the failure's, where there is none.
        """
        self._made += 1
        error = failure.error
        ceiling = min(self._retries.pause_max, self._retries.first_pause * 2 ** (self._made - 1))
        pause = failure.wait_seconds + random.uniform(0, ceiling)
        may_repeat = failure.repeat is Repeat.ALWAYS or (
            failure.repeat is Repeat.IDEMPOTENT and self._call.is_idempotent
        )
        has_time = time.monotonic() + pause < self._until
        if may_repeat and has_time and self._made < self._retries.attempts_max and self._budget.spend():
            return pause
        error.request_id = failure.request_id or self._call.id
        if error.request_id:
            error.add_note(f"request id: {error.request_id}")
        if self._made > 1:
            error.add_note(f"after {self._made} attempts")
        raise error from failure.__cause__
