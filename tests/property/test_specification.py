"""The engine's join and online table against the executable specification, over random histories."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import reference
from answers import FAR_FUTURE_US, Answer, Online, offline
from cases import TIMES_US, Case, Row, View, bits, cases, cases_with_keys, entity_rows
from hypothesis import given
from hypothesis import strategies as st

STATUS_CODES = {"PRESENT": 0, "NULL_VALUE": 1, "NOT_FOUND": 2, "OUTSIDE_MAX_AGE": 3, "INVALID": 4}


def source_row(view: View, sequence: int, row: Row) -> reference.SourceRow:
    event_ts = reference.EVENT_TS_ALWAYS if view.static else row.event_ts
    values = dict(zip([name for name, _ in view.fields], row.values, strict=True))
    return reference.SourceRow(row.keys, event_ts, row.created_ts, sequence, values, row.deleted)


def source_rows(view: View) -> list[reference.SourceRow]:
    return [source_row(view, sequence, row) for sequence, row in enumerate(view.rows)]


def key_of(view: View, asked: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(asked[name] for name, _ in view.keys)


def as_answer(view: View, answer: reference.Answer) -> Answer:
    return {f"{view.name}__{name}": (answer[name][0], bits(answer[name][1], dtype)) for name, dtype in view.fields}


def specified_join(case: Case, asked: list[dict[str, Any]], cutoff: str | None) -> list[Answer]:
    answers: list[Answer] = [{} for _ in asked]
    for view in case.views:
        entities = [reference.EntityRow(key_of(view, row), row["at"], row[cutoff] if cutoff else None) for row in asked]
        fields = [name for name, _ in view.fields]
        found = reference.point_in_time_join(entities, source_rows(view), fields, view.ttl_us, cutoff is not None)
        for answer, of_view in zip(answers, found, strict=True):
            answer.update(as_answer(view, of_view))
    return answers


@st.composite
def questions(draw: st.DrawFn) -> tuple[Case, list[dict[str, Any]]]:
    case = draw(cases())
    return case, draw(entity_rows(case))


@given(questions())
def test_the_join_is_the_specified_one(asked: tuple[Case, list[dict[str, Any]]]) -> None:
    case, rows = asked
    assert offline(case, rows) == specified_join(case, rows, None)


@given(questions())
def test_the_join_with_a_knowledge_cutoff_is_the_specified_one(asked: tuple[Case, list[dict[str, Any]]]) -> None:
    case, rows = asked
    assert offline(case, rows, as_known_at=True) == specified_join(case, rows, "at")
    assert offline(case, rows, as_known_at="cutoff") == specified_join(case, rows, "cutoff")


@st.composite
def online_questions(draw: st.DrawFn) -> tuple[Case, list[dict[str, Any]]]:
    case = draw(cases_with_keys())
    return case, draw(entity_rows(case))


@given(online_questions(), st.data())
def test_the_online_table_is_the_specified_one(asked: tuple[Case, list[dict[str, Any]]], data: st.DataObject) -> None:
    """Writes of all views in any interleaving, refusals and outcomes counted, then reads at any time."""
    case, rows = asked
    online, model = Online(case), reference.OnlineTableModel()
    now_us, skew_us = data.draw(TIMES_US, "time of the writes"), data.draw(st.integers(0, 3), "allowed skew")
    writes = [(view, sequence) for view in case.views for sequence in range(len(view.rows))]
    for view, sequence in data.draw(st.permutations(writes), "order of the writes"):
        row = source_row(view, sequence, view.rows[sequence])
        reason = reference.refusal(row, now_us, skew_us)
        table = view.table((view.rows[sequence],))
        encoded, count, refusals = online.store.encode(view.name, table, sequence, now_us, skew_us)
        assert (count, refusals) == ((0, {reason: 1}) if reason else (1, {}))
        counts = online.store.apply(encoded)
        outcome = Counter(model.upsert(view.name, row) for _ in range(count))
        assert {name: counts[name] for name in ("inserted", "replaced", "stale", "deleted")} == {
            name: outcome[name] for name in ("inserted", "replaced", "stale", "deleted")
        }
    read_us = data.draw(TIMES_US, "time of the reads")
    expected: list[Answer] = [{} for _ in rows]
    for view in case.views:
        fields = [name for name, _ in view.fields]
        for answer, asking in zip(expected, rows, strict=True):
            answer.update(as_answer(view, model.read(view.name, key_of(view, asking), fields, read_us, view.ttl_us)))
    assert online.read(rows, read_us) == expected


NUMBERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}


@given(cases_with_keys(), st.data())
def test_a_lookup_into_a_buffer_is_the_read_as_floats(case: Case, data: st.DataObject) -> None:
    """`read_into` fills the caller's array with what `read` answers; what is missing is NaN."""
    numeric = [(view, name, dtype) for view, name, dtype in case.features() if dtype in NUMBERS]
    if len(numeric) < len(case.features()):
        return
    online = Online(case)
    for batch in online.batches([3]):
        online.store.apply(batch)
    rows = [row for row in data.draw(entity_rows(case), "asked") if None not in [row[name] for name in case.join_keys]]
    now_us = data.draw(TIMES_US, "now")
    plan = online.store.online_plan("all")
    keys = [tuple(online.key(row[name], case.join_keys[name]) for name in plan.join_keys) for row in rows]
    answers = online.read(rows, now_us)
    for dtype in (np.float32, np.float64):
        out = np.full((len(rows), len(numeric)), 7.0, dtype)
        status = np.full(out.shape, 99, np.uint8)
        plan.read_into([key[0] for key in keys] if len(plan.join_keys) == 1 else keys, out, status, now_us=now_us)
        for at, answer in enumerate(answers):
            for column, (view, name, feature_dtype) in enumerate(numeric):
                found, value = answer[f"{view.name}__{name}"]
                assert status[at, column] == STATUS_CODES[found]
                expected = reference.tensor_value(from_bits(value, feature_dtype))
                with np.errstate(over="ignore"):  # of a float64 that float32 has no room for
                    np.testing.assert_array_equal(out[at, column], np.array(expected).astype(dtype))


def from_bits(value: Any, dtype: str) -> Any:
    if isinstance(value, bytes):
        return float(np.frombuffer(value, np.dtype(dtype))[0])
    return value


def test_a_far_future_exists() -> None:
    """The other tests write with this time, so that nothing is refused as future."""
    assert reference.refusal(reference.SourceRow((), 12, 0, 0), FAR_FUTURE_US) is None
