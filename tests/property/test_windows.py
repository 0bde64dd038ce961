"""Windowed aggregates against the executable specification: from history, and online, over random streams of events."""

from __future__ import annotations

import json
import math
import random
import struct
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import reference_windows as reference
from answers import join_frames
from cases import arrow_type, floats, integers, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import _native

BYTES_MAX = 64 * 1024 * 1024
COLUMNS = {
    "amount": "float64",
    "ratio": "float32",
    "units": "int64",
    "small": "int8",
    "large": "uint64",
    "kind": "string",
    "code": "bytes",
    "flag": "bool",
    "at2": "timestamp",
}
NUMBERS = ("amount", "ratio", "units", "small", "large", "flag")
NUMERIC = ("sum", "mean", "var", "std", "quantile")
FUNCTIONS = (*NUMERIC, "count", "min", "max", "first", "last", "last_k", "count_distinct")
GROUPS = ("units", "small", "large", "kind", "code", "flag", "at2")
TIMES_US = st.integers(0, 24)
KEYS = st.sampled_from([1, 2])

VALUES: dict[str, st.SearchStrategy[Any]] = {
    # Sums of what is finite stay finite: overflow of a sum depends on its order.
    "amount": st.one_of(floats(64).filter(lambda value: not 1e100 < abs(value) < math.inf), st.floats(-1e6, 1e6)),
    "ratio": floats(32),
    "units": integers("int64"),
    "small": integers("int8"),
    "large": integers("uint64"),
    "kind": st.sampled_from(["", "a", "ab", "ä", "\0"]),
    "code": st.sampled_from([b"", b"\0", b"\xff"]),
    "flag": st.booleans(),
    "at2": st.integers(-5, 5),
}


@dataclass(frozen=True)
class Row:
    key: int | None
    event_ts: int | None
    created_ts: int
    deleted: bool
    values: dict[str, Any]


@dataclass(frozen=True)
class Feature:
    """An aggregation of the plan, and the same for the specification."""

    name: str
    column: str | None
    filtered: bool
    by: str | None
    what: reference.Aggregate

    def json(self) -> dict[str, Any]:
        condition = {"op": "gt", "args": [{"op": "col", "name": "units"}, {"op": "lit", "dtype": "int64", "value": 0}]}
        return {
            "name": self.name,
            "column": self.column,
            "function": self.what.function,
            "window_us": self.what.window_us,
            "kind": self.what.kind,
            "hop_us": self.what.hop_us,
            "where": condition if self.filtered else None,
            "k": self.what.k if self.what.function == "last_k" else None,
            "q": self.what.q if self.what.function == "quantile" else None,
            "by": {"column": self.by, "limit": self.what.limit} if self.by else None,
        }


@st.composite
def features(draw: st.DrawFn) -> Feature:
    by = draw(st.one_of(st.none(), st.none(), st.sampled_from(GROUPS)))
    function = draw(st.sampled_from([*FUNCTIONS, *(["groups"] * 3 if by else [])]))
    if by and function == "last_k":
        function = "last"
    if function in ("count", "groups"):
        column = draw(st.sampled_from([None, *COLUMNS]))
    else:
        column = draw(st.sampled_from(NUMBERS if function in NUMERIC else list(COLUMNS)))
    kind = draw(st.sampled_from([reference.SAWTOOTH, reference.TUMBLING, reference.HOPPING]))
    window_us = draw(st.integers(1, 20))
    hop_us = None if kind == reference.TUMBLING else draw(st.one_of(st.none(), st.integers(1, window_us)))
    k, q = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0]))
    limit = draw(st.integers(1, 4))
    what = reference.Aggregate(function, window_us, kind, hop_us, column is None, k, q, by is not None, limit)
    return Feature("", column, draw(st.booleans()), by, what)


def rows() -> st.SearchStrategy[Row]:
    return st.builds(
        Row,
        st.one_of(KEYS, KEYS, KEYS, st.none()),
        st.one_of(TIMES_US, TIMES_US, TIMES_US, st.none()),
        TIMES_US,
        st.sampled_from([False] * 4 + [True]),
        st.fixed_dictionaries({name: st.one_of(st.none(), values) for name, values in VALUES.items()}),
    )


