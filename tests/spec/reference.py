"""The executable specification of stored features: what a join and a lookup mean, in plain Python, slow and obvious.

This file is the referee. The engine (the point-in-time join, the online table, and every store and transport to come)
is tested against it with random histories; where they differ, either the engine is wrong or the rule here is changed
first. It imports nothing of headrace. Expressions have their own page, `reference_expr`.

Times are integers: microseconds since 1970-01-01T00:00:00Z. A value is a bool, int, float, str, bytes, a timestamp as
an int, a list of these, or None for null. NaN is a float and not null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

EVENT_TS_ALWAYS = INT64_MIN
"""The event time of a static row, which is always true: before every other time."""

PRESENT = "PRESENT"
NULL_VALUE = "NULL_VALUE"
NOT_FOUND = "NOT_FOUND"
OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"

Key = tuple[Any, ...]
Version = tuple[int, int, int]
Answer = dict[str, tuple[str, Any]]
"""Feature -> (status, value)."""


# 1. Rows


@dataclass(frozen=True)
class SourceRow:
    """One row of a view, as it was written.

    Attributes:
        key: the values of the view's join keys, in order; `()` for a view without entities.
        event_ts: when the row became true; `EVENT_TS_ALWAYS` for static rows, None where the source has no time.
        created_ts: when it became known; None where that is not known.
        sequence: its place in the order of arrival, larger is later.
        values: feature -> value.
        deleted: whether it is a tombstone, which says that the key has no row from then on.
    """

    key: Key
    event_ts: int | None
    created_ts: int | None
    sequence: int
    values: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True)
class EntityRow:
    """One row that asks for features.

    Attributes:
        key: the values of the view's join keys, in order.
        t: the time of the question; with None nothing is found.
        cutoff: in a join with a knowledge cutoff, only rows known by then count; with None nothing is found.
    """

    key: Key
    t: int | None
    cutoff: int | None = None


# 2. The order of rows
#
# Rows of one key and view are ordered by event time, then creation time, then arrival. A creation time that is not
# known comes before all that are. The largest row wins, everywhere: on every path and in every store.


def sort_key(row: SourceRow) -> Version:
    """The place of a row with an event time in the order of rows."""
    if row.event_ts is None:
        raise ValueError("a row without an event time has no place in the order")
    return (row.event_ts, INT64_MIN if row.created_ts is None else row.created_ts, row.sequence)


def saturating_sub(time_us: int, duration_us: int) -> int:
    """Times have 64 bits; what would lie before the first time is the first time."""
    return max(time_us - duration_us, INT64_MIN)


# A row that brings no creation time is stamped when it is taken in: with its event time plus the delay that its source
# declares; without one, with its event time, if the source is a file that has no creation times at all; else with the
# time of the ingest. Where nobody knows that time either, the creation time stays None.


def stamp(event_ts: int, available_after_us: int | None, is_plain_file: bool, ingest_us: int | None) -> int | None:
    """The creation time of a row that brings none."""
    if available_after_us is not None:
        return min(event_ts + available_after_us, INT64_MAX)
    return event_ts if is_plain_file else ingest_us


# 3. Judging the winning row
#
# - No row, a tombstone, a null in the key: NOT_FOUND, and no value.
# - The view has a TTL and the row is older than `t - ttl`: OUTSIDE_MAX_AGE, and no value. A row of exactly that age
#   counts. The TTL is relative to the time of the question, not to today.
# - Otherwise the row is there, and each feature is PRESENT or, where its value is null, NULL_VALUE.
# - A tombstone is never too old: a deleted key is NOT_FOUND at any age.


def judge(row: SourceRow | None, t: int, ttl_us: int | None, fields: Sequence[str]) -> Answer:
    """The answer for the features of a view, given the row that won."""
    if row is None or row.event_ts is None or row.deleted:
        return dict.fromkeys(fields, (NOT_FOUND, None))
    if ttl_us is not None and row.event_ts < saturating_sub(t, ttl_us):
        return dict.fromkeys(fields, (OUTSIDE_MAX_AGE, None))
    values = {name: row.values.get(name) for name in fields}
    return {name: (NULL_VALUE if value is None else PRESENT, value) for name, value in values.items()}


# 4. The point-in-time join
#
# For each entity row and each view on its own, among the source rows with the same key:
# - a source row takes part if its event time is at or before the entity row's time. Without an event time it never
#   does.
# - with a knowledge cutoff it takes part only if its creation time is at or before the entity row's cutoff; if it is
#   not known when it became known, it does not. Static rows are known always (their creation time is the first of all
#   times).
# - tombstones take part like any other row.
# - of those that take part, the largest wins, and is judged at the entity row's time.
#
# The output has exactly the entity rows, in their order, duplicates kept. A null in the key, a null time, or a null
# cutoff where there is one, finds nothing.


def is_candidate(source: SourceRow, entity: EntityRow, with_cutoff: bool) -> bool:
    """Whether a source row takes part for an entity row."""
    if source.key != entity.key or None in entity.key:
        return False
    if source.event_ts is None or entity.t is None or source.event_ts > entity.t:
        return False
    if with_cutoff:
        return entity.cutoff is not None and source.created_ts is not None and source.created_ts <= entity.cutoff
    return True


def point_in_time_join(
    entities: Sequence[EntityRow],
    sources: Sequence[SourceRow],
    fields: Sequence[str],
    ttl_us: int | None = None,
    with_cutoff: bool = False,
) -> list[Answer]:
    """The features of one view for each entity row.

    Args:
        entities: the rows that ask.
        sources: the view's rows, in any order.
        fields: the features asked for.
        ttl_us: the view's time to live; None keeps rows for ever.
        with_cutoff: whether the entity rows' cutoffs apply.

    Returns:
        One answer for each entity row, in their order.
    """
    answers = []
    for entity in entities:
        candidates = [source for source in sources if is_candidate(source, entity, with_cutoff)]
        newest = max(candidates, key=sort_key, default=None)
        answers.append(judge(newest, entity.t or 0, ttl_us, fields))
    return answers


# 5. The online table
#
# It keeps, for each key and view, the largest row that was ever written, tombstones included. So the order in which
# writes arrive does not matter, and a write that comes twice changes nothing.
# - A write replaces only if its place in the order is larger than the stored row's, strictly.
# - A tombstone is a row: a late write that is older does not bring the key back.
# - A row with a null in its key or without an event time is refused and counted. So is one whose event time lies more
#   than the allowed skew after now: it would hide every row until then.
# - A lookup judges the stored row at now. A row of the future (within the skew) counts.

REFUSED_NULL_KEY = "null_key"
REFUSED_NULL_EVENT_TS = "null_event_ts"
REFUSED_FUTURE = "future"
MAX_FUTURE_SKEW_US = 5 * 60 * 1_000_000


def refusal(row: SourceRow, now_us: int, max_future_skew_us: int = MAX_FUTURE_SKEW_US) -> str | None:
    """Why a write is refused; None when it is not."""
    if None in row.key:
        return REFUSED_NULL_KEY
    if row.event_ts is None:
        return REFUSED_NULL_EVENT_TS
    if row.event_ts > min(now_us + max_future_skew_us, INT64_MAX):
        return REFUSED_FUTURE
    return None


class OnlineTableModel:
    """The online rows of any number of views, as a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Key], SourceRow] = {}

    def upsert(self, view: str, row: SourceRow) -> str:
        """Writes a row or a tombstone.

        Returns: `stale` when what is stored stays; otherwise `deleted` for a tombstone, `replaced` where a row or
        a tombstone was stored, `inserted` where nothing was.
        """
        stored = self.rows.get((view, row.key))
        if stored is not None and sort_key(row) <= sort_key(stored):
            return "stale"
        self.rows[view, row.key] = row
        if row.deleted:
            return "deleted"
        return "inserted" if stored is None else "replaced"

    def delete(self, view: str, key: Key, event_ts: int, created_ts: int | None, sequence: int) -> str:
        """Writes a tombstone."""
        return self.upsert(view, SourceRow(key, event_ts, created_ts, sequence, deleted=True))

    def read(self, view: str, key: Key, fields: Sequence[str], now_us: int, ttl_us: int | None = None) -> Answer:
        """A lookup of one key."""
        stored = None if None in key else self.rows.get((view, key))
        return judge(stored, now_us, ttl_us, fields)


# 6. Offline and online agree
#
# What a lookup at time T answers is what the join answers for (key, T) with the cutoff T: of the rows that had
# happened and were known. So a table that has been given exactly those rows, in any order, answers as the join does.


def online_as_of(view: str, sources: Sequence[SourceRow], t: int, cutoff: int) -> OnlineTableModel:
    """The online table as it was at a time: of rows that had happened by `t` and were known by `cutoff`."""
    table = OnlineTableModel()
    for row in sources:
        happened = row.event_ts is not None and row.event_ts <= t
        known = row.created_ts is not None and row.created_ts <= cutoff
        if happened and known and None not in row.key:
            table.upsert(view, row)
    return table


# 7. A model's input
#
# A float tensor has no nulls: a missing value is NaN, whatever its status. A bool is 0 or 1, an int the nearest float.


def tensor_value(value: bool | float | None) -> float:
    """A feature as an element of a float64 tensor."""
    return float("nan") if value is None else float(value)
