"""Our engine in the windows area: aggregates from history, and the ingest of events."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Engine, package
from headrace_engines import join_frames
from inputs import Array, Inputs, WindowInputs
from window_events import FUNCTIONS, WINDOWS, matrix

import headrace
from headrace import _native
from headrace.compiler import compile_plan
from headrace.config import OnlineSection
from headrace.online_store import OnlineStore, WriteCounts

SERVICE = "all_features"
VIEW = "spent"
NOW_US = 1_700_000_000_000_000
CALL_US = 5_000_000
"""What passes between two calls of the stream."""


def window_plan() -> _native.Plan:
    """Three functions over two windows of one column."""
    user = headrace.Entity("user", join_keys=[headrace.Field("user_id", headrace.Int64)])
    windows = [timedelta(microseconds=length_us) for length_us, _ in WINDOWS.values()]
    view = headrace.FeatureView(
        VIEW,
        [user],
        [headrace.Field("amount", headrace.Float64)],
        headrace.PushSource(event_ts="happened_at"),
        aggregations=[headrace.Aggregation("amount", FUNCTIONS, windows)],
    )
    return _native.Plan.from_json(compile_plan("bench", [headrace.FeatureService(SERVICE, [view])]))


def events_table(users: Array, event_us: Array, amounts: Array) -> Any:
    """Events as the engine takes them."""
    pyarrow = package("pyarrow")
    times = pyarrow.array(event_us).cast(pyarrow.timestamp("us", tz="UTC"))
    columns = {"user_id": pyarrow.array(users), "__event_ts": times, "__created_ts": times}
    return pyarrow.table(columns | {"amount": pyarrow.array(amounts)})


class HeadraceWindows(Engine):
    """The point-in-time join of a view of aggregates, events and questions in the order in which they were drawn."""

    version = headrace.__version__
    wants = "questions"
    note = "the point-in-time join over Arrow tables in memory, unsorted, one thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, WindowInputs)
        pyarrow = package("pyarrow")
        self.plan = window_plan()
        self.sources = {VIEW: events_table(inputs.users, inputs.event_us, inputs.amounts)}
        times = pyarrow.array(inputs.asked_us).cast(pyarrow.timestamp("us", tz="UTC"))
        self.questions = pyarrow.table({"user_id": pyarrow.array(inputs.asked_users), "asked_at": times})

    def caller(self, rows: int) -> Call:
        plan, questions, sources = self.plan, self.questions, self.sources
        return lambda asked: join_frames(plan, SERVICE, questions.slice(asked[0], rows), sources, "asked_at", threads=1)

    def answer(self, rows: int, asked: Array) -> Array:
        found = package("pyarrow").table(self.caller(rows)(asked))
        return matrix({name: found[name].to_numpy() for name in found.column_names[2:]})


class HeadraceIngest(Engine):
    """`OnlineStore.write` of a stream: encoded, written to the log, and taken into the tiles of both windows."""

    version = headrace.__version__
    wants = "stream"
    note = "OnlineStore.write of Arrow batches, each a call: log and tiles; events of the last minute, every call later"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, WindowInputs)
        self.inputs = inputs
        self.batches: dict[int, list[tuple[int, Any]]] = {}
        folder = Path(options["folder"]) / "ingest"
        self.store = OnlineStore(folder, window_plan(), OnlineSection(), writable=True)
        self.counts = WriteCounts()

    def stream(self, rows: int) -> list[tuple[int, Any]]:
        """The time of each call, and its batch."""
        if rows not in self.batches:
            pool = self.inputs
            made = []
            for call in range(len(pool.stream_users) // rows):
                part = slice(call * rows, (call + 1) * rows)
                now_us = NOW_US + call * CALL_US
                table = events_table(
                    pool.stream_users[part], now_us - pool.stream_age_us[part], pool.stream_amounts[part]
                )
                made.append((now_us, table.to_batches()[0]))
            self.batches[rows] = made
        return self.batches[rows]

    def caller(self, rows: int) -> Call:
        stream, write, counts = self.stream(rows), self.store.write, self.counts

        def call(asked: Array) -> None:
            now_us, batch = stream[asked[0] // rows]
            write(VIEW, batch, now_us, counts)

        return call

    def answer(self, rows: int, asked: Array) -> Array:
        before = self.counts.inserted
        self.caller(rows)(asked)
        return np.array([self.counts.inserted - before])

    def close(self) -> None:
        self.store.close()
