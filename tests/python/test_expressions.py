from __future__ import annotations

import datetime as dt

import pytest

from headrace import (
    DefinitionError,
    Expr,
    FeatureService,
    Field,
    OnDemandFeatureView,
    UnknownNameError,
    _native,
    coalesce,
    col,
    concat,
    hash_of,
    haversine,
    if_else,
    lit,
    maximum,
    one_hot,
    when,
)
from headrace.compiler import compile_plan
from headrace.expression_nodes import column_names, for_plan


def test_operators_build_the_nodes_of_the_plan() -> None:
    assert (col("a") + 1).node == {
        "op": "add",
        "args": [{"op": "col", "name": "a"}, {"op": "lit", "dtype": "int64", "value": 1}],
    }
    assert (2.0 / col("a")).node["args"][0] == {"op": "lit", "dtype": "float64", "value": 2.0}
    assert (-col("a")).node["op"] == "neg"
    assert (~(col("a") > 1) & (col("b") == "x")).node["op"] == "and"
    assert (col("a") ** 2 % 3).node["op"] == "mod"


@pytest.mark.parametrize(
    ("value", "dtype", "encoded"),
    [
        (True, "bool", True),
        (2**53 + 1, "int64", 2**53 + 1),
        (float("inf"), "float64", "inf"),
        (float("-inf"), "float64", "-inf"),
        (float("nan"), "float64", "nan"),
        ("x", "string", "x"),
        (dt.datetime(1970, 1, 1, 0, 0, 1), "timestamp", 1_000_000),  # noqa: DTZ001 (naive means UTC)
        (dt.datetime(1970, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), "timestamp", 0),
    ],
)
def test_literals_take_their_type_from_the_value(value: object, dtype: str, encoded: object) -> None:
    assert lit(value).node == {"op": "lit", "dtype": dtype, "value": encoded}  # type: ignore[arg-type]


def test_null_needs_a_type() -> None:
    assert lit(None, dtype="float32").node == {"op": "lit", "dtype": "float32", "value": None}
    with pytest.raises(DefinitionError, match="has no type"):
        lit(None)


def test_chained_conditions_nest_to_the_right() -> None:
    expr = when(col("x") > 2).then("high").when(col("x") > 1).then("middle").otherwise("low")
    inner = expr.node["args"][2]
    assert expr.node["op"] == inner["op"] == "if_else"
    assert [arg["value"] for arg in inner["args"][1:]] == ["middle", "low"]
    assert expr.node == if_else(col("x") > 2, "high", if_else(col("x") > 1, "middle", "low")).node


def test_functions_of_several_values() -> None:
    assert len(coalesce(col("a"), col("b"), 0).node["args"]) == 3
    assert maximum(col("a"), 1).node["op"] == "max"
    assert col("a").clip(0, 1).node["op"] == "clip"
    assert col("a").cast(float).node == {"op": "cast", "dtype": "float64", "args": [{"op": "col", "name": "a"}]}


def test_python_logic_is_refused_with_the_right_spelling() -> None:
    with pytest.raises(DefinitionError, match=r"use &, \| and ~"):
        bool(col("a") > 1 and col("b") > 1)


@pytest.mark.parametrize("value", [b"x", 2**63, [1], object()])
def test_what_cannot_stand_in_an_expression_is_refused(value: object) -> None:
    with pytest.raises(DefinitionError) as raised:
        col("a") + value  # type: ignore[operator]
    assert raised.value.code == "invalid_expression"


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="'float16' is not a type"):
        col("a").cast("float16")


def test_an_expression_reads_as_it_was_written() -> None:
    expr: Expr = (col("a") + 1).fill_null(0) * 2.5
    assert repr(expr) == '(fill_null((col("a") + 1), 0) * 2.5)'


def test_long_chains_are_one_operation_of_many() -> None:
    total = sum((col(f"x{number}") for number in range(100)), start=col("first"))
    assert total.node["op"] == "add"
    assert len(total.node["args"]) == 101
    assert for_plan(total.node) is total.node


def test_deep_and_shared_expressions_become_steps() -> None:
    deep = col("x")
    for number in range(5_000):
        deep = deep - number
    shared = col("x")
    for _ in range(200):
        shared = shared * shared
    for expr, count in ((deep, 5_000), (shared, 200)):
        steps = for_plan(expr.node)["steps"]
        assert len(steps) == count
        assert all("args" not in arg for step in steps for arg in step["args"])
        assert list(column_names(expr.node)) == ["x"]
        assert len(repr(expr)) < 20_000


