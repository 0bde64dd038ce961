"""Expressions over columns, written as in Polars and run by the engine: `(col("hour") * (2 * math.pi / 24)).sin()`.

An expression is data. Building one checks its shape; types are checked when the definitions are compiled. The same
compiled form runs over a training set and over one request, and gives the same bits.

Null in gives null out, except for `is_null`, `fill_null`, `coalesce`, `when/then/otherwise` (which looks only at the
branch that it takes) and `&`, `|`, which follow three-valued logic. Division is always of floats. NaN is not null.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

from headrace.dtypes import DType, DTypeLike, Float64, as_dtype
from headrace.errors import DefinitionError, make_error

Node = dict[str, Any]


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

    @property
    def dt(self) -> DateTimeParts:
        """The parts of a timestamp, in UTC."""
        return DateTimeParts(self)


class DateTimeParts:
    """What `expr.dt` offers: the parts of a timestamp, in UTC."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def year(self) -> Expr:
        return _call("year", self._expr)

    def month(self) -> Expr:
        return _call("month", self._expr)

    def day(self) -> Expr:
        return _call("day", self._expr)

    def hour(self) -> Expr:
        return _call("hour", self._expr)

    def minute(self) -> Expr:
        return _call("minute", self._expr)

    def second(self) -> Expr:
        return _call("second", self._expr)

    def day_of_week(self) -> Expr:
        """Monday is 0, Sunday is 6."""
        return _call("day_of_week", self._expr)

    def day_of_year(self) -> Expr:
        """1 January is 1."""
        return _call("day_of_year", self._expr)

    def epoch_seconds(self) -> Expr:
        """Seconds since 1970-01-01T00:00:00Z as a float64."""
        return _call("epoch_seconds", self._expr)


ExprLike = Expr | bool | int | float | str | dt.datetime


def col(name: str) -> Expr:
    """The column of that name: an input of the on-demand view."""
    if not isinstance(name, str) or not name:
        raise DefinitionError("invalid_expression", f"{name!r} is not the name of a column", 'write col("name")')
    return Expr({"op": "col", "name": name})


def lit(value: bool | float | str | dt.datetime | None, dtype: DTypeLike | None = None) -> Expr:
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


def _call(op: str, *args: Any) -> Expr:
    return Expr({"op": op, "args": [_node(arg) for arg in args]})


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


def column_names(node: Node) -> Iterator[str]:
    """The names of the columns that an expression reads, in order of appearance, with repetitions."""
    if node["op"] == "col":
        yield node["name"]
    for arg in node.get("args", ()):
        yield from column_names(arg)


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


def expression_text(node: Node) -> str:
    """An expression as one would write it."""
    op = node["op"]
    if op == "col":
        return f'col("{node["name"]}")'
    if op == "lit":
        return repr(node["value"])
    args = [expression_text(arg) for arg in node["args"]]
    if op in _INFIX and len(args) == 2:
        return f"({args[0]} {_INFIX[op]} {args[1]})"
    if op == "cast":
        return f'{args[0]}.cast("{DType(node["dtype"])}")'
    return f"{op}({', '.join(args)})"
