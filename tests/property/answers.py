"""The engine asked two ways: over history by the point-in-time join, and online by a lookup. One shape of answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from cases import Case, Row, View, bits, entity_table, plain

from headrace import _native

# One answer: feature -> (status, value in a form where equal means the same bits).
Answer = dict[str, tuple[str, Any]]
STORE_BYTES_MAX = 64 * 1024 * 1024
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FAR_FUTURE_US = 2**61


def to_us(moment: dt.datetime | int) -> int:
    """A time of a year that a datetime does not have is given as the number that it is."""
    if isinstance(moment, int):
        return moment
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def join_frames(
    plan: _native.Plan, service: str, entities: pa.Table, sources: Mapping[str, pa.Table], at: str, **options: Any
) -> _native.JoinedTable:
    """The point-in-time join of frames, each view's rows given at once."""
    join = _native.PointInTimeJoin(plan, service, entities, at, **options)
    for view in join.views():
        join.add(view, sources[view])
    return join.finish()


def offline(
    case: Case, asked: list[dict[str, Any]], as_known_at: bool | str | None = None, threads: int = 1
) -> list[Answer]:
    """One answer for each entity row, by the point-in-time join."""
    joined = join_frames(
        _native.Plan.from_json(case.plan()),
        "all",
        entity_table(case, asked),
        {view.name: view.table() for view in case.views},
        "at",
        as_known_at=as_known_at,
        threads=threads,
        statuses=True,
    )
    table = pa.table(joined)
    assert table.num_rows == len(asked), "exactly the entity rows"
    for name in (*case.join_keys, "at", "cutoff"):
        assert plain(table.column(name)) == [row[name] for row in asked], "in their order, duplicates kept"
    answers: list[Answer] = [{} for _ in asked]
    for view, field, dtype in case.features():
        name = f"{view.name}__{field}"
        statuses = table.column(f"{name}__status").to_pylist()
        for answer, status, value in zip(answers, statuses, plain(table.column(name)), strict=True):
            answer[name] = (status, bits(value, dtype))
    return answers


class Online:
    """An online store that remembers nothing but what is applied to it."""

    def __init__(self, case: Case, store: _native.LocalStore | None = None) -> None:
        self.case = case
        self.plan = _native.Plan.from_json(case.plan())
        self.store = store or _native.LocalStore(self.plan, STORE_BYTES_MAX)

    def encode(self, view: View, rows: Sequence[Row], first_sequence: int) -> bytes:
        data, _, _ = self.store.encode(view.name, view.table(tuple(rows)), first_sequence, FAR_FUTURE_US, 0)
        return data

    def batches(self, sizes: Sequence[int]) -> list[bytes]:
        """The rows of all views as values of the log, cut into pieces of the given sizes, over and over."""
        pieces: list[bytes] = []
        for view in self.case.views:
            start = 0
            while start < len(view.rows):
                size = sizes[len(pieces) % len(sizes)]
                pieces.append(self.encode(view, view.rows[start : start + size], start))
                start += size
        return pieces

    def read(self, asked: list[dict[str, Any]], now_us: int) -> list[Answer]:
        columns = {name: [self.key(row[name], dtype) for row in asked] for name, dtype in self.case.join_keys.items()}
        found = self.store.online_plan("all").read(columns, now_us=now_us)
        answers: list[Answer] = [{} for _ in asked]
        for view, field, dtype in self.case.features():
            name = f"{view.name}__{field}"
            for answer, status, value in zip(answers, found["statuses"][name], found["features"][name], strict=True):
                answer[name] = (status, bits(to_us(value) if isinstance(value, dt.datetime) else value, dtype))
        return answers

    @staticmethod
    def key(value: Any, dtype: str) -> Any:
        return EPOCH + dt.timedelta(microseconds=value) if dtype == "timestamp" and value is not None else value
