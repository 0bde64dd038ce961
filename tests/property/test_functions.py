"""Compiled scalar functions beside Python itself: what raises there, or does not fit 64 bits, is null."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import (
    FeatureService,
    Field,
    Float64,
    Int64,
    OnDemandFeatureView,
    Project,
    _native,
    col,
    scalar_function,
)
from headrace.compiler import compile_plan
from headrace.functions import bind_functions

LOW = -(2**63)
INTS = st.one_of(
    st.sampled_from([0, 1, -1, 2, -2, 3, LOW, LOW + 1, -LOW - 1, 2**32, -(2**32), 2**62]),
    st.integers(LOW, -LOW - 1),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.5, 2.5, 1e308, -1e308, 5e-324, 2.0**63, -(2.0**63), 9007199254740993.0]),
    st.floats(),
)


@scalar_function
def of_ints(op: int, x: int, y: int) -> int:
    if op == 0:
        return x + y
    if op == 1:
        return x - y
    if op == 2:
        return x * y
    if op == 3:
        return x // y
    if op == 4:
        return x % y
    if op == 5:
        return -x
    if op == 6:
        return abs(x)
    if op == 7:
        return min(x, y)
    if op == 8:
        return max(x, y)
    if op == 9:
        return (x & y) ^ (x | ~y)
    total = 0
    for i in range(10):
        if i == y:
            break
        total += x
    return total


@scalar_function
def of_floats(op: int, x: float, y: float) -> float:
    if op == 0:
        return x + y
    if op == 1:
        return x - y
    if op == 2:
        return x * y
    if op == 3:
        return x / y
    if op == 4:
        return x // y
    if op == 5:
        return x % y
    if op == 6:
        return abs(x) + math.floor(1.5)
    return -x if x < y else max(x, y)


@scalar_function
def of_math(op: int, x: float, y: float) -> float:
    if op == 0:
        return math.pow(x, y)
    if op == 1:
        return math.sqrt(x)
    if op == 2:
        return math.log(x)
    if op == 3:
        return math.exp(x)
    if op == 4:
        return math.sin(x)
    if op == 5:
        return math.atan2(x, y)
    if op == 6:
        return math.fmod(x, y)
    if op == 7:
        return math.log1p(x)
    if op == 8:
        return math.hypot(x, y)
    return math.copysign(x, y)


@scalar_function
def to_int(op: int, x: float) -> int:
    if op == 0:
        return int(x)
    if op == 1:
        return round(x)
    if op == 2:
        return math.floor(x)
    if op == 3:
        return math.ceil(x)
    return math.trunc(x)


@pytest.fixture(scope="module")
def plan() -> _native.Plan:
    inputs = [Field("op", Int64), Field("i", Int64), Field("j", Int64), Field("x", Float64), Field("y", Float64)]
    schema = [
        Field("ints", Int64, of_ints(col("op"), col("i"), col("j"))),
        Field("floats", Float64, of_floats(col("op"), col("x"), col("y"))),
        Field("math", Float64, of_math(col("op"), col("x"), col("y"))),
        Field("whole", Int64, to_int(col("op"), col("x"))),
    ]
    service = FeatureService("s", [OnDemandFeatureView("v", inputs, schema)])
    compiled = _native.Plan.from_json(compile_plan("p", [service]))
    bind_functions(compiled, cast(Project, None))  # a compiled function needs no project
    return compiled


def in_python(function: Callable[..., Any], *args: Any) -> Any:
    """Python's answer; null for a null argument, an exception, or an int of more than 64 bits."""
    if None in args:
        return None
    try:
        value = function(*args)
    except (ArithmeticError, ValueError):
        return None
    if isinstance(value, int) and not LOW <= value < -LOW:
        return None
    return value


def bits(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return value


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


ROWS = st.lists(
    st.tuples(nullable(st.integers(0, 11)), *(nullable(INTS) for _ in range(2)), *(nullable(FLOATS) for _ in range(2))),
    min_size=1,
    max_size=20,
)


@given(rows=ROWS)
def test_a_compiled_function_means_what_python_means(plan: _native.Plan, rows: list[tuple[Any, ...]]) -> None:
    columns = dict(zip(("op", "i", "j", "x", "y"), map(list, zip(*rows, strict=True)), strict=True))
    expressions = _native.Expressions(plan, "s", columns)
    expressions.run(0, len(rows))
    batch = expressions.values()
    for at, (op, i, j, x, y) in enumerate(rows):
        expressions.run(at, 1)
        alone = expressions.values()
        expected = {
            "ints": in_python(of_ints.function, op, i, j),
            "floats": in_python(of_floats.function, op, x, y),
            "math": in_python(of_math.function, op, x, y),
            "whole": in_python(to_int.function, op, x),
        }
        for name, value in expected.items():
            assert bits(alone[name][0]) == bits(value), (name, rows[at])
            assert bits(batch[name][at]) == bits(value), (name, rows[at])
