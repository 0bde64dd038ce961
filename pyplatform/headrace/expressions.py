"""Expressions over columns, written as in Polars and run by the engine: `(col("hour") * (2 * math.pi / 24)).sin()`.

An expression is data. Building one checks its shape; types are checked when the definitions are compiled. The same
compiled form runs over a training set and over one request, and gives the same bits.

Null in gives null out, except for `is_null`, `fill_null`, `coalesce`, `when/then/otherwise` (which looks only at the
branch that it takes) and `&`, `|`, which follow three-valued logic. Division is always of floats. NaN is not null.
Strings are under `.str`, times under `.dt`, lists under `.list`:

    col("carrier").str.strip().str.lower().is_in(["aa", "ua"])
    col("departure").dt.hour("America/New_York")
    (col("arrival") - col("departure")) / 60e6          # two times are microseconds apart
    haversine(col("lat"), col("lon"), 40.64, -73.78)     # kilometres
    col("tags").list.contains("sale")
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.dtypes import DTypeLike, Float64, as_dtype
from headrace.errors import DefinitionError, make_error
from headrace.expression_nodes import Node, column_names, expression_text, for_plan

__all__ = [
    "Expr",
    "ExprLike",
    "Node",
    "atan2",
    "coalesce",
    "col",
    "column_names",
    "concat",
    "expression_text",
    "for_plan",
    "hash_of",
    "haversine",
    "if_else",
    "lit",
    "maximum",
    "minimum",
    "one_hot",
    "when",
]


class Expr:
    """A formula over columns. Make one with `col` or `lit`, then use operators and methods."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]  # `==` builds an expression, so an Expr cannot be a key

    def __init__(self, node: Node) -> None:
        self.node = node

    def __repr__(self) -> str:
        return expression_text(self.node)

    def __bool__(self) -> bool:
        raise DefinitionError(
            "invalid_expression",
            f"the truth of {self!r} is not known while it is being written down",
            "use &, | and ~ in place of and, or and not, and when(..).then(..).otherwise(..) in place of if",
        )

    # arithmetic
    def __add__(self, other: ExprLike) -> Expr:
        return _call("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return _call("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return _call("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return _call("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return _call("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return _call("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return _call("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return _call("div", other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return _call("mod", self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return _call("mod", other, self)

    def __pow__(self, other: ExprLike) -> Expr:
        return _call("pow", self, other)

    def __rpow__(self, other: ExprLike) -> Expr:
        return _call("pow", other, self)

    def __neg__(self) -> Expr:
        return _call("neg", self)

    def __abs__(self) -> Expr:
        return _call("abs", self)

    # comparison and logic
    def __eq__(self, other: ExprLike) -> Expr:  # type: ignore[override]
        return _call("eq", self, other)

    def __ne__(self, other: ExprLike) -> Expr:  # type: ignore[override]
        return _call("ne", self, other)

    def __lt__(self, other: ExprLike) -> Expr:
        return _call("lt", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return _call("le", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return _call("gt", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return _call("ge", self, other)

    def __and__(self, other: ExprLike) -> Expr:
        return _call("and", self, other)

    def __rand__(self, other: ExprLike) -> Expr:
        return _call("and", other, self)

    def __or__(self, other: ExprLike) -> Expr:
        return _call("or", self, other)

    def __ror__(self, other: ExprLike) -> Expr:
        return _call("or", other, self)

    def __invert__(self) -> Expr:
        return _call("not", self)

    # null
    def is_null(self) -> Expr:
        return _call("is_null", self)

    def is_not_null(self) -> Expr:
        return _call("not", self.is_null())

    def fill_null(self, value: ExprLike) -> Expr:
        """The value, or `value` where it is null. NaN stays NaN."""
        return _call("fill_null", self, value)

    # functions of one number
    def abs(self) -> Expr:
        return _call("abs", self)

    def sin(self) -> Expr:
        return _call("sin", self)

    def cos(self) -> Expr:
        return _call("cos", self)

    def tan(self) -> Expr:
        return _call("tan", self)

    def asin(self) -> Expr:
        return _call("asin", self)

    def acos(self) -> Expr:
        return _call("acos", self)

    def atan(self) -> Expr:
        return _call("atan", self)

    def atan2(self, x: ExprLike) -> Expr:
        """The angle of the point (x, this), in radians."""
        return _call("atan2", self, x)

    def radians(self) -> Expr:
        """Degrees turned into radians."""
        return _call("radians", self)

    def exp(self) -> Expr:
        return _call("exp", self)

    def expm1(self) -> Expr:
        return _call("expm1", self)

    def log(self) -> Expr:
        """The natural logarithm."""
        return _call("log", self)

    def log1p(self) -> Expr:
        return _call("log1p", self)

    def sqrt(self) -> Expr:
        return _call("sqrt", self)

    def pow(self, exponent: ExprLike) -> Expr:
        return _call("pow", self, exponent)

    def floor(self) -> Expr:
        return _call("floor", self)

    def ceil(self) -> Expr:
        return _call("ceil", self)

    def round(self) -> Expr:
        return _call("round", self)

    def clip(self, lower: ExprLike, upper: ExprLike) -> Expr:
        """The value, moved to the nearer bound where it lies outside `[lower, upper]`."""
        return _call("clip", self, lower, upper)

    def cast(self, dtype: DTypeLike) -> Expr:
        """The value as another type; null where it does not fit."""
        return Expr({"op": "cast", "dtype": str(as_dtype(dtype)), "args": [self.node]})

    # sets, buckets, maps
    def between(self, lower: ExprLike, upper: ExprLike) -> Expr:
        """Whether the value lies in `[lower, upper]`, both ends included."""
        return (self >= lower) & (self <= upper)

    def is_in(self, values: Iterable[Any]) -> Expr:
        """Whether the value equals one of some constants. NaN equals none."""
        dtype, encoded = _literals(values)
        return _call("is_in", self, dtype=dtype, values=encoded)

    def bucketize(self, boundaries: Iterable[float]) -> Expr:
        """The number of boundaries at or below the value: 0 below the first. Null for NaN.

        Args:
            boundaries: ascending, at least one.
        """
        return _call("bucketize", self, boundaries=[_number(boundary) for boundary in boundaries])

    def lookup(self, table: Mapping[Any, Any], default: ExprLike | None = None) -> Expr:
        """The value that a constant map has for this key; `default`, or null, for a key that it lacks."""
        key_dtype, keys = _literals(table.keys())
        dtype, values = _literals(table.values())
        args = (self,) if default is None else (self, default)
        return _call("lookup", *args, key_dtype=key_dtype, keys=keys, dtype=dtype, values=values)

    def hash(self, buckets: int | None = None, seed: int = 0) -> Expr:
        """XXH64 of the value, the same for ever: an int of 64 bits, or with `buckets` one from 0 to buckets - 1."""
        return hash_of(self, buckets=buckets, seed=seed)

    @property
    def dt(self) -> DateTimeParts:
        """The parts of a timestamp, in UTC or in a time zone."""
        return DateTimeParts(self)

    @property
    def str(self) -> StringFunctions:
        """Functions of a string."""
        return StringFunctions(self)

    @property
    def list(self) -> ListFunctions:
        """Functions of a list."""
        return ListFunctions(self)


class DateTimeParts:
    """What `expr.dt` offers: the parts of a timestamp, by the clocks of an IANA time zone, or in UTC without one."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def _part(self, op: str, zone: str | None) -> Expr:
        return _call(op, self._expr) if zone is None else _call(op, self._expr, zone=zone)

    def year(self, zone: str | None = None) -> Expr:
        return self._part("year", zone)

    def quarter(self, zone: str | None = None) -> Expr:
        """1 to 4."""
        return self._part("quarter", zone)

    def month(self, zone: str | None = None) -> Expr:
        """1 to 12."""
        return self._part("month", zone)

    def week(self, zone: str | None = None) -> Expr:
        """The week of ISO 8601, 1 to 53."""
        return self._part("week", zone)

    def day(self, zone: str | None = None) -> Expr:
        """The day of the month, 1 to 31."""
        return self._part("day", zone)

    def hour(self, zone: str | None = None) -> Expr:
        return self._part("hour", zone)

    def minute(self, zone: str | None = None) -> Expr:
        return self._part("minute", zone)

    def second(self, zone: str | None = None) -> Expr:
        return self._part("second", zone)

    def microsecond(self, zone: str | None = None) -> Expr:
        """Microseconds of the second, 0 to 999,999."""
        return self._part("microsecond", zone)

    def day_of_week(self, zone: str | None = None) -> Expr:
        """Monday is 0, Sunday is 6."""
        return self._part("day_of_week", zone)

    def day_of_year(self, zone: str | None = None) -> Expr:
        """1 January is 1."""
        return self._part("day_of_year", zone)

    def second_of_day(self, zone: str | None = None) -> Expr:
        """Seconds that the clock shows since midnight, 0 to 86,399."""
        return self._part("second_of_day", zone)

    def truncate(self, unit: str, zone: str | None = None) -> Expr:
        """The begin of the `second`, `minute`, `hour`, `day`, `week` (Monday), `month`, `quarter` or `year`."""
        return _call("truncate", self._expr, unit=unit, **({} if zone is None else {"zone": zone}))

    def epoch_seconds(self) -> Expr:
        """Seconds since 1970-01-01T00:00:00Z as a float64."""
        return _call("epoch_seconds", self._expr)

    def seconds_since(self, earlier: ExprLike) -> Expr:
        """Seconds from another timestamp to this one as a float64. (`a - b` is the same in microseconds, as an int.)"""
        return (self._expr - earlier) / 1_000_000


class StringFunctions:
    """What `expr.str` offers. Characters are Unicode scalar values; a new string of more than 65,536 bytes is null."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def lower(self) -> Expr:
        return _call("lower", self._expr)

    def upper(self) -> Expr:
        return _call("upper", self._expr)

    def strip(self, characters: str | None = None) -> Expr:
        """Without white space, or without some characters, at both ends."""
        return self._strip("strip", characters)

    def strip_start(self, characters: str | None = None) -> Expr:
        return self._strip("strip_start", characters)

    def strip_end(self, characters: str | None = None) -> Expr:
        return self._strip("strip_end", characters)

    def _strip(self, op: str, characters: str | None) -> Expr:
        return _call(op, self._expr) if characters is None else _call(op, self._expr, characters=characters)

    def length(self) -> Expr:
        """The number of characters."""
        return _call("length", self._expr)

    def contains(self, part: ExprLike) -> Expr:
        """Whether the part stands somewhere in the string; no regular expression."""
        return _call("contains", self._expr, part)

    def starts_with(self, part: ExprLike) -> Expr:
        return _call("starts_with", self._expr, part)

    def ends_with(self, part: ExprLike) -> Expr:
        return _call("ends_with", self._expr, part)

    def replace(self, old: ExprLike, new: ExprLike) -> Expr:
        """Every `old` replaced by `new`."""
        return _call("replace", self._expr, old, new)

    def slice(self, start: ExprLike, length: ExprLike | None = None) -> Expr:
        """Characters from `start` on, which counts from the end if negative; `length` of them, or all."""
        return _call("slice", self._expr, start) if length is None else _call("slice", self._expr, start, length)

    def split(self, by: str) -> Expr:
        """The list of the parts between separators; null for more than 4,096 parts."""
        return _call("split", self._expr, by=by)


class ListFunctions:
    """What `expr.list` offers. `sum`, `mean`, `min`, `max` pass over nulls; a list without values has only a sum: 0."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def sum(self) -> Expr:
        return _call("list_sum", self._expr)

    def mean(self) -> Expr:
        return _call("list_mean", self._expr)

    def min(self) -> Expr:
        return _call("list_min", self._expr)

    def max(self) -> Expr:
        return _call("list_max", self._expr)

    def length(self) -> Expr:
        """The number of elements, nulls included."""
        return _call("list_length", self._expr)

    def contains(self, value: ExprLike) -> Expr:
        return _call("list_contains", self._expr, value)

    def get(self, index: ExprLike) -> Expr:
        """The element at an index, which counts from the end if negative; null outside the list."""
        return _call("list_get", self._expr, index)


ExprLike = Expr | bool | int | float | str | dt.datetime | dt.timedelta
"""What may stand where an expression is expected; a timedelta is an int of microseconds."""


def col(name: str) -> Expr:
    """The column of that name: an input of the on-demand view."""
    if not isinstance(name, str) or not name:
        raise DefinitionError("invalid_expression", f"{name!r} is not the name of a column", 'write col("name")')
    return Expr({"op": "col", "name": name})


def lit(value: bool | float | str | dt.datetime | dt.timedelta | None, dtype: DTypeLike | None = None) -> Expr:
    """A constant. Its type follows from the value; None needs a `dtype`, and a `dtype` may make an int a float64."""
    if value is None:
        if dtype is None:
            raise DefinitionError("invalid_expression", "lit(None) has no type", 'name it: lit(None, dtype="float64")')
        return Expr({"op": "lit", "dtype": str(as_dtype(dtype)), "value": None})
    kind, encoded = _literal(value)
    if dtype is None or as_dtype(dtype) == kind:
        return Expr({"op": "lit", "dtype": kind, "value": encoded})
    if as_dtype(dtype) == Float64 and kind == "int64":
        return Expr({"op": "lit", "dtype": "float64", "value": float(value)})  # type: ignore[arg-type]
    return lit(value).cast(dtype)


def _literal(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DefinitionError("invalid_expression", f"the number {value} does not fit in int64", "use a float")
        return "int64", value
    if isinstance(value, float):
        if math.isnan(value):
            return "float64", "nan"
        return "float64", value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        return "string", value
    if isinstance(value, dt.datetime):
        return "timestamp", datetime_us(value)
    if isinstance(value, dt.timedelta):
        return _literal(value // dt.timedelta(microseconds=1))
    raise DefinitionError(
        "invalid_expression",
        f"{value!r} of type {type(value).__name__} cannot stand in an expression",
        "use an expression, bool, int, float, str or datetime",
    )


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def datetime_us(value: Any) -> int:
    """Microseconds since 1970 in UTC; a datetime without a zone is in UTC.

    Raises:
        InputError: `type_mismatch`.
    """
    if not isinstance(value, dt.datetime):
        raise make_error(
            "type_mismatch", f"{value!r} is not a time", "give a datetime.datetime; without a zone it is UTC"
        )
    aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)


def _node(like: Any) -> Node:
    return like.node if isinstance(like, Expr) else lit(like).node


_CHAINED = frozenset({"add", "mul", "and", "or"})
"""`a + b + c` is one sum of three: these operations work from left to right, two at a time."""


def _call(op: str, *args: Any, **members: Any) -> Expr:
    nodes = [_node(arg) for arg in args]
    if op in _CHAINED and nodes[0]["op"] == op and len(nodes[0]["args"]) < _CHAIN_MAX:
        nodes[:1] = nodes[0]["args"]
    return Expr({"op": op, "args": nodes, **members})


_CHAIN_MAX = 256
"""Terms of one chain. Each further term copies those before, so a longer sum is a sum of sums."""


def _number(value: Any) -> float | str:
    kind, encoded = _literal(value)
    if kind not in ("int64", "float64"):
        raise DefinitionError("invalid_expression", f"{value!r} is not a number", "use ints and floats")
    return encoded  # type: ignore[no-any-return]


def _literals(values: Iterable[Any]) -> tuple[str, list[Any]]:
    """Constants of one type and that type; ints beside floats are floats."""
    literals = [_literal(value) for value in values]
    kinds = {kind for kind, _ in literals}
    if kinds == {"int64", "float64"}:
        return "float64", [encoded for _, encoded in literals]
    if len(kinds) > 1:
        raise DefinitionError(
            "invalid_expression", f"constants of {' and '.join(sorted(kinds))} in one list", "give them one type"
        )
    return (kinds.pop() if kinds else "string"), [encoded for _, encoded in literals]


def coalesce(*values: ExprLike) -> Expr:
    """The first of the values that is not null."""
    return _call("coalesce", *values)


def minimum(*values: ExprLike) -> Expr:
    """The smallest of the values of a row."""
    return _call("min", *values)


def maximum(*values: ExprLike) -> Expr:
    """The largest of the values of a row."""
    return _call("max", *values)


def atan2(y: ExprLike, x: ExprLike) -> Expr:
    """The angle of the point (x, y), in radians."""
    return _call("atan2", y, x)


def concat(*values: ExprLike) -> Expr:
    """The strings of a row joined; null if one is null."""
    return _call("concat", *values)


def haversine(lat: ExprLike, lon: ExprLike, to_lat: ExprLike, to_lon: ExprLike) -> Expr:
    """The great-circle distance between two points in kilometres; degrees in, Earth's mean radius of 6371.0088 km."""
    return _call("haversine", lat, lon, to_lat, to_lon)


def hash_of(*values: ExprLike, buckets: int | None = None, seed: int = 0) -> Expr:
    """XXH64 of one or several values, each hash being the seed of the next; null if one is null.

    It never changes between versions, machines and languages. An int of 64 bits; with `buckets`, the remainder of the
    hash read as an unsigned number.
    """
    members = {**({"seed": seed} if seed else {}), **({} if buckets is None else {"buckets": buckets})}
    return _call("hash", *values, **members)


def one_hot(value: Expr, categories: Iterable[Any]) -> dict[str, Expr]:
    """One expression for each category, 1 where the value equals it and 0 elsewhere, for null too.

    As models take numbers, each category becomes a feature of its own:

        schema = [Field(f"carrier_{name}", Int64, expr) for name, expr in one_hot(col("carrier"), ["AA", "UA"]).items()]

    Returns:
        the expressions by the categories' names.
    """
    return {str(category): (value == category).fill_null(False).cast("int64") for category in categories}


def if_else(condition: ExprLike, then: ExprLike, otherwise: ExprLike) -> Expr:
    """`then` where the condition is true, `otherwise` where it is false, null where it is null."""
    return _call("if_else", condition, then, otherwise)


class When:
    """`when(condition)`, waiting for `.then(value)`."""

    __slots__ = ("_condition", "_earlier")

    def __init__(self, condition: ExprLike, earlier: tuple[tuple[ExprLike, ExprLike], ...] = ()) -> None:
        self._condition = condition
        self._earlier = earlier

    def then(self, value: ExprLike) -> Then:
        return Then((*self._earlier, (self._condition, value)))


class Then:
    """`when(..).then(..)`, waiting for `.otherwise(value)` or another `.when(condition)`."""

    __slots__ = ("_branches",)

    def __init__(self, branches: tuple[tuple[ExprLike, ExprLike], ...]) -> None:
        self._branches = branches

    def when(self, condition: ExprLike) -> When:
        return When(condition, self._branches)

    def otherwise(self, value: ExprLike) -> Expr:
        result: ExprLike = value
        for condition, then in reversed(self._branches):
            result = if_else(condition, then, result)
        return result if isinstance(result, Expr) else lit(result)


def when(condition: ExprLike) -> When:
    """Starts `when(condition).then(value).otherwise(value)`; further `.when(..).then(..)` may stand between."""
    return When(condition)
