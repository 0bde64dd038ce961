"""The executable specification of expressions: a walk over the tree for one row, in plain Python.

An expression is JSON: `{"op": "col", "name": ..}`, `{"op": "lit", "dtype": .., "value": ..}` or `{"op": .., "args":
[..]}`, with `"dtype"` beside a `cast`. It has one of the kinds bool, int, float, timestamp, string, bytes, known
before any row is seen; any value may be null (None). Columns of all int types read as ints of 64 bits, float32 reads
as float64, an unsigned value above 2**63 - 1 reads as null.

Everything here but `TRANSCENDENTAL` has one right answer to the bit. Those functions may differ between mathematical
libraries by some units in the last place; the engine's own library is the same on every path.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Expr = Mapping[str, Any]
Row = Mapping[str, Any]
Types = Mapping[str, str]

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
NAN = float("nan")
INF = float("inf")

TRANSCENDENTAL = frozenset(
    {"sin", "cos", "tan", "asin", "acos", "atan", "atan2", "exp", "expm1", "log", "log1p", "pow"}
)

INT_RANGES = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (INT64_MIN, INT64_MAX),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, INT64_MAX),  # ints have 64 bits with a sign
}


# 1. Kinds


def kind_of_dtype(dtype: str) -> str:
    """What a column of a type reads as."""
    if dtype in INT_RANGES:
        return "int"
    return {"float32": "float", "float64": "float"}.get(dtype, dtype)


KIND_OF_RESULT = {
    **dict.fromkeys(("and", "or", "not", "is_null", "eq", "ne", "lt", "le", "gt", "ge"), "bool"),
    **dict.fromkeys(("year", "month", "day", "hour", "minute", "second", "day_of_week", "day_of_year"), "int"),
    **dict.fromkeys(("div", "sqrt", "radians", "epoch_seconds", *TRANSCENDENTAL), "float"),
}


def kind_of(expr: Expr, types: Types) -> str:
    """The kind of an expression. Ints beside floats are floats; otherwise the arguments agree and give their kind."""
    op = expr["op"]
    if op == "col":
        return kind_of_dtype(types[expr["name"]])
    if op in ("lit", "cast"):
        return kind_of_dtype(expr["dtype"])
    if op in KIND_OF_RESULT:
        return KIND_OF_RESULT[op]
    args = expr["args"][1:] if op == "if_else" else expr["args"]
    kinds = [kind_of(arg, types) for arg in args]
    return "float" if "float" in kinds else kinds[0]


# 2. Null
#
# Null in, null out, except:
# - is_null says whether it is one.
# - fill_null and coalesce give the first argument that is not null.
# - if_else looks at its condition and the branch that it takes; an unknown condition takes none.
# - `and` is false if one argument is false, `or` is true if one is true, whatever the others are; otherwise null
#   decides.


def evaluate(expr: Expr, row: Row, types: Types) -> Any:
    """The value of an expression for a row.

    Args:
        expr: the expression, which must be well typed.
        row: column -> value; timestamps as ints of microseconds, float32 as the float of the same value.
        types: column -> type.
    """
    op = expr["op"]
    if op == "col":
        return read(row[expr["name"]], types[expr["name"]])
    if op == "lit":
        return literal(expr["value"], expr["dtype"])
    kind = kind_of(expr, types)
    args = [evaluate(arg, row, types) for arg in expr["args"]]
    if op in NULL_AWARE:
        return as_kind(NULL_AWARE[op](args), kind)
    if None in args:
        return None
    if op == "cast":
        return cast(args[0], expr["dtype"])
    if op in COMPARISONS:
        return compare(op, args[0], args[1])
    if op in TIME_PARTS:
        return TIME_PARTS[op](args[0])
    if kind == "int":
        return int_operation(op, args)
    return float_operation(op, [float(arg) for arg in args]) if kind == "float" else not args[0]


def evaluate_field(expr: Expr, dtype: str, row: Row, types: Types) -> Any:
    """The value of an on-demand feature: the expression's value, cast to the field's type."""
    value = evaluate(expr, row, types)
    return None if value is None else cast(value, dtype)


def logic(deciding: bool) -> Callable[[list[Any]], bool | None]:
    def combine(args: list[Any]) -> bool | None:
        if deciding in args:
            return deciding
        return None if None in args else not deciding

    return combine


def first_known(args: list[Any]) -> Any:
    return next((arg for arg in args if arg is not None), None)


def chosen(args: list[Any]) -> Any:
    condition, yes, no = args
    return None if condition is None else (yes if condition else no)


NULL_AWARE: dict[str, Callable[[list[Any]], Any]] = {
    "is_null": lambda args: args[0] is None,
    "fill_null": first_known,
    "coalesce": first_known,
    "if_else": chosen,
    "and": logic(deciding=False),
    "or": logic(deciding=True),
}


def as_kind(value: Any, kind: str) -> Any:
    """An int that stands where a float could have stood is a float."""
    return float(value) if kind == "float" and value is not None else value


# 3. Columns, literals, casts


def read(value: Any, dtype: str) -> Any:
    if value is not None and dtype == "uint64" and value > INT64_MAX:
        return None
    return value


def literal(value: Any, dtype: str) -> Any:
    """Floats that JSON has no number for are the strings nan, inf and -inf."""
    if value is not None and dtype in ("float32", "float64"):
        return cast(float(value), dtype)
    return value


def cast(value: Any, dtype: str) -> Any:
    """The value as another type; null where it does not fit. A float loses its fraction on the way to an int."""
    if dtype in INT_RANGES:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        low, high = INT_RANGES[dtype]
        whole = int(value)
        return whole if low <= whole <= high else None
    if dtype == "float64":
        return float(value)
    if dtype == "float32":
        return to_float32(float(value))
    return value  # bool, string, bytes, timestamp: the same, or an int that becomes a time


def to_float32(value: float) -> float:
    """The nearest float32; what is too large for one is infinite."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(INF, value)


