"""The engine's sketches are the specification's, byte for byte, and as accurate as they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_sketches import Distinct, Quantiles, hash_bytes, hash_float, hash_word

from headrace._native import DistinctSketch, QuantileSketch
from headrace.errors import StoreError

FLOATS = st.lists(
    st.one_of(st.floats(), st.floats(-1000, 1000), st.sampled_from([0.0, -0.0, 1.0, 5e-324])), max_size=80
)
BYTES = st.lists(st.binary(max_size=80), max_size=60)
QUANTILES = st.floats(0, 1)


@given(FLOATS, QUANTILES)
def test_quantiles_are_the_specified_ones(values: list[float], q: float) -> None:
    sketch, expected = QuantileSketch(values), Quantiles(values)
    assert sketch.to_bytes() == expected.to_bytes()
    assert sketch.quantile(q) == expected.quantile(q)
    assert sketch.count == len(expected.values)


@given(FLOATS, FLOATS, QUANTILES)
def test_merged_quantiles_are_those_of_the_whole(left: list[float], right: list[float], q: float) -> None:
    merged = QuantileSketch(left)
    merged.merge(QuantileSketch(right))
    assert merged.to_bytes() == QuantileSketch(right + left).to_bytes()
    assert QuantileSketch.from_bytes(merged.to_bytes()).quantile(q) == merged.quantile(q)


@given(st.lists(st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=1, max_size=80), QUANTILES)
def test_a_quantile_is_within_a_128th_of_the_exact_one(values: list[float], q: float) -> None:
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    found = QuantileSketch(values).quantile(q)
    assert found is not None
    assert abs(found - exact) <= abs(exact) / 128


@given(BYTES)
def test_distinct_bytes_are_the_specified_ones(values: list[bytes]) -> None:
    sketch, expected = DistinctSketch(values), Distinct(hash_bytes(value) for value in values)
    assert sketch.to_bytes() == expected.to_bytes()
    assert sketch.estimate() == expected.estimate() == len(set(values))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50), st.lists(st.floats(), max_size=50))
def test_distinct_numbers_are_the_specified_ones(integers: list[int], floats: list[float]) -> None:
    sketch = DistinctSketch()
    for integer in integers:
        sketch.add_int(integer)
    for number in floats:
        sketch.add_float(number)
    hashes = [hash_word(integer % 2**64) for integer in integers] + [hash_float(number) for number in floats]
    assert sketch.to_bytes() == Distinct(hashes).to_bytes()


@pytest.mark.parametrize("count", [512, 513, 600, 2_000, 20_000])
def test_many_distinct_values_are_estimated_as_specified(count: int) -> None:
    halves = DistinctSketch(), DistinctSketch()
    for number in range(count):
        halves[number % 2].add_int(number)
    halves[0].merge(halves[1])
    expected = Distinct(hash_word(number) for number in range(count))
    assert halves[0].to_bytes() == expected.to_bytes()
    assert halves[0].estimate() == expected.estimate()
    assert expected.estimate() == pytest.approx(count, rel=4 * 1.04 / 64)
    assert DistinctSketch.from_bytes(expected.to_bytes()).estimate() == expected.estimate()


@given(st.sampled_from([QuantileSketch, DistinctSketch]), st.binary(max_size=60))
def test_damaged_bytes_are_refused(kind: type[QuantileSketch | DistinctSketch], data: bytes) -> None:
    try:
        sketch = kind.from_bytes(b"\x01" + data)
    except StoreError as error:
        assert error.code == "corrupt_store"
    else:
        assert kind.from_bytes(sketch.to_bytes()).to_bytes() == sketch.to_bytes()
