"""The executable specification of windowed aggregates, in plain Python, slow and obvious: a naive rescan of all events.

As `reference`, this file is the referee and imports nothing of headrace. Times are integers: microseconds since
1970-01-01T00:00:00Z.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from reference import INT64_MAX, INT64_MIN, NOT_FOUND, NULL_VALUE, PRESENT, Key
from reference_sketches import Distinct, Quantiles, hash_bytes, hash_float, hash_word

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

SAWTOOTH = "sawtooth"
TUMBLING = "tumbling"
HOPPING = "hopping"


# 1. Events
#
# Every row of the view is an event, and counts: rows do not replace each other, and the same row twice counts twice.
# What must not count twice is kept apart before: a batch of the log that is applied again is known by its sequence.
# A row without an event time or with a null in its key is no event.


@dataclass(frozen=True)
class Event:
    """One row, or a tombstone.

    Attributes:
        key: the values of the view's join keys.
        event_ts: when it happened.
        created_ts: when it became known; None where that is not known.
        sequence: its place in the order of arrival.
        value: of the aggregated column; None for null.
        passes: what the filter says; None for null, which does not pass.
        deleted: whether it is a tombstone.
        group: of the secondary key; None for null.
    """

    key: Key
    event_ts: int
    created_ts: int | None
    sequence: int
    value: Any = None
    passes: bool | None = True
    deleted: bool = False
    group: Any = None


# 2. Windows
#
# A window at time t is an interval that contains its start and not its end, so an event at exactly t does not count:
# the event that is being judged does not judge itself. Floors are taken from the epoch, in UTC.
# - sawtooth: the head is exact, the tail is rounded out to a hop, so its length is between the window and a hop more.
# - tumbling: the last complete window.
# - hopping: as sawtooth, and the head is rounded down to a hop too.


def default_hop(window_us: int) -> int:
    """Where none is given: 5 minutes below 12 hours, an hour below 12 days, else a day; never over the window."""
    hop = 5 * MINUTE_US if window_us < 12 * HOUR_US else HOUR_US if window_us < 12 * DAY_US else DAY_US
    return min(hop, window_us)


def floor_to(time_us: int, step_us: int) -> int:
    return time_us // step_us * step_us


def interval(kind: str, window_us: int, hop_us: int, t: int) -> tuple[int, int]:
    """The start, which counts, and the end, which does not."""
    if kind == SAWTOOTH:
        return floor_to(t - window_us, hop_us), t
    if kind == TUMBLING:
        end = floor_to(t, window_us)
        return end - window_us, end
    return floor_to(t - window_us, hop_us), floor_to(t, hop_us)


# 3. Which events count
#
# - those of the key in the interval, that pass the filter;
# - with a knowledge cutoff, those known by then;
# - not those that a tombstone took away. Of the tombstones at or before t (and known by the cutoff), each takes away
#   what arrived before it, and what happened at its time or before, whenever that arrives.


def takes_away(tombstone: Event, event: Event) -> bool:
    return event.sequence < tombstone.sequence or event.event_ts <= tombstone.event_ts


def is_known(event: Event, cutoff: int | None, with_cutoff: bool) -> bool:
    if not with_cutoff:
        return True
    return cutoff is not None and event.created_ts is not None and event.created_ts <= cutoff


def live_events(
    events: Sequence[Event], key: Key, t: int, cutoff: int | None = None, with_cutoff: bool = False
) -> list[Event]:
    """The events of the key before t, whatever the window, in their order: event time, creation time, arrival."""
    known = [event for event in events if event.key == key and is_known(event, cutoff, with_cutoff)]
    tombstones = [event for event in known if event.deleted and event.event_ts <= t]
    before = [event for event in known if not event.deleted and event.event_ts < t]
    live = [event for event in before if not any(takes_away(tombstone, event) for tombstone in tombstones)]
    return sorted(
        live,
        key=lambda event: (
            event.event_ts,
            INT64_MIN if event.created_ts is None else event.created_ts,
            event.sequence,
        ),
    )


# 4. Functions
#
# A null value is not looked at; `count` of no column counts events. NaN is a value: it makes sum, mean, var and std
# NaN. min and max pass over NaN unless there is nothing else; their zeros are told apart: -0.0 is less than 0.0.
# Over no values count and sum are 0, where the key is known, and everything else is null.
# - sum of ints is an int64, and null where it does not fit; of bools it counts the true ones. Of floats: float64.
# - var and std are of a sample: null for fewer than two values.
# - first, last and last_k go by the order of events; last_k has the newest first.
# - count_distinct is the estimate of `reference_sketches.Distinct`, rounded: 0 over no values. All NaN are one value,
#   and both zeros are one.
# - quantile is that of `reference_sketches.Quantiles` over the values as float64; it passes over NaN.


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def total(values: Sequence[Any]) -> Any:
    if any(isinstance(value, float) for value in values):
        if not all(math.isfinite(value) for value in values):
            return sum(values)
        exact = sum((Fraction(value) for value in values), Fraction(0))
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf
    found = sum(values)
    return found if INT64_MIN <= found <= INT64_MAX else None


def mean(values: Sequence[Any]) -> float | None:
    if not values:
        return None
    if not all(math.isfinite(value) for value in values):
        return float(sum(values)) / len(values)
    try:
        return float(sum(Fraction(value) for value in values) / len(values))
    except OverflowError:
        return math.inf


def variance(values: Sequence[Any]) -> float | None:
    if len(values) < 2:
        return None
    if not all(math.isfinite(value) for value in values):
        return math.nan
    return float(statistics.variance([Fraction(value) for value in values]))


def deviation(values: Sequence[Any]) -> float | None:
    found = variance(values)
    return None if found is None else math.sqrt(found)


def order(value: Any) -> Any:
    return (value, math.copysign(1.0, value)) if isinstance(value, float) else value


def smallest(values: Sequence[Any]) -> Any:
    return min([value for value in values if not is_nan(value)] or values[:1], key=order, default=None)


def largest(values: Sequence[Any]) -> Any:
    return max([value for value in values if not is_nan(value)] or values[:1], key=order, default=None)


def hashed(value: Any) -> int:
    if isinstance(value, float):
        return hash_float(value)
    if isinstance(value, str | bytes):
        return hash_bytes(value.encode() if isinstance(value, str) else value)
    return hash_word(value)


def count_distinct(values: Sequence[Any]) -> int:
    return math.floor(Distinct(map(hashed, values)).estimate() + 0.5)


def quantile(values: Sequence[Any], q: float) -> float | None:
    return Quantiles(map(float, values)).quantile(q)


FUNCTIONS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "sum": total,
    "mean": mean,
    "var": variance,
    "std": deviation,
    "min": smallest,
    "max": largest,
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "count_distinct": count_distinct,
}


def last_k(values: Sequence[Any], k: int) -> list[Any] | None:
    return list(reversed(values[-k:])) if values else None


# 5. Groups
#
# With a secondary key a feature is a list with one value for each group, in the ascending order of the groups. A group
# is there when the window has an event of it that counts, passes the filter, and whose value the function looks at. Of
# more groups than the limit, the smallest are given: which they are does not depend on the order of the events. An
# event whose group is null belongs to none. Strings and bytes are ordered by their bytes.


def group_order(group: Any) -> Any:
    return group.encode() if isinstance(group, str) else group


def by_group(chosen: Sequence[Event], limit: int) -> list[tuple[Any, list[Event]]]:
    groups: dict[Any, list[Event]] = {}
    for event in chosen:
        if event.group is not None:
            groups.setdefault(event.group, []).append(event)
    return sorted(groups.items(), key=lambda item: group_order(item[0]))[:limit]


# 6. The answer
#
# A key is known once it has an event before t that counts, be it outside the window or not passing the filter. The
# features of a key that is not known, or of which all has been deleted, are NOT_FOUND. Otherwise a feature is PRESENT,
# or NULL_VALUE where the function gives null. A view of aggregates has no TTL: its windows say what is too old.


@dataclass(frozen=True)
class Aggregate:
    """One feature: a function over a window.

    Attributes:
        function: a key of FUNCTIONS, `last_k`, `quantile`, or `groups`: the secondary keys themselves.
        window_us: the window's length.
        kind: sawtooth, tumbling or hopping.
        hop_us: None takes the default.
        counts_events: `count` of no column.
        k: of `last_k`.
        q: of `quantile`.
        grouped: whether there is a secondary key.
        limit: how many groups are given.
    """

    function: str
    window_us: int
    kind: str = SAWTOOTH
    hop_us: int | None = None
    counts_events: bool = False
    k: int = 1
    q: float = 0.5
    grouped: bool = False
    limit: int = 100

    def of(self, values: Sequence[Any]) -> Any:
        if self.function == "last_k":
            return last_k(values, self.k)
        return quantile(values, self.q) if self.function == "quantile" else FUNCTIONS[self.function](values)


def aggregate(
    what: Aggregate,
    events: Sequence[Event],
    key: Key,
    t: int | None,
    cutoff: int | None = None,
    with_cutoff: bool = False,
) -> tuple[str, Any]:
    """(status, value) of a feature for a key at a time; with a null key or time nothing is found."""
    if None in key or t is None:
        return NOT_FOUND, None
    live = live_events(events, key, t, cutoff, with_cutoff)
    if not live:
        return NOT_FOUND, None
    hop_us = default_hop(what.window_us) if what.hop_us is None else what.hop_us
    start, end = interval(what.kind, what.window_us, hop_us, t)
    chosen = [event for event in live if start <= event.event_ts < end and event.passes]
    looked_at = [event for event in chosen if what.counts_events or event.value is not None]
    if what.grouped:
        groups = by_group(looked_at, what.limit)
        if what.function == "groups":
            return PRESENT, [group for group, _ in groups]
        return PRESENT, [what.of([event.value for event in events]) for _, events in groups]
    value = what.of([event.value for event in looked_at])
    return (NULL_VALUE if value is None else PRESENT), value