def named(chosen: list[Feature]) -> list[Feature]:
    return [Feature(f"f{n}", one.column, one.filtered, one.by, one.what) for n, one in enumerate(chosen)]


FEATURES = st.lists(features(), min_size=1, max_size=6).map(named)


def plan_of(chosen: list[Feature]) -> _native.Plan:
    names = [feature.name for feature in chosen]
    return _native.Plan.from_json(
        json.dumps(
            {
                "format": 1,
                "project": "windows",
                "entities": {"thing": {"join_keys": [{"name": "key", "dtype": "int64"}]}},
                "views": {
                    "events": {
                        "entities": ["thing"],
                        "fields": [{"name": name, "dtype": dtype} for name, dtype in COLUMNS.items()],
                        "aggregations": [feature.json() for feature in chosen],
                        "source": {"kind": "push", "event_ts": "at"},
                    }
                },
                "services": {
                    "all": {"features": [{"view": "events", "feature": name, "name": name} for name in names]}
                },
            }
        )
    )


def table_of(events: list[Row]) -> pa.Table:
    time = arrow_type("timestamp")
    columns = {
        "key": pa.array([row.key for row in events], pa.int64()),
        "__event_ts": pa.array([row.event_ts for row in events], time),
        "__created_ts": pa.array([row.created_ts for row in events], time),
        "__deleted": pa.array([row.deleted for row in events], pa.bool_()),
    }
    for name, dtype in COLUMNS.items():
        columns[name] = pa.array([row.values[name] for row in events], arrow_type(dtype))
    return pa.table(columns)


def specified(
    feature: Feature, events: list[Row], key: int | None, at: int | None, cutoff: int | None, with_cutoff: bool
) -> tuple[str, Any]:
    seen = [
        reference.Event(
            (row.key,),
            row.event_ts,
            row.created_ts,
            sequence,
            None if feature.column is None else value_of(row, feature.column),
            not feature.filtered or (row.values["units"] is not None and row.values["units"] > 0),
            row.deleted,
            None if feature.by is None else row.values[feature.by],
        )
        for sequence, row in enumerate(events)
        if row.event_ts is not None and row.key is not None
    ]
    return reference.aggregate(feature.what, seen, (key,), at, cutoff, with_cutoff)


def value_of(row: Row, column: str) -> Any:
    value = row.values[column]
    if COLUMNS[column] == "float32" and value is not None:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def agree(feature: Feature, found: tuple[str, Any], expected: tuple[str, Any]) -> bool:
    """Exactly what is kept exactly; sums and means of floats to 1e-12, variances to 1e-9."""
    if found[0] != expected[0]:
        return False
    value, wanted = found[1], expected[1]
    if isinstance(value, list) and isinstance(wanted, list):
        pairs = zip(value, wanted, strict=False)
        return len(value) == len(wanted) and all(close(feature.what.function, a, b) for a, b in pairs)
    return close(feature.what.function, value, wanted)


def close(function: str, value: Any, wanted: Any) -> bool:
    if function in ("var", "std") and isinstance(wanted, float) and math.isfinite(wanted):
        return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-300)
    if function in ("sum", "mean") and isinstance(wanted, float) and math.isfinite(wanted):
        return math.isclose(value, wanted, rel_tol=1e-12, abs_tol=1e-300)
    return same(value, wanted)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


ASKED = st.lists(
    st.tuples(st.one_of(KEYS, KEYS, st.none()), st.one_of(TIMES_US, TIMES_US, st.none()), TIMES_US), max_size=8
)


