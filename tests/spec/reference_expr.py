"""The executable specification of expressions: a walk over the tree for one row, in plain Python.

An expression is JSON: `{"op": "col", "name": ..}`, `{"op": "lit", "dtype": .., "value": ..}` or `{"op": .., "args":
[..]}`, with constants such as the `"dtype"` of a `cast` or the `"zone"` of an `hour` beside the arguments. It may also
be `{"op": "steps", "steps": [..]}`, where `{"op": "ref", "step": 0}` stands for the value of an earlier step and the
last step is the value of the whole. It has one of the kinds bool, int, float, timestamp, string, bytes or a list of one
of these, known before any row is seen; any value may be null (None), and so may any element of a list. Columns of all
int types read as ints of 64 bits, float32 reads as float64, an unsigned value above 2**63 - 1 reads as null.

Everything here but `TRANSCENDENTAL` has one right answer to the bit. Those functions may differ between mathematical
libraries by some units in the last place; the engine's own library is the same on every path.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import operator
import re
import struct
import zoneinfo
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
    {"sin", "cos", "tan", "asin", "acos", "atan", "atan2", "exp", "expm1", "log", "log1p", "pow", "haversine"}
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
    if dtype.startswith("list<"):
        return f"list of {kind_of_dtype(dtype[5:-1])}"
    if dtype in INT_RANGES:
        return "int"
    return {"float32": "float", "float64": "float"}.get(dtype, dtype)


KIND_OF_RESULT = {
    **dict.fromkeys(("and", "or", "not", "is_null", "eq", "ne", "lt", "le", "gt", "ge"), "bool"),
    **dict.fromkeys(("contains", "starts_with", "ends_with", "is_in", "list_contains"), "bool"),
    **dict.fromkeys(("year", "quarter", "month", "week", "day", "hour", "minute", "second", "microsecond"), "int"),
    **dict.fromkeys(("day_of_week", "day_of_year", "second_of_day", "length", "list_length"), "int"),
    **dict.fromkeys(("bucketize", "hash"), "int"),
    **dict.fromkeys(("div", "sqrt", "radians", "epoch_seconds", "list_mean", *TRANSCENDENTAL), "float"),
    **dict.fromkeys(("lower", "upper", "strip", "strip_start", "strip_end", "replace", "slice", "concat"), "string"),
    "truncate": "timestamp",
    "split": "list of string",
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
    if op in ("list_sum", "list_min", "list_max", "list_get"):
        return kind_of(expr["args"][0], types).removeprefix("list of ")
    if op == "lookup":
        kinds = [kind_of_dtype(expr["dtype"]), *(kind_of(arg, types) for arg in expr["args"][1:])]
        return "float" if "float" in kinds else kinds[0]
    args = expr["args"][1:] if op == "if_else" else expr["args"]
    kinds = [kind_of(arg, types) for arg in args]
    if op in ("add", "sub") and "timestamp" in kinds:  # a time and microseconds; two times are microseconds apart
        return "int" if kinds == ["timestamp", "timestamp"] else "timestamp"
    return "float" if "float" in kinds else kinds[0]


# 2. Null
#
# Null in, null out, except:
# - is_null says whether it is one.
# - fill_null and coalesce give the first argument that is not null.
# - lookup gives its default for a key that is not null and not in the map.
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
    if op == "steps":
        return evaluate_steps(expr["steps"], row, types)
    if op == "col":
        return read(row[expr["name"]], types[expr["name"]])
    if op == "lit":
        return literal(expr["value"], expr["dtype"])
    kind = kind_of(expr, types)
    args = [evaluate(arg, row, types) for arg in expr["args"]]
    if op == "lookup":
        return as_kind(lookup(expr, args), kind)
    if op in NULL_AWARE:
        return as_kind(NULL_AWARE[op](args), kind)
    if None in args:
        return None
    if op == "cast":
        if expr["dtype"] == "string" and kind_of(expr["args"][0], types) == "timestamp":
            return time_text(args[0])
        return cast(args[0], expr["dtype"])
    return operation(expr, args, kind)


def operation(expr: Expr, args: list[Any], kind: str) -> Any:
    """An operation on values that are not null."""
    op = expr["op"]
    if op in COMPARISONS:
        return compare(op, args[0], args[1])
    if op in TIME_PARTS:
        return time_part(op, args[0], expr.get("zone"))
    if op in WITH_CONSTANTS:
        return WITH_CONSTANTS[op](expr, args)
    if op in LIST_OPERATIONS:
        return LIST_OPERATIONS[op](args, kind)
    if op in TEXT_OPERATIONS:
        return kept(TEXT_OPERATIONS[op](*args))
    if op == "add" and kind == "string":
        return kept("".join(args))
    if kind in ("int", "timestamp"):
        return int_operation(op, args)
    return float_operation(op, args) if kind == "float" else not args[0]


def evaluate_steps(steps: Sequence[Expr], row: Row, types: Types) -> Any:
    """The value of the last step. A step's value stands in the later ones like a column of its own."""
    row, types = dict(row), dict(types)
    value = None
    for number, step in enumerate(map(with_columns_for_steps, steps)):
        kind = kind_of(step, types)
        value = evaluate(step, row, types)
        row[f"step {number}"], types[f"step {number}"] = value, dtype_of_kind(kind)
    return value