def value_of(expr: Expr, dtype: str, **request: object) -> object:
    """What the engine makes of one row, through steps and all."""
    kinds = {str: "string", float: "float64", int: "int64", list: "list<float64>", dt.datetime: "timestamp"}
    inputs = [Field(name, kinds[type(value)]) for name, value in request.items()]
    view = OnDemandFeatureView("view", inputs, [Field("out", dtype, expr)])
    plan = _native.Plan.from_json(compile_plan("test", [FeatureService("service", [view])]))
    expressions = _native.Expressions(plan, "service", {name: [value] for name, value in request.items()})
    expressions.run(0, 1)
    return expressions.values()["out"][0]


NOON = dt.datetime(2013, 7, 1, 12, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("expr", "dtype", "expected"),
    [
        (col("s").str.strip().str.lower(), "string", "oslo a"),
        (col("s").str.strip("O "), "string", "slo A"),
        (col("s").str.strip_start().str.length(), "int64", 7),
        (col("s").str.strip_end().str.length(), "int64", 7),
        (col("s").str.upper().str.contains("LO A"), "bool", True),
        (col("s").str.starts_with(" O"), "bool", True),
        (col("s").str.ends_with("x"), "bool", False),
        (col("s").str.replace("o", col("s").str.slice(1, 2)), "string", " OslOs A "),
        (col("s").str.slice(-3), "string", " A "),
        (col("s").str.strip().str.split(" ").list.get(-1), "string", "A"),
        (concat(col("s"), "-", lit(3).cast("string")), "string", " Oslo A -3"),
        (col("s") + "!", "string", " Oslo A !"),
        (col("s").str.strip().is_in(["Oslo A", "x"]), "bool", True),
        (col("n").is_in([1, 2.5]), "bool", False),
        (col("n").between(7, 9), "bool", True),
        (col("n").bucketize([0, 7, 8]), "int64", 2),
        (col("n").lookup({7: "seven"}, default="other"), "string", "seven"),
        ((col("n") + 1).lookup({7: "seven"}, default="other"), "string", "other"),
        (col("n").lookup({1: 0.5}), "float64", None),
        (col("s").hash(buckets=10), "int64", 3),
        (hash_of(col("n"), col("s"), seed=1), "int64", 2_360_491_386_680_175_274),
        (col("t").dt.hour("America/New_York"), "int64", 8),
        (col("t").dt.truncate("day", "Asia/Kolkata"), "timestamp", dt.datetime(2013, 6, 30, 18, 30, tzinfo=dt.UTC)),
        (col("t").dt.seconds_since(NOON - dt.timedelta(minutes=1)), "float64", 60.0),
        (col("t") - dt.timedelta(hours=1), "timestamp", NOON - dt.timedelta(hours=1)),
        (col("t").dt.week(), "int64", 27),
        (col("x").list.sum(), "float64", 6.5),
        (col("x").list.mean(), "float64", 3.25),
        (col("x").list.length(), "int64", 3),
        (col("x").list.contains(1), "bool", False),
        (col("x").list.max() - col("x").list.min(), "float64", 1.5),
        (lit("2.5e1").cast("float64"), "float64", 25.0),
        (lit("two").cast("int64"), "int64", None),
        (haversine(59.91, 10.75, 40.64, -73.78), "float64", 5_895.7),
    ],
)
def test_functions(expr: Expr, dtype: str, expected: object) -> None:
    row = {"s": " Oslo A ", "n": 7, "t": NOON, "x": [2.5, None, 4.0]}
    # A view has at least one input that is used.
    used = if_else(col("n").is_null(), lit(None, dtype=dtype), expr)
    found = value_of(used, dtype, **{name: row[name] for name in column_names(used.node)})
    assert found == (pytest.approx(expected, abs=20.0) if expr.node["op"] == "haversine" else expected)


def test_deep_expressions_are_computed() -> None:
    deep = col("n")
    for number in range(1_000):
        deep = number - deep
    assert value_of(deep, "int64", n=7) == 507
    doubled = col("n")
    for _ in range(50):
        doubled = doubled + doubled
    assert value_of(doubled, "int64", n=7) == 7 * 2**50


def test_one_hot_gives_a_feature_for_each_category() -> None:
    features = one_hot(col("carrier"), ["AA", "UA"])
    assert list(features) == ["AA", "UA"]
    assert [value_of(expr, "int64", carrier="UA") for expr in features.values()] == [0, 1]