# 4. Comparisons
#
# Ints beside floats are compared as floats. NaN is equal to nothing. Strings are in the order of their UTF-8 bytes.

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def compare(op: str, left: Any, right: Any) -> bool:
    if isinstance(left, float) or isinstance(right, float):
        left, right = float(left), float(right)
    if isinstance(left, str):
        left, right = left.encode(), right.encode()
    return COMPARISONS[op](left, right)


# 5. Ints
#
# A result outside 64 bits is null. `mod` has the sign of the divisor, and by zero it is null.


def int_operation(op: str, args: Sequence[int]) -> int | None:
    if op in INT_UNARY:
        return in_int64(INT_UNARY[op](args[0]))
    if op == "clip":
        value, low, high = args
        return min(max(value, low), high)
    result: int | None = args[0]
    for arg in args[1:]:
        if result is None or (op == "mod" and arg == 0):
            return None
        result = in_int64(INT_BINARY[op](result, arg))
    return result


INT_UNARY: dict[str, Callable[[int], int]] = {
    "neg": operator.neg,
    "abs": abs,
    "floor": int,
    "ceil": int,
    "round": int,
}

INT_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "mod": operator.mod,
    "min": min,
    "max": max,
}


def in_int64(value: int) -> int | None:
    return value if INT64_MIN <= value <= INT64_MAX else None


# 6. Floats
#
# IEEE 754 without traps: x / 0 is infinite or NaN, the logarithm of 0 is -inf, what has no answer is NaN.
# - div, and the functions of section 8, always work on floats.
# - mod has the sign of the divisor, also where it is zero.
# - min, max and clip are NaN if an argument is; of two equal zeros they give the first.
# - round takes halves to the even neighbour.


def float_operation(op: str, args: Sequence[float]) -> float:
    if len(args) == 1:
        return FLOAT_UNARY[op](args[0])
    if op == "clip":
        return float_min(float_max(args[0], args[1]), args[2])
    result = args[0]
    for arg in args[1:]:
        result = FLOAT_BINARY[op](result, arg)
    return result


