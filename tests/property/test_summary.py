"""Profiles of frames are the specification's, in one piece and merged from parts."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_summary import hash_value, summary

from headrace._native import Profile

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "float64": (pa.float64(), st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf, -0.0]))),
    "float32": (pa.float32(), st.floats(width=32, allow_subnormal=False, min_value=-1e6, max_value=1e6)),
    "int64": (pa.int64(), st.integers(-(2**53), 2**53)),
    "uint8": (pa.uint8(), st.integers(0, 255)),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text(max_size=12)),
    "bytes": (pa.binary(), st.binary(max_size=12)),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, list[Any]]:
    dtype = draw(st.sampled_from(list(TYPES)))
    values = draw(st.lists(st.one_of(st.none(), TYPES[dtype][1]), max_size=100))
    return dtype, values


def described(parts: list[list[Any]], dtype: str) -> dict[str, Any]:
    whole = Profile()
    for part in parts:
        profile = Profile()
        profile.add(pa.table({"x": pa.array(part, TYPES[dtype][0])}))
        whole.merge(Profile.from_bytes(profile.to_bytes()))
    found: dict[str, Any] = json.loads(whole.describe())["columns"]["x"]
    return found


def comparable(value: Any) -> Any:
    """JSON writes infinities as words."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return float(value) if value in ("inf", "-inf") else value


@given(columns(), st.integers(0, 100))
def test_a_summary_is_the_specified_one_in_any_division(column: tuple[str, list[Any]], cut: int) -> None:
    dtype, values = column
    found = described([values[:cut], values[cut:]], dtype)
    expected = summary(values)
    for key in ("rows", "nulls", "nans", "min", "max", "quantiles", "distinct", "histogram"):
        assert comparable(found[key]) == expected[key], key
    assert found["dtype"] == dtype
    counts = expected["counts"]
    if counts is not None and dtype not in ("bytes", "float32", "float64"):
        assert {hash_value(item["value"]): item["count"] for item in found["top"]} == dict(counts.most_common(10)) or (
            len(counts) > 10
        )
        assert found["top_error_max"] == 0
    scale = max((abs(value) for value in (expected["min"], expected["max"]) if value is not None), default=0.0)
    if expected["mean"] is None:
        assert found["mean"] is None
    else:
        assert found["mean"] == pytest.approx(expected["mean"], rel=1e-12, abs=1e-12 * min(scale, 1e16))
    if expected["std"] is not None:
        assert found["std"] == pytest.approx(expected["std"], rel=1e-9, abs=1e-9 * min(scale, 1e16))


def test_many_rows_are_described_as_specified() -> None:
    values = [None if n % 13 == 0 else math.nan if n % 17 == 0 else (n * 7919 % 10007) / 8 - 300 for n in range(70_000)]
    found, expected = described([values], "float64"), summary(values)
    for key in ("rows", "nulls", "nans", "min", "max", "quantiles", "distinct", "histogram"):
        assert found[key] == expected[key], key
    assert found["top"] is None
    assert found["mean"] == pytest.approx(expected["mean"], rel=1e-12)
    assert found["std"] == pytest.approx(expected["std"], rel=1e-9)
