"""Known answers of the sketches' specification."""

from __future__ import annotations

import math

from reference_sketches import Distinct, Quantiles, hash_bytes, hash_float, hash_word


def test_hashes_are_the_published_functions() -> None:
    assert hash_bytes(b"") == 0xEF46DB3751D8E999
    assert hash_bytes(b"Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1
    assert hash_word(0) == 0xE220A8397B1DCDAF
    assert hash_float(-0.0) == hash_float(0.0) == hash_word(0)


def test_a_bucket_is_a_64th_of_a_power_of_two_and_its_estimate_the_middle() -> None:
    sketch = Quantiles([0.5, 1.0, 1.0 + 1 / 128, 1.0 + 1 / 64, 9.0])
    assert [count for _, count in sketch.positive] == [1, 2, 1, 1]
    assert sketch.quantile(0.25) == sketch.quantile(0.5) == 1.0 + 1 / 128
    assert (sketch.quantile(0), sketch.quantile(1)) == (0.5, 9.0)


def test_small_values_collapse_upwards() -> None:
    sketch = Quantiles([1e-300, 1.0, 2.0])
    assert sketch.positive[0] == (sketch.positive[-1][0] - 4095, 1)


def test_quantiles_of_nothing_and_of_the_extremes() -> None:
    assert Quantiles([math.nan]).quantile(0.5) is None
    assert Quantiles([-math.inf, 0.0, math.inf]).quantile(0.5) == 0.0
    assert Quantiles([1.0]).quantile(2.0) is None


def test_few_values_are_counted_exactly() -> None:
    assert Distinct([]).estimate() == 0
    assert Distinct(hash_word(number % 7) for number in range(100)).estimate() == 7


def test_many_values_are_counted_within_two_standard_errors() -> None:
    estimate = Distinct(hash_word(number) for number in range(30_000)).estimate()
    assert abs(estimate / 30_000 - 1) < 2 * 1.04 / 64