def with_columns_for_steps(expr: Expr) -> Expr:
    if expr["op"] == "ref":
        return {"op": "col", "name": f"step {expr['step']}"}
    if "args" not in expr:
        return expr
    return {**expr, "args": [with_columns_for_steps(arg) for arg in expr["args"]]}


def dtype_of_kind(kind: str) -> str:
    if kind.startswith("list of "):
        return f"list<{dtype_of_kind(kind.removeprefix('list of '))}>"
    return {"int": "int64", "float": "float64"}.get(kind, kind)


def evaluate_field(expr: Expr, dtype: str, row: Row, types: Types) -> Any:
    """The value of an on-demand feature: the expression's value cast to the field's type, a list's elements each."""
    value = evaluate(expr, row, types)
    if isinstance(value, list):
        return [None if item is None else cast(item, dtype[5:-1]) for item in value]
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
    """An unsigned value above 2**63 - 1 reads as null, as does a string or bytes of over 65,536 bytes in a list."""
    if isinstance(value, list):
        return [kept(read(item, dtype[5:-1])) for item in value]
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
    if isinstance(value, str) and dtype not in ("string", "bytes"):
        value = parse(value, kind_of_dtype(dtype))
        return None if value is None else cast(value, dtype)
    if dtype == "string":
        return kept(as_text(value))
    if dtype == "bytes":
        return value.encode() if isinstance(value, str) else value
    if dtype == "bool":
        return bool(value)
    if dtype == "timestamp":
        return cast(value, "int64")
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
    raise AssertionError(dtype)


# Text is read and written so:
# - an int is decimal digits with or without a sign.
# - a float is a decimal number with or without a sign, a point, an exponent; or nan, inf, infinity in any case. It is
#   written with the fewest digits that read back as the same float, with an exponent below 1e-4 and from 1e16 on.
# - a bool is true or false, read in any case.
# - a timestamp is RFC 3339; without a zone it is UTC, without a time midnight, and digits after the sixth of a second
#   are cut. It is written in UTC with 0, 3 or 6 digits of a second, and only for the years 0 to 9999.

INT_TEXT = re.compile(r"[+-]?[0-9]+")
FLOAT_TEXT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)
TIME_TEXT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"([Tt ]([0-9]{2}):([0-9]{2})(:([0-9]{2}))?(\.([0-9]+))?([Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def parse(text: str, kind: str) -> Any:
    if kind == "int":
        return in_int64(int(text)) if INT_TEXT.fullmatch(text) else None
    if kind == "float":
        return float(text) if FLOAT_TEXT.fullmatch(text) else None
    if kind == "bool":
        return {"true": True, "false": False}.get(text.lower()) if text.isascii() else None
    match = TIME_TEXT.fullmatch(text)
    return parsed_time(match) if match else None


def parsed_time(match: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second = (int(match[group] or 0) for group in (1, 2, 3, 5, 6, 8))
    fraction = int((match[10] or "")[:6].ljust(6, "0"))
    zone = match[11] or "Z"
    east_minutes = 0
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            return None
        east_minutes = (1 if zone[0] == "+" else -1) * (60 * hours + minutes)
    try:
        moment = dt.datetime(year + 400, month, day, hour, minute, second, tzinfo=dt.UTC)  # Python has no year 0
    except ValueError:
        return None
    days = (moment.date() - dt.date(1970, 1, 1)).days - DAYS_OF_400_YEARS
    return ((days * 24 + hour) * 60 + minute - east_minutes) * 60_000_000 + second * 1_000_000 + fraction


def as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda match: "e" + match[1].lstrip("+"), repr(value))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return str(value)


