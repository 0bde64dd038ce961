"""Cases worked out by hand that pin the specification of expressions."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest
from reference_expr import INF, INT64_MAX, INT64_MIN, NAN, evaluate, evaluate_field, kind_of

TYPES = {
    "i": "int64",
    "u": "uint64",
    "f": "float64",
    "b": "bool",
    "t": "timestamp",
    "s": "string",
    "y": "bytes",
}
# Tuesday, 1 January 2013, 06:30 UTC
MORNING = 1_357_021_800_000_000
ROW: dict[str, Any] = {"i": 7, "u": 2**64 - 1, "f": 2.5, "b": True, "t": MORNING, "s": "oslo", "y": b"\xff"}
NULLS = dict.fromkeys(TYPES)


def col(name: str) -> dict[str, Any]:
    return {"op": "col", "name": name}


def lit(value: Any, dtype: str = "int64") -> dict[str, Any]:
    return {"op": "lit", "dtype": dtype, "value": value}


def call(op: str, *args: Any) -> dict[str, Any]:
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string"}
    return {"op": op, "args": [arg if isinstance(arg, dict) else lit(arg, kinds[type(arg)]) for arg in args]}


def cast(value: Any, dtype: str) -> dict[str, Any]:
    return {**call("cast", value), "dtype": dtype}


def value(expr: dict[str, Any], row: dict[str, Any] = ROW) -> Any:
    return evaluate(expr, row, TYPES)


def same(one: Any, other: Any) -> bool:
    """Equal in type and to the bit: NaN is NaN, and -0.0 is not 0.0."""
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (call("add", 1, 2, 3), 6),
        (call("add", 1, 2.5), 3.5),
        (call("add", INT64_MAX, 1), None),
        (call("add", INT64_MAX, 1, -1), None),
        (call("add", INT64_MAX, 1, -0.5), None),  # two at a time: the ints first
        (call("add", -0.5, INT64_MAX, 1), 2.0**63),
        (call("sub", INT64_MIN, 1), None),
        (call("mul", 2**32, 2**31), None),
        (call("neg", INT64_MIN), None),
        (call("abs", INT64_MIN), None),
        (call("abs", -3), 3),
        (call("div", 7, 2), 3.5),
        (call("div", 1, 0), INF),
        (call("div", -1, 0), -INF),
        (call("div", 1.0, -0.0), -INF),
        (call("div", 0, 0), NAN),
        (call("mod", 7, 5), 2),
        (call("mod", -7, 5), 3),
        (call("mod", 7, -5), -3),
        (call("mod", 7, 0), None),
        (call("mod", INT64_MIN, -1), 0),
        (call("mod", -7.5, 5), 2.5),
        (call("mod", 5.0, -5.0), -0.0),
        (call("mod", 5.0, 0.0), NAN),
        (call("mod", 5.0, lit("-inf", "float64")), -INF),
        (call("floor", -0.5), -1.0),
        (call("ceil", -0.5), -0.0),
        (call("round", 0.5), 0.0),
        (call("round", 1.5), 2.0),
        (call("round", -2.5), -2.0),
        (call("round", 7), 7),
        (call("min", 1, 2.0), 1.0),
        (call("max", lit("nan", "float64"), 1.0), NAN),
        (call("min", 1.0, lit("nan", "float64")), NAN),
        (call("min", 0.0, -0.0), 0.0),
        (call("clip", 5, 0, 3), 3),
        (call("clip", -5.0, 0, 3), 0.0),
        (call("sqrt", -1), NAN),
        (call("sqrt", 2.25), 1.5),
        (call("log", 0), -INF),
        (call("log", -1), NAN),
        (call("log1p", -1), -INF),
        (call("exp", 1000), INF),
        (call("pow", -2, 0.5), NAN),
        (call("pow", 0.0, -1), INF),
        (call("pow", -0.0, -1), -INF),
        (call("pow", -10, 401), -INF),
        (call("sin", lit("inf", "float64")), NAN),
        (call("atan2", 0.0, -1.0), math.pi),
        (call("radians", 180), math.pi),
    ],
)
def test_arithmetic(expr: dict[str, Any], expected: Any) -> None:
    assert same(value(expr), expected)


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("eq", 1, 1.0, True),
        ("lt", 2**53, 2.0**53 + 2, True),
        ("eq", 2**53 + 1, 2.0**53, True),  # compared as floats
        ("eq", lit("nan", "float64"), lit("nan", "float64"), False),
        ("ne", lit("nan", "float64"), lit("nan", "float64"), True),
        ("ge", lit("nan", "float64"), 1.0, False),
        ("eq", 0.0, -0.0, True),
        ("lt", "Z", "a", True),
        ("lt", "\uffff", "\U00010000", True),  # UTF-8 order is the order of code points
        ("gt", "b", "abc", True),
        ("eq", True, False, False),
    ],
)
def test_comparisons(op: str, left: Any, right: Any, expected: bool) -> None:
    assert value(call(op, left, right)) is expected


def test_null_goes_through() -> None:
    for expr in (
        call("add", col("i"), 1),
        call("sin", col("f")),
        call("eq", col("s"), "a"),
        call("not", col("b")),
        call("year", col("t")),
        cast(col("i"), "float64"),
        call("max", 1.0, col("f")),
    ):
        assert value(expr, NULLS) is None


def test_the_exceptions_to_null() -> None:
    assert value(call("is_null", col("i")), NULLS) is True
    assert value(call("is_null", col("i"))) is False
    assert value(call("is_null", lit("nan", "float64"))) is False
    assert value(call("fill_null", col("i"), 3), NULLS) == 3
    assert same(value(call("fill_null", col("i"), 3.5)), 7.0)  # an int where a float could stand
    assert value(call("coalesce", col("i"), col("i"), 9), NULLS) == 9
    assert value(call("coalesce", col("i"), col("i")), NULLS) is None
    assert value(call("if_else", True, 1, col("i")), NULLS) == 1
    assert value(call("if_else", False, 1, col("i")), NULLS) is None
    assert value(call("if_else", col("b"), 1, 2), NULLS) is None
    assert same(value(call("if_else", True, 1, 2.5)), 1.0)


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (True, True, True, True),
        (True, False, False, True),
        (True, None, None, True),
        (False, False, False, False),
        (False, None, False, None),
        (None, None, None, None),
    ],
)
def test_three_valued_logic(left: bool | None, right: bool | None, both: bool | None, either: bool | None) -> None:
    one, other = lit(left, "bool"), lit(right, "bool")
    for args in ((one, other), (other, one)):
        assert value(call("and", *args)) is both
        assert value(call("or", *args)) is either
    assert value(call("and", one, other, False)) is False
    assert value(call("or", one, other, True)) is True


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (cast(2.9, "int64"), 2),
        (cast(-2.9, "int8"), -2),
        (cast(300, "uint8"), None),
        (cast(-1, "uint64"), None),
        (cast(-0.5, "uint8"), 0),
        (cast(2.0**63, "int64"), None),
        (cast(-(2.0**63), "int64"), INT64_MIN),
        (cast(lit("nan", "float64"), "int64"), None),
        (cast(True, "float64"), 1.0),
        (cast(True, "int8"), 1),
        (cast(0.1, "float32"), 0.10000000149011612),
        (cast(1e39, "float32"), INF),
        (cast(2**53 + 1, "float64"), 2.0**53),
        (cast(col("t"), "int64"), MORNING),
        (cast(5, "timestamp"), 5),
    ],
)
def test_casts(expr: dict[str, Any], expected: Any) -> None:
    assert same(value(expr), expected)


def test_columns_are_widened() -> None:
    assert value(col("u")) is None  # above the ints of 64 bits
    assert value(col("u"), {**ROW, "u": INT64_MAX}) == INT64_MAX
    assert value(col("y")) == b"\xff"


def test_an_output_is_cast_to_its_field() -> None:
    assert same(evaluate_field(col("i"), "float32", ROW, TYPES), 7.0)
    assert evaluate_field(col("f"), "int8", ROW, TYPES) == 2
    assert evaluate_field(call("mul", col("i"), 100), "int8", ROW, TYPES) is None
    assert evaluate_field(col("f"), "int8", NULLS, TYPES) is None


def test_kinds_are_known_before_any_row() -> None:
    assert kind_of(call("coalesce", col("i"), col("f")), TYPES) == "float"
    assert kind_of(call("if_else", col("b"), col("i"), col("i")), TYPES) == "int"
    assert kind_of(call("div", col("i"), col("i")), TYPES) == "float"


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
        dt.datetime(2000, 2, 29, 12, 34, 56, 789_000, tzinfo=dt.UTC),
        dt.datetime(1900, 3, 1, tzinfo=dt.UTC),
        dt.datetime(2013, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
    ],
)
def test_parts_of_a_time(moment: dt.datetime) -> None:
    time_us = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    expected = {
        "year": moment.year,
        "month": moment.month,
        "day": moment.day,
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "day_of_week": moment.weekday(),
        "day_of_year": moment.timetuple().tm_yday,
    }
    row = {**ROW, "t": time_us}
    assert {part: value(call(part, col("t")), row) for part in expected} == expected


def test_times_beyond_the_years_of_a_datetime() -> None:
    parts = ("year", "month", "day", "hour")
    assert [value(call(part, col("t")), {**ROW, "t": INT64_MAX}) for part in parts] == [294_247, 1, 10, 4]
    assert [value(call(part, col("t")), {**ROW, "t": INT64_MIN}) for part in parts] == [-290_308, 12, 21, 19]
    assert value(call("epoch_seconds", col("t"))) == 1_357_021_800.0


def zoned(op: str, time_us: int, zone: str, **members: Any) -> Any:
    return value({**call(op, lit(time_us, "timestamp")), "zone": zone, **members})


HOUR_US = 3_600_000_000
SPRING = 1_364_691_600_000_000  # 2013-03-31T01:00Z: Oslo's clocks jump from 02:00 to 03:00
AUTUMN = 1_382_835_600_000_000  # 2013-10-27T01:00Z: they go back from 03:00 to 02:00


def test_zones() -> None:
    assert zoned("hour", SPRING - 1, "Europe/Oslo") == 1
    assert zoned("hour", SPRING, "Europe/Oslo") == 3
    assert zoned("hour", AUTUMN, "Europe/Oslo") == 2
    assert zoned("minute", MORNING, "Asia/Kolkata") == 0
    assert zoned("truncate", SPRING, "Europe/Oslo", unit="day") == SPRING - 2 * HOUR_US
    assert zoned("truncate", AUTUMN + HOUR_US, "Europe/Oslo", unit="day") == AUTUMN - 3 * HOUR_US
    assert zoned("truncate", AUTUMN + 1, "Europe/Oslo", unit="hour") == AUTUMN
    assert zoned("year", INT64_MAX, "Asia/Kolkata") is None
    assert zoned("day_of_week", MORNING + 400 * 366 * 24 * HOUR_US, "Europe/Oslo") is not None


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("12", "int64", 12),
        ("+12", "int8", 12),
        ("300", "int8", None),
        ("1_0", "int64", None),
        (" 1", "int64", None),
        ("9223372036854775808", "int64", None),
        ("1.", "float64", 1.0),
        (".5e1", "float64", 5.0),
        ("-Infinity", "float64", -INF),
        ("1e999", "float64", INF),
        ("", "float64", None),
        ("TRUE", "bool", True),
        ("1", "bool", None),
        ("2013-01-01T06:30:00Z", "timestamp", MORNING),
        ("2013-01-01 08:30+02:00", "timestamp", MORNING),
        ("2013-01-01T06:30:00.0000009", "timestamp", MORNING),
        ("2013-02-29", "timestamp", None),
        ("0000-02-29", "timestamp", -62_162_121_600_000_000),
    ],
)
def test_text_is_parsed_or_null(text: str, dtype: str, expected: Any) -> None:
    assert same(value(cast(text, dtype)), expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(1.0, "1.0"), (1e16, "1e16"), (1e-5, "1e-5"), (0.0001, "0.0001"), (-INF, "-inf"), (True, "true"), (-7, "-7")],
)
def test_values_as_text(written: Any, expected: str) -> None:
    assert value(
        cast(lit("inf" if written == INF else "-inf" if written == -INF else written, kind(written)), "string")
    ) == (expected)


def kind(written: Any) -> str:
    return {bool: "bool", int: "int64", float: "float64"}[type(written)]


def test_hashes_are_those_of_xxh64() -> None:
    assert value(call("hash", "a")) == 0xD24EC4F1A98C6E5B - 2**64
    assert value(call("hash", "Nobody inspects the spammish repetition")) == 0xFBCEA83C8A378BF1 - 2**64
    assert value({**call("hash", ""), "buckets": 1000}) == 0xEF46DB3751D8E999 % 1000
    assert value(call("hash", 0.0)) == value(call("hash", -0.0)) == value(call("hash", 0))
    assert value(call("hash", "a", 1)) != value(call("hash", 1, "a"))


def test_steps_share_values() -> None:
    ref = {"op": "ref", "step": 0}
    steps = {"op": "steps", "steps": [call("add", col("i"), 1), call("mul", ref, ref)]}
    assert (value(steps), kind_of(call("split", "a"), TYPES)) == (64, "list of string")


def test_lists() -> None:
    types, row = {"l": "list<int64>"}, {"l": [3, None, -1]}
    found = {
        op: evaluate(call(op, col("l")), row, types) for op in ("list_sum", "list_mean", "list_min", "list_length")
    }
    assert found == {"list_sum": 2, "list_mean": 1.0, "list_min": -1, "list_length": 3}
    empty = [evaluate(call(op, col("l")), {"l": [None]}, types) for op in ("list_sum", "list_mean", "list_max")]
    assert empty == [0, None, None]
    assert evaluate(call("list_get", col("l"), -1), row, types) == -1
    assert evaluate(call("list_sum", col("l")), {"l": [INT64_MAX, 1, -1]}, types) is None
