from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headrace import DType, InputError, List
from headrace.frames import cast_column, to_table

NOON = dt.datetime(2013, 6, 1, 12, tzinfo=dt.UTC)


def cast(values: Any, dtype: str, arrow: pa.DataType | None = None) -> list[Any]:
    array = values if isinstance(values, pa.Array) else pa.array(values, arrow)
    return cast_column(pa.chunked_array([array]), DType(dtype), "column 'x'").to_pylist()  # type: ignore[no-any-return]


def test_times_of_any_zone_and_unit_become_microseconds_utc() -> None:
    berlin, tokyo = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo")
    for unit in ("s", "ms", "us", "ns"):
        assert cast([NOON.astimezone(tokyo)], "timestamp", pa.timestamp(unit, "Asia/Tokyo")) == [NOON]
    naive = NOON.replace(tzinfo=None)
    assert cast([naive], "timestamp", pa.timestamp("ms")) == [NOON], "without a zone it is UTC"
    mixed = pd.DataFrame({"t": pd.Series([NOON.astimezone(berlin), NOON.astimezone(tokyo), naive], dtype=object)})
    column = to_table(mixed, "frame").column("t")
    assert cast_column(column, DType("timestamp"), "t").to_pylist() == [NOON] * 3


def test_text_and_dates_become_times() -> None:
    texts = ["2013-06-01T12:00:00Z", "2013-06-01 14:00:00+02:00", "2013-06-01 12:00:00", None]
    assert cast(texts, "timestamp") == [NOON, NOON, NOON, None]
    assert cast([dt.date(2013, 6, 1)], "timestamp") == [NOON.replace(hour=0)]


def test_parts_of_a_microsecond_go_to_the_past_before_1970_too() -> None:
    array = pa.array([1_500, -1_500, -1_000], pa.timestamp("ns"))
    chunked = cast_column(pa.chunked_array([array]), DType("timestamp"), "t")
    assert chunked.cast(pa.int64()).to_pylist() == [1, -2, -1]


def test_integers_keep_every_digit() -> None:
    big = 2**53 + 1
    assert cast([big, None], "int64") == [big, None]
    assert cast([2**64 - 1], "uint64", pa.uint64()) == [2**64 - 1]
    assert to_table({"x": [2**64 - 1]}, "frame").column("x").to_pylist() == [2**64 - 1]
    assert cast([3.0, None], "int64") == [3, None], "whole floats are what pandas makes of integers beside nulls"


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.5], "int64"),
        ([300], "int8"),
        ([-1], "uint64"),
        ([2**53 + 1], "float64"),
        (["1"], "int64"),
        ([1], "string"),
        ([1], "bool"),
        ([b"x"], "string"),
        ([1], "timestamp"),
        (["tomorrow"], "timestamp"),
        ([["a"]], "list<float64>"),
        ([1.0], "list<float64>"),
    ],
)
def test_a_value_that_would_change_is_refused(values: list[Any], dtype: str) -> None:
    with pytest.raises(InputError) as raised:
        cast(values, dtype)
    assert raised.value.code == "type_mismatch"
    assert "column 'x'" in raised.value.message


def test_nan_is_not_null() -> None:
    nan, null = cast([float("nan"), None], "float64")
    assert np.isnan(nan)
    assert null is None
    assert cast([0.1], "float32") == [float(np.float32(0.1))]


def test_an_all_null_column_takes_any_type() -> None:
    for dtype in ("string", "int8", "timestamp", str(List("float32"))):
        assert cast(pa.nulls(2), dtype) == [None, None]


def test_lists_dictionaries_and_wide_strings() -> None:
    assert cast([[1.0, 2.0], None], "list<float32>") == [[1.0, 2.0], None]
    assert cast(pa.array([[], [1]], pa.large_list(pa.int64())), "list<int64>") == [[], [1]]
    assert cast(pa.array(["a", "b", "a"]).dictionary_encode(), "string") == ["a", "b", "a"]
    assert cast(pa.array(["a"], pa.large_string()), "string") == ["a"]
    assert cast(pa.array(["a"], pa.string_view()), "string") == ["a"]


def test_every_kind_of_frame_is_taken() -> None:
    columns = {"a": [1, 2], "b": ["x", None]}
    expected = pa.table(columns)
    frames = [expected, expected.to_batches()[0], expected.to_reader(), columns, pd.DataFrame(columns)]
    for frame in frames:
        assert to_table(frame, "frame").to_pydict() == columns


def test_a_polars_frame_is_taken() -> None:
    polars = pytest.importorskip("polars")
    assert to_table(polars.DataFrame({"a": [1], "b": ["x"]}), "frame").to_pydict() == {"a": [1], "b": ["x"]}


@pytest.mark.parametrize("frame", [7, "abc", [1, 2], {"a": 1}, {"a": "abc"}, {"a": [1], "b": [1, 2]}, {"a": [1, "x"]}])
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(InputError):
        to_table(frame, "the frame")
