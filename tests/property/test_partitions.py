"""A join in partitions is the join at once, and both are the specified one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import reference
import test_windows as windows
from answers import Answer
from cases import Case, View, arrow_type, bits, cases, entity_rows, entity_table, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import _native
from headrace.historical import JoinRequest, joined_at_once
from headrace.partitions import joined_in_partitions


@dataclass(frozen=True)
class FrameRequest(JoinRequest):
    """A join whose source rows are frames."""

    frames: Mapping[str, pa.Table] = field(default_factory=dict)

    def read(self, view: str) -> Iterator[pa.RecordBatch]:
        frame = self.frames[view]
        yield from frame.select(self.views[view].schema().names).to_batches(max_chunksize=5)


def request_of(
    plan: str, frames: Mapping[str, pa.Table], as_known_at: bool | str | None, root: Path, **options: Any
) -> FrameRequest:
    return FrameRequest(
        plan=_native.Plan.from_json(plan),
        document=json.loads(plan),
        service="all",
        event_ts_column="at",
        as_known_at=as_known_at,
        statuses=True,
        threads=2,
        sources_root=root,
        history_root=root,
        now_us=0,
        memory_bytes=10**9,
        spill_root=root,
        frames=frames,
        chunk_rows=options.pop("chunk_rows", 4),
        **options,
    )


def in_partitions(request: JoinRequest, entities: pa.Table, count: int) -> tuple[pa.Table, dict[str, Any]]:
    half = entities.num_rows // 2
    frames = [request.entities(entities.slice(0, half)), request.entities(entities.slice(half))]
    with joined_in_partitions(request, frames, count) as joined:
        return pa.concat_tables(list(joined.tables())), joined.counts


def check_same_bytes(found: pa.Table, expected: pa.Table) -> None:
    """The same columns with the same values, NaN and the sign of zero included."""
    assert found.schema.equals(expected.schema)
    for name in expected.column_names:
        column, wanted = found.column(name), expected.column(name)
        if pa.types.is_floating(wanted.type):
            width = "float32" if wanted.type == pa.float32() else "float64"
            assert [bits(v, width) for v in plain(column)] == [bits(v, width) for v in plain(wanted)]
        else:
            assert repr(plain(column)) == repr(plain(wanted))


def answers(case: Case, table: pa.Table) -> list[Answer]:
    found: list[Answer] = [{} for _ in range(table.num_rows)]
    for view, name, dtype in case.features():
        feature = f"{view.name}__{name}"
        values = zip(found, table.column(f"{feature}__status").to_pylist(), plain(table.column(feature)), strict=True)
        for answer, status, value in values:
            answer[feature] = (status, bits(value, dtype))
    return found


def specified(case: Case, asked: list[dict[str, Any]], cutoff: str | None) -> list[Answer]:
    found: list[Answer] = [{} for _ in asked]
    for view in case.views:
        sources = [source_row(view, number) for number in range(len(view.rows))]
        keys = [name for name, _ in view.keys]
        rows = [
            reference.EntityRow(tuple(row[name] for name in keys), row["at"], row[cutoff] if cutoff else None)
            for row in asked
        ]
        fields = [name for name, _ in view.fields]
        joined = reference.point_in_time_join(rows, sources, fields, view.ttl_us, cutoff is not None)
        for answer, of_view in zip(found, joined, strict=True):
            for name, dtype in view.fields:
                answer[f"{view.name}__{name}"] = (of_view[name][0], bits(of_view[name][1], dtype))
    return found


def source_row(view: View, number: int) -> reference.SourceRow:
    row = view.rows[number]
    event_ts = reference.EVENT_TS_ALWAYS if view.static else row.event_ts
    values = dict(zip([name for name, _ in view.fields], row.values, strict=True))
    return reference.SourceRow(row.keys, event_ts, row.created_ts, number, values, row.deleted)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Case, list[dict[str, Any]]]:
    case = draw(cases())
    return case, draw(entity_rows(case))


CUTOFFS = st.sampled_from([(None, None), (True, "at"), ("cutoff", "cutoff")])


@settings(max_examples=40)
@given(questions(), CUTOFFS, st.integers(1, 4))
def test_partitions_give_the_specified_join(
    asked: tuple[Case, list[dict[str, Any]]], cutoff: tuple[bool | str | None, str | None], count: int
) -> None:
    case, rows = asked
    with tempfile.TemporaryDirectory() as folder:
        frames = {view.name: view.table() for view in case.views}
        request = request_of(case.plan(), frames, cutoff[0], Path(folder))
        table = entity_table(case, rows)
        found, counts = in_partitions(request, table, count)
        at_once = joined_at_once(request, request.entities(table))
        check_same_bytes(found, at_once)
        assert counts == json.loads(at_once.schema.metadata[b"headrace.counts"])
        assert answers(case, found) == specified(case, rows, cutoff[1])
        assert not list(Path(folder).iterdir()), "the files are removed"


@settings(max_examples=40)
@given(windows.FEATURES, st.lists(windows.rows(), max_size=24), windows.ASKED, st.booleans(), st.integers(1, 4))
def test_partitions_give_the_specified_aggregates(
    chosen: list[windows.Feature],
    events: list[windows.Row],
    asked: list[tuple[int | None, int | None, int]],
    with_cutoff: bool,
    count: int,
) -> None:
    time = arrow_type("timestamp")
    entities = pa.table(
        {
            "key": pa.array([key for key, _, _ in asked], pa.int64()),
            "at": pa.array([at for _, at, _ in asked], time),
            "cutoff": pa.array([known for _, _, known in asked], time),
        }
    )
    cutoff = "cutoff" if with_cutoff else None
    with tempfile.TemporaryDirectory() as folder:
        plan = windows.plan_of(chosen).json
        request = request_of(plan, {"events": windows.table_of(events)}, cutoff, Path(folder))
        found, _ = in_partitions(request, entities, count)
        check_same_bytes(found, joined_at_once(request, request.entities(entities)))
    for feature in chosen:
        values = plain(found.column(feature.name))
        statuses = found.column(f"{feature.name}__status").to_pylist()
        for (key, at, known), status, value in zip(asked, statuses, values, strict=True):
            expected = windows.specified(feature, events, key, at, known, with_cutoff)
            assert windows.agree(feature, (status, value), expected), (feature, key, at, status, value, expected)
