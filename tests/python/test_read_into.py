from __future__ import annotations

import array
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headrace import HeadraceError, _native
from headrace.compiler import compile_plan
from headrace.definitions import Definition, Entity, FeatureService, FeatureView, Field, OnDemandFeatureView, PushSource
from headrace.expressions import col

AT_US = 1_000_000
NOT_FOUND, PRESENT, NULL_VALUE = 2, 0, 1


class Table:
    """One view of numbers by the given join keys, filled, and its service."""

    def __init__(self, keys: dict[str, str], rows: dict[str, list[Any]], extra: list[Definition] | None = None) -> None:
        entity = Entity("thing", join_keys=[Field(name, dtype) for name, dtype in keys.items()])
        fields = [Field("a", "float64"), Field("b", "int64"), Field("c", "bool")]
        self.view = FeatureView("numbers", [entity], fields, PushSource("at"))
        service = FeatureService("all", [self.view])
        self.plan = _native.Plan.from_json(compile_plan("p", [service, *(extra or [])]))
        self.store = _native.LocalStore(self.plan, 64 * 1024 * 1024)
        count = len(next(iter(rows.values())))
        times = pa.array([AT_US] * count, pa.timestamp("us", "UTC"))
        columns = {
            **rows,
            "a": pa.array([n + 0.5 for n in range(count)]),
            "b": pa.array([n or None for n in range(count)], pa.int64()),
            "c": pa.array([n % 2 == 1 for n in range(count)]),
            "__event_ts": times,
            "__created_ts": times,
        }
        data, accepted, refused = self.store.encode("numbers", pa.table(columns), 0, AT_US, 0)
        assert (accepted, refused) == (count, {})
        self.store.apply(data)
        self.online = self.store.online_plan("all")

    def read(self, keys: Any, rows: int, dtype: Any = np.float32) -> list[list[float]]:
        out = np.full((rows, 3), -1, dtype)
        self.online.read_into(keys, out)
        return [[None if math.isnan(value) else value for value in row] for row in out.tolist()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def ints() -> Table:
    return Table({"id": "int64"}, {"id": pa.array([10, 2**53 + 1, -3])})


@pytest.fixture(scope="module")
def strings() -> Table:
    return Table({"id": "string"}, {"id": pa.array(["x", "", "a much longer key than fits a slot"])})


ROWS = [[0.5, None, 0.0], [1.5, 1.0, 1.0], [2.5, 2.0, 0.0]]
MISSING = [None, None, None]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda keys: np.array(keys, dtype="longlong"),
        lambda keys: np.array(keys, dtype=object),
        pa.array,
        lambda keys: pa.chunked_array([keys[:2], keys[2:]]),
        pd.Series,
        lambda keys: array.array("q", keys),
        lambda keys: [np.int64(key) for key in keys],
        lambda keys: {"id": keys},
    ],
)
def test_integer_keys_of_every_kind(ints: Table, make: Any, dtype: Any) -> None:
    keys = [-3, 2**53, 10, 2**53 + 1]
    assert ints.read(make(keys), 4, dtype) == [ROWS[2], MISSING, ROWS[0], ROWS[1]]


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda keys: np.array(keys, dtype=object),
        pa.array,
        lambda keys: pa.array(keys, pa.large_string()),
        lambda keys: pa.array(keys, pa.string_view()),
        pd.Series,
        lambda keys: {"id": keys},
    ],
)
def test_string_keys_of_every_kind(strings: Table, make: Any) -> None:
    keys = ["a much longer key than fits a slot", "y", "", "x"]
    assert strings.read(make(keys), 4) == [ROWS[2], MISSING, ROWS[1], ROWS[0]]


def test_a_null_key_finds_nothing(strings: Table, ints: Table) -> None:
    assert strings.read([None, "x"], 2) == [MISSING, ROWS[0]]
    assert strings.read(pa.array([None, "x"]), 2) == [MISSING, ROWS[0]]
    assert ints.read([None, 10], 2) == [MISSING, ROWS[0]]


