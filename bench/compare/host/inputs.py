"""What every engine is asked: data made from a seed, and a window of it that differs on every call.

One batch asked again and again sits in the caches and flatters by up to 2.5 x, so `windows` moves on with each call and
comes round at another offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from events import EventInputs
from expressions import columns
from numpy.typing import NDArray
from window_events import DAY_US, SPAN_US, WINDOWS

Array = NDArray[Any]

DRAWS = 1 << 20
"""Random row numbers of the lookup area; calls take consecutive windows of them."""

TREE_ROWS = 131_101
TREE_VALUES_MAX = 40_000_000
"""Rows of the tree area's pool. A prime: no batch size divides it, so windows come round at other offsets."""


@dataclass
class LookupInputs:
    """A table of `keys` rows in `views` x `fields` float32 columns, and random keys that are all in it.

    Row number r of `table` belongs to `keys[r]`.
    """

    keys_count: int
    views: int
    fields: int
    seed: int
    is_normal: bool = False
    """Whether values are normal, as those of the tree area are; else they are between 0 and 1."""
    keys: NDArray[np.int64] = field(init=False)
    table: NDArray[np.float32] = field(init=False)
    kinds: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 1])
        span = np.iinfo(np.int64)
        drawn = np.unique(rng.integers(span.min, span.max, self.keys_count + 1024, dtype=np.int64, endpoint=True))
        self.keys = rng.permutation(drawn)[: self.keys_count]
        draw = rng.standard_normal if self.is_normal else rng.random
        self.table = draw((self.keys_count, self.views * self.fields), dtype=np.float32)
        row_numbers = rng.integers(0, self.keys_count, DRAWS, dtype=np.int64)
        sequence = np.arange(self.keys_count, dtype=np.int64)
        self.kinds = {"row_numbers": row_numbers, "keys": self.keys[row_numbers], "sequence": sequence}


@dataclass
class TreeInputs:
    """Rows of float32 features, of which a share is missing."""

    features: int
    seed: int
    missing: float = 0.0
    kinds: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 2])
        rows = min(TREE_ROWS, TREE_VALUES_MAX // self.features)
        features = rng.standard_normal((rows, self.features), dtype=np.float32)
        if self.missing:
            features[rng.random(features.shape) < self.missing] = np.nan
        self.kinds = {"features": features}


@dataclass
class ExpressionInputs:
    """Columns of the expression area, and the row numbers of which calls take consecutive windows."""

    rows: int
    seed: int
    columns: dict[str, Any] = field(init=False)
    kinds: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = columns(self.rows, self.seed)
        self.kinds = {"rows": range(self.rows)}


STREAM_EVENTS = 2_000_000
STREAM_AGE_US = 60_000_000
"""Events of the stream arrive this late at most."""


@dataclass
class WindowInputs:
    """Events of users over 90 days, questions in the last 60 of them, and a stream of events, in no order of time."""

    users_count: int
    events: int
    questions: int
    seed: int
    kinds: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 4])
        self.users = rng.integers(0, self.users_count, self.events, dtype=np.int64)
        self.event_us = rng.integers(0, SPAN_US, self.events, dtype=np.int64)
        self.amounts = rng.lognormal(2.0, 1.0, self.events)
        # A tenth more than is asked at a time: windows come round at other questions.
        asked = self.questions + self.questions // 10
        self.asked_users = rng.integers(0, self.users_count, asked, dtype=np.int64)
        self.asked_us = rng.integers(30 * DAY_US, SPAN_US, asked, dtype=np.int64)
        self.stream_users = rng.integers(0, self.users_count, STREAM_EVENTS, dtype=np.int64)
        self.stream_amounts = rng.lognormal(2.0, 1.0, STREAM_EVENTS)
        self.stream_age_us = rng.integers(1, STREAM_AGE_US, STREAM_EVENTS, dtype=np.int64)
        self.kinds = {"questions": range(asked), "stream": range(STREAM_EVENTS)}

    def starts_us(self, window: str) -> NDArray[np.int64]:
        """Where the window of each question begins."""
        length_us, hop_us = WINDOWS[window]
        starts: NDArray[np.int64] = (self.asked_us - length_us) // hop_us * hop_us
        return starts


Inputs = LookupInputs | TreeInputs | ExpressionInputs | WindowInputs | EventInputs


def make_inputs(spec: dict[str, Any]) -> Inputs:
    """The inputs that a spec of the harness describes."""
    if spec["area"] == "lookup":
        return LookupInputs(spec["keys"], spec["views"], spec["fields"], spec["seed"], spec.get("normal", False))
    if spec["area"] == "expr":
        return ExpressionInputs(spec["rows"], spec["seed"])
    if spec["area"] == "windows":
        return WindowInputs(spec["users"], spec["events"], spec["questions"], spec["seed"])
    if spec["area"] == "pit":
        return EventInputs(spec["keys"], spec["events"], spec["pool_rows"], spec["seed"])
    return TreeInputs(spec["features"], spec["seed"], spec.get("missing", 0.0))


def windows(pool: Array, rows: int, first: int, count: int) -> list[Array]:
    """The inputs of calls number `first` and following: views of `rows` consecutive entries of the pool."""
    span = len(pool) - rows + 1
    starts = [(call * rows) % span for call in range(first, first + count)]
    return [pool[start : start + rows] for start in starts]
