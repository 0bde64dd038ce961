"""Expressions over one row, over a batch and in the executable specification: the same bits."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from typing import Any

import pyarrow as pa
import reference_expr as reference
from answers import EPOCH, STORE_BYTES_MAX, to_us
from cases import arrow_type, bits, plain, values
from hypothesis import given
from hypothesis import strategies as st

from headrace import _native

Expr = dict[str, Any]
COLUMNS = {
    "flag": "bool",
    "tiny": "int8",
    "int": "int64",
    "huge": "uint64",
    "single": "float32",
    "x": "float64",
    "y": "float64",
    "text": "string",
    "blob": "bytes",
    "when": "timestamp",
    "then": "timestamp",
}
INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOAT_OPS = ["add", "sub", "mul", "mod", "div", "neg", "abs", "min", "max", "clip", "round", "floor", "ceil"]
FLOAT_OPS += ["sqrt", "radians", "cast", "epoch_seconds"]
FIELDS_OF_KIND = {
    "bool": ["bool", "int64", "float64"],
    "int": [*INTS, "float32", "float64"],
    "float": ["float32", "float64", "int32", "int64"],
    "string": ["string"],
    "bytes": ["bytes"],
    "timestamp": ["timestamp", "int64"],
}


def call(op: str, *args: Expr) -> Expr:
    return {"op": op, "args": list(args)}


def literals(kind: str) -> st.SearchStrategy[Expr]:
    dtype = {"int": "int64", "float": "float64"}.get(kind, kind)
    if kind == "bytes":
        return st.just({"op": "lit", "dtype": "bytes", "value": None})
    value: st.SearchStrategy[Any] = st.one_of(st.integers(-3, 3), values(dtype)) if kind == "int" else values(dtype)
    if kind == "float":
        value = st.one_of(st.sampled_from([0.5, 2.0, -1.0]), value).map(as_json_float)
    return st.one_of(value, value, value, st.none()).map(lambda v: {"op": "lit", "dtype": dtype, "value": v})


def as_json_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def leaves(kind: str) -> st.SearchStrategy[Expr]:
    names = [name for name, dtype in COLUMNS.items() if reference.kind_of_dtype(dtype) == kind]
    columns = st.sampled_from(names).map(lambda name: {"op": "col", "name": name})
    return st.one_of(columns, columns, literals(kind))


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int, exact: bool) -> Expr:
    """A well typed expression. `exact` leaves out the functions whose last bits depend on the mathematical library."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(leaves(kind))

    def one(of: str) -> Expr:
        return draw(expressions(of, depth - 1, exact))

    def number() -> Expr:
        return one(draw(st.sampled_from(["int", "float"])))

    same = ["if_else", "coalesce", "fill_null"]
    own = {
        "bool": ["compare", "and", "or", "not", "is_null"],
        "int": ["add", "sub", "mul", "mod", "neg", "abs", "min", "max", "clip", "floor", "cast", "time"],
        "float": FLOAT_OPS if exact else FLOAT_OPS + sorted(reference.TRANSCENDENTAL),
        "timestamp": ["cast"],
    }.get(kind, [])
    op = draw(st.sampled_from(same + own))
    if op == "if_else":
        return call(op, one("bool"), one(kind), one(kind))
    if op in ("coalesce", "fill_null"):
        return call(op, one(kind), one(kind))
    if op == "compare":
        of = draw(st.sampled_from(["int", "float", "string", "timestamp"]))
        right = number() if of in ("int", "float") else one(of)
        return call(draw(st.sampled_from(sorted(reference.COMPARISONS))), one(of), right)
    if op == "is_null":
        return call(op, one(draw(st.sampled_from(sorted(FIELDS_OF_KIND)))))
    if op == "cast":
        of, dtypes = {
            "int": (draw(st.sampled_from(["bool", "int", "float", "timestamp"])), INTS),
            "float": (draw(st.sampled_from(["bool", "int", "float"])), ["float32", "float64"]),
        }.get(kind, ("int", ["timestamp"]))
        return {"op": "cast", "dtype": draw(st.sampled_from(dtypes)), "args": [one(of)]}
    if op == "time":
        return call(draw(st.sampled_from(sorted(set(reference.TIME_PARTS) - {"epoch_seconds"}))), one("timestamp"))
    if op == "epoch_seconds":
        return call(op, one("timestamp"))
    if op in ("div", "atan2", "pow"):
        return call(op, number(), number())
    if op in ("neg", "abs", "floor", "round", "ceil", "not"):
        return call(op, one(kind))
    if op in ("sqrt", "radians") or op in reference.TRANSCENDENTAL:
        return call(op, number())
    count = 3 if op == "clip" else draw(st.integers(2, 3)) if op in ("add", "mul", "min", "max", "and", "or") else 2
    rest = [number() if kind == "float" else one(kind) for _ in range(count - 1)]
    return call(op, *draw(st.permutations([one(kind), *rest])))