@pytest.mark.parametrize(
    ("dtype", "keys", "found"),
    [
        ("bytes", [b"\x00\xff", b"", b"abc"], b"\x00\xff"),
        ("uint64", [2**64 - 1, 0, 7], 2**64 - 1),
        ("int8", [-128, 0, 7], -128),
        ("bool", [True, False], True),
        ("timestamp", [1, 2, 3], 1),
    ],
)
def test_keys_of_other_types(dtype: str, keys: list[Any], found: Any) -> None:
    types = {"uint64": pa.uint64(), "int8": pa.int8(), "timestamp": pa.timestamp("us", "UTC")}
    table = Table({"id": dtype}, {"id": pa.array(keys, types.get(dtype))})
    assert table.read([found, keys[-1]], 2) == [ROWS[0], ROWS[len(keys) - 1]]


def test_composite_keys_do_not_run_together() -> None:
    table = Table({"one": "string", "two": "int64"}, {"one": ["1", "12", "1"], "two": [23, 3, 3]})
    assert table.read([("12", 3), ("1", 23), ("123", 3), ("1", None)], 4) == [ROWS[1], ROWS[0], MISSING, MISSING]
    assert table.read({"two": [3], "one": ["1"]}, 1) == [ROWS[2]]


def test_statuses_have_the_shape_of_the_values(ints: Table) -> None:
    out, status = np.zeros((2, 3), np.float32), np.full((2, 3), 9, np.uint8)
    ints.online.read_into([10, 11], out, status)
    assert status.tolist() == [[PRESENT, NULL_VALUE, PRESENT], [NOT_FOUND] * 3]


def test_one_row_may_be_flat_and_no_row_is_fine(ints: Table) -> None:
    out = np.zeros(3)
    ints.online.read_into([-3], out)
    assert out.tolist() == ROWS[2]
    ints.online.read_into([], np.zeros((0, 3)))


def test_any_writable_buffer_is_filled(ints: Table) -> None:
    memory = bytearray(2 * 3 * 8)
    out = memoryview(memory).cast("d", [2, 3])
    ints.online.read_into([10, -3], out)
    assert out[1, 0] == 2.5


def test_many_keys_equal_few(ints: Table) -> None:
    keys = np.resize(np.array([10, 11, -3]), 30_000)
    out = np.zeros((len(keys), 3))
    ints.online.read_into(keys, out)
    few = np.zeros((3, 3))
    ints.online.read_into(keys[:3], few)
    np.testing.assert_array_equal(out, np.tile(few, (10_000, 1)))


def test_names_types_and_keys_are_told(ints: Table) -> None:
    online = ints.online
    assert (online.service, online.join_keys) == ("all", ["id"])
    assert list(zip(online.feature_names, online.dtypes, strict=True)) == [
        ("a", "float64"),
        ("b", "int64"),
        ("c", "bool"),
    ]


def unaligned(values: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """The same values, beginning in the middle of a word."""
    memory = np.zeros(values.nbytes + 1, np.uint8)
    view = memory[1:].view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


def test_unaligned_keys_are_copied_and_unaligned_targets_refused(ints: Table) -> None:
    raw = b"x" + np.array([10, -3]).tobytes()
    keys = np.frombuffer(raw, np.int64, offset=1)
    assert ints.read(keys, 2) == ints.read([10, -3], 2)
    for out in (unaligned(np.zeros((2, 3))), memoryview(bytearray(49))[1:].cast("d", [2, 3])):
        with pytest.raises(HeadraceError, match="out is not aligned") as caught:
            ints.online.read_into([10, -3], out)
        assert caught.value.code == "type_mismatch"


READ_ONLY = np.zeros((1, 3))
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("keys", "out", "code", "part"),
    [
        ([10], np.zeros((1, 3), np.int64), "type_mismatch", "out does not hold floats"),
        ([10], np.zeros((1, 3), np.float16), "type_mismatch", "float16"),
        ([10], np.zeros((1, 3), ">f8"), "type_mismatch", ">f8"),
        ([10], np.zeros((1, 6))[:, ::2], "type_mismatch", "not contiguous"),
        ([10], np.zeros((3, 1)).T, "length_mismatch", None),
        ([10], READ_ONLY, "invalid_argument", "read-only"),
        ([10], np.zeros((1, 1, 3)), "type_mismatch", "3 dimensions"),
        ([10, 11], np.zeros((1, 3)), "length_mismatch", "[2, 3]"),
        ([10], [[0.0] * 3], "type_mismatch", "out is a list"),
        (["JFK"], np.zeros((1, 3)), "type_mismatch", "'JFK' is not an int64"),
        ([1.5], np.zeros((1, 3)), "type_mismatch", "1.5"),
        ([2**70], np.zeros((1, 3)), "type_mismatch", "'id'"),
        (7, np.zeros((1, 3)), "type_mismatch", "'id'"),
        ("JFK", np.zeros((1, 3)), "type_mismatch", "'id'"),
        ({"code": [1]}, np.zeros((1, 3)), "unknown_entity", "'code'"),
    ],
)
def test_what_is_wrong_with_a_read_is_named(ints: Table, keys: Any, out: Any, code: str, part: str | None) -> None:
    if part is None:  # a transposed single column is contiguous: it is read
        ints.online.read_into(keys, out)
        return
    with pytest.raises(HeadraceError) as raised:
        ints.online.read_into(keys, out)
    assert raised.value.code == code
    assert part in str(raised.value)


