"""Random projects for the property tests: views, their rows, and the questions asked of them.

Times and keys come from very small sets, so that duplicates, ties, TTL edges and late writes are the rule.
Values come from the whole range of their type, the known trouble (NaN, -0.0, integers above 2^53, "") weighted up.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from hypothesis import strategies as st

EVENT_TS_ALWAYS = -(2**63)
YEAR_1_US = -62_135_596_800_000_000  # the years that a Python datetime has
YEAR_9999_US = 253_402_300_799_999_999
TIMES_US = st.integers(0, 12)
TTLS_US = st.one_of(st.none(), st.integers(1, 8))
KEY_DTYPES = ("int64", "string", "bytes", "int32", "uint64", "bool", "timestamp")
FIELD_DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "string",
    "bytes",
    "timestamp",
    "list<float32>",
    "list<int64>",
    "list<string>",
)

ARROW = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_type(dtype: str) -> pa.DataType:
    return pa.list_(ARROW[dtype[5:-1]]) if dtype.startswith("list<") else ARROW[dtype]


def integers(dtype: str) -> st.SearchStrategy[int]:
    bits = int(dtype.lstrip("uint"))
    low, high = (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    edges = [value for value in (low, high, 0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1) if low <= value <= high]
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


def floats(width: Literal[32, 64]) -> st.SearchStrategy[float]:
    edges = [float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1.5]
    return st.one_of(st.sampled_from(edges), st.floats(width=width, allow_nan=False))


def values(dtype: str) -> st.SearchStrategy[Any]:
    """Values of a type, without null."""
    if dtype.startswith("list<"):
        return st.lists(values(dtype[5:-1]), max_size=3)
    if dtype == "bool":
        return st.booleans()
    if dtype.startswith("float"):
        return floats(32 if dtype == "float32" else 64)
    if dtype == "string":
        return st.one_of(st.sampled_from(["", "a", "\0", "ä", "a\0"]), st.text(max_size=5))
    if dtype == "bytes":
        return st.one_of(st.sampled_from([b"", b"\0", b"\xff"]), st.binary(max_size=5))
    if dtype == "timestamp":
        return st.one_of(st.sampled_from([0, -1, YEAR_1_US, YEAR_9999_US]), st.integers(YEAR_1_US, YEAR_9999_US))
    return integers(dtype)


KEY_VALUES: dict[str, list[Any]] = {
    "int64": [1, 2, -1, 2**53, 2**53 + 1],
    "int32": [1, -1, 2**31 - 1],
    "uint64": [0, 2**63, 2**64 - 1],
    "string": ["", "a", "ab", "b"],
    "bytes": [b"", b"a", b"\0"],
    "bool": [True, False],
    "timestamp": [0, 1, -1],
}


def key_values(dtype: str) -> st.SearchStrategy[Any]:
    """Few values of a key's type, and null: so that rows meet."""
    return st.one_of(st.sampled_from(KEY_VALUES[dtype]), st.sampled_from(KEY_VALUES[dtype]), st.none())


@dataclass(frozen=True)
class Row:
    """One row of a view's source, in the order in which it arrived."""

    keys: tuple[Any, ...]
    event_ts: int | None
    created_ts: int | None
    deleted: bool
    values: tuple[Any, ...]


@dataclass(frozen=True)
class View:
    name: str
    entities: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, str], ...]
    ttl_us: int | None
    static: bool
    rows: tuple[Row, ...]

    def table(self, rows: tuple[Row, ...] | None = None) -> pa.Table:
        """The rows in the shape that the engine takes."""
        rows = self.rows if rows is None else rows
        columns = {
            name: pa.array([row.keys[i] for row in rows], arrow_type(dtype))
            for i, (name, dtype) in enumerate(self.keys)
        }
        time = pa.null() if self.static else arrow_type("timestamp")
        columns["__event_ts"] = pa.array([None if self.static else row.event_ts for row in rows], time)
        columns["__created_ts"] = pa.array([None if self.static else row.created_ts for row in rows], time)
        columns["__deleted"] = pa.array([row.deleted for row in rows], pa.bool_())
        for i, (name, dtype) in enumerate(self.fields):
            columns[name] = pa.array([row.values[i] for row in rows], arrow_type(dtype))
        return pa.table(columns)