def plan_of(fields: list[tuple[str, Expr]]) -> str:
    inputs = [{"name": name, "dtype": dtype, "from": "request"} for name, dtype in COLUMNS.items()]
    described = {"description": "", "tags": {}, "owner": ""}
    schema = [{"name": f"f{at}", "dtype": dtype, "expr": expr} for at, (dtype, expr) in enumerate(fields)]
    features = [{"view": "computed", "feature": f"f{at}", "name": f"f{at}"} for at in range(len(fields))]
    document = {
        "format": 1,
        "project": "expressions",
        "entities": {},
        "views": {},
        "on_demand_views": {"computed": {"inputs": inputs, "fields": schema, **described}},
        "services": {"all": {"features": features, "full_feature_names": False, **described}},
    }
    return json.dumps(document)


@st.composite
def programs(draw: st.DrawFn, exact: bool) -> list[tuple[str, Expr]]:
    """Some output fields: a type and an expression each."""
    kinds = draw(st.lists(st.sampled_from(sorted(FIELDS_OF_KIND)), min_size=1, max_size=3))
    return [
        (draw(st.sampled_from(FIELDS_OF_KIND[kind])), draw(expressions(kind, draw(st.integers(0, 4)), exact)))
        for kind in kinds
    ]


requests = st.lists(
    st.fixed_dictionaries(
        {name: st.one_of(values(dtype), values(dtype), st.none()) for name, dtype in COLUMNS.items()}
    ),
    max_size=8,
)


def over_a_batch(plan: _native.Plan, fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> list[list[Any]]:
    columns = {name: pa.array([row[name] for row in rows], arrow_type(dtype)) for name, dtype in COLUMNS.items()}
    columns["at"] = pa.array([0] * len(rows), arrow_type("timestamp"))
    table = pa.table(_native.point_in_time_join(plan, "all", pa.table(columns), {}, "at"))
    return [[bits(v, dtype) for v in plain(table.column(f"f{at}"))] for at, (dtype, _) in enumerate(fields)]


def row_by_row(plan: _native.Plan, fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> list[list[Any]]:
    online = _native.LocalStore(plan, STORE_BYTES_MAX).online_plan("all")
    found: list[list[Any]] = [[] for _ in fields]
    for row in rows:
        given_row = {name: [as_python(value, COLUMNS[name])] for name, value in row.items()}
        answer = online.read({}, given_row, now_us=0)
        for at, (dtype, _) in enumerate(fields):
            value = answer["features"][f"f{at}"][0]
            found[at].append(bits(to_us(value) if dtype == "timestamp" and value is not None else value, dtype))
    return found


def as_python(value: Any, dtype: str) -> Any:
    return EPOCH + dt.timedelta(microseconds=value) if dtype == "timestamp" and value is not None else value


def specified(fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [
        [bits(reference.evaluate_field(expr, dtype, row, COLUMNS), dtype) for row in rows] for dtype, expr in fields
    ]


def one_nan(columns: list[list[Any]], fields: list[tuple[str, Expr]]) -> list[list[Any]]:
    """All NaN are one value here: which bits an undefined result has is not part of the language."""
    return [
        ["nan" if dtype.startswith("float") and is_nan(value) else value for value in column]
        for column, (dtype, _) in zip(columns, fields, strict=True)
    ]


def is_nan(value: bytes | None) -> bool:
    return value is not None and math.isnan(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


@given(programs(exact=True), requests)
def test_a_batch_is_computed_as_specified(fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> None:
    plan = _native.Plan.from_json(plan_of(fields))
    assert one_nan(over_a_batch(plan, fields, rows), fields) == one_nan(specified(fields, rows), fields)


@given(programs(exact=False), requests)
def test_one_row_and_a_batch_give_the_same_bits(fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> None:
    plan = _native.Plan.from_json(plan_of(fields))
    assert row_by_row(plan, fields, rows) == over_a_batch(plan, fields, rows)
