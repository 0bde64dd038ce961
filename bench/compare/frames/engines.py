"""Libraries of data frames that join by time, each in its best form for rows in no order, and ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Engine, package
from events import FEATURES, VIEWS, EventInputs, feature_name, feature_names, view_name, write_events
from headrace_engines import join_frames
from inputs import Array, Inputs

import headrace
from headrace import _native

SERVICE = "all"
Asked = range
DEFINITIONS = """
from headrace import *

thing = Entity("thing", join_keys=[Field("key", Int64)])
views = [
    FeatureView(
        f"view{view}",
        [thing],
        [Field(f"f{view}{feature}", Float32) for feature in range(FEATURES)],
        FileSource(f"view{view}.parquet", event_ts="at"),
    )
    for view in range(VIEWS)
]
everything = FeatureService("all", views)
"""


class Join(Engine):
    """A join of the events in memory; it answers with the features, rows x 6 as float32."""

    wants = "rows"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        assert isinstance(inputs, EventInputs)
        self.inputs = inputs
        self.prepare(inputs, options)

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        """Makes the library's own form of the events, in their order."""
        raise NotImplementedError

    def rows(self, asked: Asked) -> tuple[Array, Array]:
        """Keys and times of the rows that ask."""
        chosen = slice(asked.start, asked.stop)
        return self.inputs.asked_keys[chosen], self.inputs.asked_ms[chosen]

    def answer(self, rows: int, asked: Array) -> Array:
        columns = self.columns(self.caller(rows)(asked))
        found = np.stack([np.asarray(column, np.float32) for column in columns], axis=1)
        found[np.isnan(found)] = np.nan  # one form of it: bits are compared
        return found

    def columns(self, joined: Any) -> list[Any]:
        """The features of what a call returns."""
        raise NotImplementedError


def arrow_rows(keys: Array, ms: Array) -> Any:
    pa = package("pyarrow")
    return pa.table({"key": keys, "at": pa.array(ms * 1000).cast(pa.timestamp("us", "UTC"))})


def numpy_columns(table: Any) -> list[Any]:
    return [table.column(name).to_numpy() for name in feature_names()]


class HeadraceJoin(Join):
    """The engine's join of Arrow tables."""

    version = headrace.__version__
    note = "the join of Arrow tables, every core"

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        views: dict[str, Any] = {}
        features = []
        self.sources = {}
        for view, events in enumerate(inputs.views):
            name = view_name(view)
            table = arrow_rows(events["key"], events["ms"]).rename_columns(["key", "__event_ts"])
            table = table.append_column("__created_ts", table.column("__event_ts"))
            fields = [feature_name(view, feature) for feature in range(FEATURES)]
            for field in fields:
                table = table.append_column(field, package("pyarrow").array(events[field]))
                features.append({"view": name, "feature": field, "name": field})
            self.sources[name] = table
            views[name] = {
                "entities": ["thing"],
                "fields": [{"name": field, "dtype": "float32"} for field in fields],
                "source": {"kind": "push", "event_ts": "at"},
            }
        plan = {
            "format": 1,
            "project": "bench",
            "entities": {"thing": {"join_keys": [{"name": "key", "dtype": "int64"}]}},
            "views": views,
            "services": {SERVICE: {"features": features}},
        }
        self.plan = _native.Plan.from_json(json.dumps(plan))

    def caller(self, rows: int) -> Call:
        def call(asked: Any) -> Any:
            return join_frames(self.plan, SERVICE, arrow_rows(*self.rows(asked)), self.sources, "at")

        return call

    def columns(self, joined: Any) -> list[Any]:
        return numpy_columns(package("pyarrow").table(joined))


class Pandas(Join):
    """`merge_asof`, which wants both sides sorted by time; times as int64, which it compares fastest."""

    note = "sort_values and merge_asof(by=key); rows put back in order"

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        self.pandas = package("pandas")
        self.version = self.pandas.__version__
        self.views = [self.pandas.DataFrame(events) for events in inputs.views]

    def caller(self, rows: int) -> Call:
        pandas = self.pandas

        def call(asked: Any) -> Any:
            keys, ms = self.rows(asked)
            joined = pandas.DataFrame({"key": keys, "ms": ms, "row": np.arange(len(keys))}).sort_values("ms")
            for events in self.views:
                joined = pandas.merge_asof(joined, events.sort_values("ms"), on="ms", by="key")
            order = np.empty(len(joined), np.int64)
            order[joined["row"].to_numpy()] = np.arange(len(joined))
            return joined.take(order)

        return call

    def columns(self, joined: Any) -> list[Any]:
        return [joined[name].to_numpy() for name in feature_names()]