def float_div(x: float, y: float) -> float:
    if y != 0:
        return x / y
    return NAN if x == 0 or math.isnan(x) else math.copysign(INF, x) * math.copysign(1.0, y)


def float_mod(x: float, y: float) -> float:
    if math.isnan(x) or math.isnan(y) or math.isinf(x) or y == 0:
        return NAN
    remainder = math.fmod(x, y)
    if remainder == 0:
        return math.copysign(0.0, y)
    return remainder + y if (remainder < 0) != (y < 0) else remainder


def float_min(x: float, y: float) -> float:
    if math.isnan(x) or math.isnan(y):
        return NAN
    return min(x, y)


def float_max(x: float, y: float) -> float:
    if math.isnan(x) or math.isnan(y):
        return NAN
    return max(x, y)


def whole(rounding: Callable[[float], int]) -> Callable[[float], float]:
    """A rounding that keeps NaN, the infinities, and the sign of zero."""
    return lambda x: math.copysign(float(rounding(x)), x) if math.isfinite(x) else x


# 7. Time
#
# Parts are of UTC in the proleptic Gregorian calendar, for every int of 64 bits; the calendar repeats after 400 years.

DAYS_OF_400_YEARS = 146_097
MICROS_PER_DAY = 86_400_000_000


def date_of(time_us: int) -> tuple[int, dt.date]:
    """The year, and a date with the same month and day in the first 400 years from 1970."""
    cycles, day = divmod(time_us // MICROS_PER_DAY, DAYS_OF_400_YEARS)
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    return date.year + 400 * cycles, date


def second_of_day(time_us: int) -> int:
    return time_us % MICROS_PER_DAY // 1_000_000


TIME_PARTS: dict[str, Callable[[int], float]] = {
    "year": lambda us: date_of(us)[0],
    "month": lambda us: date_of(us)[1].month,
    "day": lambda us: date_of(us)[1].day,
    "hour": lambda us: second_of_day(us) // 3_600,
    "minute": lambda us: second_of_day(us) // 60 % 60,
    "second": lambda us: second_of_day(us) % 60,
    "day_of_week": lambda us: date_of(us)[1].weekday(),  # Monday is 0
    "day_of_year": lambda us: date_of(us)[1].timetuple().tm_yday,  # 1 January is 1
    "epoch_seconds": lambda us: float(us) / 1e6,
}


# 8. Functions that Python's mathematics refuses to answer at their edges


def without_traps(function: Callable[[float], float], overflow: float = INF) -> Callable[[float], float]:
    """Too large is infinite, undefined is NaN."""

    def answer(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return overflow
        except ValueError:
            return NAN

    return answer


def logarithm(function: Callable[[float], float], pole: float) -> Callable[[float], float]:
    return lambda x: -INF if x == pole else without_traps(function)(x)


def power(x: float, y: float) -> float:
    is_odd = math.isfinite(y) and y == int(y) and int(y) % 2 == 1
    sign = -1.0 if is_odd and math.copysign(1.0, x) < 0 else 1.0
    try:
        return math.pow(x, y)
    except OverflowError:
        return sign * INF
    except ValueError:
        return sign * INF if x == 0 else NAN


FLOAT_UNARY: dict[str, Callable[[float], float]] = {
    "neg": operator.neg,
    "abs": abs,
    "floor": whole(math.floor),
    "ceil": whole(math.ceil),
    "round": whole(round),
    "radians": lambda x: x * (math.pi / 180.0),
    "sqrt": without_traps(math.sqrt),
    "sin": without_traps(math.sin),
    "cos": without_traps(math.cos),
    "tan": without_traps(math.tan),
    "asin": without_traps(math.asin),
    "acos": without_traps(math.acos),
    "atan": math.atan,
    "exp": without_traps(math.exp),
    "expm1": without_traps(math.expm1),
    "log": logarithm(math.log, pole=0.0),
    "log1p": logarithm(math.log1p, pole=-1.0),
}

FLOAT_BINARY: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": float_div,
    "mod": float_mod,
    "pow": power,
    "atan2": math.atan2,
    "min": float_min,
    "max": float_max,
}
