"""When two values of a feature are equal: to the bit, or within the bounds of what sums of floats allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXACT = 0.0
SUMS = 1e-12
"""Relative difference that sums and means of floats may have: they are added up in another order."""
VARIANCES = 1e-9
"""The same for variances and standard deviations."""
_BOUNDS = {"sum": SUMS, "mean": SUMS, "var": VARIANCES, "std": VARIANCES}
_FLOATS = {"float32": np.uint32, "float64": np.uint64}


def tolerances(document: dict[str, Any], shape: dict[str, Any]) -> dict[str, float]:
    """For each feature of a service, by how much (relative) its values may differ.

    A computed feature has the bound of its loosest input.

    Args:
        document: the plan.
        shape: the service, as `Plan.service` tells it.
    """
    service = document["services"][shape["name"]]
    found = {}
    for feature, told in zip(service["features"], shape["features"], strict=True):
        found[told["name"]] = _tolerance(document, feature["view"], feature["feature"])
    return found


def _tolerance(document: dict[str, Any], view: str, name: str) -> float:
    computed = document["on_demand_views"].get(view)
    if computed is not None:
        stored = [one for one in computed["inputs"] if one["from"] != "request"]
        return max((_tolerance(document, one["from"], one["name"]) for one in stored), default=EXACT)
    aggregations = document["views"][view].get("aggregations") or ()
    return next((_BOUNDS.get(one["function"], EXACT) for one in aggregations if one["name"] == name), EXACT)


def plain_value(scalar: Any) -> Any:
    """An Arrow scalar as Python has it; a time beyond its years as microseconds since 1970."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return getattr(scalar, "value", None)


@dataclass(frozen=True)
class Side:
    """The values of one feature on one side."""

    values: Any
    statuses: Any

    @property
    def is_present(self) -> Any:
        return np.asarray(pc.is_valid(self.values).combine_chunks())

    def value_at(self, row: int) -> Any:
        return plain_value(self.values[row])

    def status_at(self, row: int) -> str | None:
        status: str | None = None if self.statuses is None else self.statuses[row].as_py()
        return status


@dataclass(frozen=True)
class Difference:
    """Where two sides differ; one bool a row."""

    served: Side
    recomputed: Side
    differs: Any
    is_missing: Any
    """Only the recomputed side has a value."""
    is_extra: Any
    """Only the served side has a value."""

    def size_at(self, row: int) -> float | None:
        """The absolute difference of two numbers; None for anything else."""
        values = [self.served.value_at(row), self.recomputed.value_at(row)]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            return None
        size = abs(float(values[0]) - float(values[1]))
        return None if np.isnan(size) else size


def compare_values(served: tuple[Any, Any], recomputed: tuple[Any, Any], tolerance: float) -> Difference:
    """Compares values and statuses (None where a side has none) row by row."""
    ours, theirs = Side(*served), Side(*recomputed)
    has_ours, has_theirs = ours.is_present, theirs.is_present
    both = has_ours & has_theirs
    differs = has_ours != has_theirs
    if ours.values.type != theirs.values.type:
        differs = differs | both
    else:
        differs = differs | (both & ~_equal(ours.values, theirs.values, tolerance))
    if ours.statuses is not None and theirs.statuses is not None:
        names = [np.asarray(side.statuses.cast(pa.string()).to_pylist(), dtype=object) for side in (ours, theirs)]
        differs = differs | (~has_ours & ~has_theirs & (names[0] != names[1]))
    return Difference(ours, theirs, differs, ~has_ours & has_theirs, has_ours & ~has_theirs)


def _equal(ours: Any, theirs: Any, tolerance: float) -> Any:
    """Equality of values of one type; what it says of nulls has no meaning."""
    if pa.types.is_floating(ours.type):
        left, right = (np.asarray(pc.fill_null(side, 0.0).combine_chunks()) for side in (ours, theirs))
        word = _FLOATS[left.dtype.name]
        same = (left.view(word) == right.view(word)) | (np.isnan(left) & np.isnan(right))
        if tolerance:
            finite = np.isfinite(left) & np.isfinite(right)
            left, right = left[finite], right[finite]
            same[finite] |= np.abs(left - right) <= tolerance * np.maximum(np.abs(left), np.abs(right))
        return same
    if pa.types.is_list(ours.type):
        # The text of a value tells -0.0 from 0.0, and no NaN from another.
        pairs = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
        return np.fromiter((repr(left) == repr(right) for left, right in pairs), bool, len(ours))
    return np.asarray(pc.fill_null(pc.equal(ours, theirs), False).combine_chunks())
