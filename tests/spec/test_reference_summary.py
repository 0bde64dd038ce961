"""Known answers of the summary's specification."""

from __future__ import annotations

import math

import pytest
from reference_summary import summary


def test_numbers_with_nulls_nan_and_infinities() -> None:
    found = summary([1.0, None, 3.0, math.nan, math.inf])
    assert (found["rows"], found["nulls"], found["nans"], found["distinct"]) == (5, 1, 1, 4)
    assert (found["min"], found["max"], found["mean"]) == (1.0, math.inf, 2.0)
    assert found["std"] == pytest.approx(math.sqrt(2))
    assert sum(found["histogram"]["counts"]) == 2


def test_texts_are_measured_in_bytes() -> None:
    found = summary(["a", "äb", "a"])
    assert (found["min"], found["max"], found["distinct"]) == (1.0, 3.0, 2)
    assert sorted(found["counts"].values()) == [1, 2]


def test_a_column_of_nothing() -> None:
    found = summary([None])
    assert (found["rows"], found["nulls"], found["mean"], found["histogram"]) == (1, 1, None, None)
