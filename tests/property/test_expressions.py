"""Expressions over one row, over a batch and in the executable specification: the same bits."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import reference_expr as reference
from answers import EPOCH, STORE_BYTES_MAX, join_frames, to_us
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
    "counts": "list<int64>",
    "sizes": "list<uint8>",
    "scores": "list<float32>",
    "tags": "list<string>",
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
    "list of int": ["list<int64>", "list<int8>", "list<float64>"],
    "list of float": ["list<float32>", "list<float64>"],
    "list of string": ["list<string>"],
}
ZONES = ["Europe/Oslo", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
UNITS = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"]
LETTERS = "abAB ,\u00e9\u00c9\u00df\u2003"
WORDS = st.one_of(
    st.sampled_from(["", "a", "ab", " Ab, ", "12", "-7", "1e5", ".5", "nan", "Infinity", "TRUE", "false"]),
    st.sampled_from(["2013-01-31T10:00:00Z", "2013-01-31 10:00", "2013-01-31T10:00:00.1234567+05:30", "2013-02-29"]),
    st.sampled_from(["0000-01-01", "9999-12-31T23:59:59.999999-23:59", "1_0", "+5", "5.", "1e", "9223372036854775808"]),
    st.text(LETTERS, max_size=8),
    st.floats().map(repr),
    st.integers().map(str),
)
# Times around the changes of clocks, and in the years that both databases of zones know alike.
CLOCK_CHANGES = [
    1_364_691_600,
    1_382_835_600,
    1_362_898_800,
    1_383_458_400,
    1_365_260_400,
    1_380_988_800,
    4_102_444_800,
]
TIMES = st.one_of(
    st.tuples(st.sampled_from(CLOCK_CHANGES), st.integers(-7_200_000_000, 7_200_000_000)).map(
        lambda drawn: drawn[0] * 1_000_000 + drawn[1]
    ),
    st.integers(0, 2_000_000_000_000_000),
    st.integers(0, 60_000_000_000_000_000),
)


def call(op: str, *args: Expr) -> Expr:
    return {"op": op, "args": list(args)}


def literals(kind: str) -> st.SearchStrategy[Expr]:
    dtype = {"int": "int64", "float": "float64"}.get(kind, kind)
    if kind == "bytes":
        return st.just({"op": "lit", "dtype": "bytes", "value": None})
    value: st.SearchStrategy[Any] = st.one_of(st.integers(-3, 3), values(dtype)) if kind == "int" else values(dtype)
    if kind == "string":
        value = WORDS
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
    if kind.startswith("list"):
        return columns
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

    if kind in EXTENDED and draw(st.booleans()):
        return draw(extended(kind, depth, exact))
    same = ["if_else", "coalesce", "fill_null"]
    own = {
        "bool": ["compare", "and", "or", "not", "is_null"],
        "int": ["add", "sub", "mul", "mod", "neg", "abs", "min", "max", "clip", "floor", "cast", "time"],
        "float": FLOAT_OPS if exact else FLOAT_OPS + sorted(reference.TRANSCENDENTAL - {"haversine"}),
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
        scalars = ["bool", "int", "float", "timestamp", "string"]
        of, dtypes = {
            "int": (draw(st.sampled_from(scalars)), INTS),
            "float": (draw(st.sampled_from(scalars)), ["float32", "float64"]),
        }.get(kind, (draw(st.sampled_from(["int", "float", "string"])), ["timestamp"]))
        return {"op": "cast", "dtype": draw(st.sampled_from(dtypes)), "args": [one(of)]}
    if op == "time":
        part = call(draw(st.sampled_from(sorted(set(reference.TIME_PARTS) - {"epoch_seconds"}))), one("timestamp"))
        return draw(in_a_zone(part))
    if op in ("div", "atan2", "pow"):
        return call(op, number(), number())
    if op in ("neg", "abs", "floor", "round", "ceil", "not", "epoch_seconds"):
        return call(op, one("timestamp" if op == "epoch_seconds" else kind))
    if op in ("sqrt", "radians") or op in reference.TRANSCENDENTAL:
        return call(op, number())
    count = 3 if op == "clip" else draw(st.integers(2, 3)) if op in ("add", "mul", "min", "max", "and", "or") else 2
    rest = [number() if kind == "float" else one(kind) for _ in range(count - 1)]
    return call(op, *draw(st.permutations([one(kind), *rest])))


@st.composite
def in_a_zone(draw: st.DrawFn, expr: Expr) -> Expr:
    return expr if draw(st.booleans()) else {**expr, "zone": draw(st.sampled_from(ZONES))}


class Drawn:
    """Parts of an expression, one level down."""

    def __init__(self, draw: st.DrawFn, depth: int, exact: bool) -> None:
        self.draw = draw
        self.depth = depth
        self.exact = exact

    def one(self, of: str) -> Expr:
        return self.draw(expressions(of, self.depth - 1, self.exact))

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))


@st.composite
def extended(draw: st.DrawFn, kind: str, depth: int, exact: bool) -> Expr:
    """An operation of strings, times, lists or constants that gives a kind."""
    return EXTENDED[kind](Drawn(draw, depth, exact))


def string_list(drawn: Drawn) -> Expr:
    return {**call("split", drawn.one("string")), "by": drawn.pick("a", ",", "b ")}


def bytes_of_text(drawn: Drawn) -> Expr:
    return {"op": "cast", "dtype": "bytes", "args": [drawn.one("string")]}


def timestamp_operation(drawn: Drawn) -> Expr:
    op = drawn.pick("truncate", "add", "sub", "cast")
    if op == "truncate":
        return drawn.draw(in_a_zone({**call(op, drawn.one("timestamp")), "unit": drawn.pick(*UNITS)}))
    if op == "cast":
        return {"op": "cast", "dtype": "timestamp", "args": [drawn.one("string")]}
    return call(op, drawn.one("timestamp"), drawn.one("int"))


def float_operation(drawn: Drawn) -> Expr:
    op = drawn.pick("list_sum", "list_mean", "list_min", "list_max", "list_get", "lookup", "haversine")
    if op == "haversine" and not drawn.exact:
        return call(op, *(drawn.one(drawn.pick("int", "float")) for _ in range(4)))
    if op in ("lookup", "haversine"):
        return drawn.draw(lookups("float64", [0.5, "nan", -2], drawn.one(drawn.pick("int", "float"))))
    list_of = drawn.pick("list of int", "list of float") if op == "list_mean" else "list of float"
    return call(op, drawn.one(list_of), *([drawn.one("int")] if op == "list_get" else []))


def int_operation(drawn: Drawn) -> Expr:
    op = drawn.pick("lookup", "bucketize", "hash", "length", "sub")
    if op == "lookup":
        return drawn.draw(lookups("int64", [1, -5, 2**60], drawn.one("int")))
    if op == "bucketize":
        return {**call(op, drawn.one(drawn.pick("int", "float"))), "boundaries": [-1, 0.5, 3, 2**40]}
    if op == "hash":
        kinds = ("bool", "int", "float", "string", "bytes", "timestamp")
        args = [drawn.one(drawn.pick(*kinds)) for _ in range(drawn.pick(1, 2))]
        return {**call(op, *args), **drawn.pick({}, {"seed": 7}, {"buckets": 1}, {"buckets": 1000, "seed": 2**62})}
    if op == "sub":
        return call(op, drawn.one("timestamp"), drawn.one("timestamp"))
    return call(op, drawn.one("string"))


def int_of_list(drawn: Drawn) -> Expr:
    op = drawn.pick("list_sum", "list_min", "list_max", "list_get", "list_length")
    list_of = drawn.pick("list of int", "list of float", "list of string") if op == "list_length" else "list of int"
    return call(op, drawn.one(list_of), *([drawn.one("int")] if op == "list_get" else []))


SETS = [
    ("int", "int64", list(range(-2, 20))),
    ("int", "float64", [1.0, 2.5]),
    ("float", "float64", [0.0, 1.5, "nan", "inf"]),
    ("float", "int64", [0, 1]),
    ("string", "string", ["a", "AB", ""]),
    ("bool", "bool", [True]),
]


def bool_operation(drawn: Drawn) -> Expr:
    op = drawn.pick("contains", "starts_with", "ends_with", "is_in", "list_contains", "cast")
    if op == "cast":
        return {"op": op, "dtype": "bool", "args": [drawn.one(drawn.pick("int", "float", "string"))]}
    if op == "is_in":
        of, dtype, constants = drawn.pick(*SETS)
        return {**call(op, drawn.one(of)), "dtype": dtype, "values": constants}
    if op == "list_contains":
        of = drawn.pick("int", "float", "string")
        return call(op, drawn.one(f"list of {of}"), drawn.one(of))
    return call(op, drawn.one("string"), drawn.one("string"))


@st.composite
def lookups(draw: st.DrawFn, dtype: str, constants: list[Any], default: Expr) -> Expr:
    """A map from strings or from ints, with and without a default."""
    key_dtype = draw(st.sampled_from(["string", "int64"]))
    keys: list[Any] = ["a", "", "ab"] if key_dtype == "string" else [0, 1, -3]
    of = "string" if key_dtype == "string" else "int"
    args = [draw(leaves(of)), *([default] if draw(st.booleans()) else [])]
    return {**call("lookup", *args), "key_dtype": key_dtype, "keys": keys, "dtype": dtype, "values": constants}


def string_operation(drawn: Drawn) -> Expr:
    op = drawn.pick("lower", "upper", "strip", "strip_start", "strip_end", "replace", "slice", "concat", "add", "cast")
    if op == "cast":
        return {
            "op": op,
            "dtype": "string",
            "args": [drawn.one(drawn.pick("bool", "int", "float", "timestamp", "bytes"))],
        }
    if op.startswith("strip"):
        return {**call(op, drawn.one("string")), **drawn.pick({}, {"characters": "a"}, {"characters": "bA\u00e9"})}
    count = {"replace": 2, "slice": 0, "concat": drawn.pick(0, 1), "add": drawn.pick(1, 2)}.get(op, 0)
    rest = [drawn.one("string") for _ in range(count)]
    if op == "slice":
        rest = [drawn.one("int") for _ in range(drawn.pick(1, 2))]
    return call(op, drawn.one("string"), *rest)


def string_of_constant(drawn: Drawn) -> Expr:
    if drawn.pick(True, False):
        return call("list_get", drawn.one("list of string"), drawn.one("int"))
    return drawn.draw(lookups("string", ["x", "", "\u00e9"], drawn.one("string")))


EXTENDED: dict[str, Callable[[Drawn], Expr]] = {
    "bool": bool_operation,
    "int": lambda drawn: drawn.pick(int_operation, int_of_list)(drawn),
    "float": float_operation,
    "string": lambda drawn: drawn.pick(string_operation, string_of_constant)(drawn),
    "bytes": bytes_of_text,
    "timestamp": timestamp_operation,
    "list of string": string_list,
}


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


def cells(dtype: str) -> st.SearchStrategy[Any]:
    if dtype == "string":
        return WORDS
    return st.one_of(TIMES, values(dtype)) if dtype == "timestamp" else values(dtype)


requests = st.lists(
    st.fixed_dictionaries({name: st.one_of(cells(dtype), cells(dtype), st.none()) for name, dtype in COLUMNS.items()}),
    max_size=8,
)


def over_a_batch(plan: _native.Plan, fields: list[tuple[str, Expr]], rows: list[dict[str, Any]]) -> list[list[Any]]:
    columns = {name: pa.array([row[name] for row in rows], arrow_type(dtype)) for name, dtype in COLUMNS.items()}
    columns["at"] = pa.array([0] * len(rows), arrow_type("timestamp"))
    table = pa.table(join_frames(plan, "all", pa.table(columns), {}, "at"))
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
    return [[without_nan(value, dtype) for value in column] for column, (dtype, _) in zip(columns, fields, strict=True)]


def without_nan(value: Any, dtype: str) -> Any:
    if dtype.startswith("list<") and value is not None:
        return tuple(without_nan(item, dtype[5:-1]) for item in value)
    return "nan" if dtype.startswith("float") and is_nan(value) else value


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