def time_text(time_us: int) -> str | None:
    year, date = date_of(time_us)
    if not 0 <= year <= 9999:
        return None
    second, fraction = second_of_day(time_us), time_us % 1_000_000
    digits = "" if fraction == 0 else f".{fraction // 1000:03}" if fraction % 1000 == 0 else f".{fraction:06}"
    clock = f"{second // 3_600:02}:{second // 60 % 60:02}:{second % 60:02}{digits}"
    return f"{year:04}-{date.month:02}-{date.day:02}T{clock}Z"


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


#
# add, mul, min and max of more than two arguments go from left to right, two at a time; two ints are added as ints.


def float_operation(op: str, args: Sequence[float]) -> float | None:
    if len(args) == 1:
        return FLOAT_UNARY[op](float(args[0]))
    if op == "clip":
        return float_min(float_max(float(args[0]), float(args[1])), float(args[2]))
    if op == "haversine":
        return haversine(*(float(arg) for arg in args))
    result: Any = args[0]
    for arg in args[1:]:
        if type(result) is int and type(arg) is int and op in INT_BINARY:
            result = int_operation(op, [result, arg])
            if result is None:
                return None
        else:
            result = FLOAT_BINARY[op](float(result), float(arg))
    return float(result)


EARTH_RADIUS_KM = 6371.0088  # the mean radius (2a + b) / 3 of the IUGG