@dataclass(frozen=True)
class Case:
    entities: dict[str, tuple[tuple[str, str], ...]]
    views: tuple[View, ...]

    @property
    def join_keys(self) -> dict[str, str]:
        """Name -> type of all join keys that the views use, first seen first."""
        return {name: dtype for view in self.views for name, dtype in view.keys}

    def features(self) -> list[tuple[View, str, str]]:
        """(view, field, type) in the order of the service `all`, whose names are view__field."""
        return [(view, name, dtype) for view in self.views for name, dtype in view.fields]

    def plan(self) -> str:
        """The plan document."""
        return json.dumps(
            {
                "format": 1,
                "project": "property",
                "entities": {
                    name: {"join_keys": typed(keys), "description": "", "tags": {}, "owner": ""}
                    for name, keys in self.entities.items()
                },
                "views": {view.name: self._view(view) for view in self.views},
                "on_demand_views": {},
                "services": {
                    "all": {
                        "features": [
                            {"view": view.name, "feature": field, "name": f"{view.name}__{field}"}
                            for view, field, _ in self.features()
                        ],
                        "full_feature_names": True,
                        "description": "",
                        "tags": {},
                        "owner": "",
                    }
                },
            }
        )

    @staticmethod
    def _view(view: View) -> dict[str, Any]:
        return {
            "entities": list(view.entities),
            "fields": typed(view.fields),
            "ttl_us": view.ttl_us,
            "online": True,
            "source": {
                "kind": "push",
                "path": None,
                "format": None,
                "event_ts": None if view.static else "at",
                "created_ts": None,
                "available_after_us": None,
                "rename": {},
            },
            "description": "",
            "tags": {},
            "owner": "",
        }


def typed(fields: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "dtype": dtype} for name, dtype in fields]


@st.composite
def rows_of(
    draw: st.DrawFn, keys: tuple[tuple[str, str], ...], fields: tuple[tuple[str, str], ...], static: bool
) -> Row:
    deleted = draw(st.booleans()) and draw(st.booleans())
    return Row(
        keys=tuple(draw(key_values(dtype)) for _, dtype in keys),
        event_ts=None if static else draw(st.one_of(TIMES_US, TIMES_US, TIMES_US, st.none())),
        created_ts=EVENT_TS_ALWAYS if static else draw(st.one_of(TIMES_US, TIMES_US, TIMES_US, st.none())),
        deleted=deleted,
        values=tuple(None if deleted else draw(st.one_of(st.none(), values(dtype))) for _, dtype in fields),
    )


@st.composite
def cases(draw: st.DrawFn, rows_max: int = 24) -> Case:
    """A project of up to two entities, up to three views over them (one may have no entity), and the views' rows."""
    entities = {
        f"e{i}": tuple((f"k{i}{j}", draw(st.sampled_from(KEY_DTYPES))) for j in range(draw(st.integers(1, 2))))
        for i in range(draw(st.integers(1, 2)))
    }
    views = []
    for number in range(draw(st.integers(1, 3))):
        chosen = tuple(sorted(draw(st.sets(st.sampled_from(sorted(entities))))))
        keys = tuple(key for entity in chosen for key in entities[entity])
        fields = tuple((f"f{i}", draw(st.sampled_from(FIELD_DTYPES))) for i in range(draw(st.integers(1, 3))))
        static = draw(st.integers(0, 4)) == 0
        rows = draw(st.lists(rows_of(keys, fields, static), max_size=rows_max))
        views.append(View(f"v{number}", chosen, keys, fields, None if static else draw(TTLS_US), static, tuple(rows)))
    return Case(entities, tuple(views))


def with_creation_times(case: Case) -> Case:
    """The case as a store keeps it: a creation time that is not known is stamped when the row is written, here 0."""
    views = []
    for view in case.views:
        rows = (
            dataclasses.replace(row, created_ts=row.created_ts or 0) if not view.static else row for row in view.rows
        )
        views.append(dataclasses.replace(view, rows=tuple(rows)))
    return dataclasses.replace(case, views=tuple(views))


def cases_with_keys() -> st.SearchStrategy[Case]:
    """Projects that can be asked online by key, with rows as a store keeps them."""
    return cases().filter(lambda case: bool(case.join_keys)).map(with_creation_times)


@st.composite
def entity_rows(draw: st.DrawFn, case: Case, rows_max: int = 12) -> list[dict[str, Any]]:
    """Rows that ask: the value of each join key (null among them), `at` and a knowledge cutoff `cutoff`."""
    keys = case.join_keys
    maybe_time = st.one_of(TIMES_US, TIMES_US, TIMES_US, st.none())
    row = st.fixed_dictionaries(
        {**{name: key_values(dtype) for name, dtype in keys.items()}, "at": maybe_time, "cutoff": maybe_time}
    )
    return draw(st.lists(row, max_size=rows_max))


def entity_table(case: Case, rows: list[dict[str, Any]]) -> pa.Table:
    types = {**case.join_keys, "at": "timestamp", "cutoff": "timestamp"}
    return pa.table({name: pa.array([row[name] for row in rows], arrow_type(dtype)) for name, dtype in types.items()})


def plain(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """An Arrow column as Python values; timestamps as microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type):
        column = column.cast(pa.list_(pa.int64()))
    return list(column.to_pylist())


def bits(value: Any, dtype: str) -> Any:
    """A form of a value in which equal means: the same bits."""
    if value is None:
        return None
    if dtype.startswith("list<"):
        return tuple(bits(element, dtype[5:-1]) for element in value)
    if dtype == "float32":
        return struct.pack("<f", value)
    if dtype == "float64":
        return struct.pack("<d", value)
    return value
