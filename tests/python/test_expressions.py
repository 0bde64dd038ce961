from __future__ import annotations

import datetime as dt

import pytest

from headrace import DefinitionError, Expr, UnknownNameError, coalesce, col, if_else, lit, maximum, when


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