@given(
    FEATURES,
    st.lists(rows(), max_size=24),
    ASKED,
    st.booleans(),
    st.sampled_from([1, 3]),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_aggregates_from_history_are_the_specified_ones(
    chosen: list[Feature],
    events: list[Row],
    asked: list[tuple[int | None, int | None, int]],
    with_cutoff: bool,
    threads: int,
    delay_us: int | None,
) -> None:
    """With a delay every event becomes known so long after it happened; else at any time."""
    if delay_us is not None:
        events = [replace(row, created_ts=(row.event_ts or 0) + delay_us) for row in events]
    time = arrow_type("timestamp")
    entities = pa.table(
        {
            "key": pa.array([key for key, _, _ in asked], pa.int64()),
            "at": pa.array([at for _, at, _ in asked], time),
            "cutoff": pa.array([cutoff for _, _, cutoff in asked], time),
        }
    )
    joined = pa.table(
        join_frames(
            plan_of(chosen),
            "all",
            entities,
            {"events": table_of(events)},
            "at",
            as_known_at="cutoff" if with_cutoff else None,
            threads=threads,
            statuses=True,
        )
    )
    for feature in chosen:
        values = plain(joined.column(feature.name))
        statuses = joined.column(f"{feature.name}__status").to_pylist()
        for (key, at, cutoff), status, value in zip(asked, statuses, values, strict=True):
            expected = specified(feature, events, key, at, cutoff, with_cutoff)
            assert agree(feature, (status, micros(value)), expected), (feature, key, at, status, value, expected)


def micros(value: Any) -> Any:
    if isinstance(value, list):
        return [micros(item) for item in value]
    return round(value.timestamp() * 1e6) if hasattr(value, "timestamp") else value


@given(FEATURES, st.lists(st.tuples(rows(), st.integers(0, 4)), max_size=24), st.integers(0, 3), st.data())
def test_aggregates_online_are_the_specified_ones(
    tmp_path_factory: Any, chosen: list[Feature], arriving: list[tuple[Row, int]], skew_us: int, data: st.DataObject
) -> None:
    """Events arrive late, early and in any order while the clock goes on; batches come twice; a restart is passed."""
    plan = plan_of(chosen)
    store = _native.LocalStore(plan, BYTES_MAX)
    now_us, sequence = 0, 0
    taken: list[Row] = []
    batches: list[bytes] = []
    for row, passed in arriving:
        now_us += passed
        encoded, count, _ = store.encode("events", table_of([row]), sequence, now_us, skew_us)
        if count:
            taken.append(row)
            sequence += count
        store.apply(encoded)
        batches.append(encoded)
        if data.draw(st.integers(0, 9), "what happens") == 0:
            folder = tmp_path_factory.mktemp("windows")
            store.write_snapshot(folder)
            store = _native.LocalStore.open_snapshot(plan, folder)
            for batch in batches[-3:]:
                assert store.apply(batch)["inserted"] == 0, "a batch that comes again changes nothing"
        if row.deleted or data.draw(st.integers(0, 3), "is asked") == 0 or len(taken) == len(arriving):
            at_us = now_us + data.draw(st.integers(0, 5), "later")
            check_online(store, chosen, taken, at_us)


def check_online(store: _native.LocalStore, chosen: list[Feature], taken: list[Row], at_us: int) -> None:
    keys = [1, 2, 3, None]
    found = store.online_plan("all").read({"key": keys}, now_us=at_us)
    for feature in chosen:
        answers = zip(keys, found["statuses"][feature.name], found["features"][feature.name], strict=True)
        for key, status, value in answers:
            expected = specified(feature, taken, key, at_us, None, False)
            assert agree(feature, (status, micros(value)), expected), (feature, key, at_us, status, value, expected)


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 700, 4_000]), st.sampled_from(["units", "amount", "kind"]))
@settings(max_examples=8)
def test_large_sketches_are_the_same_on_every_path(tmp_path_factory: Any, seed: int, count: int, column: str) -> None:
    """More distinct values than are kept exactly: from history, from tiles, from a snapshot, and in another order."""
    dice = random.Random(seed)
    values: dict[str, Any] = {
        "units": [dice.getrandbits(40) for _ in range(count)],
        "amount": [dice.lognormvariate(0, 3) for _ in range(count)],
        "kind": [f"k{dice.getrandbits(20)}" for _ in range(count)],
    }
    nothing = dict.fromkeys(COLUMNS)
    events = [Row(1, dice.randrange(20), 0, False, nothing | {column: value}) for value in values[column]]
    what = [reference.Aggregate("count_distinct", 18, hop_us=3), reference.Aggregate("count_distinct", 6, hop_us=1)]
    if column != "kind":
        what += [reference.Aggregate("quantile", 18, hop_us=3, q=q) for q in (0.0, 0.5, 0.99)]
    chosen = named([Feature("", column, False, None, one) for one in what])
    plan = plan_of(chosen)
    store, shuffled = _native.LocalStore(plan, BYTES_MAX), _native.LocalStore(plan, BYTES_MAX)
    for target in (store, shuffled):
        dice.shuffle(events)
        for first in range(0, len(events), 1_000):
            target.apply(target.encode("events", table_of(events[first : first + 1_000]), first, 24, 0)[0])
    folder = tmp_path_factory.mktemp("sketches")
    store.write_snapshot(folder)
    opened = _native.LocalStore.open_snapshot(plan, folder)
    entities = pa.table({"key": [1], "at": pa.array([24], arrow_type("timestamp"))})
    joined = pa.table(join_frames(plan, "all", entities, {"events": table_of(events)}, "at"))
    for feature in chosen:
        expected = specified(feature, events, 1, 24, None, False)[1]
        read = [one.online_plan("all").read({"key": [1]}, now_us=24) for one in (store, shuffled, opened)]
        found = [one["features"][feature.name][0] for one in read] + joined.column(feature.name).to_pylist()
        assert found == [expected] * 4, feature
    bytes_opened, bytes_stored = (one.windows_stats()["events"]["used_bytes"] for one in (opened, store))
    assert bytes_opened <= bytes_stored, "what is read from a file has no room to spare"
    assert (bytes_opened > 100) == bool(events), "what a sketch takes is reckoned"


