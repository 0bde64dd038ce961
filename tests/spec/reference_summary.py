"""The executable specification of a column's summary: counts, mean, spread, frequent values, histogram.

In plain Python. Quantiles and distinct counts are those of `reference_sketches`. Mean and variance are of the finite
values, computed here with exact fractions: an engine may differ from them by rounding. It imports nothing of headrace.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from reference_sketches import Distinct, Quantiles, hash_bytes, hash_float, hash_word

COUNTERS_MAX = 64
HISTOGRAM_BINS = 20
QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}


def hash_value(value: Any) -> int:
    if isinstance(value, float):
        return hash_float(value)
    if isinstance(value, str | bytes):
        return hash_bytes(value.encode() if isinstance(value, str) else value)
    return hash_word(int(value) % 2**64)


def summary(column: Sequence[Any]) -> dict[str, Any]:
    """Of a column of bools, integers, floats, strings or bytes with None for null.

    Of texts, the numbers are lengths in bytes.
    """
    values = [value for value in column if value is not None]
    numbers = [number_of(value) for value in values]
    finite = [value for value in numbers if math.isfinite(value)]
    sketch = Quantiles(numbers)
    hashes = [hash_value(value) for value in values]
    return {
        "rows": len(column),
        "nulls": len(column) - len(values),
        "nans": sum(math.isnan(value) for value in numbers),
        "min": sketch.quantile(0),
        "max": sketch.quantile(1),
        "mean": mean(finite),
        "std": deviation(finite),
        "quantiles": {name: sketch.quantile(q) for name, q in QUANTILES.items()},
        "distinct": round(Distinct(hashes).estimate()),
        "counts": Counter(hashes) if len(set(hashes)) <= COUNTERS_MAX else None,
        "histogram": histogram(sketch),
    }


def number_of(value: float | str | bytes) -> float:
    if isinstance(value, str | bytes):
        return float(len(value.encode() if isinstance(value, str) else value))
    return float(value)


def mean(values: Sequence[float]) -> float | None:
    return float(sum(map(Fraction, values)) / len(values)) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Of a sample: the sum of squared distances is divided by one less than their number."""
    if len(values) < 2:
        return None
    centre = sum(map(Fraction, values)) / len(values)
    return math.sqrt(sum((Fraction(value) - centre) ** 2 for value in values) / (len(values) - 1))


def histogram(sketch: Quantiles) -> dict[str, Any] | None:
    """The finite values by equal parts of their range; a bucket of the sketch counts whole where its estimate lies."""
    parts = [(estimate, count) for estimate, count in sketch.parts() if math.isfinite(estimate)]
    if not parts:
        return None
    smallest, largest = sketch.values[0], sketch.values[-1]
    low = smallest if math.isfinite(smallest) else min(parts[0][0], largest)
    high = largest if math.isfinite(largest) else max(parts[-1][0], smallest)
    counts = [0] * HISTOGRAM_BINS
    for estimate, count in parts:
        value = min(max(estimate, smallest), largest)
        span = high / 2 - low / 2
        part = (value / 2 - low / 2) / span if span else 0.0
        counts[min(max(int(part * HISTOGRAM_BINS), 0), HISTOGRAM_BINS - 1)] += count
    return {"low": low, "high": high, "counts": counts}