def test_arrays_of_one_call_must_not_share_memory(ints: Table) -> None:
    memory = np.zeros(64, np.uint8)
    out = memory[:24].view(np.float64).reshape(1, 3)
    with pytest.raises(HeadraceError, match="share memory"):
        ints.online.read_into([10], out, memory[8:11].reshape(1, 3))
    keys = np.zeros(3, np.int64)
    with pytest.raises(HeadraceError, match="share memory"):
        ints.online.read_into(keys[:1], keys.view(np.float64).reshape(1, 3))
    with pytest.raises(HeadraceError, match="status does not hold uint8"):
        ints.online.read_into([10], np.zeros((1, 3)), np.zeros((1, 3)))


def test_text_and_computed_features_are_read_by_name_only() -> None:
    entity = Entity("thing", join_keys=[Field("id", "int64")])
    words = FeatureView("words", [entity], [Field("word", "string")], PushSource("at"))
    twice = OnDemandFeatureView("twice", [Field("x", "float64")], [Field("xx", "float64", col("x") * 2)])
    services: list[Definition] = [FeatureService("words_only", [words]), FeatureService("computed", [words, twice])]
    table = Table({"id": "int64"}, {"id": [1]}, services)
    out = np.zeros((1, 1))
    with pytest.raises(HeadraceError, match="feature 'word' of service 'words_only' is a string"):
        table.store.online_plan("words_only").read_into([1], out)
    with pytest.raises(HeadraceError, match="feature 'xx' of service 'computed' is computed when"):
        table.store.online_plan("computed").read_into([1], out)
    found = table.store.online_plan("computed").read({"id": [1]}, {"x": [21]})
    assert found["features"] == {"word": [None], "xx": [42.0]}


def test_a_view_that_is_not_online_is_refused() -> None:
    entity = Entity("thing", join_keys=[Field("id", "int64")])
    view = FeatureView("offline", [entity], [Field("x", "float64")], PushSource("at"), online=False)
    plan = _native.Plan.from_json(compile_plan("p", [FeatureService("s", [view])]))
    with pytest.raises(HeadraceError, match="view 'offline' is not online"):
        _native.LocalStore(plan, 1 << 26).online_plan("s")


def test_a_global_view_needs_no_key() -> None:
    view = FeatureView("world", [], [Field("x", "float64")], PushSource("at"))
    plan = _native.Plan.from_json(compile_plan("p", [FeatureService("s", [view])]))
    store = _native.LocalStore(plan, 1 << 26)
    at = pa.array([AT_US], pa.timestamp("us", "UTC"))
    data, rows, _ = store.encode("world", pa.table({"x": [4.0], "__event_ts": at, "__created_ts": at}), 0, AT_US, 0)
    assert rows == 1
    store.apply(data)
    assert store.online_plan("s").read({})["features"] == {"x": [4.0]}


def test_the_plan_is_data(ints: Table) -> None:
    shape = json.loads(ints.plan.service("all"))
    assert shape["join_keys"] == [{"name": "id", "dtype": "int64"}]
    assert json.loads(ints.plan.tables())[0]["views"] == ["numbers"]
    assert ints.store.stats()["id"]["keys"] == len(ints.store) == 3