@given(st.lists(st.tuples(KEYS, st.integers(0, 12), st.booleans()), max_size=20), st.integers(0, 12), st.data())
def test_tombstones_take_the_same_events_away_on_every_path(
    arriving: list[tuple[int, int, bool]], later: int, data: st.DataObject
) -> None:
    """Deletes, of the past and of the future, between late events: the store, its log and its history agree."""
    whats = [reference.Aggregate(function, 8, hop_us=2) for function in ("count", "last", "count_distinct")]
    chosen = named([Feature("", "units", False, None, one) for one in whats])
    chosen += [
        Feature("by", None, False, "kind", reference.Aggregate("count", 8, hop_us=2, counts_events=True, grouped=True))
    ]
    plan = plan_of(chosen)
    store, rebuilt = _native.LocalStore(plan, BYTES_MAX), _native.LocalStore(plan, BYTES_MAX)
    now_us, taken, log = 0, [], []
    for sequence, (key, event_ts, deleted) in enumerate(arriving):
        values = dict.fromkeys(COLUMNS) | {"units": sequence, "kind": "ab"[sequence % 2]}
        taken.append(Row(key, event_ts, 0, deleted, values))
        log.append(store.encode("events", table_of(taken[-1:]), sequence, now_us, 12)[0])
        store.apply(log[-1])
        now_us += data.draw(st.integers(0, 2), "passed")
    for batch in [*log, *log[-2:]]:
        rebuilt.apply(batch)
    at_us = now_us + later
    for one in (store, rebuilt):
        check_online(one, chosen, taken, at_us)
    entities = pa.table({"key": [1, 2], "at": pa.array([at_us] * 2, arrow_type("timestamp"))})
    joined = pa.table(join_frames(plan, "all", entities, {"events": table_of(taken)}, "at", statuses=True))
    for feature in chosen:
        found = zip(
            joined.column(f"{feature.name}__status").to_pylist(), plain(joined.column(feature.name)), strict=True
        )
        for key, (status, value) in zip((1, 2), found, strict=True):
            assert agree(feature, (status, value), specified(feature, taken, key, at_us, None, False)), feature
