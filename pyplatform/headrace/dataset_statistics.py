"""Statistics of a dataset's columns, for people and for the comparison of versions."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TOP_VALUES = 10


def column_statistics(column: pa.ChunkedArray) -> dict[str, Any]:
    """Counts, and what the type allows: extremes, mean, population standard deviation, quantiles, most frequent values.

    NaN is counted apart and takes no part in the figures. All values are plain JSON.
    """
    kind = column.type
    found: dict[str, Any] = {"rows": len(column), "nulls": column.null_count}
    if pa.types.is_floating(kind):
        is_nan = pc.fill_null(pc.is_nan(column), False)
        found["nan"] = pc.sum(is_nan).as_py() or 0
        column = column.filter(pc.invert(is_nan))
    values = column.drop_null()
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return found
    found["distinct"] = pc.count_distinct(values).as_py()
    if len(values) == 0:
        return found
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = values.cast(pa.float64(), safe=False)
        found["min"], found["max"] = (_plain(part) for part in pc.min_max(values).as_py().values())
        found["mean"] = _plain(pc.mean(numbers).as_py())
        found["std"] = _plain(pc.stddev(numbers).as_py())
        quantiles = pc.quantile(numbers, q=list(_QUANTILES)).to_pylist()
        found["quantiles"] = {str(q): _plain(value) for q, value in zip(_QUANTILES, quantiles, strict=True)}
    elif pa.types.is_temporal(kind):
        found["min"], found["max"] = (_plain(part) for part in pc.min_max(values).as_py().values())
    else:
        counts = sorted(values.value_counts().to_pylist(), key=lambda row: (-row["counts"], str(row["values"])))
        found["top"] = [[_plain(row["values"]), row["counts"]] for row in counts[:_TOP_VALUES]]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, dt.datetime | dt.date | dt.time) else value
