"""Cases worked out by hand that pin the specification itself: join, order, online table."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from reference import (
    EVENT_TS_ALWAYS,
    INT64_MAX,
    INT64_MIN,
    NOT_FOUND,
    NULL_VALUE,
    OUTSIDE_MAX_AGE,
    PRESENT,
    EntityRow,
    OnlineTableModel,
    SourceRow,
    online_as_of,
    point_in_time_join,
    refusal,
    sort_key,
    stamp,
    tensor_value,
)

# A day of weather at JFK: hours as numbers, so that cases can be read.
WEATHER = [
    SourceRow(("JFK",), 6, 6, 0, {"temp": 50.0, "wind": 10.0}),
    SourceRow(("JFK",), 7, 7, 1, {"temp": 52.0, "wind": None}),
    SourceRow(("LGA",), 7, 7, 2, {"temp": 55.0, "wind": 4.0}),
    SourceRow(("JFK",), 9, 12, 3, {"temp": 60.0, "wind": 2.0}),  # measured at 9, known at 12
]


def temps(entities: list[EntityRow], sources: list[SourceRow] = WEATHER, **options: Any) -> list[tuple[str, Any]]:
    return [answer["temp"] for answer in point_in_time_join(entities, sources, ["temp"], **options)]


def test_the_newest_row_at_or_before_the_time_is_taken() -> None:
    entities = [EntityRow(("JFK",), t) for t in (5, 6, 8, 9, 100)]
    assert temps(entities) == [
        (NOT_FOUND, None),
        (PRESENT, 50.0),
        (PRESENT, 52.0),
        (PRESENT, 60.0),
        (PRESENT, 60.0),
    ]


def test_output_has_the_entity_rows_in_order_with_duplicates() -> None:
    entities = [EntityRow(("LGA",), 7), EntityRow(("JFK",), 6), EntityRow(("LGA",), 7), EntityRow(("EWR",), 7)]
    assert temps(entities) == [(PRESENT, 55.0), (PRESENT, 50.0), (PRESENT, 55.0), (NOT_FOUND, None)]
    assert temps([]) == []
    assert temps(entities, []) == [(NOT_FOUND, None)] * 4


def test_ttl_is_relative_to_the_row_and_inclusive() -> None:
    entities = [EntityRow(("LGA",), t) for t in (7, 10, 11)]
    assert temps(entities, ttl_us=3) == [(PRESENT, 55.0), (PRESENT, 55.0), (OUTSIDE_MAX_AGE, None)]


def test_ttl_does_not_reach_before_the_first_time() -> None:
    first = SourceRow(("JFK",), INT64_MIN, 0, 0, {"temp": 1.0})
    last = SourceRow(("JFK",), INT64_MAX, 0, 1, {"temp": 2.0})
    entities = [EntityRow(("JFK",), INT64_MIN), EntityRow(("JFK",), INT64_MIN + 3), EntityRow(("JFK",), INT64_MAX)]
    assert temps(entities, [first, last], ttl_us=2) == [(PRESENT, 1.0), (OUTSIDE_MAX_AGE, None), (PRESENT, 2.0)]
    assert temps(entities[:2], [first], ttl_us=INT64_MAX) == [(PRESENT, 1.0), (PRESENT, 1.0)]


def test_a_cutoff_leaves_out_what_was_not_known() -> None:
    entities = [EntityRow(("JFK",), 10, cutoff) for cutoff in (5, 11, 12, None)]
    assert temps(entities, with_cutoff=True) == [
        (NOT_FOUND, None),
        (PRESENT, 52.0),
        (PRESENT, 60.0),
        (NOT_FOUND, None),
    ]
    assert temps(entities)[0] == (PRESENT, 60.0)


def test_a_row_that_nobody_knows_when_it_became_known() -> None:
    unknown = SourceRow(("JFK",), 6, None, 99, {"temp": 0.0})
    asked = [EntityRow(("JFK",), 6, 100)]
    assert temps(asked, [unknown]) == [(PRESENT, 0.0)]
    assert temps(asked, [unknown], with_cutoff=True) == [(NOT_FOUND, None)]
    assert temps(asked, [*WEATHER, unknown]) == [(PRESENT, 50.0)]  # it comes before all that are known


def test_a_row_without_a_creation_time_is_stamped() -> None:
    assert stamp(10, 5, is_plain_file=True, ingest_us=99) == 15
    assert stamp(INT64_MAX, 5, is_plain_file=False, ingest_us=99) == INT64_MAX
    assert stamp(10, None, is_plain_file=True, ingest_us=99) == 10
    assert stamp(10, None, is_plain_file=False, ingest_us=99) == 99
    assert stamp(10, None, is_plain_file=False, ingest_us=None) is None


def test_ties_are_broken_by_creation_and_then_by_arrival() -> None:
    rows = [
        SourceRow(("a",), 5, 2, 0, {"temp": 1.0}),
        SourceRow(("a",), 5, 3, 1, {"temp": 2.0}),
        SourceRow(("a",), 5, 3, 2, {"temp": 3.0}),
        SourceRow(("a",), 5, 1, 3, {"temp": 4.0}),
        SourceRow(("a",), 4, 9, 4, {"temp": 5.0}),
    ]
    for order in itertools.permutations(rows):
        assert temps([EntityRow(("a",), 5)], list(order)) == [(PRESENT, 3.0)]
    assert [row.sequence for row in sorted(rows, key=sort_key)] == [4, 3, 0, 1, 2]


def test_null_times_and_keys_find_nothing() -> None:
    timeless = SourceRow(("a",), None, 1, 0, {"temp": 1.0})
    keyless = SourceRow((None,), 1, 1, 1, {"temp": 2.0})
    entities = [EntityRow(("a",), 5), EntityRow((None,), 5), EntityRow(("JFK",), None)]
    assert temps(entities, [timeless, keyless, *WEATHER]) == [(NOT_FOUND, None)] * 3
    with pytest.raises(ValueError, match="event time"):
        sort_key(timeless)


def test_a_null_value_is_not_a_missing_row() -> None:
    answers = point_in_time_join([EntityRow(("JFK",), 7)], WEATHER, ["wind", "temp"])
    assert answers == [{"wind": (NULL_VALUE, None), "temp": (PRESENT, 52.0)}]


def test_nan_is_a_value() -> None:
    rows = [SourceRow(("a",), 1, 1, 0, {"temp": float("nan")})]
    ((status, value),) = temps([EntityRow(("a",), 1)], rows)
    assert status == PRESENT
    assert value != value


def test_parts_of_a_key_are_compared_one_by_one() -> None:
    rows = [SourceRow(("1", "23"), 1, 1, 0, {"temp": 1.0})]
    assert temps([EntityRow(("12", "3"), 1), EntityRow(("1", "23"), 1)], rows) == [(NOT_FOUND, None), (PRESENT, 1.0)]
    assert temps([EntityRow(("1", None), 1)], rows) == [(NOT_FOUND, None)]


def test_a_view_without_entities_has_one_history() -> None:
    rows = [SourceRow((), 1, 1, 0, {"temp": 1.0}), SourceRow((), 2, 2, 1, {"temp": 2.0})]
    assert temps([EntityRow((), 1), EntityRow((), 5)], rows) == [(PRESENT, 1.0), (PRESENT, 2.0)]


def test_static_rows_are_always_true_and_always_known() -> None:
    rows = [
        SourceRow(("N1",), EVENT_TS_ALWAYS, INT64_MIN, 0, {"temp": 1.0}),
        SourceRow(("N1",), EVENT_TS_ALWAYS, INT64_MIN, 1, {"temp": 2.0}),
    ]
    entities = [EntityRow(("N1",), INT64_MIN, INT64_MIN), EntityRow(("N1",), 0, 0)]
    assert temps(entities, rows, with_cutoff=True) == [(PRESENT, 2.0)] * 2


def test_a_tombstone_hides_older_rows_only() -> None:
    rows = [
        SourceRow(("a",), 10, 10, 0, {"temp": 1.0}),
        SourceRow(("a",), 20, 20, 1, deleted=True),
        SourceRow(("a",), 15, 30, 2, {"temp": 2.0}),  # written late, older than the tombstone
        SourceRow(("a",), 40, 40, 3, {"temp": 3.0}),
    ]
    entities = [EntityRow(("a",), t) for t in (12, 17, 20, 39, 40)]
    expected = [(PRESENT, 1.0), (PRESENT, 2.0), (NOT_FOUND, None), (NOT_FOUND, None), (PRESENT, 3.0)]
    assert temps(entities, rows) == expected
    assert temps(entities, rows, ttl_us=5)[3] == (NOT_FOUND, None)  # deleted, however long ago


def test_an_older_write_never_replaces() -> None:
    table = OnlineTableModel()
    new, old = SourceRow(("a",), 10, 10, 5, {"x": 1}), SourceRow(("a",), 9, 99, 6, {"x": 2})
    assert [table.upsert("v", row) for row in (new, old, new)] == ["inserted", "stale", "stale"]
    correction = SourceRow(("a",), 10, 10, 7, {"x": 3})
    assert table.upsert("v", correction) == "replaced"
    assert table.read("v", ("a",), ["x"], now_us=10) == {"x": (PRESENT, 3)}
    assert table.read("other", ("a",), ["x"], now_us=10) == {"x": (NOT_FOUND, None)}


def test_a_late_write_does_not_bring_a_deleted_key_back() -> None:
    table = OnlineTableModel()
    assert table.delete("v", ("a",), 10, 10, 0) == "deleted"
    assert table.upsert("v", SourceRow(("a",), 9, 50, 1, {"x": 1})) == "stale"
    assert table.read("v", ("a",), ["x"], now_us=60) == {"x": (NOT_FOUND, None)}
    assert table.upsert("v", SourceRow(("a",), 11, 11, 2, {"x": 2})) == "replaced"
    assert table.read("v", ("a",), ["x"], now_us=60) == {"x": (PRESENT, 2)}


def test_a_lookup_applies_the_ttl_at_now() -> None:
    table = OnlineTableModel()
    table.upsert("v", SourceRow(("a",), 10, 10, 0, {"x": None}))
    statuses = [table.read("v", ("a",), ["x"], now_us, ttl_us=5)["x"][0] for now_us in (9, 10, 15, 16)]
    assert statuses == [NULL_VALUE, NULL_VALUE, NULL_VALUE, OUTSIDE_MAX_AGE]
    assert table.read("v", (None,), ["x"], 10, ttl_us=5) == {"x": (NOT_FOUND, None)}


def test_refused_writes() -> None:
    def row(key: str | None, event_ts: int | None) -> SourceRow:
        return SourceRow((key,), event_ts, 0, 0)

    assert refusal(row(None, 0), now_us=0) == "null_key"
    assert refusal(row("a", None), now_us=0) == "null_event_ts"
    assert refusal(row("a", 101), now_us=90, max_future_skew_us=10) == "future"
    assert refusal(row("a", 100), now_us=90, max_future_skew_us=10) is None
    assert refusal(row("a", INT64_MAX), now_us=INT64_MAX - 1) is None


def test_the_table_as_it_was_answers_as_the_join_with_a_cutoff() -> None:
    for t in range(4, 14):
        table = online_as_of("weather", WEATHER, t, cutoff=t)
        for airport in ("JFK", "LGA", "EWR"):
            joined = point_in_time_join([EntityRow((airport,), t, t)], WEATHER, ["temp", "wind"], 3, with_cutoff=True)
            assert [table.read("weather", (airport,), ["temp", "wind"], t, 3)] == joined


def test_the_order_of_writes_does_not_matter() -> None:
    rows = [*WEATHER, SourceRow(("JFK",), 8, 8, 4, deleted=True)]
    tables = []
    for order in itertools.permutations(rows):
        table = OnlineTableModel()
        for row in order:
            table.upsert("v", row)
        tables.append(table.rows)
    assert all(table == tables[0] for table in tables)


def test_a_tensor_has_nan_for_null() -> None:
    assert [tensor_value(value) for value in (True, 3, 2.5)] == [1.0, 3.0, 2.5]
    missing = tensor_value(None)
    assert missing != missing