def haversine(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> float:
    """The great-circle distance in kilometres of two points in degrees."""
    sin, cos = FLOAT_UNARY["sin"], FLOAT_UNARY["cos"]
    degree = math.pi / 180.0
    start, end = latitude * degree, to_latitude * degree
    half_latitude = sin((end - start) / 2.0)
    half_longitude = sin((to_longitude - longitude) * degree / 2.0)
    chord = half_latitude * half_latitude + cos(start) * cos(end) * (half_longitude * half_longitude)
    return 2.0 * EARTH_RADIUS_KM * FLOAT_UNARY["asin"](FLOAT_UNARY["sqrt"](float_min(chord, 1.0)))


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
# Parts are of UTC, or of what the clocks of an IANA zone show, in the proleptic Gregorian calendar, for every int of 64
# bits; the calendar repeats after 400 years, and so do the rules of zones from 2100 on. Weeks are those of ISO 8601.
# A time less a time is an int of microseconds, and a time and an int of microseconds make a time.

DAYS_OF_400_YEARS = 146_097
MICROS_PER_DAY = 86_400_000_000


def date_of(time_us: int) -> tuple[int, dt.date]:
    """The year, and a date with the same month and day in the first 400 years from 1970."""
    cycles, day = divmod(time_us // MICROS_PER_DAY, DAYS_OF_400_YEARS)
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    return date.year + 400 * cycles, date


def second_of_day(time_us: int) -> int:
    return time_us % MICROS_PER_DAY // 1_000_000


def offset_us(zone: str, time_us: int) -> int:
    """Microseconds that the clocks of a zone are ahead of UTC."""
    end = 16_725_225_600 * 1_000_000  # 2500-01-01
    cycle = DAYS_OF_400_YEARS * MICROS_PER_DAY
    if time_us >= end:
        time_us -= ((time_us - end) // cycle + 1) * cycle
    time_us = max(time_us, -62_000_000_000 * 1_000_000)  # Python's times begin with year 1; no clock changed before
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)
    offset = moment.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset // dt.timedelta(microseconds=1)


def local_time(time_us: int, zone: str | None) -> int | None:
    return time_us if zone is None else in_int64(time_us + offset_us(zone, time_us))


def utc_time(local_us: int, zone: str) -> int | None:
    """When the clocks of a zone show a time: first, if twice; as if they had not jumped, if they jump over it."""
    offsets = {offset_us(zone, time_us) for time_us in (local_us - MICROS_PER_DAY, local_us + MICROS_PER_DAY)}
    found = [local_us - offset for offset in offsets if offset_us(zone, local_us - offset) == offset]
    return in_int64(min(found) if found else local_us - offset_us(zone, local_us - MICROS_PER_DAY))


def truncate(expr: Expr, args: Sequence[int]) -> int | None:
    """The begin of the unit that a time lies in, by the clocks of its zone.

    Units up to an hour are cut with the offset of the time itself; longer ones begin at midnight.
    """
    unit, zone = expr["unit"], expr.get("zone")
    local_us = local_time(args[0], zone)
    if local_us is None:
        return None
    width = {"second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000}.get(unit)
    if width is not None:
        start_us = in_int64(local_us - local_us % width)
        return None if start_us is None else in_int64(args[0] - (local_us - start_us))
    _, date = date_of(local_us)
    back = {
        "day": 0,
        "week": date.weekday(),
        "month": date.day - 1,
        "quarter": (date - date.replace(month=(date.month - 1) // 3 * 3 + 1, day=1)).days,
        "year": date.timetuple().tm_yday - 1,
    }[unit]
    start_us = in_int64((local_us // MICROS_PER_DAY - back) * MICROS_PER_DAY)
    if start_us is None or zone is None:
        return start_us
    return utc_time(start_us, zone)


def time_part(op: str, time_us: int, zone: str | None) -> float | None:
    local_us = local_time(time_us, zone)
    return None if local_us is None else TIME_PARTS[op](local_us)


TIME_PARTS: dict[str, Callable[[int], float]] = {
    "quarter": lambda us: (date_of(us)[1].month + 2) // 3,
    "week": lambda us: date_of(us)[1].isocalendar().week,
    "microsecond": lambda us: us % 1_000_000,
    "second_of_day": second_of_day,
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


# 9. Strings
#
# A string is a sequence of characters (Unicode scalar values). A new string of more than 65,536 bytes is null; a part
# of a longer one is no new string. Case follows Unicode whatever the language; white space is Unicode's White_Space.

TEXT_BYTES_MAX = 65_536
LIST_ITEMS_MAX = 4_096
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)


def kept(value: Any) -> Any:
    if isinstance(value, str | bytes) and len(value if isinstance(value, bytes) else value.encode()) > TEXT_BYTES_MAX:
        return None
    return value


def slice_text(text: str, start: int, length: int = INT64_MAX) -> str:
    """Characters from `start` on; a negative start counts from the end, and may lie before the string."""
    first = start + len(text) if start < 0 else start
    last = first + max(length, 0)
    return text[max(first, 0) : max(last, 0)]


TEXT_OPERATIONS: dict[str, Callable[..., Any]] = {
    "lower": str.lower,
    "upper": str.upper,
    "length": len,
    "contains": operator.contains,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "replace": str.replace,
    "slice": slice_text,
    "concat": lambda *parts: "".join(parts),
}


def split(expr: Expr, args: Sequence[str]) -> list[str] | None:
    """The parts between separators; more than 4,096 are null."""
    parts = args[0].split(expr["by"])
    return parts if len(parts) <= LIST_ITEMS_MAX else None


# 10. Constants: boundaries, sets, maps, hashes


def bucketize(expr: Expr, args: Sequence[float]) -> int | None:
    """The number of boundaries at or below a number; null for NaN."""
    value = float(args[0])
    return None if math.isnan(value) else sum(float(boundary) <= value for boundary in expr["boundaries"])


def is_in(expr: Expr, args: Sequence[Any]) -> bool:
    """Whether a value equals one of the set; NaN equals none."""
    values = [literal(value, expr["dtype"]) for value in expr["values"]]
    return any(compare("eq", args[0], value) for value in values)


def lookup(expr: Expr, args: Sequence[Any]) -> Any:
    """The value of a key; for others the default, or null."""
    if args[0] is None:
        return None
    for key, value in zip(expr["keys"], expr["values"], strict=True):
        if key == args[0]:
            return literal(value, expr["dtype"])
    return args[1] if len(args) > 1 else None


def hashed(expr: Expr, args: Sequence[Any]) -> int:
    """XXH64 of each value, seeded with the hash before; as an int of 64 bits, or the bucket of the unsigned number.

    Bytes of a value: UTF-8, a bool's 0 or 1, eight little-endian bytes of an int, a timestamp or a float, where both
    zeros and all NaN are one.
    """
    result = expr.get("seed", 0)
    for arg in args:
        result = xxh64(bytes_to_hash(arg), result)
    if "buckets" in expr:
        return int(result % expr["buckets"])
    return int(result - 2**64 if result >= 2**63 else result)


def bytes_to_hash(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, float):
        return struct.pack("<d", NAN if math.isnan(value) else value + 0.0)
    return struct.pack("<q", value)


XXH_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def xxh64(data: bytes, seed: int) -> int:
    """XXH64 of the xxHash specification."""
    one, two, three, four, five = XXH_PRIMES
    mask = 2**64 - 1

    def rotated(value: int, by: int) -> int:
        return ((value << by) | (value >> (64 - by))) & mask

    def rounded(lane: int, word: int) -> int:
        return rotated((lane + word * two) & mask, 31) * one & mask

    place = 0
    if len(data) >= 32:
        lanes = [(seed + one + two) & mask, (seed + two) & mask, seed, (seed - one) & mask]
        for place in range(0, len(data) - 31, 32):
            lanes = [
                rounded(lane, word) for lane, word in zip(lanes, struct.unpack_from("<4Q", data, place), strict=True)
            ]
        place += 32
        result = sum(rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
        for lane in lanes:
            result = ((result ^ rounded(0, lane)) * one + four) & mask
    else:
        result = (seed + five) & mask
    result = (result + len(data)) & mask
    while place + 8 <= len(data):
        result = (rotated(result ^ rounded(0, *struct.unpack_from("<Q", data, place)), 27) * one + four) & mask
        place += 8
    if place + 4 <= len(data):
        (word,) = struct.unpack_from("<I", data, place)
        result = (rotated(result ^ (word * one & mask), 23) * two + three) & mask
        place += 4
    for byte in data[place:]:
        result = rotated(result ^ (byte * five & mask), 11) * one & mask
    result = (result ^ (result >> 33)) * two & mask
    result = (result ^ (result >> 29)) * three & mask
    return result ^ (result >> 32)


WITH_CONSTANTS: dict[str, Callable[[Expr, Sequence[Any]], Any]] = {
    "truncate": truncate,
    "strip": lambda expr, args: args[0].strip(expr.get("characters", WHITE_SPACE)),
    "strip_start": lambda expr, args: args[0].lstrip(expr.get("characters", WHITE_SPACE)),
    "strip_end": lambda expr, args: args[0].rstrip(expr.get("characters", WHITE_SPACE)),
    "split": split,
    "bucketize": bucketize,
    "is_in": is_in,
    "hash": hashed,
}


# 11. Lists
#
# sum, mean, min and max pass over nulls. A list without values has the sum 0 and no mean, least or largest value.
# length counts nulls. An index below 0 counts from the end; outside the list it gives null.


def list_sum(args: Sequence[Any], kind: str) -> float | None:
    """From the first to the last. An int sum is null where one on the way overflows."""
    result: float | None = 0 if kind == "int" else 0.0
    for value in known(args[0]):
        assert result is not None
        result = in_int64(int(result) + value) if kind == "int" else result + value
        if result is None:
            return None
    return result


def list_mean(args: Sequence[Any], kind: str) -> float | None:
    values = known(args[0])
    return float(list_sum([[float(value) for value in values]], "float") or 0.0) / len(values) if values else None


def list_extreme(of_floats: Callable[[float, float], float], of_ints: Callable[[int, int], int]) -> Callable[..., Any]:
    def extreme(args: Sequence[Any], kind: str) -> Any:
        values = known(args[0])
        if not values:
            return None
        extreme_of_two: Callable[[Any, Any], Any] = of_ints if kind == "int" else of_floats
        return functools.reduce(extreme_of_two, values)

    return extreme


def list_get(args: Sequence[Any], kind: str) -> Any:
    values, index = args
    return values[index] if -len(values) <= index < len(values) else None


def known(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


LIST_OPERATIONS: dict[str, Callable[[Sequence[Any], str], Any]] = {
    "list_sum": list_sum,
    "list_mean": list_mean,
    "list_min": list_extreme(float_min, min),
    "list_max": list_extreme(float_max, max),
    "list_length": lambda args, kind: len(args[0]),
    "list_contains": lambda args, kind: any(compare("eq", value, args[1]) for value in known(args[0])),
    "list_get": list_get,
}
