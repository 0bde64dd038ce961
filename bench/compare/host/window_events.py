"""The events and windows of the windows area, as every engine is given them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
WINDOWS = {"7d": (7 * DAY_US, DAY_US // 24), "30d": (30 * DAY_US, DAY_US)}
"""The length of each window, and the hop to which its start is rounded down."""

FUNCTIONS = ("count", "mean", "max")
SPAN_US = 90 * DAY_US
"""Events lie this far apart at most; questions in the part that has a whole month of them before it."""

NOTHING = -1.0
"""Stands for null in what is compared: a NaN equals nothing."""


def matrix(columns: dict[str, Any]) -> NDArray[np.float64]:
    """The features as one array of shape [rows, features]; a count that is missing is 0, as in SQL."""
    found = []
    for function in FUNCTIONS:
        for name in WINDOWS:
            column = np.asarray(columns[f"amount_{function}_{name}"], np.float64)
            found.append(np.nan_to_num(column, nan=0.0 if function == "count" else NOTHING))
    return np.column_stack(found)
