"""DuckDB, given the bounds of every window as columns of the questions."""

from __future__ import annotations

from typing import Any

import numpy as np
from engine import Call, Engine, package
from headrace_windows import HeadraceIngest, HeadraceWindows
from inputs import Array, Inputs, WindowInputs
from window_events import WINDOWS, matrix

SELECT = """
    SELECT questions.id AS id,
        count(amount) FILTER (events.happened_at >= questions.start_7d) AS amount_count_7d,
        count(amount) AS amount_count_30d,
        avg(amount) FILTER (events.happened_at >= questions.start_7d) AS amount_mean_7d,
        avg(amount) AS amount_mean_30d,
        max(amount) FILTER (events.happened_at >= questions.start_7d) AS amount_max_7d,
        max(amount) AS amount_max_30d
    FROM questions LEFT JOIN events
    ON events.user_id = questions.user_id
        AND events.happened_at >= questions.start_30d AND events.happened_at < questions.asked_at
    WHERE questions.id >= ? AND questions.id < ?
    GROUP BY questions.id
"""


class DuckDb(Engine):
    """One join on key and the longest window, with the shorter windows as filters of the aggregates."""

    wants = "questions"
    note = "one range join, FILTER for the shorter window; tables in memory, bounds as columns, one thread"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, WindowInputs)
        duckdb, pyarrow = package("duckdb"), package("pyarrow")
        self.version = duckdb.__version__
        self.connection = duckdb.connect(config={"threads": 1})
        bounds = {f"start_{name}": inputs.starts_us(name) for name in WINDOWS}
        asked = {"id": np.arange(len(inputs.asked_us)), "user_id": inputs.asked_users, "asked_at": inputs.asked_us}
        happened = {"user_id": inputs.users, "happened_at": inputs.event_us, "amount": inputs.amounts}
        self.create("CREATE TABLE events AS SELECT * FROM given", pyarrow.table(happened))
        self.create("CREATE TABLE questions AS SELECT * FROM given", pyarrow.table(asked | bounds))

    def create(self, statement: str, table: Any) -> None:
        self.connection.register("given", table)
        self.connection.execute(statement)
        self.connection.unregister("given")

    def caller(self, rows: int) -> Call:
        connection = self.connection
        return lambda asked: connection.execute(SELECT, [asked[0], asked[0] + rows]).fetchnumpy()

    def answer(self, rows: int, asked: Array) -> Array:
        found: Any = self.caller(rows)(asked)
        order = np.argsort(found["id"])
        return matrix({name: np.ma.filled(column, np.nan)[order] for name, column in found.items()})

    def close(self) -> None:
        self.connection.close()


ENGINES: dict[str, type[Engine]] = {"headrace": HeadraceWindows, "headrace_ingest": HeadraceIngest, "duckdb": DuckDb}