class Polars(Join):
    """`join_asof`, which wants both sides sorted by time."""

    note = "one lazy query: sort, join_asof(by=key), sort back; every core"

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        self.polars = package("polars")
        self.version = self.polars.__version__
        self.views = [self.polars.DataFrame(events) for events in inputs.views]

    def caller(self, rows: int) -> Call:
        polars = self.polars

        def call(asked: Any) -> Any:
            keys, ms = self.rows(asked)
            joined = polars.LazyFrame({"key": keys, "ms": ms}).with_row_index("row").sort("ms")
            for events in self.views:
                sorted_events = events.lazy().sort("ms")
                joined = joined.join_asof(sorted_events, on="ms", by="key", check_sortedness=False)
            return joined.sort("row").collect()

        return call

    def columns(self, joined: Any) -> list[Any]:
        return [joined[name].cast(self.polars.Float32).fill_null(float("nan")).to_numpy() for name in feature_names()]


class DuckDb(Join):
    """`ASOF LEFT JOIN` of its own tables in memory."""

    note = "ASOF LEFT JOIN of tables in memory, to Arrow; rows put back in order by number; every core"

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        duckdb = package("duckdb")
        self.version = duckdb.__version__
        self.connection = duckdb.connect()
        self.connection.execute("SET enable_progress_bar = false")
        pa = package("pyarrow")
        for view, events in enumerate(inputs.views):
            self.connection.register("events", pa.table(events))
            self.connection.execute(f"CREATE TABLE {view_name(view)} AS SELECT * FROM events")  # noqa: S608
            self.connection.unregister("events")
        names = ", ".join(feature_names())
        joins = " ".join(
            f"ASOF LEFT JOIN {name} ON a.key = {name}.key AND a.ms >= {name}.ms"
            for name in map(view_name, range(VIEWS))
        )
        self.query = f"SELECT a.row, {names} FROM asked a {joins}"  # noqa: S608

    def caller(self, rows: int) -> Call:
        pa = package("pyarrow")

        def call(asked: Any) -> Any:
            keys, ms = self.rows(asked)
            self.connection.register("asked", pa.table({"key": keys, "ms": ms, "row": np.arange(len(keys))}))
            joined = self.connection.execute(self.query).to_arrow_table()
            order = np.empty(joined.num_rows, np.int64)
            order[joined.column("row").to_numpy()] = np.arange(joined.num_rows)
            return joined.take(pa.array(order))

        return call

    def columns(self, joined: Any) -> list[Any]:
        return numpy_columns(joined)


class HeadraceFiles(Join):
    """A training set of a project whose sources are Parquet files, within a bound of memory."""

    version = headrace.__version__

    def prepare(self, inputs: EventInputs, options: dict[str, Any]) -> None:
        root = Path(options["folder"])
        (root / "features").mkdir(parents=True)
        constants = f"VIEWS, FEATURES = {VIEWS}, {FEATURES}\n"
        (root / "features" / "all.py").write_text(constants + DEFINITIONS)
        (root / "headrace.toml").write_text(f'[sources]\nroot = "{options["sources"]}"\n')
        self.store = headrace.FeatureStore(root)
        self.store.apply()
        self.memory = options["memory"]
        self.note = f"get_historical_features(memory={self.memory!r}) of Parquet sources"

    def caller(self, rows: int) -> Call:
        def call(asked: Any) -> Any:
            entities = arrow_rows(*self.rows(asked))
            return self.store.get_historical_features(SERVICE, entities, event_ts_column="at", memory=self.memory)

        return call

    def columns(self, joined: Any) -> list[Any]:
        return numpy_columns(joined)

    def close(self) -> None:
        self.store.close()


ENGINES: dict[str, type[Engine]] = {
    "headrace": HeadraceJoin,
    "headrace_files": HeadraceFiles,
    "pandas": Pandas,
    "polars": Polars,
    "duckdb": DuckDb,
}
JOBS: dict[str, Any] = {"write_events": write_events}
